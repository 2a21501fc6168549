"""The lab as a whole: a fleet with users, the control plane that upgrades it, and what to upgrade it to."""

import asyncio
import json
import os
import secrets
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import yaml

from activities.drivers.private_files import write_private
from deploy.lab import credentials as lab_credentials
from deploy.lab import namespaces
from deploy.lab.daemons.port import LabDaemon
from deploy.lab.daemons.products import DAEMONS
from deploy.lab.ground import Hosts
from deploy.lab.offers import Offers, server
from deploy.lab.places import DEMO_FOLDER
from deploy.lab.processes import Process
from deploy.lab.releases import LabReleases
from deploy.lab.services import EXPORTER_PORT, PROMETHEUS_PORT, Engine, Prometheus
from deploy.lab.topology import PREFIX, Host, Topology
from deploy.lab.traffic import Logins, Users
from deploy.lab.traffic import Settings as TrafficSettings
from orchestrator.processes.composition import Installation, compose
from orchestrator.service.people import OF_ROOT
from orchestrator.settings import Settings, state_folder
from policies.model.change import ChangeResult, Outcome
from policies.model.drain import DrainLimits
from policies.model.errors import BadInput, Unavailable
from policies.model.fleet import IKE_PORT, OWN_NETWORKS, Fleet, Gateway, Limits, Slot, SteeringKind
from policies.model.instance import GatewayState
from policies.model.people import Caller, Via
from policies.model.plan import Plan, ReleaseRef, Strategy
from policies.model.release_tests import ReleaseTests
from policies.model.status import ChangeStatus
from policies.model.value import Value

GATES = Path(__file__).with_name("gates.yaml")
HOOK = Path(__file__).parents[1] / "examples/steering-hook"
"""What steers a gateway whose steering is a hook."""
LIMITS = Limits(
    steps=("1", "100%"),
    holdout="0",  # four gateways: a third wave would make every story longer by a window
    switching=3,
    lease=timedelta(seconds=30),
    drain_deadline=timedelta(minutes=2),
    drain=DrainLimits(warning=timedelta(minutes=2)),
)


@dataclass(frozen=True)
class Shape:
    """How large a lab is and what it is made for; the demo's is the default."""

    gateways: int = 4
    sites: int = 24
    prefix: str = PREFIX
    folder: str = DEMO_FOLDER
    """Folder in the state folder, its own for each lab that runs at the same time."""
    logins_per_second: float = 2.0
    gates: Path = GATES
    limits: Limits = LIMITS
    metrics_port: int = PROMETHEUS_PORT
    """Where in the hub the judge asks for metrics; Prometheus' own, or a door in front of it."""
    tests: ReleaseTests | None = None
    """What the fleet asks of each new instance before it gets users."""
    daemon: str = "ocserv"
    steering: SteeringKind = "nftables"
    """What its gateways run."""
    groups: tuple[str, ...] = ()
    """Sites with gateways of their own, dealt out in turn; without any, all gateways are one group."""
    capacity: int = 1000
    """Sessions that a gateway can carry."""
    dial6: int = 0
    """Every how manyth user dials its gateway's IPv6 address; 0 for nobody."""
    tunnels: bool = False
    """Whether those who only log in go on to a tunnel and a ping through it, where its daemon is ocserv."""
    chat: bool = False
    """Whether everything that waits or ends is told to the sink that a chat's process fetches."""


DEMO = Shape()
OPERATOR = Caller(person="demo", grants=OF_ROOT, via=Via.CLI)
"""Who asks for what happens in the lab."""
FLEET = "lab"
SLOTS = "abc"
CHAT_SINK = "chat"
"""The sink of notices.yaml that is told in a chat, where the lab has one."""
HTTPS_PORT, FIRST_PORT = 443, 4431
ALL_ANSWER_WITHIN = 60.0
"""Seconds in which every gateway has answered one survey; one that is silent holds each up for twenty."""
REPOSITORY_PORT = 8080
RELAY_PORT, ENROLMENT_PORT = 7234, 7235


@dataclass(frozen=True)
class Lab:
    """Everything a story may use, while the lab is up."""

    folder: Path
    topology: Topology
    fleet: Fleet
    offers: Offers
    users: Users
    logins: Logins
    worker: Process
    api: Process
    relay: Process
    agents: dict[str, Process]
    exporters: dict[str, Process]
    engine: Engine
    prometheus: Prometheus
    installation: Installation
    outside: int
    """Open file of the network namespace where the API is, outside of the lab's."""

    @property
    def fleet_file(self) -> Path:
        """The fleet's file; it is read anew when it changes."""
        return self.folder / "etc" / "fleet.yaml"

    @property
    def people_file(self) -> Path:
        """Who is known here; root is, without it."""
        return self.folder / "etc" / "people.yaml"

    @property
    def ledger_file(self) -> Path:
        """The ledger's database; what SQLite keeps beside it has its name and more."""
        return Path(self.installation.settings.ledger_url.removeprefix("sqlite:///"))

    def beside_the_api(self, name: str, *arguments: str) -> Process:
        """Return a program of penstock's own, not yet started, that runs where the API does."""
        return own_program(self.folder, name, self.outside, list(arguments))

    async def page_link(self) -> str:
        """Return an address of the page that logs whoever opens it in as root, once."""
        service = self.installation.service
        caller = await asyncio.to_thread(service.people.at_the_socket, os.getuid())
        return (await service.page_logins.make_link(caller, os.getuid())).url

    @property
    def older(self) -> ReleaseRef:
        """The release the fleet begins with: this Debian's daemon."""
        return self.offers.older

    @property
    def newer(self) -> ReleaseRef:
        """The next Debian's."""
        return self.offers.newer

    @property
    def faulty(self) -> ReleaseRef:
        """The newer one with a config that asks who was let in years ago; signed like the others."""
        return self.offers.faulty

    @property
    def tampered(self) -> ReleaseRef:
        """A release of which one byte was changed after it was signed."""
        return self.offers.tampered

    @property
    def signers(self) -> tuple[str, ...]:
        """Who signed the releases, as the ledger has it, and in which role."""
        rows = {row.release.digest: row for row in self.installation.ledger.releases()}
        return rows[self.newer.digest].signers

    @property
    def watch_command(self) -> str:
        """What to type in another terminal to see the same."""
        return f"PENSTOCK_STATE={self.folder.parent} {Path(sys.prefix) / 'bin' / 'penstock'} watch"

    async def add(self, release: ReleaseRef) -> None:
        """Do what `penstock release add` does; TrustError when it may not be used."""
        await self.installation.service.add_release(OPERATOR, FLEET, release.digest)

    async def plan(self, release: ReleaseRef, strategy: Strategy) -> Plan:
        """Return the plan of an upgrade to the release."""
        return await self.installation.plans.plan(self.fleet, release.digest, strategy)

    async def start(self, plan: Plan, reason: str) -> str:
        """Start the plan; return the change's name.

        Raises:
            Unavailable: No worker has begun it.
        """
        source = self.installation.releases.repository
        name = await self.installation.changes.start(plan, source, OPERATOR.person, reason)
        if name is None:
            raise Unavailable("no worker begins the change; see the lab's worker.log")
        return name

    async def status(self) -> ChangeStatus:
        """Return the newest change's status, as it was last heard."""
        found = (await self.installation.service.status(OPERATOR, FLEET)).change
        if found is None:
            raise BadInput(f"{FLEET} was never changed")
        return found

    async def roll_back(self, person: str, reason: str) -> None:
        """Have that person take the fleet back."""
        await self.installation.changes.roll_back(self.fleet, person, reason)

    async def result(self) -> ChangeResult:
        """Return how the newest change ended."""
        return await self.installation.changes.end_of(FLEET)

    async def states(self) -> dict[str, GatewayState]:
        """Return what is true now of every gateway that answers."""
        return (await self.installation.changes.surveys.of(self.fleet)).states

    async def every_state(self) -> dict[str, GatewayState]:
        """Return what is true of every gateway now; on a busy machine one may have to be asked again.

        Raises:
            Unavailable: One of them does not answer for a minute; it is named with why.
        """
        until = time.monotonic() + ALL_ANSWER_WITHIN
        while (survey := await self.installation.changes.surveys.of(self.fleet)).silent:
            if time.monotonic() > until:
                silent = "; ".join(f"{name} is silent: {why}" for name, why in sorted(survey.silent.items()))
                raise Unavailable(f"not every gateway of the lab answers: {silent}")
        return survey.states

    def figures(self) -> dict[str, Any]:
        """Return what users notice, and when: tunnels up and lost, pings, logins.

        Raises:
            Unavailable: The users, or those who log in, do not run or do not count any more.
        """
        users, load = self.users.counts(), self.logins.counts()
        totals, logins = users["totals"], load["totals"]
        at = datetime.fromtimestamp(min(users["at"], load["at"]), UTC)
        return {
            "at": f"{at:%Y-%m-%d %H:%M:%S} UTC",
            "up": totals["up"],
            "lost": totals["lost"],
            "pings": totals["pings"],
            "logins": {what.replace("_", " "): count for what, count in sorted(logins.items())},
        }

    def logins_at(self, gateway: str, since: datetime) -> list[dict[str, Any]]:
        """Return the logins with a right password that began there since then, the earliest first.

        The logins' own log is the witness; one that is under way is not in it yet.
        """
        lines = (self.logins.settings.folder / "logins.jsonl").read_text().splitlines()
        logins = [login for login in map(json.loads, lines) if login["gateway"] == gateway]
        counted = [one for one in logins if one["at"] >= since.timestamp() and not one["mistyped"]]
        return sorted(counted, key=lambda one: float(one["at"]))

    def last_login_on_the_new_instance(self, gateways: Sequence[str], since: datetime) -> float:
        """Return when a login last failed on these gateways though its password was right, as a Unix time.

        Only the faulty release refuses right passwords; the logins' own log is the witness.
        """
        last = since.timestamp()
        for line in (self.logins.settings.folder / "logins.jsonl").read_text().splitlines():
            login = json.loads(line)
            refused = login["outcome"] != "accepted" and not login["mistyped"]
            if refused and login["gateway"] in gateways:
                last = max(last, login["at"])
        return last


def fleet_of(
    topology: Topology,
    limits: Limits,
    tests: ReleaseTests | None = None,
    ground: Hosts | None = None,
    daemon: str = "ocserv",
    steering: SteeringKind = "nftables",
    groups: Sequence[str] = (),
    capacity: int = 1000,
) -> Fleet:
    """Return the lab's fleet: three slots each; a failure domain is a group, or else each gateway."""
    described = (ground or Hosts()).gateway

    def placed(gateway: Gateway, number: int) -> Gateway:
        site = groups[(number - 1) % len(groups)] if groups else None
        where = {"group": site, "domain": site} if site else {}
        return gateway.model_copy(update={"capacity": capacity, **where})

    return Fleet(
        name=FLEET,
        product=daemon,
        gateways=tuple(
            described(placed(_gateway(host, number, daemon, steering), number))
            for number, host in enumerate(topology.gateways, start=1)
        ),
        limits=limits,
        tests=tests,
    )


def _gateway(host: Host, number: int, daemon: str, steering: SteeringKind) -> Gateway:
    has_own_networks = daemon in OWN_NETWORKS
    return Gateway(
        name=host.name,
        daemon=daemon,
        steering=steering,
        domain=host.name,
        addresses=(host.address4, host.address6),
        port=IKE_PORT if has_own_networks else HTTPS_PORT,
        management=host.management4,
        metrics_port=EXPORTER_PORT,
        slots=tuple(
            Slot(
                name=name,
                port=IKE_PORT if has_own_networks else FIRST_PORT + index,
                address=IPv4Address(f"10.255.{number}.{2 * index + 1}") if has_own_networks else None,
                device=f"vpn{name}",
                pool4=IPv4Network(f"10.{64 + number}.{index}.0/24"),
                pool6=None if has_own_networks else IPv6Network(f"fd98:{number}:{index}::/112"),
            )
            for index, name in enumerate(SLOTS)
        ),
    )


def write_yaml(path: Path, content: Value | dict[str, Any]) -> Path:
    """Write a file that people could have written themselves."""
    plain = content.model_dump(mode="json", exclude_none=True) if isinstance(content, Value) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.dump(plain, Dumper=yaml.CSafeDumper, sort_keys=False))  # in C, for thousands
    return path


@asynccontextmanager
async def lab(
    tell: Callable[[str], None], shape: Shape = Shape(), ground: Hosts | None = None
) -> AsyncIterator[Lab]:
    """Keep a lab up for the length of the body; whatever ends it, nothing of it remains.

    Its gateways are hosts, unless another ground is given.

    Raises:
        BadInput: this machine cannot have one; nothing was changed.
        Conflict: another lab is running.
    """
    ground = ground or Hosts()
    topology = Topology(gateways=shape.gateways, sites=shape.sites, prefix=shape.prefix)
    daemon = DAEMONS[shape.daemon]
    claim, cleared = ground.begin(topology, daemon)
    with ExitStack() as held:
        held.push(claim)
        if cleared:
            tell(cleared)
        folder = state_folder().absolute() / shape.folder / "run"
        namespaces.end_rooted(folder)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            with namespaces.home_again() as outside:
                yield await _build(shape, daemon, topology, ground, folder, outside, tell)
        finally:
            with _undisturbed():
                ground.end(topology)
                namespaces.end_rooted(folder)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let nobody stop the removal half-way: what it has begun to remove is of no use any more."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def _build(
    shape: Shape,
    daemon: LabDaemon,
    topology: Topology,
    ground: Hosts,
    folder: Path,
    outside: int,
    tell: Callable[[str], None],
) -> Lab:
    began = time.monotonic()
    topology.build()
    source = f"http://{topology.hub.address4}:{REPOSITORY_PORT}"
    # Packages come from outside; from here on nothing may leave the lab. Threads stay in the
    # namespace they were made in, so none is made before.
    cache = state_folder() / "lab" / "cache"
    ground.fetch(cache, daemon)
    namespaces.enter(topology.hub.namespace)
    fleet = fleet_of(
        *(topology, shape.limits, shape.tests, ground, daemon.name, shape.steering),
        groups=shape.groups,
        capacity=shape.capacity,
    )
    ground.start(topology, fleet, folder, tell)
    published = LabReleases(
        folder / "releases",
        folder / "repository",
        source,
        product=daemon.name,
        daemon=daemon.name,
        executable=daemon.executable,
        shell=ground.shell,
        registry=ground.registry,
    )
    offers = Offers(published, daemon, cache)
    files = folder / "etc"
    write_yaml(files / "fleet.yaml", fleet)
    shutil.copy(shape.gates, files / "gates.yaml")
    issued = lab_credentials.issue(topology, files / "credentials", daemon)
    tell(f"{len(topology.gateways)} gateways and {len(topology.sites)} sites have their networks")
    tell(f"releases built and signed: {daemon.name} {offers.older.version}, {offers.newer.version}, two more")
    engine = Engine(topology, folder / "engine")
    prometheus = Prometheus(topology, folder / "prometheus", issued)
    engine.start()
    prometheus.start()
    server(
        published, topology.hub.namespace, topology.hub.address4, REPOSITORY_PORT, folder / "repository.log"
    ).start()
    settings = _settings(shape, topology, folder, files, published, engine, prometheus)
    installation = await compose(settings)
    api = own_program(folder, "api", outside, ["-m", "orchestrator", "api"], settings)
    worker = own_program(folder, "worker", topology.hub.namespace, ["-m", "orchestrator", "worker"], settings)
    relay = own_program(folder, "relay", topology.hub.namespace, ["-m", "orchestrator", "relay"], settings)
    agents = {
        host.name: _agent(
            ground, daemon, folder, files, host, fleet.gateway(host.name), issued, published, settings
        )
        for host in topology.gateways
    }
    for program in (relay, worker, api):
        program.start()
    await ready(relay)

    async def token_of(name: str) -> str:
        return (await installation.service.enrol_gateway(OPERATOR, FLEET, name)).token

    await ground.join(settings, published.trust_policy, token_of)
    for host in topology.gateways:
        await ground.enrol(settings, host, _agent_file(files, host), token_of)
        agents[host.name].start()
    for program in (worker, api, *agents.values()):
        await ready(program)
    tell(f"engine, Prometheus, worker, relay and {len(agents)} enrolled agents are ready")
    for release in (offers.older, offers.newer, offers.faulty):
        await installation.service.add_release(OPERATOR, FLEET, release.digest)
    await installation.changes.install(fleet, offers.older, installation.releases.repository, OPERATOR.person)
    installed = await installation.changes.end_of(FLEET)
    if installed.outcome is not Outcome.PROMOTED:
        raise Unavailable(f"the lab's fleet could not be installed: {installed.reason}")
    exporters = {host.name: _exporter(ground, folder, files, host) for host in topology.gateways}
    for program in exporters.values():
        program.start()
    tell(f"every gateway serves with {offers.older.version}")
    users, logins = _crowds(shape, topology, issued, folder)
    await asyncio.to_thread(users.wait_until_up)
    await asyncio.to_thread(logins.wait_until_counting)
    tell(f"{len(topology.sites)} users are connected and pinging ({time.monotonic() - began:.0f} s so far)")
    return Lab(
        folder=folder,
        topology=topology,
        fleet=fleet,
        offers=offers,
        users=users,
        logins=logins,
        worker=worker,
        api=api,
        relay=relay,
        agents=agents,
        exporters=exporters,
        engine=engine,
        prometheus=prometheus,
        installation=installation,
        outside=outside,
    )


def _settings(
    shape: Shape,
    topology: Topology,
    folder: Path,
    files: Path,
    published: LabReleases,
    engine: Engine,
    prometheus: Prometheus,
) -> Settings:
    """Write the settings, the demo's where `PENSTOCK_STATE` finds them; return them."""
    home = folder.parent if shape.folder == DEMO.folder else folder
    values = {
        "temporal_address": engine.address,
        "relay_address": f"{topology.hub.address4}:{RELAY_PORT}",
        "enrolment_address": f"{topology.hub.address4}:{ENROLMENT_PORT}",
        "relay_key": str(folder / "relay.key"),
        "authority": str(folder / "authority"),
        "payload_keys": str(_payload_keys(files)),
        "network_namespace": topology.hub.namespace,
        "prometheus_url": f"http://{prometheus.host.address4}:{shape.metrics_port}",
        "ledger_url": f"sqlite:///{home / 'ledger.db'}",
        "store": str(folder / "store"),
        "snapshots": str(folder / "snapshots"),
        "reports": str(folder / "reports"),
        "windows": str(folder / "windows"),
        "fleet": str(files / "fleet.yaml"),
        "trust": str(published.trust_policy),
        "gates": str(files / "gates.yaml"),
        "people": str(files / "people.yaml"),
        "socket": str(folder / "penstock.sock"),
        "page_name": str(folder / "page.name"),
        "api_address": f"127.0.0.1:{_free_port()}",
        "audit_key": str(folder / "audit.key"),
        "audit_checkpoints": str(folder / "audit-checkpoints.jsonl"),
        "audit_late": str(folder / "audit-late.jsonl"),
        "source": published.url,
    }
    if shape.chat:
        values["notices"] = str(write_yaml(files / "notices.yaml", _notices()))
    for old in home.glob("ledger.db*"):
        old.unlink()
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    (home / Settings.file.name).write_text(
        "\n".join(["# written by the lab; the newest run's", *lines]) + "\n"
    )
    return Settings.model_validate(values)


def _notices() -> dict[str, Any]:
    """Return a notices.yaml by which everything is told in the chat."""
    return {
        "apiVersion": "penstock/v1",
        "sinks": [{"name": CHAT_SINK, "kind": "chat"}],
        "routes": [{"levels": ["info", "needs_you", "page"], "sinks": [CHAT_SINK]}],
    }


def _free_port() -> int:
    """Return a port of this machine, outside of the lab, where a browser finds the page.

    It is below those that the kernel gives whoever asks for any: the API listens there some time later.
    """
    for port in secrets.SystemRandom().sample(range(20_000, 30_000), 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise Unavailable("no port of 127.0.0.1 between 20000 and 30000 is free for the page; free one")


def stand_ins(folder: Path, program: str) -> Path:
    """Return where a fault may put programs that this one then starts instead of the machine's own."""
    return folder / "stand-ins" / program


def own_program(
    folder: Path,
    name: str,
    namespace: str | int,
    arguments: list[str],
    settings: Settings | None = None,
    *,
    under: Sequence[str] = (),
) -> Process:
    """Return one of penstock's own programs; it finds what `stand_ins` holds before the machine's own.

    What it runs `under` is a command that becomes the program.
    """
    chosen = settings.model_dump(mode="json", exclude_none=True) if settings else {}
    return Process(
        name,
        [*under, sys.executable, *arguments],
        log=folder / f"{name}.log",
        namespace=namespace,
        environment={
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "PYTHONUNBUFFERED": "1",
            "PATH": f"{stand_ins(folder, name)}:{os.environ['PATH']}",
            **{f"PENSTOCK_{key.upper()}": str(value) for key, value in chosen.items()},
        },
    )


def _agent(
    ground: Hosts,
    daemon: LabDaemon,
    folder: Path,
    files: Path,
    host: Host,
    gateway: Gateway,
    issued: lab_credentials.Credentials,
    published: LabReleases,
    settings: Settings,
) -> Process:
    root = ground.root(folder, host)
    own = root / "identity"
    config = {
        "gateway": gateway.model_dump(mode="json", exclude_none=True),
        "root": str(root),
        "product": daemon.name,
        "channel": "stable",
        "trust": str(published.trust_policy),
        "temporal_address": settings.relay_address,
        "certificate": str(own / "agent.pem"),
        "key": str(own / "agent.key"),
        "authority": str(own / "authority.pem"),
        "payload_keys": str(own / "payload.keys"),
        "tracing_url": settings.tracing_url,
        "credentials": {name: f"file:{path}" for name, path in daemon.given(issued).items()},
        "probe": dict(daemon.probe(issued, host)),
        "exporter": {
            "certificate": str(issued.certificate),
            "key": str(issued.key),
            "token": str(issued.metrics_token),
        },
    }
    if gateway.steering == "hook":
        config["front"] = {"hook": str(HOOK)}
    path = write_yaml(_agent_file(files, host), config)
    arguments = ["-m", "orchestrator", "agent", "run", "--config", str(path)]
    return own_program(folder, f"agent-{host.name}", host.namespace, arguments, under=ground.under(host))


def _payload_keys(files: Path) -> Path:
    """Make the key that seals everything between orchestrator and gateways."""
    path = files / "payload.keys"
    write_private(path, f"lab:{secrets.token_hex(32)}\n".encode())
    return path


def _agent_file(files: Path, host: Host) -> Path:
    return files / "agents" / f"{host.name}.yaml"


def _exporter(ground: Hosts, folder: Path, files: Path, host: Host) -> Process:
    arguments = ["-m", "orchestrator", "exporter", str(_agent_file(files, host))]
    return own_program(folder, f"exporter-{host.name}", host.namespace, arguments, under=ground.under(host))


def _crowds(
    shape: Shape, topology: Topology, issued: lab_credentials.Credentials, folder: Path
) -> tuple[Users, Logins]:
    users = Users(
        TrafficSettings.of(topology, issued, folder / "users", daemon=shape.daemon, dial6=shape.dial6)
    )
    logins = Logins(
        TrafficSettings.of(
            topology,
            issued,
            folder / "logins",
            per_second=shape.logins_per_second,
            daemon=shape.daemon,
            tunnels=shape.tunnels,
        )
    )
    users.start()
    logins.start()
    return users, logins


async def ready(program: Process) -> None:
    """Wait until a program has reported that it takes work."""
    await asyncio.to_thread(program.wait_until_ready)
