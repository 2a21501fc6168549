"""A window as it was watched, kept so that it can be judged again without any metrics."""

from policies.gates import GatePolicy
from policies.judge.tick import Tick
from policies.words.verdict import Cohorts, Window
from policies.words.word import Word


class Record(Word):
    """Under which policy a window was watched, who was compared, and every tick."""

    rollout: str
    wave: int
    policy: GatePolicy
    window: Window
    cohorts: Cohorts
    ticks: tuple[Tick, ...] = ()
