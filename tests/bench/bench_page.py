"""The page: loads, live regions and 200 viewers of a SIMULATED fleet of 10,000 gateways in mid-change.

The fleet and its change are rows that a simulation writes (`page_fleet`); ledger, API process, engine and
worker are real. Everybody comes from this host, so the viewers' own work is on the same processors.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from deploy.ports import free_port
from orchestrator.engine import development as development_engine
from orchestrator.engine.client import connect
from orchestrator.service.changes import ChangeService
from orchestrator.store.ledger import Ledger
from tests.bench import page_fleet
from tests.bench.bench_fleet import answering_engine, start_process
from tests.bench.page_fleet import EVENTS_A_MINUTE, GATEWAYS, VERDICT_SECONDS, UnderWay
from tests.bench.page_viewers import Viewer, load
from tests.bench.process_costs import cpu_seconds, resident_mb
from tests.bench.simulated_agents import FLEET
from tests.service.every_page import every_page

MOST_MS, MOST_KB, MOST_UPDATE_S = 500.0, 300.0, 2.0
MOST_WORKER_SHARE = 0.01
"""Of a core, by which the worker may be busier with all viewers than without: less cannot be told apart."""

VIEWERS = 200
PLACES = 5
"""Addresses that viewers come from: offices, behind one address each."""

LOADS, UPDATES = 7, 20
ASKED_WITHIN = 120.0


def main(json_path: Path | None, arguments: list[str]) -> int:
    """Measure; 1 when a bar fails."""
    parser = argparse.ArgumentParser(prog="bench page")
    parser.add_argument("--gateways", type=int, default=GATEWAYS)
    parser.add_argument("--viewers", type=int, default=VIEWERS)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long processors are measured")
    parser.add_argument("--profile", type=Path, help="where the API process writes what it spends time on")
    chosen = parser.parse_args(arguments)
    print("SIMULATED gateways and a simulated change in a real ledger; API, engine and worker are real")
    figures = asyncio.run(_measure(chosen))
    wrong = _wrong(figures)
    figures["passes"] = not wrong
    _show(figures)
    for sentence in wrong:
        print(f"FAILS: {sentence}")
    if json_path is not None:
        json_path.write_text(json.dumps(figures, indent=2) + "\n")
    return 1 if wrong else 0


@dataclass
class Stage:
    """What is measured: processes, the ledger, and who is logged in."""

    book: Ledger
    change: UnderWay
    port: int
    api: int
    worker: int
    sessions: list[str]

    def client(self, session: str = "", **more: Any) -> httpx.AsyncClient:
        """Return a client that is logged in."""
        return httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}",
            cookies={"penstock": session or self.sessions[0]},
            trust_env=False,
            timeout=ASKED_WITHIN,
            **more,
        )


async def _measure(chosen: argparse.Namespace) -> dict[str, Any]:
    figures: dict[str, Any] = {"simulated": True, "gateways": chosen.gateways}
    async with _stage(chosen) as stage, _goes_on(stage.change):
        pages = await _pages(stage)
        figures["page_ms"] = {
            path: {
                "median": round(statistics.median(one.milliseconds), 1),
                "worst": round(max(one.milliseconds), 1),
                "first": round(one.milliseconds[0], 1),
            }
            for path, one in pages.items()
        }
        figures["page_kb"] = {path: round(one.size / 1000, 1) for path, one in pages.items()}
        figures["update_s"] = await _updates(stage)
        figures["viewers"] = await _viewers(stage, chosen.viewers, chosen.seconds)
    return figures


@asynccontextmanager
async def _stage(chosen: argparse.Namespace) -> AsyncIterator[Stage]:
    """Lay out the installation, have its change under way, and start every process."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-page-")))
        engine, api = f"127.0.0.1:{free_port()}", free_port()
        database = folder / "engine.sqlite"
        command = development_engine.command("127.0.0.1", int(engine.rpartition(":")[2]), database)
        start_process(stack, command, folder / "engine.log")
        await answering_engine(engine)
        url = f"sqlite:///{folder / 'ledger.db'}"
        book = Ledger.open(url)
        signed = await page_fleet.signed(folder)
        planned = page_fleet.plan(chosen.gateways, signed.release)
        page_fleet.write_files(folder, planned.fleet, chosen.viewers)
        page_fleet.fill(book, planned)
        worker = [sys.executable, "-m", "tests.bench.page_worker", engine, url, str(chosen.gateways)]
        works = start_process(stack, worker, folder / "worker.log")
        change = await _begun(engine, book, planned)
        change.fill(datetime.now(UTC))
        environment = os.environ | {
            "PENSTOCK_STATE": str(folder),
            "PENSTOCK_TEMPORAL_ADDRESS": engine,
            "PENSTOCK_LEDGER_URL": url,
            "PENSTOCK_FLEET": str(folder / "fleets"),
            "PENSTOCK_PEOPLE": str(folder / "people.yaml"),
            "PENSTOCK_GATES": "deploy/prometheus/gates.yaml",
            "PENSTOCK_STORE": str(signed.store),
            "PENSTOCK_TRUST": str(signed.trust),
            "PENSTOCK_API_ADDRESS": f"127.0.0.1:{api}",
        }
        program = ["-m", "orchestrator.processes.api"]
        if chosen.profile is not None:
            program = ["-m", "cProfile", "-o", str(chosen.profile), *program]
        serves = start_process(stack, [sys.executable, *program], folder / "api.log", environment)
        await _serving(api, serves, folder / "api.log")
        sessions = page_fleet.log_in(book, chosen.viewers)
        yield Stage(book, change, api, serves.pid, works.pid, sessions)


async def _begun(engine: str, book: Ledger, planned: Any) -> UnderWay:
    """Start the change at the engine, as people do; from its admission on it is simulated."""
    service = ChangeService(await connect(engine, "default"), book)
    await service.start(planned, "http://simulated", "viewer-000", "measuring")
    async with asyncio.timeout(ASKED_WITHIN):
        while True:
            if (newest := await asyncio.to_thread(_newest_told, book)) is not None:
                return UnderWay(book, planned, newest)
            await asyncio.sleep(0.2)


def _newest_told(book: Ledger) -> str | None:
    """Return the change that is under way, once it has told something."""
    newest = next(iter(book.open_changes(FLEET)), None)
    return newest if newest is not None and book.story(newest) is not None else None


async def _serving(port: int, process: Any, log: Path) -> None:
    async with asyncio.timeout(ASKED_WITHIN), httpx.AsyncClient(trust_env=False) as client:
        while True:
            try:
                await client.get(f"http://127.0.0.1:{port}/login")
            except httpx.TransportError:
                if process.poll() is not None:
                    raise SystemExit(f"bench: the API has ended; {log} says why") from None
                await asyncio.sleep(0.1)
            else:
                return


@asynccontextmanager
async def _goes_on(change: UnderWay) -> AsyncIterator[None]:
    """Have the change tell and decide for the length of the body, as often as a large one does."""

    async def keep(work: Any, pause: float) -> None:
        while True:
            await asyncio.to_thread(work)
            await asyncio.sleep(pause)

    said = partial(change.tell, "a gateway was left out and sent back: exit code 1")
    works = [keep(said, 60 / EVENTS_A_MINUTE), keep(change.judge, VERDICT_SECONDS)]
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error


async def _pages(stage: Stage) -> dict[str, Any]:
    """Load every page several times, the first time included."""
    newest = stage.book.releases()[0].release.digest.removeprefix("sha256:")
    filled = {"fleet": FLEET, "gateway": "gw-00007", "change": stage.change.name, "release": newest}
    plan = stage.change.plan.digest.removeprefix("sha256:")
    paths = every_page(filled | {"verb": "hold", "plan": plan}) | {
        "change before": f"/changes/{FLEET}-300",
        "explained": f"/explain?word={stage.change.name}",
    }
    files: dict[str, int] = {}
    async with stage.client() as client:
        return {name: await load(client, path, LOADS, files) for name, path in paths.items()}


async def _updates(stage: Stage) -> dict[str, float]:
    """Return seconds from before something is written to the moment a viewer has the region that says it."""
    viewer = Viewer(stage.port, f"/fleets/{FLEET}/live", stage.sessions[0])
    following = asyncio.create_task(viewer.follow())
    try:
        return await _heard_by(viewer, stage.change)
    finally:
        following.cancel()


async def _heard_by(viewer: Viewer, change: UnderWay) -> dict[str, float]:
    async with asyncio.timeout(ASKED_WITHIN):
        await viewer.answered.wait()
    late = []
    for number in range(UPDATES):
        word = f"mark-{number}-{time.monotonic_ns()}"
        heard = asyncio.ensure_future(viewer.until_said(word))
        await asyncio.sleep(0.2 + 0.83 * (number % 7) / 7)  # at every moment between two looks
        began = time.monotonic()
        await asyncio.to_thread(change.tell, word)
        late.append(await heard - began)
    return {"median": round(statistics.median(late), 2), "worst": round(max(late), 2), "of": len(late)}


async def _viewers(stage: Stage, count: int, seconds: float) -> dict[str, Any]:
    """Measure what everybody who looks at once costs worker and API, one person each and a few in all."""
    alone = await _costs(stage, seconds)
    figures: dict[str, Any] = {"count": count, "without": alone}
    for name, people, places in (("persons", count, PLACES), ("few_persons", max(1, count // 10), 1)):
        secrets = [stage.sessions[number % people] for number in range(count)]
        viewers = [
            Viewer(stage.port, f"/fleets/{FLEET}/live", secret, f"127.0.0.{2 + number % places}")
            for number, secret in enumerate(secrets)
        ]
        following = [asyncio.create_task(viewer.follow()) for viewer in viewers]
        try:
            await asyncio.wait([asyncio.create_task(_settled(viewer)) for viewer in viewers])
            costs = await _costs(stage, seconds)
            before = [viewer.heard for viewer in viewers]
            update = await _heard_by(viewers[-1], stage.change)
            deaf = sum(viewer.heard == heard for viewer, heard in zip(viewers, before, strict=True))
            followed = sum(not task.done() for task in following)
            figures[name] = {
                **costs,
                "persons": people,
                "addresses": places,
                "followed": followed,
                "most_tries": max(viewer.tries for viewer in viewers),
                "deaf": deaf,
                "refused": sorted({viewer.refused for viewer in viewers if viewer.refused}),
                "update_s": update,
                "page_ms": await _loaded_beside(stage),
                "kb_per_s": round(sum(viewer.bytes_heard for viewer in viewers) / 1000 / seconds, 1),
            }
        finally:
            for task in following:
                task.cancel()
            await asyncio.wait(following)
        await asyncio.sleep(6)  # the look goes on for a little while
    return figures


async def _settled(viewer: Viewer) -> None:
    """Return once a viewer is let in or refused."""
    async with asyncio.timeout(ASKED_WITHIN):
        await viewer.answered.wait()


async def _loaded_beside(stage: Stage) -> float:
    """Return the worst milliseconds in which the fleet's page is loaded while everybody looks."""
    async with stage.client() as client:
        return round(max((await load(client, f"/fleets/{FLEET}", LOADS, {})).milliseconds), 1)


async def _costs(stage: Stage, seconds: float) -> dict[str, float]:
    worker, api, began = cpu_seconds(stage.worker), cpu_seconds(stage.api), time.monotonic()
    await asyncio.sleep(seconds)
    took = time.monotonic() - began
    return {
        "worker_cpu_s": round(cpu_seconds(stage.worker) - worker, 2),
        "seconds": round(took, 1),
        "api_cpu_per_s": round((cpu_seconds(stage.api) - api) / took, 3),
        "api_rss_mb": round(resident_mb(stage.api), 1),
    }


def _wrong(figures: dict[str, Any]) -> list[str]:
    """Return which bars fail."""
    wrong = [
        f"{name} took {took['worst']} ms at worst; {MOST_MS:g} at most"
        for name, took in figures["page_ms"].items()
        if took["worst"] > MOST_MS
    ]
    wrong += [
        f"{name} has {size} kB; {MOST_KB:g} at most"
        for name, size in figures["page_kb"].items()
        if size > MOST_KB
    ]
    updates = {"one viewer": figures["update_s"]}
    viewers = figures["viewers"]
    for name in ("persons", "few_persons"):
        found, without = viewers[name], viewers["without"]
        updates[name] = found["update_s"]
        more = found["worker_cpu_s"] / found["seconds"] - without["worker_cpu_s"] / without["seconds"]
        if more > MOST_WORKER_SHARE:
            wrong.append(f"{name}: the worker takes {more:.1%} of a core more than without viewers")
        if found["followed"] < viewers["count"] or found["deaf"]:
            follow = f"{found['followed']} of {viewers['count']} follow"
            wrong.append(f"{name}: {follow}, {found['deaf']} hear nothing {found['refused']}")
        if found["page_ms"] > MOST_MS:
            wrong.append(f"{name}: the fleet's page took {found['page_ms']} ms beside them")
    wrong += [
        f"{name}: a region came {late['worst']} s late; {MOST_UPDATE_S:g} at most"
        for name, late in updates.items()
        if late["worst"] > MOST_UPDATE_S
    ]
    return wrong


def _show(figures: dict[str, Any]) -> None:
    print(f"{'page':16}{'median ms':>10}{'worst ms':>10}{'kB':>8}")
    for name, took in figures["page_ms"].items():
        print(f"{name:16}{took['median']:10}{took['worst']:10}{figures['page_kb'][name]:8}")
    print("update_s", figures["update_s"])
    for name in ("without", "persons", "few_persons"):
        print(f"{name:16}{figures['viewers'][name]}")
