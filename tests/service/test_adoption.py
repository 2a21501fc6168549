"""`penstock fleet adopt`, as people type it: what is found first, then the change, and what is refused."""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from sqlalchemy import update

from activities.files import load
from orchestrator.processes.api import serving, socket_at
from orchestrator.processes.composition import compose
from orchestrator.store import tables
from orchestrator.words.offers import all_spelled
from policies.adoption import release_of
from policies.model.adoption import ADOPTED
from policies.model.change import Outcome
from policies.model.fleet import Fleet
from policies.model.instance import InstanceState
from policies.model.value import digest_of
from tests.fakes.gateway import FakeGateway, FakeSlot
from tests.service.command_line import CommandLine
from tests.service.conftest import installed
from tests.workflows.engine import Engine
from tests.workflows.world import World, working

FOUND = release_of("ocserv", "1.1.6", digest_of(b"their own ocserv"))


@dataclass(frozen=True)
class Stand:
    """An installation whose one gateway serves by itself."""

    penstock: CommandLine
    gateway: FakeGateway
    world: World

    async def offered(self) -> str:
        """What the fleet's status says that can be done, as people type it."""
        said = json.loads((await self.penstock("status", "edge", "-o", "json")).out)
        return all_spelled(said["data"]["offers"])


SECOND = """\
  - name: edge-2
    addresses: [192.0.2.2]
    slots:
      - {name: a, port: 4441, device: oca, pool4: 10.0.2.0/24}
      - {name: b, port: 4442, device: ocb, pool4: 10.0.3.0/24}
"""


@pytest.fixture
async def stand(tmp_path: Path, server: Engine) -> AsyncIterator[Stand]:
    async with standing(tmp_path, server) as stand:
        yield stand


@pytest.fixture
async def beside_another(tmp_path: Path, server: Engine) -> AsyncIterator[Stand]:
    """The same with a second gateway that serves nobody yet."""
    async with standing(tmp_path, server, SECOND) as stand:
        yield stand


@asynccontextmanager
async def standing(tmp_path: Path, server: Engine, more: str = "") -> AsyncIterator[Stand]:
    client = await server.client()
    settings = installed(tmp_path, server.address, client.namespace)
    file = settings.fleet / "edge.yaml"
    file.write_text(file.read_text() + more)
    world = World.made(client, load(file, Fleet), serving=None)
    gateway = world.gateways["edge-1"]
    gateway.unprepared = FakeSlot(FOUND, InstanceState.RUNNING, gateway.now(), ["192.0.2.1"])
    installation = await compose(settings.model_copy(update={"ledger_url": world.book.url}))
    path = tmp_path / "penstock.sock"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.fspath(Path.cwd()), "TZ": "UTC"}
    async with working(world), serving(installation.service, socket_at(path)):
        yield Stand(CommandLine(environment | {"PENSTOCK_SOCKET": os.fspath(path)}), gateway, world)


async def test_what_serves_is_shown_and_nothing_is_changed_before_it_is_adopted(stand: Stand) -> None:
    shown = await stand.penstock("fleet", "adopt", "edge", "--dry-run")
    assert shown.code == 0, shown.err
    assert "edge-1: ocserv 1.1.6+adopted" in shown.out
    assert "1 sessions" in shown.out
    assert "its logins are not counted, whatever its log has: the first upgrade" in shown.out
    assert stand.gateway.effects == []
    adopted = await stand.penstock("fleet", "adopt", "edge", "edge-1", "--reason", "ours now")
    assert adopted.code == 0, adopted.err
    assert "1 gateways with 1 sessions were adopted as they ran" in adopted.out
    assert stand.world.book.known_good("edge") == {"edge-1": FOUND}
    assert "adoption of what serves" in (await stand.penstock("history", "edge")).out
    assert "adopted as they ran" in (await stand.penstock("explain", "edge-1")).out
    await stand.penstock("sessions", "edge")  # which looks at the gateways
    assert "1.1.6+adopted" in (await stand.penstock("fleet", "show", "edge")).out
    again = await stand.penstock("fleet", "adopt", "edge", "--dry-run")
    assert "in the way: there is nothing to adopt" in again.out


async def test_a_probe_that_cannot_log_in_at_the_daemon_that_serves_is_shown_before_any_upgrade(
    stand: Stand,
) -> None:
    """newcomer 3."""
    stand.gateway.probe_of_own = "it failed at tls: certificate does not match hostname"
    shown = await stand.penstock("fleet", "adopt", "edge", "--dry-run")
    said = "the probe gets no tunnel here, and every upgrade needs one: it failed at tls: certificate does"
    assert f"  {said} not match hostname" in shown.out
    assert (await stand.penstock("fleet", "adopt", "edge")).code == 0


async def test_a_daemon_that_gives_its_users_addresses_of_another_gateway_is_refused_before_anything_changes(
    beside_another: Stand,
) -> None:
    stand = beside_another
    stand.gateway.own_pools = (IPv4Network("10.0.3.128/25"),)
    shared = (
        "edge-1: pool 10.0.3.128/25 of the daemon on edge-1 overlaps pool 10.0.3.0/24 of slot b on edge-2"
    )
    refused = await stand.penstock("fleet", "adopt", "edge", "edge-1")
    assert (refused.code, shared in refused.err) == (5, True), refused.err
    assert (stand.gateway.effects, stand.world.book.known_good("edge")) == ([], {})
    stand.gateway.own_pools = ()
    assert (await stand.penstock("fleet", "adopt", "edge", "edge-1")).code == 0


async def test_no_slot_is_proposed_in_the_pool_of_another_gateways_own_daemon(beside_another: Stand) -> None:
    """newcomer 14: gw-1 was offered the pool that gw-2's own daemon gave to its users."""
    stand, other = beside_another, beside_another.world.gateways["edge-2"]
    other.unprepared = FakeSlot(FOUND, InstanceState.RUNNING, other.now(), ["192.0.2.2"])
    stand.gateway.own_pools, other.own_pools = (IPv4Network("10.60.4.0/24"),), (IPv4Network("10.60.5.0/24"),)
    await stand.penstock("sessions", "edge")
    for _ in ("by itself", "adopted"):
        shown = await stand.penstock("fleet", "adopt", "edge", "edge-1", "--dry-run")
        assert "10.60.5.0/24" not in shown.out
        assert "pool4: 10.60.6.0/24}" in shown.out
        assert "pool4: 10.60.7.0/24}" in shown.out
        assert (await stand.penstock("fleet", "adopt", "edge", "edge-2")).code == 0


async def test_a_gateway_that_is_not_the_fleets_is_named_and_none_is_adopted(stand: Stand) -> None:
    for more in ((), ("--dry-run",)):
        refused = await stand.penstock("fleet", "adopt", "edge", "edge-1", "edge-9", *more)
        assert refused.code == 2
        assert "edge has no gateway edge-9" in refused.err
    assert stand.gateway.effects == []


async def test_a_day_after_the_first_upgrade_the_way_back_to_what_was_adopted_is_named(stand: Stand) -> None:
    """Document and status offered `rollback --to 1.1.6+adopted`, and each form of it was refused."""
    await stand.penstock("fleet", "adopt", "edge")
    assert (await stand.world.upgrade(("edge-1",))).outcome is Outcome.PROMOTED
    with stand.world.book.engine.begin() as connection:
        connection.execute(update(tables.known_good).values(since=datetime.now(UTC) - timedelta(days=2)))
        connection.execute(update(tables.changes).values(ended=datetime.now(UTC) - timedelta(days=2)))
    own = "penstock fleet hand-back edge edge-1 --reason TEXT (to the daemon that was adopted there)"
    assert await stand.offered() == own
    for to in ((), ("--to", "1.1.6"), ("--to", FOUND.version)):
        refused = await stand.penstock("rollback", "edge", "--reason", "users call", *to)
        assert refused.code == 5
        assert "gateways are handed back to it" in refused.err
        assert "penstock fleet hand-back edge edge-1" in " ".join(refused.err.split())


@pytest.mark.sweep
async def test_a_gateway_is_handed_back_to_the_daemon_that_was_adopted_and_only_to_one(stand: Stand) -> None:
    never = await stand.penstock("fleet", "hand-back", "edge", "edge-1", "--reason", "not yet")
    assert never.code == 5
    assert "edge-1 was never adopted" in never.err
    assert (await stand.penstock("fleet", "adopt", "edge")).code == 0
    already = await stand.penstock("fleet", "hand-back", "edge", "edge-1", "--reason", "again")
    assert "known-good is their own daemon already" in already.err
    assert await stand.offered() == "penstock plan edge --to RELEASE"
    assert (await stand.world.upgrade(("edge-1",))).outcome is Outcome.PROMOTED
    own = "penstock fleet hand-back edge edge-1 --reason TEXT (to the daemon that was adopted there)"
    assert await stand.offered() == f"penstock rollback edge --reason TEXT | {own}"
    back = await stand.penstock("fleet", "hand-back", "edge", "edge-1", "--reason", "as it was")
    assert back.code == 0, back.err
    assert stand.gateway.serving == ADOPTED
    assert stand.gateway.lost == []
    assert stand.world.book.known_good("edge") == {"edge-1": FOUND}
    assert "hand-back" not in await stand.offered()
