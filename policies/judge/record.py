"""A window as it was watched, kept so that it can be judged again without any metrics."""

from policies.judge.tick import Tick
from policies.model.gates import GatePolicy
from policies.model.value import Value
from policies.model.verdict import Cohorts, Window


class Record(Value):
    """Under which policy a window was watched, who was compared, and every tick."""

    rollout: str
    wave: int
    policy: GatePolicy
    window: Window
    cohorts: Cohorts
    ticks: tuple[Tick, ...] = ()
