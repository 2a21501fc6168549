"""docs/install.md typed on booted hosts: a control host, three gateways that serve, and their users."""

import contextlib
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from deploy.lab import credentials, packages
from deploy.lab.daemons.ocserv import LabOcserv
from deploy.lab.pings import ANSWER_WITHIN
from deploy.lab.topology import Host as Place
from deploy.lab.traffic import Logins, Settings, Users
from tests.hosts import ocserv
from tests.hosts.host import Ended, Host
from tests.hosts.install_document import CONTROL, Step, steps
from tests.hosts.packages import AGENT, ORCHESTRATOR, made
from tests.lab.network import network
from tests.lab.own_state import SHARED
from tests.patience import PATIENCE, wait_until

GATEWAYS = 3
USERS = 20
"""Of each gateway: the first is idle, the last dials IPv6."""
WITHIN = 500.0
"""Seconds that a command may take."""
FINGERPRINT = re.compile(r"^fpr:+(\w+):", re.MULTILINE)
DIGEST = re.compile(r"^sha256:\w{64}$", re.MULTILINE)
PACKAGED_GATES = "/usr/share/doc/penstock/deploy/prometheus/gates.yaml"
SHORT_WINDOW = "window: {minimum: 20s, nominal: 2m, extension: 1m, cap: 8m}"
LOGINS_A_SECOND = 5.0
"""On each gateway: so many prove production's limits in 90 s, as `penstock judge lint` predicts."""
SHORTER = {
    "scrape: 15s": "scrape: 1s",
    "fresh_within: 45s": "fresh_within: 5s",
    "baseline: 1h": "baseline: 2m",
    "window: {minimum: 10m, nominal: 20m, extension: 10m, cap: 60m}": SHORT_WINDOW,
    "over: 5m": "over: 20s",
}
"""Scrapes and watched time; `held` and `blindness` stay production's, and so does every limit."""
_COPIED = ("/etc/penstock/trust.yaml", "/etc/penstock/releases.asc")
"""Files that the document has people copy from the control host to each gateway's."""
_OWN_BOOT = "[Service]\nProtectKernelTunables=no\nProtectControlGroups=no\n"
"""Both give a unit a /proc of its own, where a container's boot is this machine's: no reboot is seen."""
_POOL = re.compile(r"10\.80\.(\d+)\.0")
_POOLS_OF_ONE = 32


@dataclass
class Installation:
    """The hosts, their users, and what was printed on the control host so far."""

    control: Host
    gateways: list[Host]
    users: Users
    logins: Logins
    printed: dict[str, str] = field(default_factory=dict)
    template: str = ""
    """In place of the document's one."""
    without: tuple[str, ...] = ()
    """Keys of the adopted daemons' own configuration that may stay behind."""

    def type(self, host: Host, command: str, *, wanted: str = "", token: str = "") -> Ended:
        """Type a command as root, again until it says what is wanted, and return how it ended."""
        print(f"{host.name}# {command}", flush=True)
        deadline = time.monotonic() + PATIENCE
        while True:
            line = ["sh", "-c", f"cd /root && {command}"]
            ended = host.run(*line, stdin=token, within=WITHIN, may_fail=True)
            if wanted in ended.out or time.monotonic() > deadline:
                break
            time.sleep(1)
        print(ended.out, ended.err, flush=True)
        assert wanted in ended.out, (command, wanted, ended)
        return ended

    def penstock(self, words: str, *, wanted: str = "", codes: Sequence[int] = (0,)) -> str:
        """Type a command of penstock on the control host; return what it printed."""
        ended = self.type(self.control, f"penstock {words}", wanted=wanted)
        assert ended.code in codes, (words, ended)
        return ended.out

    def follow(self, found: Sequence[Step], says: dict[str, str], number: int = 1) -> None:
        """Do these steps, those on a gateway's host on the one of this number."""
        gateway = self.gateways[number - 1]
        for step in found:
            host = self.control if step.host == CONTROL else gateway
            if step.file:
                self._write(host, step, number)
                continue
            command = self._meant(step.command, number)
            token = self.printed.pop(f"token {number}", "") if "agent enrol" in command else ""
            wanted = says.get(command, says.get(step.command, ""))
            ended = self.type(host, command, wanted=wanted, token=token)
            assert ended.code in step.codes, (step, ended)
            self._note(command, ended.out, number)

    def copy_trust(self) -> None:
        """Copy what says whose releases count from the control host to every gateway's."""
        for path in _COPIED:
            if (there := self.control.disk / path.lstrip("/")).exists():
                for host in self.gateways:
                    host.put(path, there.read_bytes())

    def copy_exporters(self) -> None:
        """Copy the exporters' certificates to Prometheus' host, and the first one's token to everywhere."""
        token = (self.gateways[0].disk / "etc/penstock/exporter.token").read_bytes()
        pems = [(host.disk / "etc/penstock/exporter.pem").read_bytes() for host in self.gateways]
        self.control.put("/etc/prometheus/penstock-exporters.pem", b"".join(pems))
        self.control.put("/etc/prometheus/penstock-exporters.token", token, 0o600)

    def share_token(self) -> None:
        """Copy the first exporter's token to the other gateways."""
        token = (self.gateways[0].disk / "etc/penstock/exporter.token").read_bytes()
        for host in self.gateways[1:]:
            host.put("/etc/penstock/exporter.token", token, 0o600)

    def at_each(self, work: Callable[[int], None], numbers: Sequence[int] = (1, 2, 3)) -> None:
        """Do something at several gateways at the same time."""
        with ThreadPoolExecutor(len(numbers)) as people:
            list(people.map(work, numbers))

    def changes(self) -> list[dict[str, Any]]:
        """Return the fleet's history as `penstock history` has it, the newest change first."""
        told: list[dict[str, Any]] = json.loads(self.penstock("history edge --output json"))["data"]
        return told

    def slots(self) -> dict[str, dict[str, list[str]]]:
        """Return what `penstock sessions` says of each gateway's slots: state, new sessions, count."""
        rows = [line.split() for line in self.penstock("sessions edge").splitlines()[1:]]
        told: dict[str, dict[str, list[str]]] = {}
        for row in rows:
            told.setdefault(row[0], {})[row[1]] = row[2:]
        return told

    def taking(self) -> dict[str, str]:
        """Return the slot of each gateway that gets its new sessions."""
        slots = self.slots().items()
        return {name: slot for name, some in slots for slot, row in some.items() if row[1] == "yes"}

    def pings(self) -> int:
        """How many pings the users have sent."""
        sent: int = self.users.view()["totals"]["pings"]["sent"]
        return sent

    def lost(self, *hosts: Host) -> tuple[int, int]:
        """How many sessions and pings the users of these hosts, or of all, have lost so far."""
        time.sleep(ANSWER_WITHIN + 1)
        names = {host.place.name for host in hosts or self.gateways}
        users: list[dict[str, Any]] = [one for one in self.users.view()["users"] if one["gateway"] in names]
        return sum(one["lost"] for one in users), sum(one["pings"]["lost"] for one in users)

    def _write(self, host: Host, step: Step, number: int) -> None:
        content = self._meant(step.content, number)
        if self.template and step.file.endswith(".conf.template"):
            content = self.template
        if step.file == "/etc/prometheus/prometheus.yml":
            content = content.replace("15s", "1s").replace("10s", "1s")
        host.put(step.file, content)

    def _meant(self, text: str, number: int) -> str:
        """Return what a person types at this gateway who has these addresses, and was told these digests."""
        if number > 1 and "gw-2" not in text:
            text = (
                text.replace("gw-1", f"gw-{number}")
                .replace(".11", f".1{number}")
                .replace("::11", f"::1{number}")
            )
            shift = _POOLS_OF_ONE * (number - 1)
            text = _POOL.sub(lambda found: f"10.80.{int(found[1]) + shift}.0", text)
        for nth, host in enumerate(self.gateways, 1):
            place = host.place
            for said, ours in (
                (f"192.0.2.1{nth}", place.address4),
                (f"2001:db8::1{nth}", place.address6),
                (f"10.0.0.1{nth}", place.management4),
            ):
                text = text.replace(said, ours)
        for said, printed in self.printed.items():
            text = text.replace(said, printed)
        # The hosts have no mirror: what apt would fetch by name lies in a folder.
        names = "$(for file in /root/next/*.deb; do echo --package $file; done)"
        text = re.sub(r"(--package [a-z]+ )+--suite trixie", names, text)
        if "fleet adopt" in text:
            text += "".join(f" --without {key}" for key in self.without)
        # The hosts' certificates have their addresses: the document has people leave the line out then.
        text = text.replace("  name: vpn.example\n", "")
        # Production's gates take twenty minutes and more for a wave: these are the same with shorter times.
        if PACKAGED_GATES in text:
            (self.control.disk / "root/gates.yaml").write_text(
                shortened((self.control.disk / PACKAGED_GATES.lstrip("/")).read_text())
            )
        return text.replace(PACKAGED_GATES, "/root/gates.yaml")

    def _note(self, command: str, printed: str, number: int) -> None:
        if "gateway enrol" in command:
            self.printed[f"token {number}"] = printed
        elif "--fingerprint" in command and (found := FINGERPRINT.search(printed)):
            self.printed |= {"0123456789ABCDEF0123456789ABCDEF01234567": found[1], "FINGERPRINT": found[1]}
        elif "release build" in command and (found := DIGEST.search(printed)):
            self.printed["sha256:MANIFEST"] = found[0]
        elif "release index" in command and (found := DIGEST.search(printed)):
            self.printed["sha256:INDEX"] = found[0]


@contextlib.contextmanager
def installation(
    prefix: str,
    image: Path,
    scratch: Path,
    *,
    set_up: Callable[[Host, credentials.Credentials, int], None] = ocserv.set_up,
    wanted: Sequence[str] = packages.DAEMON,
    more: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[Installation]:
    """Boot the hosts, with our packages at hand, nothing of them installed, and users on the gateways.

    Args:
        prefix: Of the network.
        image: What the hosts boot from.
        scratch: A folder for logs and credentials.
        set_up: Puts a gateway's own daemon on a host.
        wanted: The packages that a release is made of, with all they depend on.
        more: Of the settings of those who log in.
    """
    debs = made(ORCHESTRATOR), made(AGENT)
    with (
        network(prefix, gateways=GATEWAYS + 1, sites=GATEWAYS * USERS) as topology,
        contextlib.ExitStack() as opened,
    ):
        given = credentials.issue(topology, scratch / "credentials", LabOcserv(), people=20_000)
        *places, at_control = topology.gateways

        def new(place: Place, name: str, deb: Path) -> Host:
            host = opened.enter_context(Host(place, topology, image, scratch, name=name))
            shutil.copy(deb, host.disk / "root")
            host.put("/etc/apt/apt.conf.d/50yes", 'APT::Get::Assume-Yes "true";\n')
            host.put("/etc/hosts", f"127.0.0.1 localhost\n{at_control.address4} control.example\n")
            return host

        control = new(at_control, CONTROL, debs[0])
        for file in packages.fetch(SHARED, wanted):
            control.put(f"/root/next/{file.name}", file.read_bytes())
        gateways = [new(place, place.name, debs[1]) for place in places]
        for number, host in enumerate(gateways, 1):
            set_up(host, given, number)
            host.put("/etc/penstock/vpn-authority.pem", given.authority.read_bytes())
            for unit in (AGENT, "penstock-exporter"):
                host.put(f"/etc/systemd/system/{unit}.service.d/own-boot.conf", _OWN_BOOT)
        for host in (control, *gateways):
            host.power_on()
        for host in (control, *gateways):
            host.wait_until_booted()

        def crowd(name: str, **more: Any) -> Settings:
            return replace(Settings.of(topology, given, scratch / name, **more), gateways=GATEWAYS)

        users = Users(crowd("users", dial6=USERS, idle=USERS))
        logins = Logins(crowd("logins", **{"mistyped": 0.0, "per_second": LOGINS_A_SECOND, **more}))
        users.start()
        try:
            users.wait_until_up(120)
            logins.start()
            yield Installation(control, gateways, users, logins)
        finally:
            logins.process.stop()
            users.process.stop()


def shortened(gates: str) -> str:
    """Return the package's gates with shorter times, and every question, limit and proof as it ships."""
    for shipped, shorter in SHORTER.items():
        assert shipped in gates, f"{shipped} is not in the package's gates.yaml any more"
        gates = gates.replace(shipped, shorter)
    return gates


def parts() -> tuple[list[Step], list[Step], list[Step], list[Step], list[Step]]:
    """The document's steps: control host, one gateway to its adoption, its metrics, releases, the upgrade."""
    found = steps()
    cuts = [
        next(number for number, step in enumerate(found) if words in step.command)
        for words in ("./penstock-agent_", "openssl req", "--no-install-recommends prometheus", "plan edge")
    ]
    first, metrics, control, upgrade = cuts
    return (
        found[:first],
        found[first:metrics],
        found[metrics:control],
        found[control:upgrade],
        found[upgrade:],
    )


def on_trial(fleet: Installation, wave: int = 1) -> list[Host]:
    """Return a wave's hosts once their new instances have users, while they are watched."""
    change: dict[str, Any] = {}

    def watched() -> bool:
        nonlocal change
        said = fleet.penstock("status edge --output json", codes=(0, 6))
        change = json.loads(said)["data"]["change"]
        return (change["phase"], change["wave"]) == ("observing", wave)

    wait_until(watched)
    names = {one["gateway"] for one in change["gateways"] if one["state"] == "on trial"}
    return [host for host in fleet.gateways if host.name in names]
