"""Who looks after the steering table goes on, whatever this host has run out of for a moment."""

import asyncio
import errno
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from activities.drivers.daemon.port import Session, Users
from activities.drivers.daemon.strongswan.daemon import StrongSwan
from activities.drivers.flows import Flows
from activities.drivers.runtime.host.bounds import HostBounds
from activities.drivers.runtime.host.journal import Journal
from activities.drivers.steering import login_flows, nftables
from activities.drivers.steering.login_flows import AskUsers, nobody
from activities.drivers.steering.nftables import NftablesTable
from activities.drivers.steering.orders import Live, SteeringOrders
from activities.drivers.steering.port import Means
from deploy.lab.namespaces import inside
from policies.model.errors import Unavailable
from tests.drivers.gateway_fixtures import MISSING
from tests.drivers.gateway_lab import PREFIX, operation
from tests.patience import PATIENCE
from tests.unit.fleets import gateway
from tests.unit.test_nftables_ruleset import HERE

OWN_NETWORKS = HERE.model_copy(update={"name": "gw-1"})
USER = IPv4Address("198.51.100.7")
NUMBER = "0xa17ad981"
SESSION = Session(
    id="1",
    remote_address=str(USER),
    vpn_address="10.9.0.2",
    since=datetime.now(UTC),
    transport="udp",
    source=(USER, 4500),
    numbers=(("esp_spi", int(NUMBER, 16)),),
)


def steered(folder: Path, live: Live, users: AskUsers = nobody) -> NftablesTable:
    """Return the table of a gateway whose instances have networks of their own."""
    journal = Journal(folder / "journal.jsonl", HostBounds(OWN_NETWORKS.name))
    orders = SteeringOrders(OWN_NETWORKS, journal, live, folder / "steering.json")
    dialled = StrongSwan().dialled(OWN_NETWORKS)
    return NftablesTable(orders, Means(folder, dialled=dialled, wandering=StrongSwan.wandering, users=users))


async def test_a_host_out_of_descriptors_ends_nobodys_look_after_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nftables, "FOLLOW_EVERY", timedelta(0))
    asked, often = 0, asyncio.Event()

    async def live(within: timedelta) -> Mapping[str, tuple[Session, ...] | None]:
        nonlocal asked
        asked += 1
        if asked >= 3:
            often.set()
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    journal = Journal(tmp_path / "journal.jsonl", HostBounds("gw-1"))
    orders = SteeringOrders(gateway("gw-1"), journal, live, tmp_path / "steering.json")
    table = NftablesTable(orders, Means(tmp_path))
    keeping = asyncio.create_task(table.keep())
    try:
        async with asyncio.timeout(PATIENCE):
            await often.wait()
    finally:
        keeping.cancel()


@pytest.fixture
def network() -> Iterator[str]:
    """A network namespace in which nothing is."""
    name = f"{PREFIX}keep"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


@pytest.mark.lab
@pytest.mark.skipif(MISSING is not None, reason=MISSING or "")
@pytest.mark.asyncio(loop_scope="function")
async def test_nobody_stays_pinned_to_a_slot_that_is_left_while_the_kernel_is_late_with_its_flows(
    tmp_path: Path, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def live(within: timedelta) -> Mapping[str, tuple[Session, ...] | None]:
        return {"a": (SESSION,), "b": ()}

    asked = list[timedelta]()

    async def late(homes: Iterable[IPv4Address], within: timedelta) -> Mapping[IPv4Address, Flows]:
        asked.append(within)
        raise Unavailable("the flows of this host cannot be listed: it took more than 0 s")

    monkeypatch.setattr(login_flows, "flows_of", late)
    table = steered(tmp_path, live)
    with inside(network):
        await table.make_permanent(operation("keep b"), "b")
        assert (await table.refresh()).pinned == 1
        assert NUMBER in await table.words()
        assert (await table.leave("a")).pinned == 0
        assert NUMBER not in await table.words()
        assert (await table.refresh()).pinned == 0
    assert max(asked) >= timedelta(seconds=5)


@pytest.mark.lab
@pytest.mark.skipif(MISSING is not None, reason=MISSING or "")
@pytest.mark.asyncio(loop_scope="function")
async def test_pins_follow_sessions_and_logins_of_one_listing(tmp_path: Path, network: str) -> None:
    asked = list[str]()

    async def live(within: timedelta) -> Mapping[str, tuple[Session, ...] | None]:
        asked.append("sessions")
        return {"a": (), "b": ()}

    async def users(within: timedelta) -> Mapping[str, Users | None]:
        asked.append("users")
        return {"a": Users((SESSION,)), "b": Users(())}

    table = steered(tmp_path, live, users)
    with inside(network):
        await table.make_permanent(operation("keep b"), "b")
        asked.clear()
        assert (await table.refresh()).pinned == 1
    assert asked == ["users"]
