"""The deck: which runs to make, so that every step boundary is struck and every fault has its share."""

import random
from collections.abc import Iterable, Iterator
from itertools import cycle

from deploy.lab.faults import Fault
from policies.words.plan import Strategy
from tests.chaos.cases import Case, Direction, Run
from tests.chaos.watching import BEGUN, Boundary

TURN = Boundary("wave 1", "observe_slice", BEGUN)
"""Where a person turns a run round whose fault comes only on the way back."""

SCOUTS = (
    Case(Direction.FORWARDS, Strategy.CANARY),
    Case(Direction.FORWARDS, Strategy.ROLLING),
    Case(Direction.JUDGED_BACK, Strategy.CANARY),
    Case(Direction.ASKED_BACK, Strategy.ROLLING, turn=TURN),
)
"""Runs without a fault: they show which boundaries there are, and that the bench itself does no harm."""


def deal(scouts: Iterable[Run], seed: int, runs: int) -> list[Case]:
    """Return so many cases: first every boundary once, with another fault for each in turn, then again.

    The seed shuffles; the same seed and the same boundaries give the same cases.
    """
    chance = random.Random(seed)
    places = [(direction, boundary) for direction, met in boundaries(scouts).items() for boundary in met]
    chance.shuffle(places)
    cases = _rounds(places, chance)
    return [next(cases) for _ in range(runs)]


def boundaries(scouts: Iterable[Run]) -> dict[Direction, list[Boundary]]:
    """Return the boundaries that runs went through, by direction, in the order they were met."""
    found: dict[Direction, dict[Boundary, None]] = {direction: {} for direction in Direction}
    for run in scouts:
        for seen in run.seen:
            found[run.case.direction].update(dict.fromkeys(sorted(seen.meets)))
    return {direction: list(met) for direction, met in found.items()}


def _rounds(places: list[tuple[Direction, Boundary]], chance: random.Random) -> Iterator[Case]:
    faults = list(Fault)
    chance.shuffle(faults)
    strategies = cycle((Strategy.CANARY, Strategy.ROLLING))
    for turn in cycle(range(len(faults))):
        for number, (direction, boundary) in enumerate(places):
            fault = faults[(number + turn) % len(faults)]
            asked = _turn(places, boundary) if direction is Direction.ASKED_BACK else None
            yield Case(direction, next(strategies), fault, boundary, asked)


def _turn(places: list[tuple[Direction, Boundary]], boundary: Boundary) -> Boundary:
    """Ask at the fault itself where nothing has turned round yet, else at the usual place."""
    forwards = boundary.role.startswith("wave") or boundary.step in _BEFORE
    return boundary if forwards and boundary.moment != "done" else TURN


_BEFORE = ("open_rollout", "admit_release", "preflight_gateway", "child RolloutDriver", "child Wave")
