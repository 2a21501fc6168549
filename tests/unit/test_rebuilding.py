"""What gateways say of changes that their ledger has lost."""

from hypothesis import given
from hypothesis import strategies as st

from policies.model.instance import GatewayState
from policies.model.offer import Verb
from policies.rebuilding import (
    LARGEST,
    MOST_LOST,
    ahead,
    highest_heard,
    is_older,
    knows_all,
    number_above,
    older_than_gateways,
    served_for_good,
    what_is_ahead,
)
from tests.unit.fleets import state

NUMBERS = st.integers(0, 10**9 - 1)


def steered_by(name: str, generation: str) -> GatewayState:
    found = state(name)
    return found.model_copy(update={"steering": found.steering.model_copy(update={"generation": generation})})


@given(number=NUMBERS, newest=NUMBERS)
def test_only_a_change_after_the_ledgers_newest_makes_a_gateway_know_more(number: int, newest: int) -> None:
    states = {"gw-1": steered_by("gw-1", f"edge-{number}/1700000000")}
    assert bool(ahead("edge", states, newest)) is (number > newest)


def test_what_another_fleet_a_host_or_nobody_wrote_says_nothing_of_this_ledger() -> None:
    written = ("core-9/1", "edge-x/1", "primed", "", "edge-9", "edge-99999999999/1", "my-edge-9/1")
    states = {f"gw-{count}": steered_by(f"gw-{count}", one) for count, one in enumerate(written)}
    assert ahead("edge", states, 0) == {}
    assert highest_heard("edge", states.values(), 0) == 0


def test_one_gateway_that_may_lie_is_named_with_what_helps_and_makes_no_ledger_older() -> None:
    lost, false = what_is_ahead("edge", {"gw-1": 9}, 7, 4), what_is_ahead("edge", {"gw-1": 9**10}, 7, 4)
    assert lost is not None
    assert false is not None
    assert lost.sentence == (
        "gw-1 was last steered by edge-9, of which the ledger knows nothing; no upgrade takes it along"
    )
    assert [one.verb for one in lost.next] == [Verb.REBUILD, Verb.QUARANTINE]
    assert false.sentence == (
        "gw-1 was last steered by edge-3486784401, and there can be no change of that number; check who "
        "controls its host; no upgrade takes it along"
    )
    assert [one.verb for one in false.next] == [Verb.QUARANTINE]
    assert not lost.is_older
    assert not false.is_older


def test_gateways_that_speak_of_changes_that_there_cannot_be_make_no_ledger_older_however_many() -> None:
    lies = dict.fromkeys(("gw-1", "gw-2", "gw-3"), 10**10 - 1)
    found = what_is_ahead("edge", lies, 7, 4)
    assert found is not None
    assert not found.is_older
    both = what_is_ahead("edge", lies | {"gw-4": 9}, 7, 4)
    assert both is not None
    assert not both.is_older
    assert [(one.verb, one.gateway) for one in both.next] == [
        (Verb.REBUILD, None),
        (Verb.QUARANTINE, "gw-1"),
    ]
    assert what_is_ahead("edge", {}, 7, 4) is None


def test_the_first_gateway_is_named_and_the_others_are_counted() -> None:
    states = {name: steered_by(name, "edge-9/1") for name in ("gw-2", "gw-1", "gw-3")}
    assert older_than_gateways(ahead("edge", states, 7)) == (
        "the ledger is older than its gateways: gw-1 was last steered by edge-9, of which the ledger "
        "knows nothing, and 2 more were"
    )


@given(numbers=st.lists(NUMBERS, max_size=5))
def test_the_next_number_was_given_to_no_change_that_a_gateway_heard_of(numbers: list[int]) -> None:
    heard = highest_heard("edge", [steered_by("gw-1", f"edge-{number}/1") for number in numbers], 0)
    assert heard == max(numbers, default=0)
    assert number_above(heard) > heard


def test_a_ledger_without_a_change_knows_nothing_and_one_with_the_newest_knows_all() -> None:
    assert not knows_all(0, 0)
    assert knows_all(1, 0)
    assert knows_all(7, 7)
    assert not knows_all(7, 8)


@given(newest=st.integers(0, 10**6), lie=st.integers(0, 10**10))
def test_one_liar_takes_few_of_the_numbers_that_changes_may_have(newest: int, lie: int) -> None:
    heard = highest_heard("edge", [steered_by("gw-1", f"edge-{lie}/1")], newest)
    assert heard in {0, lie}
    assert heard <= (newest + MOST_LOST if newest else LARGEST)
    after = number_above(heard) + 1
    assert ahead("edge", {"gw-2": steered_by("gw-2", f"edge-{after + 1}/1")}, after)


def test_a_few_gateways_make_no_ledger_an_older_copy_and_all_of_a_small_fleet_do() -> None:
    answered = {1: 1, 2: 2, 3: 2, 19: 2, 40: 4, 10_000: 1_000}
    for gateways, enough in answered.items():
        names = [f"gw-{number}" for number in range(gateways)]
        assert is_older(names[:enough], gateways)
        assert not is_older(names[: enough - 1], gateways)


def test_what_serves_a_gateway_is_believed_only_where_it_is_known_what_runs_there() -> None:
    found = state("gw-1")
    (serving,) = [one for one in found.instances if one.slot == found.steering.serving]
    strange = serving.model_copy(update={"executable": None})
    others = tuple(strange if one is serving else one for one in found.instances)
    assert served_for_good(found) == serving.release
    assert served_for_good(found.model_copy(update={"instances": others})) is None
