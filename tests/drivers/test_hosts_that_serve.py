"""A host that serves without us: it is never called empty, and nobody on it notices that we looked."""

import asyncio
from ipaddress import ip_network

import pytest

from activities.drivers.programs import run
from policies.model.errors import Refused
from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, built_lab, lab  # noqa: F401 - fixtures
from tests.drivers.gateway_lab import GatewayLab, operation
from tests.drivers.unprepared import Unprepared

pytestmark = ON_A_REAL_GATEWAY


async def test_a_first_release_is_refused_where_a_daemon_serves_and_its_users_stay(
    lab: GatewayLab,  # noqa: F811
) -> None:
    daemon = Unprepared(lab)
    person = await lab.client(1).up()
    release = lab.admission.release("1")
    await lab.slots.stage(operation("stage", digest=release.digest), release, "lab")
    with pytest.raises(Refused, match=rf"gw-1 serves already: ocserv\S* \(process {daemon.process.pid}\)"):
        await lab.slots.start(operation("start", digest=release.digest), release)
    assert lab.daemons() == [daemon.process.pid]
    assert (await lab.table.read()).serving is None
    person.reconnect()
    await person.until("Established DTLS", times=2)
    assert any("serves already" in reason for reason in await lab.slots.preflight(release))


async def test_what_listens_elsewhere_is_no_daemon_of_the_users(lab: GatewayLab) -> None:  # noqa: F811
    elsewhere = await asyncio.start_server(lambda *_: None, "127.0.0.1", 443)
    async with elsewhere:
        slot = await lab.running("1")
    assert (await lab.slots.probe(slot)).passed


async def test_a_pool_that_the_host_has_a_use_for_is_refused_before_anybody_is_served(
    lab: GatewayLab,  # noqa: F811
) -> None:
    pool = lab.gateway.slots[1].pool4
    assert pool == ip_network("10.90.1.0/24")
    release = lab.admission.release("1")
    await lab.slots.stage(operation("stage", digest=release.digest), release, "lab")
    assert (await run(["ip", "route", "add", "10.90.1.128/25", "dev", "br0"])).status == 0
    try:
        said = "pool 10.90.1.0/24 of slot b of gw-1 overlaps the host's route to 10.90.1.128/25 on br0"
        assert any(said in reason for reason in await lab.slots.preflight(release))
        with pytest.raises(Refused, match="slot b of gw-1 overlaps"):
            await lab.slots.start(operation("start", digest=release.digest), release)
    finally:
        await run(["ip", "route", "del", "10.90.1.128/25", "dev", "br0"])
    assert lab.daemons() == []
    await lab.slots.start(operation("start", digest=release.digest), release)
    assert len(lab.daemons()) == 1
