"""The probe: a real login that says where it failed and leaves nothing behind."""

import asyncio
import os
import queue
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from activities.drivers.daemon import client as probing_client
from activities.drivers.daemon.login import ProbeLogin
from activities.drivers.daemon.ocserv import probe as ocserv_probe
from activities.drivers.daemon.ocserv.daemon import Ocserv
from activities.drivers.programs import run
from activities.drivers.runtime.host.chroot import Chroot
from deploy.lab.namespaces import inside
from policies.drains import mode_of
from policies.exposure import exposure, findings_of
from policies.model.drain import DrainMode
from policies.model.errors import Unavailable
from policies.model.release_tests import Asked, Method, Outcome, ReleaseTests
from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, built_lab, lab  # noqa: F401 - fixtures
from tests.drivers.gateway_lab import GatewayLab
from tests.drivers.halted import halt
from tests.fakes.authority import EnterpriseCa
from tests.patience import until
from tests.sampled import sampled

pytestmark = ON_A_REAL_GATEWAY


async def chroot_of_running(lab: GatewayLab) -> tuple[Chroot, ProbeLogin]:  # noqa: F811
    slot = await lab.running("1")
    login = ProbeLogin(user="probe", password=lab.folder / "probe", authority=lab.folder / "ca.pem")
    return lab.folders.of(slot).chroot, login


def cables() -> list[str]:
    said = subprocess.run(
        ["ip", "-brief", "link", "show", "type", "veth"], capture_output=True, text=True, check=True
    )
    return [line.split("@")[0] for line in said.stdout.splitlines() if line.startswith("probe")]


def routes() -> str:
    return subprocess.run(["ip", "route"], capture_output=True, text=True, check=True).stdout


async def counted(lab: GatewayLab, chroot: Chroot, sessions: int) -> None:  # noqa: F811
    """Wait until so many are logged in."""

    async def are() -> bool:
        return await lab.sessions.count(chroot.slot.name) == sessions

    await until(are)


@pytest.mark.parametrize("before", ["exec sleep 60", "echo ready; exec sleep 60"])
async def test_a_probe_that_gets_no_network_says_nothing_about_the_release(
    lab: GatewayLab,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    before: str,
) -> None:
    chroot, login = await chroot_of_running(lab)
    monkeypatch.setattr(probing_client, "NETWORK", before)
    monkeypatch.setattr(probing_client, "WITHIN", timedelta(seconds=1))
    with pytest.raises(Unavailable, match="no network of its own"):
        await Ocserv(login).probe(chroot)
    await until(lambda: cables() == [], found=cables)


async def test_a_good_instance_passes_every_stage_and_nothing_is_left(lab: GatewayLab) -> None:  # noqa: F811
    chroot, login = await chroot_of_running(lab)
    before = routes()
    found = await Ocserv(login).probe(chroot)
    assert (found.passed, found.stage, found.pings_sent, found.pings_lost) == (True, "ping", 5, 0), (
        found.reason
    )
    assert found.connect_seconds is not None
    assert 0 < found.connect_seconds < probing_client.WITHIN.total_seconds()
    assert cables() == []
    assert routes() == before
    await counted(lab, chroot, 0)


async def test_a_closed_port_fails_at_tcp(lab: GatewayLab) -> None:  # noqa: F811
    chroot, login = await chroot_of_running(lab)
    elsewhere = replace(chroot, slot=chroot.slot.model_copy(update={"port": 9}))
    found = await Ocserv(login).probe(elsewhere)
    assert (found.passed, found.stage) == (False, "tcp"), found.reason


async def test_a_certificate_with_another_name_is_named_with_the_key_that_helps(lab: GatewayLab) -> None:  # noqa: F811
    """newcomer 3: the sentence was openconnect's last one, `Failed to complete authentication`."""
    chroot, login = await chroot_of_running(lab)
    found = await Ocserv(replace(login, name="somebody.example")).probe(chroot)
    assert (found.passed, found.stage) == (False, "tls"), found.reason
    assert "certificate does not match hostname; name the certificate's name as probe.name" in found.reason


async def test_an_authority_that_did_not_sign_is_named_with_the_key_that_helps(
    lab: GatewayLab,  # noqa: F811
    tmp_path: Path,
) -> None:
    """newcomer 3: a CA that misses."""
    chroot, login = await chroot_of_running(lab)
    found = await Ocserv(replace(login, authority=EnterpriseCa(tmp_path).roots)).probe(chroot)
    assert (found.passed, found.stage) == (False, "tls"), found.reason
    assert "probe.authority in the agent's file" in found.reason


async def test_a_certificate_of_somebody_else_fails_at_tls(lab: GatewayLab) -> None:  # noqa: F811
    chroot, login = await chroot_of_running(lab)
    found = await Ocserv(replace(login, authority=Path("/etc/ssl/certs/ca-certificates.crt"))).probe(chroot)
    assert (found.passed, found.stage) == (False, "tls"), found.reason


async def test_a_wrong_password_fails_at_auth(lab: GatewayLab) -> None:  # noqa: F811
    chroot, login = await chroot_of_running(lab)
    (lab.root / "wrong").write_text("wrong\n")
    found = await Ocserv(replace(login, password=lab.root / "wrong")).probe(chroot)
    assert (found.passed, found.stage) == (False, "auth"), found.reason
    assert "wrong\n" not in found.reason


@pytest.mark.sweep
async def test_a_target_nobody_answers_for_fails_at_ping(lab: GatewayLab) -> None:  # noqa: F811
    chroot, login = await chroot_of_running(lab)
    found = await Ocserv(replace(login, target="10.99.0.77")).probe(chroot)
    assert (found.passed, found.stage, found.pings_lost) == (False, "ping", found.pings_sent), found.reason


async def test_a_probe_without_a_login_says_so(lab: GatewayLab) -> None:  # noqa: F811
    chroot, _ = await chroot_of_running(lab)
    found = await Ocserv().probe(chroot)
    assert (found.passed, found.stage) == (False, "auth")


async def test_release_tests_without_a_login_say_so_and_not_that_the_agent_is_of_before(
    lab: GatewayLab,  # noqa: F811
) -> None:
    chroot, _ = await chroot_of_running(lab)
    skipped = ReleaseTests(skip=(Asked.FILES, Asked.CONFIG))  # what needs no daemon is the host's to measure
    found = exposure(findings_of(skipped, await Ocserv().inspect(chroot), Method.TRIED))
    assert found.outcome is Outcome.UNKNOWN
    assert "was given no probe login; add one to its credentials" in found.sentence
    assert "upgrade it" not in found.sentence


@pytest.mark.sweep
@pytest.mark.parametrize("first", [b"G", b"H", b"\r", b"\n"])
async def test_garbage_is_measured_whatever_it_is_made_of(
    lab: GatewayLab,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    first: bytes,
) -> None:
    chroot, login = await chroot_of_running(lab)
    monkeypatch.setattr(secrets, "token_bytes", lambda size: first + b"\xf3" * (size - 1))
    garbage = next(one for one in await Ocserv(login).inspect(chroot) if one.test == Asked.GARBAGE)
    assert garbage.measured == 0, garbage.said


def answer_late(site: str, seconds: float, leave_out: int = 0) -> socket.socket:
    """Answer pings of the site so late, all but this one, in their order; it ends with its socket.

    One thread answers them all: of a thread for each, a busy host lets a later one speak first, and ping(8)
    leaves without the answer that was overtaken.
    """
    with inside(site):
        Path("/proc/sys/net/ipv4/icmp_echo_ignore_all").write_text("1")
        here = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)

    asked = queue.SimpleQueue[tuple[float, bytes, tuple[str, int]] | None]()

    def answer() -> None:
        while (one := asked.get()) is not None:
            due, icmp, peer = one
            time.sleep(max(0.0, due - time.monotonic()))
            checksum = (int.from_bytes(icmp[2:4], "big") + 0x0800) % 0xFFFF  # 8 became 0 (RFC 1624)
            with suppress(OSError):
                here.sendto(b"\0\0" + checksum.to_bytes(2, "big") + icmp[4:], peer)

    def serve() -> None:
        with suppress(OSError):
            while packet := here.recv(4096):
                icmp, peer = packet[20:], (socket.inet_ntoa(packet[12:16]), 0)
                if icmp[0] == 8 and int.from_bytes(icmp[6:8], "big") != leave_out:
                    asked.put((time.monotonic() + seconds, icmp, peer))
        asked.put(None)

    for work in (serve, answer):
        threading.Thread(target=work, daemon=True).start()
    return here


@pytest.mark.sweep
@pytest.mark.parametrize(("left_out", "lost"), sampled([(0, 0.0), (4, 1 / 11)], 4))
async def test_a_far_target_loses_the_pings_that_it_loses_and_none_that_are_under_way(
    lab: GatewayLab,  # noqa: F811
    left_out: int,
    lost: float,
) -> None:
    chroot, login = await chroot_of_running(lab)
    site = lab.lead_to(6, "10.99.0.77")
    late = answer_late(site, 0.3, left_out)
    try:
        found = await Ocserv(replace(login, target="10.99.0.77")).probe(chroot)
        measured = await Ocserv(replace(login, target="10.99.0.77")).inspect(chroot)
    finally:
        with suppress(OSError):
            late.shutdown(socket.SHUT_RDWR)
        late.close()
    pings = next(one for one in measured if one.test == Asked.PINGS_LOST)
    assert pings.measured == pytest.approx(lost), pings.said
    assert (found.passed, found.pings_lost) == (True, 1 if left_out else 0), found.reason


async def test_two_probes_do_not_disturb_each_other(lab: GatewayLab) -> None:  # noqa: F811
    chroot, login = await chroot_of_running(lab)
    both = await asyncio.gather(*(Ocserv(login).probe(chroot) for _ in range(2)))
    assert [found.passed for found in both] == [True, True], both


async def test_a_probe_killed_in_its_tunnel_keeps_no_drain_waiting(
    lab: GatewayLab,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chroot, login = await chroot_of_running(lab)
    monkeypatch.setattr(ocserv_probe, "CLIENT", ocserv_probe.CLIENT.replace("-w 3 ", "-w 60 "))
    monkeypatch.setattr(probing_client, "WITHIN", timedelta(seconds=60))
    probing = asyncio.create_task(Ocserv(replace(login, pings=600)).probe(chroot))
    await counted(lab, chroot, 1)
    assert probing.cancel(), "it was over before it was killed"
    with pytest.raises(asyncio.CancelledError):
        await probing
    await counted(lab, chroot, 0)
    broken = await Ocserv().sessions(chroot)
    assert broken is not None
    # Whoever else it were would be waited for.
    assert [session.connected for session in broken] == [False]
    assert await Ocserv(login).sessions(chroot) == ()


@pytest.mark.sweep
async def test_a_probe_killed_in_the_middle_leaves_nothing(lab: GatewayLab) -> None:  # noqa: F811
    await chroot_of_running(lab)
    [daemon] = lab.daemons()
    await halt(daemon)  # so no login comes to its end before it is killed
    try:
        before = set(inhabitants(lab))
        agent = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.drivers.dying_agent", lab.folder, lab.tag, "probe", "1"
        )
        await until(lambda: openconnects(lab) != [] or agent.returncode is not None)
        assert (len(cables()), len(openconnects(lab)), agent.returncode) == (1, 1, None)
        agent.kill()
        assert await agent.wait() == -signal.SIGKILL
    finally:
        os.kill(daemon, signal.SIGCONT)
    await until(lambda: cables() == [], found=cables)
    assert set(inhabitants(lab)) <= before | {agent.pid}
    assert openconnects(lab) == []


def inhabitants(lab: GatewayLab) -> list[str]:  # noqa: F811
    """Return the programs that live in the gateway's namespace, this one left out."""
    said = subprocess.run(["ip", "netns", "pids", lab.namespace], capture_output=True, text=True, check=True)
    names = []
    for pid in said.stdout.split():
        comm = Path(f"/proc/{pid}/comm")
        if comm.exists() and int(pid) != os.getpid():
            names.append(comm.read_text().strip())
    return [name for name in names if not name.startswith("ocserv-worker")]


def openconnects(lab: GatewayLab) -> list[str]:  # noqa: F811
    """Return the command lines of the lab's probe clients still alive; other labs probe meanwhile."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if line.startswith("openconnect") and "--user=probe" in line and f"{lab.folder}/" in line:
                found.append(line)
    return found


@pytest.fixture(autouse=True)
def _no_cable_from_before() -> None:
    assert cables() == []


@pytest.mark.sweep
async def test_broken_tunnels_are_told_from_refused_logins(lab: GatewayLab) -> None:  # noqa: F811
    """Only the first kind of instance has its sessions ended at once after a rollback."""
    chroot, login = await chroot_of_running(lab)
    good = await Ocserv(login).probe(chroot)
    lab.folder.joinpath("wrong").write_text("wrong\n")
    refused = await Ocserv(replace(login, password=lab.folder / "wrong")).probe(chroot)
    rule = f'type filter hook input priority 0; iifname "{chroot.slot.device}*" drop;'
    drop = f"table inet psd {{ chain f {{ {rule} }}; }}"
    assert (await run(["nft", drop])).status == 0
    broken = await Ocserv(login).probe(chroot)
    await run(["nft", "delete", "table", "inet", "psd"])
    assert (good.passed, refused.stage, broken.stage) == (True, "auth", "ping")
    assert mode_of(None, refused, good, (), "198.18.1.1:9500")[0] is DrainMode.WAIT
    assert mode_of(None, broken, good, (), "198.18.1.1:9500")[0] is DrainMode.END
    assert mode_of(None, broken, broken, (), "198.18.1.1:9500")[0] is DrainMode.WAIT
