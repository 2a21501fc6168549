"""An OpenVPN that serves already, started as its distribution's unit does: adopted with its users, or not."""

import asyncio
import re
import subprocess
import time
from datetime import timedelta
from pathlib import Path

import pytest

from activities.drivers.daemon.openvpn import daemon as driver
from activities.drivers.daemon.unread import Unreadable
from activities.drivers.programs import run
from activities.drivers.runtime.host.process import digest_of_file
from orchestrator.processes.exporter import Host
from policies.model.adoption import ADOPTED
from policies.model.errors import Refused
from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, built_openvpn, openvpn  # noqa: F401 - fixtures
from tests.drivers.gateway_lab import operation
from tests.drivers.openvpn_lab import OpenVpnLab, why_not_here
from tests.patience import PATIENCE, until
from tests.sampled import sampled

pytestmark = [
    *ON_A_REAL_GATEWAY,
    pytest.mark.skipif(why_not_here() is not None, reason=why_not_here() or ""),
]
PROGRAM = Path("/usr/sbin/openvpn")
POOL = 9
"""The number of its own pool among those of the lab."""
CONFIG = """\
port 443
proto udp
dev tun
topology subnet
server 10.90.9.0 255.255.255.0
ca {folder}/ca.pem
cert {folder}/gw.pem
key {folder}/gw.key
dh none
keepalive 10 60
explicit-exit-notify 1
persist-key
persist-tun
user nobody
group nogroup
multihome
verb 3
"""
UNIX, TCP = "management {own}/management.sock unix\n", "management 127.0.0.1 7505\n"


class Unprepared:
    """One that nobody prepared, on the users' own port of a scratch gateway."""

    def __init__(
        self, lab: OpenVpnLab, more: str = UNIX, *arguments: str, folder: str = "unprepared"
    ) -> None:
        self.folder = lab.root / folder
        self.folder.mkdir(mode=0o755, exist_ok=True)
        said = (CONFIG + more).format(folder=lab.folder, own=self.folder)
        (self.folder / "server.conf").write_text(said)
        # As the unit openvpn-server@server has it, in whose folder it is.
        command = ["--status", "status.log", "--status-version", "2", "--suppress-timestamps"]
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [PROGRAM, *command, "--config", "server.conf", *arguments],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        while "Initialization Sequence Completed" not in (words := (self.folder / "log").read_text()):
            assert self.process.poll() is None, words
            time.sleep(0.05)


async def before_us(lab: OpenVpnLab) -> None:
    """Have the host as it was before an agent ever ran there: without a table that translates."""
    await run(["nft", "flush", "ruleset"])
    assert (await run(["conntrack", "-F"])).status == 0
    del lab


async def test_its_users_stay_while_it_is_adopted_upgraded_from_and_gone_back_to(openvpn: OpenVpnLab) -> None:  # noqa: F811
    await before_us(openvpn)
    daemon = Unprepared(openvpn)
    people = [await openvpn.client(number).up() for number in (1, 2)]
    for person in people:
        person.ping(host=POOL)
    await openvpn.table.prime()
    found = await openvpn.adoption.examine()
    assert (found.obstacles, found.pid, found.sessions) == ((), daemon.process.pid, 2)
    assert found.release is not None
    assert re.fullmatch(r"2\.\d+\.\d+\+adopted", found.release.version)
    assert found.release.executable == digest_of_file(PROGRAM)
    assert [str(pool) for pool in found.pools] == ["10.90.9.0/24"]
    done = await openvpn.adoption.adopt(operation("adopt"), ())
    assert (done.sessions, done.changed) == (2, True)
    assert (await openvpn.slots.probe(ADOPTED)).passed
    new = await openvpn.running("1")
    await openvpn.table.start_trial(operation("trial"), new, timedelta(seconds=30))
    await openvpn.table.make_permanent(operation("keep"), new)
    await openvpn.client(3).up()
    assert [await openvpn.home_of(number) for number in (1, 2, 3)] == [ADOPTED, ADOPTED, new]
    back = await openvpn.slots.restore(operation("back", rollout="r-2", epoch=2), done.release)
    assert (back.slot, back.back) == (ADOPTED, True)
    await openvpn.client(4).up()
    assert await openvpn.home_of(4) == ADOPTED
    await asyncio.sleep(1)
    counts = [person.lost() for person in people]
    print(f"adopted, upgraded and gone back to: pings sent and lost are {counts}")
    assert [lost for _, lost in counts] == [0, 0]
    assert min(sent for sent, _ in counts) > 20
    assert daemon.process.poll() is None


@pytest.mark.sweep
@pytest.mark.parametrize("more", sampled([UNIX, TCP], UNIX), ids=["socket", "port"])
async def test_its_users_come_back_at_the_new_instance_when_its_drain_ends(
    openvpn: OpenVpnLab,  # noqa: F811
    more: str,
) -> None:
    daemon = Unprepared(openvpn, more)
    person = await openvpn.client(1).up()
    await openvpn.adoption.adopt(operation("adopt"), ())
    new = await openvpn.running("1")
    await openvpn.table.make_permanent(operation("keep"), new)
    with pytest.raises(Refused, match="still has 1 sessions"):
        await openvpn.slots.stop(operation("stop"), ADOPTED)
    assert await openvpn.sessions.end(operation("end"), ADOPTED, 9) == 1
    await person.until("Initialization Sequence Completed", times=2)

    async def has_left() -> bool:
        return await openvpn.sessions.count(ADOPTED) == 0

    await until(has_left)
    assert await openvpn.home_of(1) == new
    await openvpn.slots.stop(operation("stop"), ADOPTED)
    assert daemon.process.wait(PATIENCE) is not None


@pytest.mark.sweep
async def test_one_that_cannot_be_asked_is_refused_with_the_line_that_lets_it_be(openvpn: OpenVpnLab) -> None:  # noqa: F811
    daemon = Unprepared(openvpn, "")
    await openvpn.client(1).up()
    found = await openvpn.adoption.examine()
    assert f"the sessions of process {daemon.process.pid} on gw-1 cannot be counted" in found.obstacles[0]
    assert "server.conf say management /run/openvpn-server/management.sock unix" in found.obstacles[0]
    with pytest.raises(Refused, match="cannot be counted"):
        await openvpn.adoption.adopt(operation("adopt"), ())
    assert (openvpn.folders.adopted, daemon.process.poll()) == (None, None)


async def test_one_that_answers_in_another_form_is_refused_with_what_is_not_read(
    openvpn: OpenVpnLab,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def later(_: object) -> None:
        raise Unreadable("Real Address")

    monkeypatch.setattr(driver, "clients_in", later)
    daemon = Unprepared(openvpn)
    found = await openvpn.adoption.examine()
    assert found.obstacles[0] == (
        f"the sessions of process {daemon.process.pid} on gw-1 cannot be counted: OpenVPN answers in a form "
        "that penstock does not read (Real Address); update penstock to a version that reads the answer"
    )


async def test_a_release_that_sends_users_to_the_daemons_own_address_is_refused_unless_it_is_known_good(
    openvpn: OpenVpnLab,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Reader of real inputs 1: the address ended with the old daemon, and with it every user's DNS."""
    Unprepared(openvpn)
    await openvpn.adoption.adopt(operation("adopt"), ())
    template = openvpn.admission.template
    text = template.read_text()
    template.write_text(f'{text}push "dhcp-option DNS 10.90.{POOL}.1"\n')
    pool = f"10.90.{POOL}.0/24 of the daemon that was adopted"
    wrong = f"push dhcp-option DNS 10.90.{POOL}.1 is in the pool {pool}"
    with pytest.raises(Refused, match=re.escape(wrong)):
        await openvpn.running("1")
    template.write_text(f'{text}push "dhcp-option DNS $own4"\n')
    slot = openvpn.folders.of(await openvpn.running("2"))
    assert f"DNS {slot.slot.pool4[1]}" in (slot.path / "conf" / "openvpn.conf").read_text()
    monkeypatch.setattr(openvpn.admission, "known_good", lambda: (openvpn.admission.release("1").digest,))
    assert openvpn.folders.of(await openvpn.running("1")).process() is not None


async def test_of_two_of_one_port_by_udp_and_tcp_it_is_said_that_a_gateway_has_one_transport(
    openvpn: OpenVpnLab,  # noqa: F811
) -> None:
    by_udp = Unprepared(openvpn)
    other = ("--proto", "tcp-server", "--server", "10.90.8.0", "255.255.255.0")
    by_tcp = Unprepared(openvpn, TCP, *other, folder="by-tcp")
    [said] = (await openvpn.adoption.examine()).obstacles
    pids = sorted(daemon.process.pid for daemon in (by_udp, by_tcp))
    both = " and ".join(f"openvpn (process {pid})" for pid in pids)
    assert said.startswith(f"{both} listen on port 443 of gw-1, by UDP and by TCP, and a gateway has one")
    assert said.endswith("or leave it, on another port, unmanaged")


async def test_a_first_release_is_refused_beside_it_also_where_it_serves_by_udp(openvpn: OpenVpnLab) -> None:  # noqa: F811
    daemon = Unprepared(openvpn, "")
    release = openvpn.admission.release("1")
    await openvpn.slots.stage(operation("stage", digest=release.digest), release, "lab")
    with pytest.raises(Refused, match=rf"gw-1 serves already: openvpn \(process {daemon.process.pid}\)"):
        await openvpn.slots.start(operation("start", digest=release.digest), release)


async def test_one_that_runs_as_somebody_whom_its_configuration_does_not_name_is_refused(
    openvpn: OpenVpnLab,  # noqa: F811
) -> None:
    Unprepared(openvpn, UNIX, "--user", "daemon")
    found = await openvpn.adoption.examine()
    assert "which its configuration does not name: only root's daemons are adopted" in found.obstacles[0]
    assert found.sessions is None


async def test_a_program_of_its_host_is_left_behind_only_when_a_person_says_so(openvpn: OpenVpnLab) -> None:  # noqa: F811
    Unprepared(openvpn, f"{UNIX}script-security 2\nclient-connect /bin/true\n")
    with pytest.raises(Refused, match=r"take over: client-connect \(line \d+\)\. .*--without client-connect"):
        await openvpn.adoption.adopt(operation("adopt"), ())
    assert (await openvpn.adoption.adopt(operation("adopt"), ("client-connect",))).changed


async def test_the_exporter_counts_its_sessions(openvpn: OpenVpnLab) -> None:  # noqa: F811
    host = Host(openvpn.gateway.model_copy(update={"daemon": "openvpn"}), openvpn.root)
    Unprepared(openvpn)
    await openvpn.client(1).up()
    await openvpn.adoption.adopt(operation("adopt"), ())
    assert await host.folders.count(ADOPTED) == 1
    assert (await host.answer(ADOPTED)).answers
