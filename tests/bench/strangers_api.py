"""The API's half of `bench strangers`: hold and rollback at the socket and over the network.

The API is the process of production with its settings, over a real engine, worker and ledger. One fleet has a
change under way that is held again and again; the other one has none and is rolled back again and again.
"""

import asyncio
import json
import os
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from deploy.lab.lab import write_yaml
from deploy.ports import free_port
from orchestrator.engine import development as development_engine
from orchestrator.engine.client import connect
from orchestrator.service.changes import ChangeService
from orchestrator.store.ledger import Ledger
from policies.model.fleet import Fleet
from policies.model.people import Member, People, Role
from tests.bench.bench_fleet import LAB, Size, answering_engine, begin, keep_fresh, plan_of, start_process
from tests.bench.simulated_agents import FLEET, fleet
from tests.bench.strangers import Attacker, Half, against, percentile, program, ratios
from tests.bench.strangers_attacks import ATTACKS, Attacked
from tests.bench.strangers_probe import Probing

HOLD_MS = 1_000.0
AUDIT_BYTES_PER_S = 1_000.0
IDLE = "idle"
"""The fleet without a change."""
LARGE = "large"
"""The fleet that nobody changes, of which a viewer asks what takes long to answer."""

GATEWAYS, MANY = 20, 10_000
OPERATORS, FIRST_USER = 60, 30_000
"""So many that no operator asks more often than one person may."""

STARTED_WITHIN = 60.0
ASKED = ("hold_socket", "hold_network", "roll_back_socket", "roll_back_network")


@dataclass
class Stage:
    """The installation that is attacked."""

    ledger: Path
    attacked: Attacked
    probing: Probing


async def measure(seconds: float) -> dict[str, Any]:
    """Return p99 of hold and rollback for each attacker, and what each adds to the audit record."""
    with ExitStack() as stack:
        async with _stage(stack, seconds) as stage:
            found = await against(stage, [Attacker(name, partial(_at_work, name)) for name in ATTACKS], probe)
    figures: dict[str, Any] = {
        "hold_p99_ms": {name: max(one[asked] for asked in ASKED) for name, one in found.items()},
        "hold_ratio": {asked: ratios(found, asked) for asked in ASKED},
        "audit_bytes_per_s": {name: one["audit_bytes_per_s"] for name, one in found.items()},
        "api": found,
    }
    print("  p99 beside the baseline's:", json.dumps(figures["hold_ratio"]))
    return figures


def misses(figures: dict[str, Any]) -> list[str]:
    """Return which attackers delay hold or rollback, or fill the audit record."""
    slow = [
        f"{name}: hold or rollback took {took:.0f} ms (p99); {HOLD_MS:.0f} at most"
        for name, took in figures["hold_p99_ms"].items()
        if took > HOLD_MS
    ]
    full = [
        f"{name}: the audit record grew by {grew:.0f} bytes a second; {AUDIT_BYTES_PER_S:.0f} at most"
        for name, grew in figures["audit_bytes_per_s"].items()
        if grew > AUDIT_BYTES_PER_S
    ]
    failed = [
        f"{name}: {one['failed']} of {one['asked']} holds and rollbacks failed: {one['failed_by']}"
        for name, one in figures["api"].items()
        if one["failed"]
    ]
    return slow + full + failed


HALF = Half("api", measure, misses)


async def probe(stage: Stage) -> dict[str, Any]:
    """Return p99 in milliseconds by request and place, and how fast others grew the audit record."""
    before, began = _audit_bytes(stage.ledger), time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "tests.bench.strangers_probe", stage.probing.model_dump_json()],
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    taken: dict[str, list[tuple[float, str]]] = json.loads(out)
    grew = (_audit_bytes(stage.ledger) - before) / (time.monotonic() - began)
    statuses = [status for one in taken.values() for _, status in one]
    figures: dict[str, Any] = {
        asked: round(percentile([ms for ms, _ in taken[asked]], 0.99), 1) for asked in ASKED
    }
    failed = Counter(status for status in statuses if status != "200")
    return figures | {
        "asked": len(statuses),
        "failed": failed.total(),
        "failed_by": dict(failed),
        "audit_bytes_per_s": round(grew, 1),
    }


def _audit_bytes(ledger: Path) -> int:
    """Return how long the audit record's entries are that are not the probe's own."""
    own = "person NOT LIKE 'op-%'"
    columns = ("person", "via", "action", "subject", "body", "at", "previous", "hash")
    length = "+".join(f"length({column})" for column in columns)
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as database:
        return int(
            database.execute(f"SELECT coalesce(sum({length}), 0) FROM audit WHERE {own}").fetchone()[0]
        )


@asynccontextmanager
async def _at_work(name: str, stage: Stage) -> AsyncIterator[None]:
    async with program("tests.bench.strangers_attacks", name, stage.attacked.model_dump_json()):
        yield


def _named(name: str, count: int) -> Fleet:
    """Return a simulated fleet of that name, of so many gateways."""
    described = fleet(count).model_dump(mode="json", exclude={"gateways": {"__all__": {"fleet"}}})
    return Fleet.model_validate(described | {"name": name})


@asynccontextmanager
async def _stage(stack: ExitStack, seconds: float) -> AsyncIterator[Stage]:
    """Lay out the installation, have its change under way, and start every process."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-strangers-")))
    os.chmod(folder, 0o711)  # noqa: PTH101 - users of the host reach the socket through it
    engine, port = f"127.0.0.1:{free_port()}", free_port()
    database = folder / "engine.sqlite"
    command = development_engine.command("127.0.0.1", int(engine.rpartition(":")[2]), database)
    start_process(stack, command, folder / "engine.log")
    await answering_engine(engine)
    ledger = folder / "ledger.db"
    url = f"sqlite:///{ledger}"
    book = Ledger.open(url)
    planned = plan_of(GATEWAYS, Size(gateways=GATEWAYS), LAB)
    begin(book, planned.fleet)
    book.record_plan(planned, "op-0")
    write_yaml(folder / "fleets" / f"{FLEET}.yaml", planned.fleet)
    for one in (_named(IDLE, 1), _named(LARGE, MANY)):
        write_yaml(folder / "fleets" / f"{one.name}.yaml", one)
        begin(book, one)
    keep_fresh(book)
    grants = {name: frozenset({Role.OPERATOR}) for name in (FLEET, IDLE)}
    people = tuple(
        Member(name=f"op-{number}", system_users=(f"uid:{FIRST_USER + number}",), roles=grants)
        for number in range(OPERATORS)
    )
    write_yaml(folder / "people.yaml", People(api_version="penstock/v1", people=people))
    lives = timedelta(days=1)
    tokens = [book.make_token(f"op-t{number}", grants, lives, "op-0")[0] for number in range(OPERATORS)]
    looks = dict.fromkeys((FLEET, LARGE), frozenset({Role.VIEWER}))
    viewer, _ = book.make_token("looker", looks, lives, "op-0")
    worker = [sys.executable, "-m", "tests.bench.page_worker", engine, url, str(GATEWAYS)]
    start_process(stack, worker, folder / "worker.log")
    service = ChangeService(await connect(engine, "default"), book)
    await service.start(planned, "http://simulated", "op-0", "measuring")
    environment = os.environ | {
        "PENSTOCK_STATE": str(folder),
        "PENSTOCK_TEMPORAL_ADDRESS": engine,
        "PENSTOCK_LEDGER_URL": url,
        "PENSTOCK_FLEET": str(folder / "fleets"),
        "PENSTOCK_PEOPLE": str(folder / "people.yaml"),
        "PENSTOCK_SOCKET": str(folder / "penstock.sock"),
        "PENSTOCK_GATES": "deploy/prometheus/gates.yaml",
        "PENSTOCK_API_ADDRESS": f"127.0.0.1:{port}",
    }
    log = folder / "api.log"
    serves = start_process(stack, [sys.executable, "-m", "orchestrator.processes.api"], log, environment)
    async with asyncio.timeout(STARTED_WITHIN):
        while not (folder / "penstock.sock").exists():
            if serves.poll() is not None:
                raise SystemExit(f"bench: the API has ended: {log.read_text()[-2000:]}")
            await asyncio.sleep(0.1)
    probing = Probing(
        path=str(folder / "penstock.sock"),
        port=port,
        held=FLEET,
        idle=IDLE,
        users=[FIRST_USER + number for number in range(OPERATORS)],
        tokens=tokens,
        seconds=seconds,
    )
    stage = Stage(ledger, Attacked(port=port, fleet=FLEET, large=LARGE, viewer=viewer), probing)
    warm = Stage(ledger, stage.attacked, probing.model_copy(update={"seconds": 2.0}))
    await probe(warm)  # the first requests load what later ones have
    yield stage
