"""The only gateway of a later wave decides for no fleet of which the waves before have passed (R6)."""

from collections.abc import Callable

import pytest

from policies.model.change import Outcome, Phase
from policies.model.command import CommandKind
from policies.model.plan import Strategy
from policies.model.verdict import Action, Decision, GateVerdict
from tests.fakes.control import UNDECIDED
from tests.patience import until
from tests.workflows.recorded import soon
from tests.workflows.world import NEW, OLD, Running, World, in_phase, result_of, say, status_of

SIGN = "restarted: it shows the sign for 0 s, and the control does not"
NAMES_GW_4 = Decision(
    action=Action.CONTINUE,
    verdict=GateVerdict.HEALTHY,
    reason="logins: 98 of 98 were accepted",
    failed=("gw-4",),
    own={"gw-4": SIGN},
)


def crashes(world: World) -> None:
    world.gateways["gw-4"].crash("b")


def is_named_by_metrics(world: World) -> None:
    world.judge.says(NAMES_GW_4, wave=3)


def serving(hold_out: str) -> dict[str, str]:
    return dict.fromkeys(("gw-1", "gw-2", "gw-3"), "1.3.0") | {"gw-4": hold_out}


async def hold_out_that(world: World, fails: Callable[[World], None]) -> Running:
    """Upgrade all gateways, and return the change once the only one of its last wave has failed alone."""
    world.judge.says(UNDECIDED, wave=3)
    rollout = await world.start(("gw-1",), ("gw-2", "gw-3"), ("gw-4",))
    await in_phase(rollout, Phase.OBSERVING, wave=3)
    assert world.serving() == serving("1.3.0")
    fails(world)
    await in_phase(rollout, Phase.HELD, wave=3)
    await until(lambda: world.serving() == serving("1.1.6"))
    return rollout


@pytest.mark.sweep
@pytest.mark.parametrize("fails", [crashes, is_named_by_metrics])
async def test_a_hold_out_gateway_that_fails_alone_is_ejected_and_the_others_keep_the_release(
    world: World, fails: Callable[[World], None]
) -> None:
    """Its wave had a failure budget of 0: the release was taken back from all gateways."""
    rollout = await hold_out_that(world, fails)
    status = await status_of(rollout)
    assert status.why.startswith("no gateway of wave 3 runs the release, so nothing shows how it does there")
    assert list(status.aside) == ["gw-4"]
    for person in ("ben", "cleo"):
        await say(rollout, CommandKind.PROMOTE, person)
    result = await result_of(rollout)
    assert (result.outcome, list(result.aside)) == (Outcome.PROMOTED, ["gw-4"])
    assert world.book.known_good("edge") == dict.fromkeys(("gw-1", "gw-2", "gw-3"), NEW) | {"gw-4": OLD}
    assert world.serving() == serving("1.1.6")


@pytest.mark.sweep
async def test_operators_decide_once_on_a_group_of_one_gateway_whatever_shares_are_left(world: World) -> None:
    """Blue-green: each of them had to promote the wave once a share, and nothing was sent anywhere."""
    plan = world.plan(("gw-1", "gw-2", "gw-3"), ("gw-4",))
    waves = tuple(wave.model_copy(update={"shares": (10, 50, 100)}) for wave in plan.waves)
    plan = plan.model_copy(update={"strategy": Strategy.BLUE_GREEN, "waves": (plan.waves[0], waves[1])})
    order = world.order().model_copy(update={"plan": world.book.record_plan(plan)})
    world.judge.says(UNDECIDED, wave=2)
    rollout = await world.run(order)
    await in_phase(rollout, Phase.OBSERVING, wave=2)
    crashes(world)
    await in_phase(rollout, Phase.HELD, wave=2)
    for person in ("ben", "cleo"):
        await say(rollout, CommandKind.PROMOTE, person)
    assert (await soon(result_of(rollout))).outcome is Outcome.PROMOTED
    assert world.serving() == serving("1.1.6")


@pytest.mark.sweep
async def test_an_operator_can_roll_back_a_release_whose_hold_out_gateway_failed_alone(world: World) -> None:
    rollout = await hold_out_that(world, crashes)
    await say(rollout, CommandKind.ROLL_BACK, "ana", reason="not tonight")
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK
    assert set(world.serving().values()) == {"1.1.6"}


async def test_the_only_gateway_of_a_first_wave_that_fails_takes_the_release_back(world: World) -> None:
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",), ("gw-2", "gw-3"))
    await in_phase(rollout, Phase.OBSERVING)
    world.gateways["gw-1"].crash("b")
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK
    assert set(world.serving().values()) == {"1.1.6"}
