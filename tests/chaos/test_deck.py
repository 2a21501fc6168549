"""How runs are dealt: every strategy and every fault has its share, and every place is struck."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import product

from deploy.lab.faults import Fault
from policies.model.plan import Strategy
from tests.chaos.cases import Case, Direction, Run
from tests.chaos.deck import TURN, Deck
from tests.chaos.watching import BEGUN, DONE, UNDER_WAY, Boundary, Seen

AT = datetime(2026, 11, 20, tzinfo=UTC)


def scouted(case: Case, *steps: Boundary, lasting: float = 1.0) -> Run:
    """A run that has met these steps one after the other."""
    seen = []
    for number, step in enumerate(steps):
        begun = AT + timedelta(seconds=number * lasting)
        seen.append(Seen(step, "gw-1", begun))
        done = Boundary(step.role, step.step, DONE)
        seen.append(Seen(done, "gw-1", begun + timedelta(seconds=lasting)))
    return Run(case, seen=seen)


def steps(*roles: str) -> list[Boundary]:
    return [Boundary(role, step, BEGUN) for role in roles for step in ("stage", "start", "probe", "keep")]


def deck(*strategies: Strategy) -> Deck:
    waves = steps("change", "batch 1", "batch 2")
    scouts = [
        scouted(Case(Direction.FORWARDS, Strategy.CANARY), *waves),
        scouted(Case(Direction.ASKED_BACK, Strategy.ROLLING, turn=TURN), *waves),
        scouted(Case(Direction.FORWARDS, Strategy.BLUE_GREEN), *steps("change", "batch 1")),
        scouted(Case(Direction.TAKEN_BACK, Strategy.BLUE_GREEN), *steps("way back")),
    ]
    return Deck(scouts, strategies or tuple(Strategy))


def test_every_strategy_has_as_many_runs_and_each_of_them_every_fault_as_often() -> None:
    dealt = Counter((case.strategy, case.fault) for case in deck().deal(seed=1, runs=120))
    assert dealt == dict.fromkeys(product(Strategy, Fault), 10)


def test_a_round_strikes_every_place_and_fewer_runs_do_not() -> None:
    whole = deck()
    assert len(_struck(whole.deal(seed=2, runs=whole.round))) == whole.size == 72 + 36
    assert len(_struck(whole.deal(seed=2, runs=whole.round - 3))) < whole.size


def test_strategies_that_meet_the_same_places_strike_others_first() -> None:
    cases = deck(Strategy.CANARY, Strategy.ROLLING).deal(seed=3, runs=72)
    places = Counter((case.direction, case.boundary) for case in cases)
    assert set(places.values()) == {1}


def test_what_only_one_strategy_meets_is_struck_with_that_one() -> None:
    cases = deck().deal(seed=4, runs=200)
    assert {case.strategy for case in cases if case.direction is Direction.TAKEN_BACK} == {
        Strategy.BLUE_GREEN
    }
    assert {case.strategy for case in cases if case.direction is Direction.ASKED_BACK} == {
        Strategy.CANARY,
        Strategy.ROLLING,
    }


def test_the_same_seed_deals_the_same_cases() -> None:
    assert deck().deal(seed=5, runs=50) == deck().deal(seed=5, runs=50)
    assert deck().deal(seed=5, runs=50) != deck().deal(seed=6, runs=50)


def test_a_person_asks_at_the_fault_on_the_way_there_and_at_the_usual_place_on_the_way_back() -> None:
    asked = Case(Direction.ASKED_BACK, Strategy.CANARY, turn=TURN)
    scout = scouted(asked, *steps("batch 1", "restore"))
    for case in Deck([scout], [Strategy.CANARY]).deal(seed=7, runs=24):
        assert case.boundary is not None
        there = case.boundary.role == "batch 1" and case.boundary.moment != DONE
        assert case.turn == (case.boundary if there else TURN)


def test_a_brief_step_is_not_struck_under_way_and_a_long_one_in_its_middle() -> None:
    case, step = Case(Direction.FORWARDS, Strategy.CANARY), Boundary("change", "open_change", BEGUN)
    brief = Deck([scouted(case, step, lasting=0.02)], [Strategy.CANARY]).deal(seed=8, runs=8)
    assert UNDER_WAY not in {_of(case).moment for case in brief}
    long = Deck([scouted(case, step, lasting=2.0)], [Strategy.CANARY]).deal(seed=8, runs=8)
    assert {case.half_way for case in long if _of(case).moment == UNDER_WAY} == {1.0}


def test_a_scout_that_did_not_end_well_shows_no_place() -> None:
    run = scouted(Case(Direction.FORWARDS, Strategy.CANARY), *steps("change"))
    run.unsafe.append("it ended nowhere")
    assert Deck([run]).deal(seed=9, runs=5) == []


def _struck(cases: list[Case]) -> set[tuple[bool, Direction, Boundary]]:
    return {(case.strategy is Strategy.BLUE_GREEN, case.direction, _of(case)) for case in cases}


def _of(case: Case) -> Boundary:
    assert case.boundary is not None
    return case.boundary
