"""Cases and runs: what is to be struck where, and what came of it."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from deploy.lab.faults import Fault
from policies.model.change import Outcome
from policies.model.plan import Strategy
from tests.chaos.watching import Boundary, Seen


class Direction(StrEnum):
    """Where a run is to end, and who turns it round."""

    FORWARDS = "forwards"
    JUDGED_BACK = "judged back"
    ASKED_BACK = "asked back"
    TAKEN_BACK = "taken back"
    """Promoted; then a person takes it back, while what served before is kept. That way back is struck."""


@dataclass(frozen=True)
class Case:
    """One run to make; without a fault it only shows which boundaries there are."""

    direction: Direction
    strategy: Strategy
    fault: Fault | None = None
    boundary: Boundary | None = None
    turn: Boundary | None = None
    """Where a person gives the order to go back."""
    half_way: float = 0.15
    """Seconds into its step at which a boundary `under way` is struck."""

    def __str__(self) -> str:
        where = f"{self.fault} at {self.boundary}" if self.fault else "no fault"
        return f"{self.direction}, {self.strategy}: {where}"


@dataclass
class Run:
    """What came of a case."""

    case: Case
    rollout: str = ""
    taken_back_by: str = ""
    """The change that took back what the rollout had promoted, where one did."""
    outcome: Outcome | None = None
    struck: datetime | None = None
    resumed: float | None = None
    """Seconds from the fault until the part that came back, or took over, had work in hand."""
    ready: float = 0.0
    """Seconds from the fault until that part's new process said that it takes work."""
    took: float = 0.0
    unsafe: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    """Sessions that ended though nobody meant to, each with its client's last words."""
    seen: list[Seen] = field(default_factory=list)
