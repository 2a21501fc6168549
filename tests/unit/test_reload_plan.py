"""Which gateways get their hosts' present credentials, and in which order."""

from hypothesis import given
from hypothesis import strategies as st

from policies.model.instance import GatewayState, Instance, InstanceState
from policies.planning.reload import parted_reload, running
from tests.unit.fleets import fleet, gateway, state


def counted(name: str, sessions: int | None, alive: InstanceState = InstanceState.RUNNING) -> GatewayState:
    instance = Instance(slot="a", state=alive, sessions=sessions)
    return state(name).model_copy(update={"instances": (instance,)})


def test_the_gateway_with_the_fewest_sessions_goes_first_and_an_uncounted_one_last() -> None:
    states = {"gw-1": counted("gw-1", None), "gw-2": counted("gw-2", 7), "gw-3": counted("gw-3", 2)}
    assert running(states, frozenset()) == ("gw-3", "gw-2", "gw-1")


def test_where_nothing_runs_and_who_is_left_out_is_not_reloaded() -> None:
    states = {"gw-1": counted("gw-1", 1, InstanceState.STOPPED), "gw-2": counted("gw-2", 1)}
    assert running(states, frozenset()) == ("gw-2",)
    assert running(states, frozenset({"gw-2"})) == ()


@given(st.integers(min_value=1, max_value=300))
def test_every_gateway_is_in_one_wave_and_the_first_is_of_one(size: int) -> None:
    whole = fleet(*(gateway(f"gw-{number}") for number in range(size)))
    names = tuple(one.name for one in whole.gateways)
    made = parted_reload(whole, names)
    assert [member.gateway.name for part in made.parts for member in part.members] == list(names)
    assert (made.header.waves[0].gateways, made.header.waves[0].may_fail) == (1, 0)
    assert made.header.changing == size
    assert all(wave.may_fail >= 1 for wave in made.header.waves[1:])


def test_somebody_who_is_to_be_kept_out_at_once_waits_for_no_gateway() -> None:
    whole = fleet(*(gateway(f"gw-{number}") for number in range(120)))
    names = tuple(one.name for one in whole.gateways)
    made = parted_reload(whole, names, at_once=True)
    assert [wave.gateways for wave in made.header.waves] == [120]
