"""What a HAProxy that carries users keeps in its memory of who has a session where; nobody has one here."""

import subprocess
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import pytest_asyncio

from activities.drivers.daemon.port import Session
from activities.drivers.steering.haproxy import PINS, Balancer
from activities.drivers.steering.haproxy_process import HaproxyProcess
from activities.drivers.steering.switch import Switch
from deploy.lab.namespaces import inside
from tests.drivers.front_lab import why_not_here
from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY
from tests.drivers.gateway_lab import gateway

pytestmark = [*ON_A_REAL_GATEWAY, pytest.mark.skipif(why_not_here() is not None, reason="needs haproxy")]
NAMESPACE = "psh-memory"
SWITCHED = Switch(steer="b")
"""New sessions go to slot b."""


class Front:
    """A HAProxy of its own, and what steers with it."""

    def __init__(self, folder: Path) -> None:
        self.process = HaproxyProcess(folder, "gw-1")
        self.balancer = Balancer(gateway(), self.process)

    async def order(self, command: str, more: str = "") -> None:
        await self.process.socket.order(f"{command} map {self.process.folder / PINS}{more}")

    async def heal(self) -> bool:
        return await self.balancer.heal(self.process.socket)


def session(address: str) -> Session:
    since = datetime.now(UTC)
    return Session(id=address, remote_address=address, vpn_address="", since=since, transport="tls")


@pytest.fixture
def folder() -> Iterator[Path]:
    """HAProxy's folder, with a map that sends everybody to slot b; and a network with its addresses."""
    addresses = ["address add 10.77.0.1/32 dev lo", "address add fd77::1/128 dev lo nodad", "link set lo up"]
    try:
        subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
        for line in addresses:
            subprocess.run(["ip", "-n", NAMESPACE, *line.split()], check=True)
        with TemporaryDirectory(prefix="psh") as name:
            Path(name).chmod(0o755)
            Path(name, "switch.map").write_text("steer b\n")
            yield Path(name)
    finally:
        subprocess.run(["ip", "netns", "del", NAMESPACE], check=True)


@pytest_asyncio.fixture(loop_scope="function")
async def front(folder: Path) -> AsyncIterator[Front]:
    """A HAProxy that leads two users back to slot a."""
    with inside(NAMESPACE):
        made = Front(folder)
        await made.balancer.prepare()
        try:
            await made.process.ensure(made.balancer.configuration())
            live = {"a": (session("10.77.0.11"), session("fd77::12")), "b": ()}
            assert await made.balancer.follow(live, SWITCHED, frozenset()) == 2
            yield made
        finally:
            await made.process.end()


async def test_what_somebody_emptied_is_noticed_and_written_again(front: Front) -> None:
    assert not await front.heal()
    assert await front.balancer.disagrees(SWITCHED) == ""
    await front.order("clear")
    assert (await front.balancer.disagrees(SWITCHED)).startswith("2 of the addresses with a session")
    assert await front.heal()
    assert not await front.heal()
    assert await front.balancer.disagrees(SWITCHED) == ""


async def test_what_leads_where_everybody_goes_is_no_disagreement_but_in_a_trial(front: Front) -> None:
    await front.order("add", " 10.77.0.99 b")
    on_trial = SWITCHED.on_trial("c", timedelta(seconds=9), share=5, seed=1)
    assert await front.balancer.disagrees(SWITCHED) == ""
    assert (await front.balancer.disagrees(on_trial)).startswith("1 of the addresses")
    assert await front.heal()
    await front.order("add", " 10.77.0.99 c")
    assert (await front.balancer.disagrees(SWITCHED)).startswith("1 of the addresses")
    assert await front.heal()
    assert await front.balancer.disagrees(SWITCHED) == ""
