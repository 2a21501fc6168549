"""Verdicts of gates and the decision they add up to."""

from datetime import timedelta
from enum import StrEnum

from pydantic import Field

from policies.words.word import Digest, Duration, Message, Word


class GateVerdict(StrEnum):
    """What one gate can say; missing evidence is neither healthy nor unhealthy."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    HARD = "hard"
    CONFLICTING = "conflicting"
    METRICS_UNAVAILABLE = "metrics_unavailable"
    NOT_ENOUGH_DATA = "not_enough_data"


class Action(StrEnum):
    """What a window's verdicts add up to."""

    PROMOTE = "promote"
    CONTINUE = "continue"
    EXTEND = "extend"
    HOLD = "hold"
    HOLD_FOR_HUMAN = "hold_for_human"
    ROLL_BACK = "roll_back"


class GateReading(Message):
    """One gate at one tick: its verdict, the reason in a sentence, and the numbers behind it.

    `instances` are those a bad sign is on.
    """

    gate: str
    verdict: GateVerdict
    reason: str
    numbers: dict[str, float] = {}
    instances: tuple[str, ...] = ()


class Decision(Message):
    """What to do now and why, with every gate's reading as evidence."""

    action: Action
    verdict: GateVerdict
    reason: str = Field(min_length=1)
    readings: tuple[GateReading, ...] = ()


class Cohorts(Word):
    """Who is watched and against whom, fixed by the plan, as Prometheus `instance` labels.

    `expected` maps each instance label to the executable digest it must be running, `slots` to
    the slot on trial: a release that only changes the config runs the same executable in another.
    `since` is when what runs in that slot was started, in seconds of the epoch: what the slot
    showed before is of a process that was to end.
    """

    canary: tuple[str, ...]
    control: tuple[str, ...]
    expected: dict[str, Digest] = {}
    slots: dict[str, str] = {}
    since: dict[str, float] = {}


class Window(Word):
    """How long a wave is observed; minimum and nominal count observed time, cap counts wall time."""

    minimum: Duration = timedelta(minutes=10)
    nominal: Duration = timedelta(minutes=20)
    extension: Duration = timedelta(minutes=10)
    cap: Duration = timedelta(minutes=60)
