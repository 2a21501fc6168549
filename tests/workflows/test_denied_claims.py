"""What one gateway claims does not make the history of a change longer with each minute of a wave."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from temporalio import activity

from policies.model.change import PENSTOCK, Quarantine
from policies.model.errors import Unavailable
from policies.model.instance import GatewayState
from policies.model.operation import BREAK_GLASS
from tests.fakes.gateway import FakeGateway
from tests.patience import until
from tests.workflows.test_passed_waves import second_wave_that
from tests.workflows.test_steered_by_hand import steered_back
from tests.workflows.world import Running, World, reconcile, status_of

DENIES = "did not confirm"


def claim_in_surveys(fake: FakeGateway, epoch: Callable[[], int], *, silent: bool = False) -> None:
    """Have the gateway claim break-glass to surveys alone: its agent sees which workflow asks."""
    observe = fake.observe

    async def observed() -> GatewayState:
        state = await observe()
        if activity.info().workflow_type != "Survey":
            if silent and activity.info().workflow_type == "Change":
                raise Unavailable("gw-1 is busy")
            return state
        steering = state.steering.model_copy(update={"serving": "a", "trial": None})
        return state.model_copy(update={"owner": BREAK_GLASS, "epoch": epoch(), "steering": steering})

    fake.observe = observed  # type: ignore[method-assign]


async def claims_of(running: Running) -> int:
    """Return how often reconcile had the change look into claims."""
    return len(
        [
            event
            async for event in running.fetch_history_events()
            if event.workflow_execution_signaled_event_attributes.signal_name == "taken_off"
        ]
    )


async def is_looked_into(world: World) -> bool:
    """Whether the ledger has that the change looked into a claim."""
    return bool(world.book.told_by([world.newest])[world.newest].claims)


@pytest.mark.sweep
@pytest.mark.parametrize("silent", [False, True])
async def test_a_gateway_that_claims_break_glass_to_surveys_alone_is_asked_once(
    world: World, *, silent: bool
) -> None:
    """With each claim its agent names another moment."""
    running = await second_wave_that(world, "its verdict")
    claim_in_surveys(world.gateways["gw-1"], lambda: int(time.time() * 1000), silent=silent)
    await reconcile(world)
    await until(lambda: is_looked_into(world))
    for _ in range(5):
        await reconcile(world)
    assert await claims_of(running) == 1
    status = await status_of(running)
    assert status.aside == {}
    assert [DENIES in event.sentence for event in status.events].count(True) == (0 if silent else 1)


@pytest.mark.sweep
async def test_a_gateway_that_denied_a_claim_is_left_out_once_an_operator_steers_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("policies.claims.FIRST_PAUSE", timedelta(0))
    running, fake = await second_wave_that(world, "its verdict"), world.gateways["gw-1"]
    claim_in_surveys(fake, lambda: 7)
    await reconcile(world)
    await until(lambda: is_looked_into(world))
    await reconcile(world)
    assert await claims_of(running) == 1
    del fake.observe
    await steered_back(fake)
    await reconcile(world)

    async def is_left_out() -> bool:
        return list((await status_of(running)).aside) == ["gw-1"]

    await until(is_left_out)
    await until(lambda: not world.book.told_by([world.newest])[world.newest].claims)


@pytest.mark.sweep
async def test_a_gateway_that_its_operator_returned_after_break_glass_is_not_asked_again(
    world: World,
) -> None:
    running, fake = await second_wave_that(world, "its verdict"), world.gateways["gw-1"]
    await steered_back(fake, ago=60)
    row = Quarantine(
        fleet="edge", gateway="gw-1", reason="returned", person=PENSTOCK, since=datetime.now(UTC)
    )
    world.book.set_quarantine(row.model_copy(update={"handed_over": True}))
    for _ in range(3):
        await reconcile(world)
    assert await claims_of(running) == 0
    assert (await status_of(running)).aside == {}
