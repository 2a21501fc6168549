"""The deck: which runs to make, so that every step boundary is struck and every fault has its share."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from math import ceil

from deploy.lab.faults import Fault
from policies.model.plan import Strategy
from tests.chaos.cases import Case, Direction, Run
from tests.chaos.watching import BEGUN, DONE, UNDER_WAY, Boundary, Seen

TURN = Boundary("watch 1", "watch_wave", BEGUN)
"""Where a person turns a run round whose fault comes only on the way back."""

TURN_AT_HALF = Boundary("batch 1", "start_trial 50%", DONE)
"""The same where half of the addresses already get the new instance."""

SCOUTS = (
    Case(Direction.FORWARDS, Strategy.CANARY),
    Case(Direction.FORWARDS, Strategy.ROLLING),
    Case(Direction.JUDGED_BACK, Strategy.CANARY),
    Case(Direction.ASKED_BACK, Strategy.ROLLING, turn=TURN),
    Case(Direction.JUDGED_BACK, Strategy.BLUE_GREEN),
    Case(Direction.ASKED_BACK, Strategy.BLUE_GREEN, turn=TURN),
    Case(Direction.ASKED_BACK, Strategy.BLUE_GREEN, turn=TURN_AT_HALF),
    Case(Direction.TAKEN_BACK, Strategy.BLUE_GREEN),
    Case(Direction.FORWARDS, Strategy.BLUE_GREEN),
)
"""Runs without a fault: they show which boundaries there are, and that the bench itself does no harm."""

ALIKE = ((Strategy.CANARY, Strategy.ROLLING), (Strategy.BLUE_GREEN,))
"""Strategies whose runs meet the same boundaries: waves one after the other, or all gateways at once."""

BRIEF = 0.05
"""Steps shorter than these seconds are over before anybody could strike them under way."""


@dataclass(frozen=True)
class Place:
    """Where a run can be struck: a boundary on the way in this direction."""

    direction: Direction
    boundary: Boundary


@dataclass(frozen=True)
class Found:
    """How a scout met a place: how far into its step it is struck, and where the scout turned round."""

    half_way: float
    turn: Boundary | None


class Deck:
    """Every place at which a run can be struck, as scouts have found them."""

    def __init__(self, scouts: Iterable[Run], strategies: Sequence[Strategy] = tuple(Strategy)) -> None:
        """Take what scouts have seen, and the strategies whose runs are dealt in turn."""
        self._rows = [
            ([strategy for strategy in strategies if strategy in alike], _found(scouts, alike))
            for alike in ALIKE
        ]

    @property
    def size(self) -> int:
        """How many places there are; one that several strategies meet alike counts once."""
        return sum(len(found) for strategies, found in self._rows if strategies)

    @property
    def round(self) -> int:
        """How many runs it takes until every place was struck."""
        turns = [ceil(len(found) / len(strategies)) for strategies, found in self._rows if strategies]
        return max(turns, default=0) * sum(len(strategies) for strategies, _ in self._rows)

    def deal(self, seed: int, runs: int) -> list[Case]:
        """Return so many cases, the strategies in turn: each strikes place after place, then all again.

        Each strategy has every fault in turn, and another one for each place the next time. The seed
        shuffles; the same seed and the same places give the same cases.
        """
        chance = random.Random(seed)
        hands = []
        for strategies, found in self._rows:
            places, faults = list(found), list(Fault)
            chance.shuffle(places)
            chance.shuffle(faults)
            for number, strategy in enumerate(strategies if places else ()):
                # Those that meet the same places begin far from each other.
                begin = len(places) * number // len(strategies)
                hands.append(_hand(strategy, places[begin:] + places[:begin], faults, found))
        return [next(hand) for hand, _ in zip(cycle(hands), range(runs), strict=False)]


def _found(scouts: Iterable[Run], strategies: Sequence[Strategy]) -> dict[Place, Found]:
    """Return where runs of these strategies can be struck, each place as the first scout met it."""
    found: dict[Place, Found] = {}
    for run in scouts:
        if run.unsafe or run.case.strategy not in strategies:
            continue
        for seen in run.seen:
            lasts = _lasts(run, seen)
            for boundary in sorted(seen.meets):
                if boundary.moment != UNDER_WAY or lasts > BRIEF:
                    place = Place(run.case.direction, boundary)
                    found.setdefault(place, Found(lasts / 2, run.case.turn))
    return found


def _hand(
    strategy: Strategy, places: Sequence[Place], faults: Sequence[Fault], found: dict[Place, Found]
) -> Iterator[Case]:
    """Yield the cases of one strategy, for ever."""
    for again in cycle(range(len(faults))):
        for number, place in enumerate(places):
            fault = faults[(number + again) % len(faults)]
            turn = _turn(place.boundary, found[place].turn)
            yield Case(place.direction, strategy, fault, place.boundary, turn, found[place].half_way)


def _lasts(run: Run, begun: Seen) -> float:
    """Return how many seconds a step that began here lasted; 0 when its end was not seen."""
    done = Boundary(begun.boundary.role, begun.boundary.step, DONE)
    ends = [s.at for s in run.seen if (s.boundary, s.gateway) == (done, begun.gateway) and s.at >= begun.at]
    return (min(ends) - begun.at).total_seconds() if ends else 0.0


def _turn(boundary: Boundary, usual: Boundary | None) -> Boundary | None:
    """Ask at the fault itself where nothing has turned round yet, else at the usual place, if at all."""
    forwards = boundary.role.startswith(("wave", "batch", "watch")) or boundary.step in _BEFORE
    turned = boundary.moment == DONE or boundary.step.startswith("order end stop")
    return boundary if usual and forwards and not turned else usual


_BEFORE = ("open_change", "admit_release", "preflight_gateway", "child Preflight", "child Wave")
