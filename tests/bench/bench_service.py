"""The service: what a command costs, what a thousand do to a change, and 10,000 gateways in mid-change.

Commands run as processes of their own against an API in this one. The change that takes the thousand
commands, and the large fleet, have SIMULATED gateways; engine, workflows, ledger and API are real.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import insert
from temporalio.api.enums.v1 import EventType

from deploy.lab.lab import write_yaml
from orchestrator.api.limits import Kind, Limits
from orchestrator.processes.api import serving, socket_at
from orchestrator.processes.composition import Installation, compose
from orchestrator.settings import Settings
from orchestrator.store import tables
from orchestrator.store.chain import chain
from orchestrator.store.database import writing
from policies.model.audit import AuditHead
from policies.model.fleet import Fleet
from policies.model.plan import Plan
from tests.bench.bench_fleet import LAB, PATIENCE, Setup, Size, begin, plan_of, standing
from tests.bench.simulated_agents import FLEET
from tests.fakes.postgresql import PostgreSQL
from workflows.identities import change_of

RUNS = 20
SENT, DISTINCT = 1_000, 200
AT_ONCE = 32
ENTRIES = 100_000
SMALL, LARGE = 20, 10_000
MID_CHANGE = 20.0
"""Seconds after its start in which a change of simulated gateways is well under way."""


class Patient(Limits):
    """Lets everybody ask as often as they like: a thousand commands in a row are no person's."""

    def take(self, who: str, kind: Kind) -> None:
        """Take nothing."""


def main(json_path: Path | None, arguments: list[str]) -> int:
    """Measure both databases, then the large fleet; 1 when commands had more effects than there were."""
    parser = argparse.ArgumentParser(prog="bench service")
    parser.add_argument("--gateways", type=int, default=LARGE, help="of the large fleet; 0 leaves it out")
    chosen = parser.parse_args(arguments)
    print("SIMULATED gateways on a real engine, ledger, worker and API")
    figures: dict[str, Any] = {"simulated": True}
    with tempfile.TemporaryDirectory(prefix="penstock-bench-service-") as folder:
        for kind, url in _databases(Path(folder)):
            figures[kind] = asyncio.run(_measure(Path(folder) / kind, url))
            print(f"{kind:12}{_line(figures[kind])}", flush=True)
        if chosen.gateways:
            figures["large"] = asyncio.run(_measure_large(Path(folder) / "large", chosen.gateways))
            print(f"{'large':12}{_line(figures['large'])}", flush=True)
    if json_path is not None:
        json_path.write_text(json.dumps(figures, indent=2) + "\n")
    effects = [figures[kind]["commands"] for kind in ("sqlite", "postgresql")]
    return 0 if all(one["effects"] == one["distinct"] for one in effects) else 1


def _databases(folder: Path) -> Iterator[tuple[str, str]]:
    yield "sqlite", f"sqlite:///{folder / 'service.db'}"
    with PostgreSQL() as server, server.database() as url:
        yield "postgresql", url


async def _measure(folder: Path, url: str) -> dict[str, Any]:
    async with standing(SMALL, harm_in_wave=0, patience=3600.0, ledger=url) as setup:
        plan = plan_of(SMALL, Size(gateways=SMALL), LAB)
        async with _asked(folder, setup, plan.fleet) as place, _under_way(setup, plan):
            found = {
                "help_ms": await _median(place, "--help"),
                "status_ms": await _median(place, "status", FLEET),
                "commands": await _commands(place, setup),
            }
            book = setup.ledger
            await asyncio.to_thread(_fill, book.engine)
            began = time.monotonic()
            fault = await asyncio.to_thread(book.verify_audit)
            found["audit_verify_s"] = round(time.monotonic() - began, 2)
            if fault is not None:
                raise SystemExit(f"bench: the audit record is broken: {fault}")
    return found


async def _measure_large(folder: Path, count: int) -> dict[str, Any]:
    """Ask for the status of a large fleet in mid-change, and wait for events at a stream of them."""
    async with standing(count, harm_in_wave=0, patience=600.0) as setup:
        plan = plan_of(count, Size(gateways=count), LAB)
        async with _asked(folder, setup, plan.fleet) as place, _under_way(setup, plan):
            await _median(place, "status", FLEET, runs=2)  # the first one reads the fleet's file
            return {
                "gateways": count,
                "status_ms": await _median(place, "status", FLEET),
                "answer_ms": await _answer(place),
                "event_s": await _events(place),
            }


@asynccontextmanager
async def _asked(folder: Path, setup: Setup, fleet: Fleet) -> AsyncIterator[Path]:
    """Have an API for this fleet and its ledger; give its socket."""
    settings = Settings(
        temporal_address=setup.address,
        ledger_url=setup.url,
        fleet=write_yaml(folder / "fleet.yaml", fleet),
        people=folder / "people.yaml",
        socket=folder / "api.sock",
        audit_key=folder / "audit.key",
        audit_checkpoints=folder / "checkpoints.jsonl",
        audit_late=folder / "audit-late.jsonl",
        store=folder / "store",
    )
    installation: Installation = await compose(settings)
    await installation.service.read_files()
    async with serving(installation.service, socket_at(settings.socket), limits=Patient()):
        yield settings.socket


@asynccontextmanager
async def _under_way(setup: Setup, plan: Plan) -> AsyncIterator[None]:
    """Have a change of the fleet under way for the length of the body."""
    begin(setup.ledger, plan.fleet)
    service = await setup.service()
    await service.start(plan, "http://simulated", "bench", "measuring")
    await asyncio.sleep(MID_CHANGE)
    yield


async def _median(place: Path, *arguments: str, runs: int = RUNS) -> float:
    """Return the median milliseconds of a command, as a process."""
    taken = []
    environment = {**os.environ, "PENSTOCK_SOCKET": str(place)}
    for _ in range(runs):
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "orchestrator", *arguments],
            env=environment,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()
        taken.append(time.monotonic() - began)
        if process.returncode:
            raise SystemExit(f"bench: {' '.join(arguments)} ended with {process.returncode}: {said.decode()}")
    return round(statistics.median(taken) * 1000, 1)


@contextmanager
def _client(place: Path) -> Iterator[httpx.AsyncClient]:
    transport = httpx.AsyncHTTPTransport(uds=os.fspath(place))
    yield httpx.AsyncClient(transport=transport, base_url="http://penstock/v1", timeout=120)


async def _answer(place: Path) -> float:
    """Return the median milliseconds of the API's own answer."""
    taken = []
    with _client(place) as client:
        for _ in range(RUNS):
            began = time.monotonic()
            (await client.get(f"/fleets/{FLEET}")).raise_for_status()
            taken.append(time.monotonic() - began)
        await client.aclose()
    return round(statistics.median(taken) * 1000, 1)


async def _events(place: Path, wanted: int = 10) -> float:
    """Return the median seconds from when an event happened to when a stream gives it.

    Somebody holds the change and lifts the hold again, which makes events also where the fleet makes few.
    """
    late: list[float] = []

    async def speak(client: httpx.AsyncClient) -> None:
        for number in range(wanted * 2):
            kind = ("hold", "resume")[number % 2]
            await client.post(
                f"/fleets/{FLEET}/commands",
                json={"kind": kind, "reason": "measuring"},
                headers={"Idempotency-Key": f"event-{number}"},
            )
            await asyncio.sleep(1)

    with _client(place) as client:
        newest = (await client.get(f"/fleets/{FLEET}/events", params={"after": 0})).json()["after"]
        while page := (await client.get(f"/fleets/{FLEET}/events", params={"after": newest})).json():
            if not page["events"]:
                break
            newest = page["after"]
        headers = {"Accept": "text/event-stream"}
        asked = client.stream("GET", f"/fleets/{FLEET}/events", params={"after": newest}, headers=headers)
        async with asyncio.timeout(120), asked as stream:
            speaking = asyncio.create_task(speak(client))
            async for line in stream.aiter_lines():
                if not line.startswith("data:"):
                    continue
                at = datetime.fromisoformat(json.loads(line.removeprefix("data:"))["at"])
                late.append((datetime.now(UTC) - at).total_seconds())
                if len(late) == wanted:
                    break
        speaking.cancel()
        await asyncio.wait([speaking])
        await client.aclose()
    return round(statistics.median(late), 2)


async def _commands(place: Path, setup: Setup) -> dict[str, int]:
    """Send holds again and again, many at once; count what the change itself has taken."""
    keys = [f"hold-{number}" for number in range(DISTINCT)] * (SENT // DISTINCT)
    random.Random(0).shuffle(keys)
    turn = asyncio.Semaphore(AT_ONCE)
    refused: list[str] = []

    async def send(client: httpx.AsyncClient, key: str) -> None:
        asked = {"kind": "hold", "reason": "measuring"}
        async with turn:
            while True:
                answer = await client.post(
                    f"/fleets/{FLEET}/commands", json=asked, headers={"Idempotency-Key": key}
                )
                if answer.status_code != httpx.codes.CONFLICT or "still being carried out" not in answer.text:
                    break
                await asyncio.sleep(0.05)
        if answer.is_error:
            refused.append(answer.text)

    with _client(place) as client:
        await asyncio.gather(*(send(client, key) for key in keys))
        await client.aclose()
    if refused:
        raise SystemExit(f"bench: {len(refused)} commands were refused: {refused[0]}")
    effects, stored = await _effects(setup)
    return {"sent": len(keys), "distinct": DISTINCT, "effects": effects, "stored": stored}


async def _effects(setup: Setup) -> tuple[int, int]:
    """Return how many commands the change has taken, and how many of them the engine kept for it.

    The engine holds ten updates of a workflow at once; what waits too long for its turn is kept as a
    signal. The change knows a command by its id: a signal whose id came as an update has no effect.
    """
    service = await setup.service()
    handle = service.client.get_workflow_handle(change_of(FLEET))
    accepted, kept = list[str](), set[str]()
    async for event in handle.fetch_history_events(rpc_timeout=PATIENCE):
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED:
            update = event.workflow_execution_update_accepted_event_attributes.accepted_request
            accepted.append(json.loads(update.input.args.payloads[0].data)["id"])
        elif event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
            signal = event.workflow_execution_signaled_event_attributes
            if signal.signal_name == "command_fallback":
                kept.add(json.loads(signal.input.payloads[0].data)["id"])
    stored = kept.difference(accepted)
    return len(accepted) + len(stored), len(stored)


def _fill(engine: Any) -> None:
    """Append entries until there are a hundred thousand, in one transaction."""
    with writing(engine) as connection:
        table = tables.audit
        newest = connection.execute(table.select().order_by(table.c.seq.desc()).limit(1)).first()
        head = AuditHead(seq=newest.seq, hash=newest.hash) if newest is not None else AuditHead(seq=0)
        rows = []
        while head.seq < ENTRIES:
            entry = chain(head, "2026-01-01T00:00:00.000+00:00", "ada", "cli", "looked", FLEET, "{}", FLEET)
            rows.append(entry.model_dump())
            head = AuditHead(seq=entry.seq, hash=entry.hash)
        for first in range(0, len(rows), 1000):
            connection.execute(insert(table), rows[first : first + 1000])


def _line(figures: dict[str, Any]) -> str:
    return "  ".join(f"{name} {value}" for name, value in figures.items())
