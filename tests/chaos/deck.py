"""The deck: which runs to make, so that every step boundary is struck and every fault has its share."""

import random
from collections.abc import Iterable, Iterator
from itertools import cycle

from deploy.lab.faults import Fault
from policies.model.plan import Strategy
from tests.chaos.cases import Case, Direction, Run
from tests.chaos.watching import BEGUN, DONE, UNDER_WAY, Boundary, Seen

TURN = Boundary("watch 1", "watch_wave", BEGUN)
"""Where a person turns a run round whose fault comes only on the way back."""

SCOUTS = (
    Case(Direction.FORWARDS, Strategy.CANARY),
    Case(Direction.FORWARDS, Strategy.ROLLING),
    Case(Direction.JUDGED_BACK, Strategy.CANARY),
    Case(Direction.ASKED_BACK, Strategy.ROLLING, turn=TURN),
)
"""Runs without a fault: they show which boundaries there are, and that the bench itself does no harm."""

BRIEF = 0.05
"""Steps shorter than these seconds are over before anybody could strike them under way."""


class Deck:
    """Every place at which a run can be struck, as scouts have found them."""

    def __init__(self, scouts: Iterable[Run]) -> None:
        self._places: dict[tuple[Direction, Boundary], float] = {}
        """Each boundary by direction, with the seconds after it at which it is struck."""
        for run in scouts:
            for seen in () if run.unsafe else run.seen:
                lasts = _lasts(run, seen)
                for boundary in sorted(seen.meets):
                    if boundary.moment != UNDER_WAY or lasts > BRIEF:
                        self._places.setdefault((run.case.direction, boundary), lasts / 2)

    @property
    def size(self) -> int:
        """How many boundaries there are, each counted once for each direction."""
        return len(self._places)

    def deal(self, seed: int, runs: int) -> list[Case]:
        """Return so many cases: every boundary once, with another fault for each in turn, then again.

        The seed shuffles; the same seed and the same boundaries give the same cases.
        """
        chance = random.Random(seed)
        places, faults = list(self._places), list(Fault)
        chance.shuffle(places)
        chance.shuffle(faults)
        cases = self._rounds(places, faults)
        return [next(cases) for _ in range(runs)]

    def _rounds(self, places: list[tuple[Direction, Boundary]], faults: list[Fault]) -> Iterator[Case]:
        strategies = cycle((Strategy.CANARY, Strategy.ROLLING))
        for turn in cycle(range(len(faults))):
            for number, (direction, boundary) in enumerate(places):
                fault = faults[(number + turn) % len(faults)]
                asked = _turn(boundary) if direction is Direction.ASKED_BACK else None
                half_way = self._places[direction, boundary]
                yield Case(direction, next(strategies), fault, boundary, asked, half_way)


def _lasts(run: Run, begun: Seen) -> float:
    """Return how many seconds a step that began here lasted; 0 when its end was not seen."""
    done = Boundary(begun.boundary.role, begun.boundary.step, DONE)
    ends = [s.at for s in run.seen if (s.boundary, s.gateway) == (done, begun.gateway) and s.at >= begun.at]
    return (min(ends) - begun.at).total_seconds() if ends else 0.0


def _turn(boundary: Boundary) -> Boundary:
    """Ask at the fault itself where nothing has turned round yet, else at the usual place."""
    forwards = boundary.role.startswith(("wave", "batch", "watch")) or boundary.step in _BEFORE
    return boundary if forwards and boundary.moment != DONE else TURN


_BEFORE = ("open_change", "admit_release", "preflight_gateway", "child Preflight", "child Wave")
