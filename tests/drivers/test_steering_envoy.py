"""The example of a hook that has Envoy carry each session: real users, and many addresses at once."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta

import pytest
import pytest_asyncio

from activities.drivers.programs import run
from activities.drivers.steering.hook import document
from activities.drivers.steering.switch import Switch
from policies.model.errors import LeaseLapsed, Unavailable
from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, as_new
from tests.drivers.gateway_lab import operation
from tests.drivers.mesh_lab import MeshLab

pytestmark = ON_A_REAL_GATEWAY
LEASE = timedelta(minutes=5)
USERS = 1000
ANSWERED = """
import socket, sys
for number in range(int(sys.argv[1])):
    source = f"127.1.{number // 250}.{1 + number % 250}"
    with socket.create_connection(("127.0.0.1", 15006), 5, source_address=(source, 0)) as asking:
        sys.stdout.write(asking.recv(1).decode())
"""
"""Where connections of so many addresses are carried: each gets the first letter that it is answered."""


@pytest.fixture(scope="module")
def built_mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeshLab]:
    lab = MeshLab(tmp_path_factory.mktemp("mesh"), "mesh")
    lab.build()
    yield lab
    lab.clear()


@pytest_asyncio.fixture(loop_scope="function")
async def mesh(built_mesh: MeshLab) -> AsyncIterator[MeshLab]:
    """The gateway behind Envoy, with this process inside the gateway's namespace."""
    async with as_new(built_mesh):
        yield built_mesh


async def serving(lab: MeshLab) -> tuple[str, str]:
    """Have an old instance serve and a new one run; return their slots."""
    old = await lab.running("1")
    await lab.table.make_permanent(operation("keep"), old)
    return old, await lab.running("2")


@pytest.mark.sweep
async def test_envoy_carries_new_sessions_where_the_hook_says_and_live_ones_stay(mesh: MeshLab) -> None:
    old, new = await serving(mesh)
    first = await mesh.client(1).up()
    assert await mesh.home_of(1) == old
    first.ping(old)
    await asyncio.sleep(1)
    lease = timedelta(seconds=10)
    trial = await mesh.table.start_trial(operation("trial"), new, lease)
    assert (trial.serving, trial.trial, trial.share) == (old, new, 100)
    second = await mesh.client(2).up()
    assert await mesh.home_of(2) == new
    # Nobody of ours is alive from here on: Envoy ends the trial by itself.
    await asyncio.sleep(lease.total_seconds())
    now = await mesh.table.read()
    assert (now.serving, now.trial) == (old, None)
    await mesh.client(3).up()
    assert [await mesh.home_of(number) for number in (1, 2, 3)] == [old, new, old]
    with pytest.raises(LeaseLapsed):
        await mesh.table.start_trial(operation("trial"), new, LEASE, renew=True)
    sent, lost = first.lost()
    assert sent > 150
    assert lost == 0
    assert [client.said("Reconnect") for client in (first, second)] == [0, 0]


async def homes(lab: MeshLab) -> str:
    """Return to which of the simulated instances Envoy carries each of many addresses."""
    done = await run([sys.executable, "-c", ANSWERED, str(USERS)], within=timedelta(seconds=60))
    assert done.status == 0, done.err
    return done.out


@pytest.mark.sweep
async def test_shares_are_kept_by_address_and_a_larger_one_keeps_who_was_in(mesh: MeshLab) -> None:
    servers = [
        await asyncio.start_server(says(slot.name), "127.0.0.1", slot.port) for slot in mesh.gateway.slots
    ]

    async def carried(share: int) -> str:
        steered = Switch(steer="a").on_trial("b", LEASE, share=share, seed=7) if share else Switch(steer="a")
        told = json.dumps(document(mesh.gateway, steered))
        done = await run([str(mesh.mesh.hook), "write"], given=told)
        assert done.status == 0, done.last_words
        return await homes(mesh)

    assert await carried(0) == "a" * USERS
    before = ""
    for share in (5, 25, 50):
        now = await carried(share)
        assert abs(now.count("b") / USERS - share / 100) < 0.03
        assert all(after == "b" for was, after in zip(before, now, strict=False) if was == "b")
        before = now
    assert await homes(mesh) == before
    assert await carried(100) == "b" * USERS
    for server in servers:
        server.close()


def says(letter: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Return what answers each connection with that letter."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(letter.encode())
        writer.close()

    return answer


@pytest.mark.sweep
async def test_an_envoy_that_begins_anew_in_a_trial_goes_back(mesh: MeshLab) -> None:
    old, new = await serving(mesh)
    await mesh.table.start_trial(operation("trial"), new, LEASE)
    mesh.mesh.end()
    with pytest.raises(Unavailable, match=r"has failed to read: Envoy: .*refused"):
        await mesh.table.read()
    mesh.mesh.start()
    steering = await mesh.table.read()
    assert (steering.serving, steering.trial) == (old, None)
    await mesh.client(1).up()
    assert await mesh.home_of(1) == old
