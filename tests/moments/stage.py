"""One installation with a simulated fleet: real service, workflows, ledger and engine.

Gateways, the judge of their metrics and the patch windows are simulated. Everything that decides is real: the
service as the API composes it, the workflows on a development server, and a ledger on a file.
"""

import asyncio
import gc
import logging
import shutil
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from datetime import UTC, datetime, timedelta
from operator import setitem
from pathlib import Path
from typing import Any

from sqlalchemy import update
from temporalio.exceptions import FailureError
from temporalio.service import RPCError

import activities.facts
import activities.sessions
from activities.files import FleetFiles
from deploy.lab.lab import write_yaml
from orchestrator.processes.composition import Installation, compose
from orchestrator.settings import Settings
from orchestrator.store import tables
from policies.model.change import PENSTOCK
from policies.model.errors import PenstockError
from policies.model.fleet import Automation, Fleet, Gateway
from policies.model.people import EVERY_FLEET, Caller, Role, Via
from policies.model.plan import ReleaseRef
from tests.fakes.control import ObservedLedger
from tests.fakes.gateway import FakeGateway
from tests.fakes.ledgers import new_ledger
from tests.patience import until
from tests.workflows.ending import ending
from tests.workflows.engine import Engine
from tests.workflows.world import World, agent_worker, control_worker, fleet_of, gateway, is_heard
from workflows import steps

FLEET = "edge"
GATEWAYS = 8
NOBODY = "127.0.0.1:1"
QUICK = timedelta(seconds=0.5)
EXPECTED = (FailureError, PenstockError, RPCError, asyncio.CancelledError)
"""What steps and workflows may raise: a failure in words, or an engine that is away."""


def quicken(
    set_attribute: Callable[[Any, str, object], None] = setattr,
    set_item: Callable[[Any, str, object], None] = setitem,
) -> None:
    """Have what only time brings come soon; what a promise of time counts is left as it is."""
    paces = {
        "HELD_PACE": QUICK,
        "NEXT_LOOK": QUICK,
        "NEXT_CAPACITY": QUICK,
        "LAST_CAPACITY": timedelta(seconds=2),
    }
    for name, pace in paces.items():
        set_attribute(steps, name, pace)
    set_attribute(activities.sessions, "POLL", timedelta(milliseconds=50))
    set_attribute(activities.facts, "RECENT", timedelta(0))
    for asking in (steps.SURVEY, steps.LOOK, steps.CONFIRM, steps.GO_BACK):
        set_item(asking, "schedule_to_close_timeout", timedelta(seconds=5))


def operator(name: str) -> Caller:
    """Return an operator of every fleet who may approve, too."""
    roles = frozenset({Role.OPERATOR, Role.APPROVER, Role.ADMIN})
    return Caller(person=name, grants={EVERY_FLEET: roles}, via=Via.API)


class Unexpected(logging.Handler):
    """Collects what steps and workflows raised that is no error of penstock's, as a `KeyError`."""

    def __init__(self) -> None:
        """Collect from warnings on; what is being repeated is only one."""
        super().__init__(logging.WARNING)
        self.found: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what was raised in words."""
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not isinstance(error, EXPECTED):
            self.found.add(f"{type(error).__name__}: {error}")


class Stage:
    """What is played on, and what moves the simulated parts of it."""

    def __init__(self, engine: Engine, folder: Path, world: World, installation: Installation) -> None:
        """Take the parts; `staged` makes them."""
        self.engine = engine
        self.folder = folder
        self.world = world
        self.installation = installation
        self.service = installation.service
        self.changes = installation.changes
        self.ledger: ObservedLedger = world.book
        self.gateways = world.gateways
        self.unexpected = Unexpected()
        self._agents: dict[str, AsyncExitStack] = {}
        self._worker = AsyncExitStack()

    @property
    def fleet(self) -> Fleet:
        """The fleet as its file describes it now."""
        return FleetFiles(self.folder / "fleets").fleet(FLEET)

    def describe(self, fleet: Fleet) -> None:
        """Write the fleet's file."""
        write_fleet(self.folder, fleet)

    def members(self, change: Callable[[list[Gateway]], Sequence[Gateway]]) -> None:
        """Write the fleet's file with other gateways."""
        fleet = self.fleet
        changed = [one.model_dump() for one in change(list(fleet.gateways))]
        self.describe(Fleet.model_validate(fleet.model_dump() | {"gateways": changed}))

    # --- gateways ----------------------------------------------------------------------

    async def power_on(self, fake: FakeGateway) -> None:
        """Have a gateway's agent take its steps."""
        self.gateways[fake.gateway.name] = fake
        stack = self._agents[fake.gateway.name] = AsyncExitStack()
        await stack.enter_async_context(ending(agent_worker(self.world.client, fake)))

    async def power_off(self, name: str) -> None:
        """Have a gateway's agent take no step any more."""
        await self._agents.pop(name).aclose()

    def serving(self) -> dict[str, ReleaseRef]:
        """Return the release that each gateway gives its new sessions to."""
        found = {}
        for name, fake in self.gateways.items():
            held = fake.slots.get(fake.target or "")
            if name in self._agents and held is not None and held.release is not None:
                found[name] = held.release
        return found

    def look(self) -> None:
        """Write down what every gateway of the file says, as a plan and reconcile have it surveyed."""
        names = {one.name for one in self.fleet.gateways}
        seen = [self.gateways[name] for name in sorted(names & self._agents.keys())]
        self.ledger.record_states(FLEET, [fake._state(changed=False) for fake in seen], {})

    def hand_over_long_ago(self, name: str) -> None:
        """Have an operator's break-glass, its return and what was written of both lie minutes back.

        Reconcile tries a return a minute later, which is now. The ledger drops an answer of an earlier epoch
        than that of the minute before, so the written answer is older than that, too.
        """
        fake, ledger, now = self.gateways[name], self.ledger, datetime.now(UTC)
        steered, returned = now - timedelta(seconds=200), now - timedelta(seconds=90)
        fake.owner = (int(steered.timestamp() * 1000), fake.owner[1])
        states = tables.gateway_states
        with ledger.engine.begin() as connection:
            connection.execute(update(states).where(states.c.gateway == name).values(at=steered))
        for row in ledger.quarantined(FLEET):
            if row.gateway == name:
                ledger.clear_quarantine(FLEET, name, PENSTOCK, "a minute passes")
                ledger.set_quarantine(row.model_copy(update={"since": returned}))

    def added(self, number: int) -> Gateway:
        """Return a gateway that the fleet has not yet."""
        named = gateway(f"gw-{number}", number)
        return Gateway.model_validate(named.model_dump() | {"fleet": FLEET})

    # --- what is away ------------------------------------------------------------------

    async def start_worker(self) -> None:
        """Have a worker take the workflows' steps."""
        self._worker = AsyncExitStack()
        await self._worker.enter_async_context(ending(control_worker(self.world.client, self.world)))

    async def stop_worker(self) -> None:
        """Have no worker any more.

        A worker leaves what it has cached of workflows to the garbage collector, which resumes it wherever it
        runs: in a process with one worker nowhere, and here in a workflow of the next worker.
        """
        await self._worker.aclose()
        gc.collect()

    @asynccontextmanager
    async def without_worker(self) -> AsyncIterator[None]:
        """Have no worker for as long as the block lasts."""
        await self.stop_worker()
        try:
            yield
        finally:
            await self.start_worker()

    @asynccontextmanager
    async def without_engine(self) -> AsyncIterator[None]:
        """Kill the engine, and start it again after the block."""
        self.engine.kill()
        try:
            yield
        finally:
            self.engine.start()
            await self.engine.client(self.world.client.namespace)

    @contextmanager
    def locked_ledger(self) -> Iterator[None]:
        """Have another process hold the ledger's lock for as long as the block lasts."""
        path = self.ledger.url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield

    async def close(self) -> None:
        """End every worker."""
        await self.stop_worker()
        for name in list(self._agents):
            await self.power_off(name)


@asynccontextmanager
async def staged(engine: Engine, automation: Automation = Automation.ACT) -> AsyncIterator[Stage]:
    """Run a fleet of eight empty gateways on the engine, in a namespace of its own."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-moments-"))
    client = await engine.client()
    fleet = fleet_of(FLEET, size=GATEWAYS, lease=timedelta(seconds=30), automation=automation)
    write_fleet(folder, fleet)
    ledger = ObservedLedger(new_ledger(folder / "ledger.db"))
    world = World(client, fleet, {one.name: FakeGateway(one) for one in fleet.gateways}, book=ledger)
    # The file that the service reads, too.
    world.folder = FleetFiles(folder / "fleets")  # type: ignore[assignment]
    world.judge.pace = 0.4
    settings = _settings(folder, ledger.url, engine.address, client.namespace)
    stage = Stage(engine, folder, world, await compose(settings))
    said = logging.getLogger("temporalio")
    said.addHandler(stage.unexpected)
    try:
        await stage.start_worker()
        for fake in list(world.gateways.values()):
            await stage.power_on(fake)
        await until(lambda: is_heard(client))
        yield stage
    finally:
        said.removeHandler(stage.unexpected)
        await asyncio.shield(stage.close())
        shutil.rmtree(folder, ignore_errors=True)


def write_fleet(folder: Path, fleet: Fleet) -> None:
    """Write the fleet's file into the installation's folder."""
    write_yaml(folder / "fleets" / f"{FLEET}.yaml", fleet)


def _settings(folder: Path, ledger: str, address: str, namespace: str) -> Settings:
    return Settings(
        temporal_address=address,
        temporal_namespace=namespace,
        prometheus_url=f"http://{NOBODY}",
        source=f"http://{NOBODY}",
        ledger_url=ledger,
        fleet=folder / "fleets",
        people=folder / "people.yaml",
        gates=Path("deploy/prometheus/gates.yaml"),
        trust=folder / "trust.yaml",
        store=folder / "store",
        snapshots=folder / "snapshots",
        windows=folder / "windows",
        reports=folder / "reports",
        audit_key=folder / "audit.key",
        audit_checkpoints=folder / "checkpoints.jsonl",
        audit_late=folder / "audit-late.jsonl",
    )
