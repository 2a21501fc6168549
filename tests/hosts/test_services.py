"""Worker, API and relay of the package, each by itself under systemd, beside an engine that is not theirs."""

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.engine import development
from tests.hosts.host import Ended, Host
from tests.hosts.install_document import CONTROL, steps
from tests.hosts.packages import ORCHESTRATOR, made
from tests.patience import wait_until

PORTS = {"worker": 9511, "api": 9512, "relay": 9513}
"""Where each says how it is, as the package's own file of settings proposes."""
SETTINGS = "/etc/default/penstock"
OWN = {name: f"/etc/default/penstock-{name}" for name in ("api", "relay")}
"""Files of settings of those that do not read the worker's."""
KEYS = {
    "worker": "/etc/penstock/payload.keys",
    "api": "/etc/penstock/api.payload.keys",
    "relay": "/etc/penstock/relay.payload.keys",
}
USERS = {"worker": "penstock", "api": "penstock-api", "relay": "penstock-relay"}
KEY = f"first:{secrets.token_hex(32)}\n"
FILES = ("/etc/penstock/fleet.yaml", "/etc/penstock/trust.yaml")
SET = "TEMPORAL_ADDRESS|PAYLOAD_KEYS|RELAY_ADDRESS|METRICS_ADDRESS"
ENGINE = ("127.0.0.1", 7233)
_ASK = """
import sys, urllib.error, urllib.request
try:
    answer = urllib.request.urlopen(sys.argv[1], timeout=5)
except urllib.error.HTTPError as refused:
    answer = refused
print(answer.status, answer.read().decode(), end="")
"""
pytestmark = [pytest.mark.lab, pytest.mark.sweep]


@dataclass(frozen=True)
class Service:
    """One of the units on the host."""

    host: Host
    name: str

    @property
    def unit(self) -> str:
        return f"penstock-{self.name}.service"

    def start(self) -> Ended:
        return self.host.run("systemctl", "start", self.unit, may_fail=True)

    def shown(self, name: str, of: str = "") -> str:
        """Return a property of this unit, or of another one."""
        return self.host.run(
            "systemctl", "show", "--value", f"--property={name}", of or self.unit
        ).out.strip()

    def said(self) -> list[str]:
        """Return what its process has said, not what systemd says of it."""
        asked = ("--no-pager", "--output=cat", "--identifier=penstock", f"--unit={self.unit}")
        return self.host.run("journalctl", *asked).out.splitlines()

    def answer(self, path: str) -> str:
        """Return status and text; nothing where nobody answers."""
        url = f"http://127.0.0.1:{PORTS[self.name]}{path}"
        return self.host.run("python3", "-c", _ASK, url, may_fail=True).out


@pytest.fixture(scope="module")
def control(booted: Host) -> Host:
    """The shared host with the package on it, set up for services that run singly; nothing of it runs."""
    deb = made(ORCHESTRATOR)
    booted.put(f"/root/{deb.name}", deb.read_bytes())
    booted.run("apt-get", "install", "--yes", f"/root/{deb.name}", within=200)
    for step in steps():
        if step.host == CONTROL and step.file in FILES:
            booted.put(step.file, step.content)
    booted.run("sed", "-i", "-E", f"/{SET}/s/^#//", SETTINGS, *OWN.values())
    # Each is alone here, so that no database is needed for it and others to share.
    for name, file in OWN.items():
        own = f"PENSTOCK_LEDGER_URL=sqlite:////var/lib/penstock-{name}/ledger.db"
        booted.run("sed", "-i", f"s|^PENSTOCK_LEDGER_URL=.*|{own}|", file)
    return booted


@pytest.fixture(params=PORTS)
def service(control: Host, request: pytest.FixtureRequest) -> Iterator[Service]:
    """One of them, which is off before and after the test; the others are off all the time."""
    one = Service(control, request.param)
    write_keys(control)
    yield one
    control.run("systemctl", "stop", one.unit)
    control.run("systemctl", "reset-failed", one.unit, may_fail=True)


def test_a_service_that_lacks_a_file_names_it_in_one_sentence_and_runs_once_it_is_there(
    service: Service, engine: None
) -> None:
    host, keys = service.host, KEYS[service.name]
    host.run("rm", keys)
    assert service.start().code
    told = {line for line in service.said() if keys in line}
    assert len(told) == 1, told
    assert told.pop().startswith(f"BadInput: the payload key file {keys} is not there: ")
    assert "Traceback" not in "\n".join(service.said())
    write_keys(host)
    host.wait_for(service.unit)


def test_a_service_alone_says_that_it_lacks_the_engine_is_ready_when_it_is_there_and_ends_when_told(
    service: Service,
) -> None:
    started, host = service.start(), service.host
    if service.name == "worker":
        assert started.code
        lacks = "Unavailable: the engine at 127.0.0.1:7233 does not answer: "
        assert [line for line in service.said() if line.startswith(lacks)]
    else:
        assert (started.code, service.shown("ActiveState")) == (0, "active")
        assert service.answer("/healthz") == "200 alive\n"
        wait_until(lambda: service.answer("/readyz").startswith("503 not ready: engine: "))
    with engine(host):
        pid = host.wait_for(service.unit)
        wait_until(lambda: service.answer("/readyz") == "200 ready\n")
        assert service.answer("/healthz") == "200 alive\n"
        assert service.shown("Type") == "notify"
        assert alone(service)
        if service.name == "api":
            assert "root" in host.run("penstock", "whoami").out
        host.run("systemctl", "stop", service.unit)
    ended = [service.shown(name) for name in ("ActiveState", "Result", "ExecMainStatus")]
    assert (ended, service.shown("MainPID")) == (["inactive", "success", "0"], "0")
    assert host.run("test", "-d", f"/proc/{pid}", may_fail=True).code
    assert "Traceback" not in "\n".join(service.said())


@pytest.mark.parametrize("name", PORTS)
def test_no_process_reads_a_key_or_enters_the_folder_of_another(control: Host, name: str) -> None:
    """S5: worker and API were one user."""
    write_keys(control)
    as_its_user = ("setpriv", f"--reuid={USERS[name]}", f"--regid={USERS[name]}", "--clear-groups")
    for other in PORTS.keys() - {name}:
        folder = control.run("getent", "passwd", USERS[other]).out.strip().split(":")[5]
        for asked in (("ls", folder), ("cat", KEYS[other])):
            assert control.run(*as_its_user, *asked, may_fail=True).code, (other, asked)
    assert not control.run(*as_its_user, "cat", KEYS[name], may_fail=True).code


def test_the_api_reads_what_the_worker_keeps_as_evidence_and_no_other_service_does(control: Host) -> None:
    """The worker's unit lets a group read new files, and its process took that away again."""
    write_keys(control)
    worker = Service(control, "worker")
    with engine(control):
        worker.start()
        control.wait_for(worker.unit)
        control.run("systemctl", "stop", worker.unit)
    folder = "/var/lib/penstock-evidence"
    assert control.run("stat", "--format=%a %U %G", folder).out == "2750 penstock penstock-api\n"
    for name, reads in (("api", True), ("relay", False)):
        as_its_user = ("setpriv", f"--reuid={USERS[name]}", f"--regid={USERS[name]}", "--clear-groups")
        read = control.run(*as_its_user, "cat", f"{folder}/audit.pub", may_fail=True)
        assert (not read.code) is reads, (name, read)


def alone(service: Service) -> bool:
    """Whether no other process of penstock runs."""
    units = [f"penstock-{name}.service" for name in PORTS] + ["penstock.service"]
    running = [unit for unit in units if service.shown("ActiveState", unit) != "inactive"]
    return running == [service.unit]


def write_keys(host: Host) -> None:
    """Write the key that seals, as docs/packages.md has it; what the engine was given stays to be read."""
    for name in ("worker", "relay"):
        host.put(KEYS[name], KEY, 0o600)
    host.run("penstock", "keys", "api", KEYS["worker"], KEYS["api"])
    for name, user in USERS.items():
        host.run("chown", user, KEYS[name])


@pytest.fixture(name="engine")
def engine_on(control: Host) -> Iterator[None]:
    with engine(control):
        yield


@contextlib.contextmanager
def engine(host: Host) -> Iterator[None]:
    """Run what stands for a cluster of one's own: the development server, as a unit beside penstock's."""
    address, port = ENGINE
    program = "/usr/lib/penstock/bin/temporal"
    _, *arguments = development.command(address, port, Path("/var/tmp/engine.sqlite"))
    host.run("systemd-run", "--quiet", "--unit=engine", "--property=Type=exec", program, *arguments)
    described = (program, "operator", "namespace", "describe", "default", "--address", f"{address}:{port}")
    try:
        wait_until(lambda: not host.run(*described, may_fail=True).code)
        yield
    finally:
        host.run("systemctl", "stop", "engine")
