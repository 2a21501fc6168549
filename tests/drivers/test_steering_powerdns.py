"""The example of a hook that has a PowerDNS answer with the address of an instance."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import pytest
import pytest_asyncio

from activities.drivers.programs import run
from activities.drivers.steering.hook import document
from activities.drivers.steering.switch import Switch
from policies.model.errors import Unavailable
from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, as_new
from tests.drivers.gateway_lab import operation
from tests.drivers.named_lab import NamedLab, why_not_here

NO_SERVER = why_not_here()
pytestmark = [*ON_A_REAL_GATEWAY, pytest.mark.skipif(NO_SERVER is not None, reason=NO_SERVER or "")]
LEASE = timedelta(minutes=5)


@pytest.fixture(scope="module")
def built_named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NamedLab]:
    lab = NamedLab(tmp_path_factory.mktemp("named"), "name")
    lab.build()
    yield lab
    lab.clear()


@pytest_asyncio.fixture(loop_scope="function")
async def named(built_named: NamedLab) -> AsyncIterator[NamedLab]:
    """The gateway whose users dial a name, with this process inside the gateway's namespace."""
    async with as_new(built_named):
        yield built_named


@pytest.mark.sweep
async def test_the_name_leads_new_users_where_the_hook_says_and_its_server_ends_the_lease(
    named: NamedLab,
) -> None:
    assert named.looked_up(1) is None
    old = await named.running("1")
    await named.table.make_permanent(operation("keep"), old)
    assert named.looked_up(1) == "10.77.0.101"
    first = await named.client(1).up()
    first.ping(old)
    new = await named.running("2")
    lease = timedelta(seconds=10)
    trial = await named.table.start_trial(operation("trial"), new, lease)
    assert (trial.serving, trial.trial, trial.share) == (old, new, 100)
    assert named.looked_up(2) == "10.77.0.102"
    await named.client(2).up()
    # Nobody of ours is alive from here on: the name server ends the trial by itself.
    await asyncio.sleep(lease.total_seconds() + 1)
    assert named.looked_up(3) == "10.77.0.101"
    now = await named.table.read()
    assert (now.serving, now.trial) == (old, None)
    await named.client(3).up()
    assert [await named.home_of(number) for number in (1, 2, 3)] == [old, new, old]
    sent, lost = first.lost()
    assert sent > 150
    assert lost == 0


@pytest.mark.sweep
async def test_a_share_is_one_of_resolvers_and_a_larger_one_keeps_who_was_in(named: NamedLab) -> None:
    resolvers = [f"10.77.0.{number}" for number in range(128, 253)]
    for address in resolvers:
        named.add_address(3, address)

    async def trying(share: int) -> set[str]:
        asked = Switch(steer="a").on_trial("b", LEASE, share=share, seed=1)
        done = await run([str(named.hook), "write"], given=json.dumps(document(named.gateway, asked)))
        assert done.status == 0, done.last_words
        answers = {source: named.looked_up(3, source=source) for source in resolvers}
        assert {*answers.values()} <= {"10.77.0.101", "10.77.0.102"}
        return {source for source, answer in answers.items() if answer == "10.77.0.102"}

    some, half = await trying(25), await trying(50)
    assert 0.1 < len(some) / len(resolvers) < 0.4
    assert 0.35 < len(half) / len(resolvers) < 0.65
    assert some < half
    assert await trying(50) == half


@pytest.mark.sweep
async def test_what_the_server_does_not_answer_or_somebody_else_wrote_is_told(named: NamedLab) -> None:
    old = await named.running("1")
    await named.table.make_permanent(operation("keep"), old)
    named.written("vpn", "LUA", "A \";return '10.77.0.103'\"")
    with pytest.raises(Unavailable, match=r"somebody else has written vpn\.example\.org"):
        await named.table.read()
    named.end_server()
    with pytest.raises(Unavailable, match=r"has failed to read: PowerDNS: .*refused"):
        await named.table.read()
