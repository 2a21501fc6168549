"""Users of OpenVPN who come through nginx's `stream`: what it records and when, and whose each flow is."""

import asyncio
import json
import re
import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from activities.drivers.runtime.host.attribution import attributed_flows
from activities.drivers.runtime.host.snapshots import KEY_BYTES, HostSnapshots
from activities.snapshots import Evidence
from policies.attribution import CLOCKS, Attributed
from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, as_new
from tests.drivers.gateway_lab import operation
from tests.drivers.openvpn_lab import TEMPLATE, ProxiedLab, why_not_here
from tests.patience import PATIENCE, until

MISSING = why_not_here() or (None if shutil.which("nginx") else "needs nginx")
pytestmark = [
    *ON_A_REAL_GATEWAY,
    pytest.mark.skipif(MISSING is not None, reason=MISSING or ""),
]
LEASE = timedelta(minutes=5)
KEEPS = 3
"""Seconds for which nginx keeps a silent UDP session here; its own default is 600."""
OF_ONE_NAT, ELSEWHERE = "10.77.0.11", "10.77.0.12"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxiedLab]:
    lab = ProxiedLab(tmp_path_factory.mktemp("proxied"), "ngx")
    lab.build()
    yield lab
    lab.clear()


@pytest_asyncio.fixture(loop_scope="function")
async def proxied(built: ProxiedLab) -> AsyncIterator[ProxiedLab]:
    async with as_new(built):
        yield built


def whose(lab: ProxiedLab) -> list[Attributed]:
    return attributed_flows(lab.folders, lab.logs, lab.means.proxies)


def ended(lab: ProxiedLab) -> list[str]:
    return lab.logs[1].read_text().splitlines()


async def made_permanent(lab: ProxiedLab, version: str) -> str:
    slot = await lab.running(version)
    await lab.table.make_permanent(operation(f"keep {version}"), slot)
    return slot


def template_for(transport: str) -> str:
    text = TEMPLATE.read_text()
    if transport == "udp":
        return text
    return (
        text.replace("proto udp", "proto tcp-server")
        .replace("explicit-exit-notify 1", "")
        .replace("multihome", "")
    )


class Looks:
    """What the instances themselves say of their sessions, ten times a second: slot and source of each."""

    def __init__(self, lab: ProxiedLab) -> None:
        self._lab = lab
        self.seen: list[tuple[datetime, str, str, str]] = []
        self.looks = 0

    async def go_on(self) -> None:
        while True:
            at = datetime.now(UTC)
            for slot, sessions in (await self._lab.folders.live()).items():
                for one in sessions or ():  # an instance that is being started does not say yet
                    assert one.source is not None
                    self.seen.append((at, slot, f"{one.source[0]}:{one.source[1]}", one.vpn_address))
            self.looks += 1
            await asyncio.sleep(0.1)


def owner_of(flows: list[Attributed], at: datetime, slot: str, source: str) -> tuple[str, str]:
    """Return user and real address of what an instance said then."""
    found = [
        one
        for one in flows
        if (one.held.slot, str(one.held.source)) == (slot, source)
        and one.held.began - CLOCKS <= at
        and (one.held.ended is None or at <= one.held.ended + CLOCKS)
    ]
    assert found, f"{source} in slot {slot} at {at} is nobody's"
    client = found[-1].client
    assert client is not None, f"{found[-1].held} came from nobody knows where"
    return found[-1].held.user, str(client.address)


@pytest.mark.parametrize("transport", ["udp", pytest.param("tcp", marks=pytest.mark.sweep)])
async def test_every_flow_is_somebodys_at_every_moment_of_a_switch(
    proxied: ProxiedLab, transport: str
) -> None:
    proxied.admission.template.write_text(template_for(transport))
    carried_by = "udp" if transport == "udp" else "tcp-client"
    looks = Looks(proxied)
    with proxied.nginx("60s") as nginx:
        old = await made_permanent(proxied, "1")
        looking = asyncio.create_task(looks.go_on())
        first = await proxied.through(1, 1, carried_by).up()
        # Two users behind one NAT have one address, and another port each.
        await proxied.through(4, 1, carried_by, device="tun1").up()
        first.ping(old)
        new = await proxied.running("2")
        await proxied.table.start_trial(operation("trial"), new, LEASE)
        await proxied.table.refresh()
        await proxied.through(2, 2, carried_by).up()
        await proxied.table.make_permanent(operation("keep 2"), new)
        await asyncio.sleep(1)
        assert ended(proxied) == []
        nginx.send_signal(signal.SIGHUP)
        await asyncio.sleep(2)
        await proxied.table.refresh()
        await proxied.through(3, 2, carried_by, device="tun1").up()
        await asyncio.sleep(1)
        assert not looking.done()
        looking.cancel()
        sent, lost = first.lost()
        flows = whose(proxied)
    owners = {(slot, *owner_of(flows, at, slot, source)) for at, slot, source, _ in looks.seen}
    print(f"{transport}: {len(looks.seen)} sessions in {looks.looks} looks, {lost} of {sent} pings lost")
    assert owners == {
        (old, "user1", OF_ONE_NAT),
        (old, "user4", OF_ONE_NAT),
        (new, "user2", ELSEWHERE),
        (new, "user3", ELSEWHERE),
    }
    assert len(looks.seen) > 50
    assert {one[2].rpartition(":")[0] for one in looks.seen} == {proxied.proxy}
    assert sent > 60
    assert lost == 0


@pytest.mark.sweep
async def test_nginx_records_who_came_at_once_and_what_they_did_when_they_have_gone(
    proxied: ProxiedLab,
) -> None:
    proxied.admission.template.write_text(TEMPLATE.read_text())
    with proxied.nginx(f"{KEEPS}s") as nginx:
        slot = await made_permanent(proxied, "1")
        client = await proxied.through(1, 1, "udp").up()
        client.ping(slot)
        await asyncio.sleep(KEEPS + 2)
        [live] = [one for one in whose(proxied) if one.held.user == "user1"]
        assert str(live.client).startswith(f"{OF_ONE_NAT}:")
        assert ended(proxied) == []
        client.lost()
        client.process.kill()
        last = time.time()
        await until_logged(proxied, 1)
        at, _, _, transport, address, _, upstream, seconds, status = ended(proxied)[0].split()
        print(f"logged {float(at) - last:.1f} s after its client was killed: {ended(proxied)[0]}")
        assert (transport, address, upstream, status) == ("UDP", OF_ONE_NAT, "10.77.0.1:443", "200")
        assert KEEPS - 1 < float(at) - last < KEEPS + 1
        assert float(seconds) > KEEPS + 2
        await proxied.through(2, 2, "udp").up()
        nginx.terminate()
        nginx.wait(PATIENCE)
        assert len(ended(proxied)) == 1
    [known] = [one for one in whose(proxied) if one.held.user == "user2"]
    assert str(known.client).startswith(f"{ELSEWHERE}:")


async def until_logged(lab: ProxiedLab, lines: int) -> None:
    await until(lambda: len(ended(lab)) >= lines)


@pytest.mark.sweep
async def test_a_tunnel_that_is_silent_for_longer_than_nginx_keeps_it_is_the_same_users_still(
    proxied: ProxiedLab,
) -> None:
    proxied.admission.template.write_text(TEMPLATE.read_text())
    with proxied.nginx(f"{KEEPS}s"):
        slot = await made_permanent(proxied, "1")
        client = await proxied.through(1, 1, "udp").up()
        await until_logged(proxied, 1)
        client.ping(slot)
        await asyncio.sleep(2)
        sent, lost = client.lost()
        found = [one for one in whose(proxied) if one.held.user == "user1"]
    assert [str(one.client) for one in found] == [str(found[0].client)] * 2
    assert found[0].held.ended is not None
    assert found[1].held.ended is None
    assert sent > 20
    assert lost == 0


async def test_a_snapshot_keeps_what_nginx_said_with_the_same_words_for_the_same_address(
    proxied: ProxiedLab, tmp_path: Path
) -> None:
    proxied.admission.template.write_text(TEMPLATE.read_text())
    key = tmp_path / "key"
    key.write_text("5a" * KEY_BYTES)
    key.chmod(0o600)
    snapshots = HostSnapshots(
        proxied.folders, proxied.slots.observe, proxied.table.words, key, fronts=proxied.logs
    )
    with proxied.nginx("1s"):
        slot = await made_permanent(proxied, "1")
        await proxied.through(1, 1, "udp").up()
        await until_logged(proxied, 1)
        digest = await snapshots.freeze(operation("freeze"), Evidence(reason="a test"))
    frozen = json.loads(snapshots.read_frozen(digest))
    info, access = (frozen["fronts"][log.name] for log in proxied.logs)
    word = access.split()[4]
    assert re.fullmatch(r"client-[0-9a-f]{12}", word)
    assert f"udp client {word}:" in info
    [source] = [one["source"] for one in frozen["sessions"][slot]]
    proxy = re.search(r"udp proxy (\S+):(\d+) connected", info)
    assert proxy is not None
    assert (source[0], str(source[1])) == (proxy[1], proxy[2])
    assert OF_ONE_NAT not in json.dumps(frozen)
