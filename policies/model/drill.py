"""Drills: failures that are rehearsed, and what was seen each time."""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import AwareDatetime, Field

from policies.model.value import Count, Moment, Name, Value

LAB = "lab"
"""Where drills are, unless they name another place."""
MOST_STEPS = 50
"""Steps of one drill."""
MOST_PEOPLE = 20
"""People of one drill, and hand-overs between them."""

Seconds = Annotated[float, Field(ge=0, le=86_400, strict=True, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*[^\x00\s][^\x00]*$")]


class DrillOutcome(StrEnum):
    """What a drill came to."""

    PASSED = "passed"
    OVER_BUDGET = "over_budget"
    """Users were safe, and later than they have to be."""
    FAILED = "failed"
    """Users were cut off, or it was never seen that they were safe."""


class DrillStanding(StrEnum):
    """How it stands with a drill, what needs somebody first."""

    FAILED = "failed"
    OVER_BUDGET = "over_budget"
    NEVER = "never"
    """Nobody has rehearsed it: what would happen is not known."""
    PASSED = "passed"


class Drill(Value):
    """A failure that can be rehearsed; within the budget users have to be safe."""

    name: Name
    summary: str
    budget: timedelta


class DrillStep(Value):
    """Something that happened, in seconds after the failure."""

    what: Text
    seconds: Seconds


class DrillHandover(Value):
    """Who handed over to whom while it was rehearsed, and how long it took to be accepted."""

    giver: Text
    taker: Text
    seconds: Seconds


class DrillReport(Value):
    """What was seen when somebody rehearsed a failure, as the lab writes it and the API takes it."""

    name: Name
    place: Name = LAB
    """Where: the lab that is made for drills, or what the place is called."""
    began: AwareDatetime
    """When it began, by the clock of that place."""
    budget: Annotated[Seconds, Field(gt=0)]
    """Seconds within which users had to be safe."""
    steps: Annotated[tuple[DrillStep, ...], Field(max_length=MOST_STEPS, fail_fast=True)] = ()
    sessions_lost: Count = 0
    people: Annotated[tuple[Text, ...], Field(max_length=MOST_PEOPLE, fail_fast=True)] = ()
    """Who took part, beside who has it recorded."""
    handovers: Annotated[tuple[DrillHandover, ...], Field(max_length=MOST_PEOPLE, fail_fast=True)] = ()
    """What was handed over and accepted while it was rehearsed."""
    failure: Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[^\x00]*$")] | None = None
    """Why it came to no end; None when it did."""

    @property
    def seconds(self) -> float | None:
        """Seconds until the last step, after which users are safe; None when nothing was seen."""
        return max((step.seconds for step in self.steps), default=None)

    @property
    def outcome(self) -> DrillOutcome:
        """What it came to: numbers decide, and not who reports them."""
        if self.failure is not None or self.sessions_lost or self.seconds is None:
            return DrillOutcome.FAILED
        return DrillOutcome.OVER_BUDGET if self.seconds > self.budget else DrillOutcome.PASSED


class DrillRun(Value):
    """A drill in the ledger: what was seen, and who has it recorded."""

    report: DrillReport
    outcome: DrillOutcome
    seconds: float | None
    """Until users were safe; None when nothing was seen."""
    person: str
    recorded: Moment


class DrillPoint(Value):
    """One run among many: as a chart shows it."""

    began: Moment
    place: Name
    seconds: float | None
    budget: float
    outcome: DrillOutcome
    person: str


class DrillPast(Value):
    """The newest runs of one drill, the newest first, of so many in all."""

    last: DrillRun
    points: tuple[DrillPoint, ...]
    count: int


class DrillRow(Value):
    """How it stands with one drill."""

    name: Name
    summary: str
    """Empty for a drill that there is no more."""
    budget: float
    standing: DrillStanding
    past: DrillPast | None = None
    """None as long as nobody has rehearsed it."""
