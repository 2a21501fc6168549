"""OpenVPN on a real gateway: its users through a switch, a kick and the end of their instance."""

import asyncio
import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from activities.drivers.daemon.openvpn.flows import held_in
from activities.drivers.daemon.openvpn.log import LoginLog
from activities.drivers.programs import run
from policies.attempts import Attempt, LoginOutcome
from policies.model.errors import Refused
from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, built_openvpn, openvpn  # noqa: F401 - fixtures
from tests.drivers.gateway_lab import operation
from tests.drivers.openvpn_lab import TEMPLATE, OpenVpnLab, why_not_here
from tests.patience import PATIENCE, until

pytestmark = [
    *ON_A_REAL_GATEWAY,
    pytest.mark.skipif(why_not_here() is not None, reason=why_not_here() or ""),
]
LEASE = timedelta(minutes=5)
REBOUND = {1: ("10.77.0.31",), 6: ("10.77.0.26",)}
"""Sites with a NAT of their own in some tests, and what it makes of their address."""
FROM_ONE_PORT = ("--lport", "5000")
"""A client that sends from the same port whenever it comes back."""


@pytest.fixture(autouse=True)
def _no_nat_stays(built_openvpn: OpenVpnLab) -> Iterator[None]:  # noqa: F811
    yield
    for number, addresses in REBOUND.items():
        site = f"{built_openvpn.prefix}c{number}"
        subprocess.run(["ip", "netns", "exec", site, "nft", "flush", "ruleset"], check=True)
        for address in addresses:
            subprocess.run(
                ["ip", "-n", site, "address", "delete", f"{address}/24", "dev", "eth0"],
                capture_output=True,
                check=False,
            )


async def serving(openvpn: OpenVpnLab, version: str) -> str:  # noqa: F811
    slot = await openvpn.running(version)
    await openvpn.table.make_permanent(operation(f"keep {version}"), slot)
    return slot


async def until_home_is(openvpn: OpenVpnLab, number: int, slot: str) -> None:  # noqa: F811
    async def is_home() -> bool:
        live = await openvpn.folders.live()
        homes = [
            name
            for name, sessions in live.items()
            if any(one.remote_address == f"10.77.0.{10 + number}" for one in sessions or ())
        ]
        return homes == [slot]

    await until(is_home)


async def test_nobody_loses_a_ping_while_new_sessions_go_elsewhere(openvpn: OpenVpnLab) -> None:  # noqa: F811
    old = await serving(openvpn, "1")
    people = [await openvpn.client(number).up() for number in (1, 2)]
    for one in people:
        one.ping(old)
    new = await openvpn.running("2")
    await openvpn.table.start_trial(operation("trial"), new, LEASE)
    await openvpn.client(3).up()
    assert await openvpn.home_of(3) == new
    await openvpn.table.end_trial(operation("back"))
    await openvpn.table.make_permanent(operation("keep 2"), new)
    await asyncio.sleep(1)
    counts = [one.lost() for one in people]
    assert [lost for _, lost in counts] == [0, 0]
    assert all(sent > 20 for sent, _ in counts)
    assert [await openvpn.home_of(number) for number in (1, 2)] == [old, old]


@pytest.mark.sweep
@pytest.mark.parametrize("more", [("--nobind",), FROM_ONE_PORT], ids=["any port", "one port"])
async def test_who_is_told_to_go_comes_back_by_itself_at_the_new_instance(
    openvpn: OpenVpnLab,  # noqa: F811
    more: tuple[str, ...],
) -> None:
    old = await serving(openvpn, "1")
    await openvpn.client(1, *more).up()
    assert await openvpn.home_of(1) == old
    new = await serving(openvpn, "2")
    assert await openvpn.sessions.end(operation("end"), old, 10) == 1
    await until_home_is(openvpn, 1, new)
    assert await openvpn.sessions.count(old) == 0


@pytest.mark.sweep
@pytest.mark.parametrize("anew", [False, True], ids=["agent stays", "agent starts anew"])
async def test_a_client_of_one_port_whose_instance_crashed_finds_the_other(
    openvpn: OpenVpnLab,  # noqa: F811
    *,
    anew: bool,
) -> None:
    old = await serving(openvpn, "1")
    patient = ("--pull-filter", "ignore", "ping", "--ping", "1", "--ping-restart", "3")
    client = await openvpn.client(1, *FROM_ONE_PORT, *patient).up()
    new = await serving(openvpn, "2")
    await openvpn.table.refresh()
    running = openvpn.folders.of(old).process()
    assert running is not None
    running.tell(signal.SIGKILL)
    await until(lambda: not running.alive)
    if anew:
        openvpn.compose()
    await openvpn.table.refresh()  # as its keeper does every ten seconds
    await until_home_is(openvpn, 1, new)
    assert client.alive


async def test_a_config_that_openvpn_refuses_is_not_started_and_its_words_are_told(
    openvpn: OpenVpnLab,  # noqa: F811
) -> None:
    template = openvpn.admission.template
    template.write_text(TEMPLATE.read_text() + "no-such-option yes\n")
    try:
        with pytest.raises(Refused, match="no-such-option"):
            await openvpn.running("1")
    finally:
        template.write_text(TEMPLATE.read_text())
    assert openvpn.folders.of("a").process() is None


async def test_a_config_is_tested_with_nothing_of_the_agents_own_environment(
    openvpn: OpenVpnLab,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TMPDIR", "/of-this-agent-alone")
    assert await openvpn.running("1") == "a"


@pytest.mark.sweep
async def test_a_running_instance_keeps_its_management_socket_while_its_config_is_tested(
    openvpn: OpenVpnLab,  # noqa: F811
) -> None:
    slot = await serving(openvpn, "1")
    chroot = openvpn.folders.of(slot).chroot
    await openvpn.folders.daemon.check(chroot)
    assert await openvpn.folders.daemon.count(chroot) == 0


async def test_logins_and_a_stranger_are_told_by_the_log(openvpn: OpenVpnLab, tmp_path: Path) -> None:  # noqa: F811
    slot = await serving(openvpn, "1")
    await openvpn.client(1).up()
    openvpn.forge("user2")
    stranger = openvpn.client(2)
    log, ended = openvpn.folders.of(slot).log, list[Attempt]()
    found = list[tuple[str, LoginOutcome]]()

    def are_told() -> bool:
        nonlocal ended, found
        reader = LoginLog()
        lines = log.read_text(errors="replace").splitlines()
        ended = [one for line in lines for one in reader.read(line, 0.0)]
        found = [(one.key, one.outcome) for one in ended]
        return len(found) > 1

    await until(are_told)
    assert ended[0].seconds is not None
    assert stranger.said("Initialization Sequence Completed") == 0
    assert found[:2] == [("user user1", LoginOutcome.OK), ("source 10.77.0.12", LoginOutcome.AUTH_FAIL)]
    names = openvpn.folders.daemon.names_in(log.read_text(errors="replace"))
    assert "user1" in names


async def test_a_user_who_reconnects_before_openvpn_notices_the_broken_session_has_logged_in(
    openvpn: OpenVpnLab,  # noqa: F811
) -> None:
    """OpenVPN drops the previous session, and writes the new one's address without a prefix."""
    slot = await serving(openvpn, "1")
    broken = await openvpn.client(1).up()
    broken.process.kill()
    await asyncio.to_thread(broken.process.wait, PATIENCE)
    [before] = (await openvpn.folders.live())[slot] or ()
    await openvpn.client(1).up()
    [after] = (await openvpn.folders.live())[slot] or ()
    lines = openvpn.folders.of(slot).log.read_text(errors="replace").splitlines()
    assert any("will cause previous active sessions" in line for line in lines)
    reader = LoginLog()
    found = [one for line in lines for one in reader.read(line, 0.0)]
    found += reader.give_up(1000.0)
    assert [(one.key, one.outcome) for one in found] == [("user user1", LoginOutcome.OK)] * 2
    held = {one.source: one.ended for one in held_in(slot, lines)}
    assert before.source != after.source
    assert [source for source, ended in held.items() if ended is None] == [after.source]
    assert held.keys() == {before.source, after.source}


async def test_a_login_that_is_given_an_address_outside_of_the_pool_is_a_failed_one(
    openvpn: OpenVpnLab,  # noqa: F811
) -> None:
    """Reader of the third round, 2: by a script or plugin, too, which no build reads; here by a file."""
    folder = openvpn.admission.tree / "etc/openvpn/ccd"
    folder.mkdir(parents=True)
    (folder / "user3").write_text("ifconfig-push 10.8.0.50 255.255.255.0\n")
    openvpn.admission.template.write_text(f"{TEMPLATE.read_text()}client-config-dir /etc/openvpn/ccd\n")
    try:
        slot = await serving(openvpn, "outside")
        for number in (1, 3):
            await openvpn.client(number).up()
        log = openvpn.folders.of(slot).log.read_text(errors="replace")
    finally:
        openvpn.admission.template.write_text(TEMPLATE.read_text())
        shutil.rmtree(openvpn.admission.tree / "etc/openvpn")
    reader = LoginLog()
    found = [(one.key, one.outcome) for line in log.splitlines() for one in reader.read(line, 0.0)]
    assert found == [("user user1", LoginOutcome.OK), ("user user3", LoginOutcome.INTERNAL)]


async def rebound(lab: OpenVpnLab, number: int, *, to: str, port: str) -> None:
    """Have a NAT give that site's packets another source, as one does after a pause."""
    site = ["ip", "netns", "exec", f"{lab.prefix}c{number}"]
    rules = (
        "add table ip nat\nflush table ip nat\n"
        "add chain ip nat post { type nat hook postrouting priority srcnat; }\n"
        f"add rule ip nat post oifname eth0 ip protocol udp snat to {to}:{port}\n"
    )
    await run([*site, "ip", "address", "replace", f"{to}/24", "dev", "eth0"])
    assert (await run([*site, "nft", "-f", "-"], given=rules)).status == 0
    await run([*site, "conntrack", "-F"])


@pytest.mark.sweep
@pytest.mark.parametrize(
    ("to", "port"),
    [("10.77.0.16", "40000-40100"), ("10.77.0.26", "40000-40100")],
    ids=["another port", "another address"],
)
async def test_a_client_that_is_rebound_behind_its_nat_while_its_instance_drains_keeps_its_session(
    openvpn: OpenVpnLab,  # noqa: F811
    to: str,
    port: str,
) -> None:
    old = await serving(openvpn, "1")
    client = await openvpn.client(6).up()
    [before] = (await openvpn.folders.live())[old] or ()
    new = await serving(openvpn, "2")
    await openvpn.client(1).up()
    assert await openvpn.home_of(1) == new
    client.ping(old)
    await asyncio.sleep(1)
    await rebound(openvpn, 6, to=to, port=port)
    await asyncio.sleep(6)
    [after] = (await openvpn.folders.live())[old] or ()
    sent, lost = client.lost()
    print(f"rebound to {to}: {lost} of {sent} pings lost, gap {client.gap():.2f} s")
    assert after.source is not None
    assert str(after.source[0]) == to
    assert 40000 <= after.source[1] <= 40100
    assert (after.id, after.vpn_address) == (before.id, before.vpn_address)
    assert client.said("Initialization Sequence Completed") == 1
    assert client.gap() < 5
    await openvpn.table.refresh()
    assert (await openvpn.table.read()).pinned == 1


@pytest.mark.sweep
async def test_after_a_drain_nobody_is_looked_for_by_number_any_more(openvpn: OpenVpnLab) -> None:  # noqa: F811
    old = await serving(openvpn, "1")
    client = await openvpn.client(6).up()
    new = await serving(openvpn, "2")
    await openvpn.client(1).up()
    numbers = await run(["nft", "-j", "list", "map", "inet", "penstock", "peer_id"])
    assert [port for _, port in elements(numbers.out)] == [openvpn.folders.of(old).slot.port]
    await client.leave()

    async def has_left() -> bool:
        return await openvpn.sessions.count(old) == 0

    await until(has_left)
    await openvpn.table.refresh()
    numbers = await run(["nft", "-j", "list", "map", "inet", "penstock", "peer_id"])
    assert elements(numbers.out) == []
    await rebound(openvpn, 1, to="10.77.0.31", port="40000-40100")
    await asyncio.sleep(1)
    person = openvpn.people[-1]
    person.ping(new)
    await asyncio.sleep(2)
    sent, lost = person.lost()
    assert sent > 20
    assert lost == 0
    [session] = (await openvpn.folders.live())[new] or ()
    assert session.remote_address == "10.77.0.31"


def elements(listing: str) -> list[tuple[int, int]]:
    found = next(one["map"] for one in json.loads(listing)["nftables"] if "map" in one)
    return [(number, port) for number, port in found.get("elem", [])]
