"""What happens before anything is touched: admission, the way back, surveys; and the first install."""

from datetime import timedelta

import pytest

from policies.judge.offline.advisory import Advice
from policies.model.change import ChangeKind, ChangeOrder, ChangeResult, Outcome
from policies.model.errors import Unavailable
from tests.workflows.engine import Engine
from tests.workflows.world import NEW, OLD, World, fleet_of, result_of, status_of, working
from workflows.steps import CONTROL_QUEUE
from workflows.survey import Survey, SurveyOrder


async def survey(world: World) -> None:
    await world.client.execute_workflow(
        Survey.run,
        SurveyOrder(fleet=world.fleet.name),
        id=f"survey/{world.fleet.name}",
        task_queue=CONTROL_QUEUE,
    )


async def install(world: World) -> ChangeResult:
    order = ChangeOrder(
        fleet=world.fleet.name,
        kind=ChangeKind.INSTALL,
        plan=world.book.record_first(world.fleet, OLD),
        source="http://repository",
        reason="first installation",
    )
    return await result_of(await world.run(order))


async def test_a_release_without_its_signers_is_refused_and_nothing_is_touched(world: World) -> None:
    world.admission.refused[NEW.digest] = "only one of two people signed it"
    result = await world.upgrade()
    assert result.outcome is Outcome.REFUSED
    assert result.reason == "SignatureInvalid: only one of two people signed it"
    assert all(fake.owner == (0, "") and not fake.effects for fake in world.gateways.values())
    [ending] = world.book.closed
    assert (ending.outcome, ending.sentence) == (result.outcome, result.reason)


async def test_an_obstacle_on_any_gateway_of_the_plan_refuses_all_of_it(world: World) -> None:
    full = world.gateways["gw-3"]
    for slot in ("b", "c"):
        full.slots[slot].people.append("192.0.2.1")
    result = await world.upgrade(("gw-1",), ("gw-3",))
    assert (result.outcome, result.reason) == (Outcome.REFUSED, "Stopped: gw-3: gw-3 has no free slot")
    assert all(not fake.effects for fake in world.gateways.values())


@pytest.mark.sweep
async def test_a_gateway_that_is_silent_before_the_start_refuses_the_rollout(world: World) -> None:
    world.gateways["gw-2"].fail("preflight", Unavailable("gw-2 does not answer"), times=10_000)
    result = await world.upgrade()
    assert (result.outcome, result.reason) == (Outcome.REFUSED, "Stopped: gw-2: gw-2 does not answer")
    assert world.gateways["gw-1"].effects == []


CROWDED = Advice(normal=False, sentence="logins: number of events is 9000; usual is 100 to 200")


async def test_an_hour_that_is_not_like_those_of_past_weeks_starts_nothing(world: World) -> None:
    world.judge.advice = (CROWDED,)
    result = await world.upgrade()
    assert (result.outcome, result.reason) == (Outcome.REFUSED, f"Stopped: {CROWDED.sentence}")
    assert all(fake.effects == [] for fake in world.gateways.values())


@pytest.mark.sweep
async def test_who_wants_it_all_the_same_gets_it_and_the_story_says_so(world: World) -> None:
    world.judge.advice = (CROWDED,)
    order = world.order(("gw-1",)).model_copy(update={"even_if_unusual": True})
    rollout = await world.run(order)
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED
    told = [event.sentence for event in (await status_of(rollout)).events]
    assert f"started all the same: {CROWDED.sentence}" in told


@pytest.mark.sweep
async def test_an_hour_that_cannot_be_read_stops_nobody_and_the_story_says_so(world: World) -> None:
    silent = "logins: nothing is known of the last hour: Prometheus does not answer"
    world.judge.advice = (Advice(normal=None, sentence=silent, unavailable=True),)
    rollout = await world.run(world.order(("gw-1",)))
    assert (await result_of(rollout)).outcome is Outcome.PROMOTED
    told = [event.sentence for event in (await status_of(rollout)).events]
    assert f"nobody could say whether this hour is a usual one: {silent}" in told


@pytest.mark.sweep
async def test_a_history_that_does_not_answer_stops_nobody(world: World) -> None:
    world.judge.forgetful = True
    assert (await world.upgrade(("gw-1",))).outcome is Outcome.PROMOTED


@pytest.mark.sweep
async def test_a_survey_names_silent_gateways_beside_those_that_answer(world: World) -> None:
    world.gateways["gw-2"].fail("observe", Unavailable("gw-2 does not answer"), times=10_000)
    await survey(world)
    states, silent = world.book.states(world.fleet.name, timedelta(minutes=1))
    assert sorted(states) == ["gw-1", "gw-3", "gw-4"]
    assert silent == {"gw-2": "gw-2 does not answer"}


@pytest.mark.sweep
async def test_an_install_brings_up_empty_gateways_and_leaves_those_that_serve(
    server: Engine,
) -> None:
    async with working(World.made(await server.client(), fleet_of("edge"), serving=None)) as world:
        for name in ("gw-3", "gw-4"):
            world.gateways[name].serve(NEW)
        result = await install(world)
        assert (result.outcome, result.touched) == (Outcome.PROMOTED, 2)
    assert set(world.serving().values()) == {"1.1.6", "1.3.0"}
    assert world.gateways["gw-3"].effects == []
    assert world.book.known_good("edge") == {"gw-1": OLD, "gw-2": OLD}


@pytest.mark.sweep
async def test_an_install_moves_no_known_good_of_a_gateway_that_serves_its_release_already(
    server: Engine,
) -> None:
    """An operator may have steered it there by hand; one that has no known-good has this one."""
    async with working(World.made(await server.client(), fleet_of("edge"), serving=None)) as world:
        world.book.begin("edge", NEW, ("gw-3",))
        for name in ("gw-3", "gw-4"):
            world.gateways[name].serve(OLD)
        result = await install(world)
        assert (result.outcome, result.touched) == (Outcome.PROMOTED, 2)
        known_good = world.book.known_good("edge")
    assert known_good == {"gw-1": OLD, "gw-2": OLD, "gw-3": NEW, "gw-4": OLD}


@pytest.mark.sweep
async def test_an_install_that_takes_no_login_ends_with_the_probes_reason(
    server: Engine,
) -> None:
    async with working(World.made(await server.client(), fleet_of("edge"), serving=None)) as world:
        for fake in world.gateways.values():
            fake.bad_releases.add(OLD.digest)
        result = await install(world)
    assert result.outcome is Outcome.REFUSED
    assert result.aside["gw-1"].startswith("gw-1 fails its probe at auth")
    assert world.gateways["gw-1"].serving is None
    assert world.book.known_good("edge") == {}
