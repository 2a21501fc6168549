"""What an operator steered on a host is a fact, which reconcile never undoes (A5)."""

import time
from datetime import UTC, datetime, timedelta

import pytest

from policies.model.change import PENSTOCK, Outcome, Quarantine
from policies.model.errors import Unavailable
from policies.model.operation import BREAK_GLASS
from policies.notices.entries import STEERED_BY_HAND
from policies.rollback import kept_slot
from tests.fakes.control import UNDECIDED
from tests.fakes.gateway import FakeGateway
from tests.workflows.world import OLD, World, reconcile, result_of, until


async def steered_back(fake: FakeGateway, ago: float = 0.0) -> None:
    """Do what `penstock agent break-glass --back` did so many seconds ago, while the old instance runs."""
    old = fake.slots["a"]
    old.state, old.release = type(old.state).RUNNING, OLD
    slot = kept_slot(await fake.observe())
    epoch = int((time.time() - ago) * 1000)
    fake.serving, fake.trial, fake.owner = slot, None, (epoch, BREAK_GLASS)


async def test_a_gateway_that_an_operator_steered_back_stays_there_is_quarantined_and_pages(
    world: World,
) -> None:
    world.judge.says(UNDECIDED, wave=0)
    await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
    await steered_back(world.gateways["gw-1"])
    effects = list(world.gateways["gw-1"].effects)
    found = await reconcile(world)
    again = await reconcile(world)
    assert (found.strays, again.strays) == ({}, {})
    assert "left alone" in found.sentence
    assert world.gateways["gw-1"].effects == effects
    assert world.serving()["gw-1"] == "1.1.6"
    [left_out] = world.book.quarantined("edge")
    assert (left_out.gateway, left_out.person) == ("gw-1", BREAK_GLASS)
    assert "break-glass" in left_out.reason
    assert [one for one, _, _ in world.book.events.values()].count(STEERED_BY_HAND) == 1


async def test_a_gateway_that_an_operator_returns_after_break_glass_goes_to_its_known_good(
    world: World,
) -> None:
    world.judge.says(UNDECIDED, wave=0)
    await world.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))
    await steered_back(world.gateways["gw-1"], ago=200)
    # `gateway return` hands it over to penstock, which tries it after a minute.
    handed_over = datetime.now(UTC) - timedelta(seconds=90)
    row = Quarantine(fleet="edge", gateway="gw-1", reason="returned", person=PENSTOCK, since=handed_over)
    world.book.set_quarantine(row)
    await reconcile(world)
    await until(lambda: world.serving()["gw-1"] == "1.3.0")


async def test_break_glass_that_an_operator_uses_during_a_rollback_wins_over_it(world: World) -> None:
    """R9: the rollback goes on with the other gateways, and names that one."""
    world.judge.says(UNDECIDED, wave=0)
    await world.upgrade(("gw-1", "gw-2"), ("gw-3", "gw-4"))
    fake = world.gateways["gw-1"]
    fake.fail("restore", Unavailable("gw-1 does not answer"), times=10_000)
    rollback = await world.go_back()
    await until(lambda: {world.serving()[name] for name in ("gw-2", "gw-3", "gw-4")} == {"1.1.6"})
    fake.owner = (int(time.time() * 1000), BREAK_GLASS)
    fake.recover("restore")
    result = await result_of(rollback)
    assert (result.outcome, list(result.incomplete)) == (Outcome.ROLLBACK_INCOMPLETE, ["gw-1"])
    assert result.incomplete["gw-1"].startswith("an operator steered it by break-glass at ")
    assert world.serving()["gw-1"] == "1.3.0"
    assert fake.owner[1] == BREAK_GLASS


async def test_a_rollback_that_is_asked_for_after_break_glass_takes_that_gateway_along(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R9: whatever the clock of its host says."""
    world.judge.says(UNDECIDED, wave=0)
    await world.upgrade(("gw-1", "gw-2"), ("gw-3", "gw-4"))
    fake = world.gateways["gw-1"]
    fake.owner = (int((time.time() + 240) * 1000), BREAK_GLASS)
    monkeypatch.setattr(fake, "now", lambda: datetime.now(UTC) + timedelta(minutes=5))
    result = await result_of(await world.go_back())
    assert (result.outcome, set(world.serving().values())) == (Outcome.ROLLED_BACK, {"1.1.6"})
