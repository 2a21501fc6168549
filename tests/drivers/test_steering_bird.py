"""The example of a hook that has BIRD announce the gateway's address by the link of one instance.

The router that hears it is a BIRD of its own, and users log in through that.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import pytest
import pytest_asyncio

from activities.drivers.programs import run
from activities.drivers.steering.hook import document
from activities.drivers.steering.switch import Switch
from policies.model.errors import Conflict, LeaseLapsed, Refused
from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, as_new
from tests.drivers.gateway_lab import operation
from tests.drivers.routed_lab import RoutedLab, why_not_here

NO_BIRD = why_not_here()
pytestmark = [*ON_A_REAL_GATEWAY, pytest.mark.skipif(NO_BIRD is not None, reason=NO_BIRD or "")]
LEASE = timedelta(minutes=5)
BIRD_SLEEPS = 3
"""Seconds for which BIRD may wait for something to happen before it tells what a timer of its own changed."""


@pytest.fixture(scope="module")
def built_routed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoutedLab]:
    lab = RoutedLab(tmp_path_factory.mktemp("routed"), "bird")
    lab.build()
    yield lab
    lab.clear()


@pytest_asyncio.fixture(loop_scope="function")
async def routed(built_routed: RoutedLab) -> AsyncIterator[RoutedLab]:
    """The gateway behind a router, with this process inside the gateway's namespace."""
    async with as_new(built_routed):
        yield built_routed


async def serving(lab: RoutedLab) -> tuple[str, str]:
    """Have an old instance serve and a new one run; return their slots."""
    old = await lab.running("1")
    await lab.table.make_permanent(operation("keep"), old)
    return old, await lab.running("2")


async def test_the_router_sends_new_users_where_the_hook_says_and_live_ones_stay(routed: RoutedLab) -> None:
    assert routed.learnt() == []
    old, new = await serving(routed)
    await routed.learns(old)
    first = await routed.client(1).up()
    assert await routed.home_of(1) == old
    first.ping(old)
    await asyncio.sleep(1)
    trial = await routed.table.start_trial(operation("trial"), new, LEASE)
    assert (trial.serving, trial.trial, trial.share) == (old, new, 100)
    await routed.learns(new)
    await routed.client(2).up()
    assert [await routed.home_of(number) for number in (1, 2)] == [old, new]
    back = await routed.table.end_trial(operation("back"))
    assert (back.serving, back.trial) == (old, None)
    await routed.learns(old)
    await routed.client(3).up()
    assert [await routed.home_of(number) for number in (1, 2, 3)] == [old, new, old]
    await asyncio.sleep(0.5)
    sent, lost = first.lost()
    assert sent > 20
    assert lost == 0


@pytest.mark.sweep
async def test_bird_ends_a_trial_by_itself_and_a_renewal_changes_no_route(routed: RoutedLab) -> None:
    old, new = await serving(routed)
    await routed.table.start_trial(operation("trial"), new, timedelta(seconds=4))
    await routed.learns(new)
    before = routed.heard()
    await asyncio.sleep(2)
    again = await routed.table.start_trial(operation("trial"), new, timedelta(seconds=4), renew=True)
    assert again.trial_expires_in is not None
    assert timedelta(seconds=2) < again.trial_expires_in <= timedelta(seconds=4)
    # Nobody of ours is alive from here on: no agent keeps anything in this test.
    await asyncio.sleep(2.5)
    assert (routed.learnt(), routed.heard()) == ([new], before)
    await routed.learns(old, within=1.5 + BIRD_SLEEPS)
    assert len(routed.heard()) == len(before) + 1
    with pytest.raises(LeaseLapsed):
        await routed.table.start_trial(operation("trial"), new, LEASE, renew=True)
    await routed.client(1).up()
    assert await routed.home_of(1) == old


@pytest.mark.sweep
async def test_a_bird_that_begins_anew_or_is_read_anew_in_a_trial_goes_back(routed: RoutedLab) -> None:
    old, new = await serving(routed)
    await routed.table.start_trial(operation("trial"), new, LEASE)
    routed.ask("gateway", "configure")
    await routed.learns(old)
    assert await routed.table.heal()
    await routed.learns(new)
    routed.ask("gateway", "down")
    await routed.learns()
    routed.run_bird("gateway")
    await routed.learns(old)


@pytest.mark.sweep
async def test_a_share_is_refused_and_nothing_is_changed(routed: RoutedLab) -> None:
    old, new = await serving(routed)
    await routed.learns(old)
    before = routed.heard()
    with pytest.raises(Refused, match=r"everybody or nobody \(hook_can\), and no 25 percent"):
        await routed.table.start_trial(operation("trial"), new, LEASE, share=25)
    asked = document(routed.gateway, Switch(steer=old).on_trial(new, LEASE, share=25, seed=1))
    done = await run([str(routed.hook), "write"], given=json.dumps(asked))
    assert done.status
    assert done.last_words == "a router sends everybody or nobody by a link, and no share of 25 percent"
    steering = await routed.table.read()
    assert (steering.serving, steering.trial) == (old, None)
    assert (routed.learnt(), routed.heard()) == ([old], before)


@pytest.mark.sweep
async def test_what_no_router_was_told_is_a_conflict(routed: RoutedLab) -> None:
    _, new = await serving(routed)
    routed.part()
    with pytest.raises(Conflict, match=f"wanted {new}, read back None"):
        await routed.table.make_permanent(operation("keep new"), new)
    assert (await routed.table.read()).serving is None
    routed.ask("gateway", "enable", "uplink")
    routed.until_established()
    await routed.table.heal()
    await routed.learns(new)  # as was ordered last
