"""The judge's tick on a large fleet: a real Prometheus over SIMULATED exporters, and the real look-up.

Every simulated gateway is a target of its own with the series of two instances, scraped as often as the
gate policy of production says; one process, which is not the judge's, answers for all of them. What runs is
the step that a workflow calls; what is timed are its ticks: what to read, the answers, the folding of them,
and the state that a heartbeat carries. Who belongs to the wave is read once a slice, before its first tick.
"""

import asyncio
import json
import multiprocessing
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path

from temporalio.testing import ActivityEnvironment

from activities.drivers.metrics.prometheus import PrometheusSource
from activities.observation import ObservationActivities, unpacked
from activities.watching import WatchActivities, WatchSlice
from orchestrator.store.ledger import Ledger
from policies.judge.counts import Series
from policies.judge.tick import Offence
from policies.model.change import ChangeKind, ChangeOpening, GatewayResult
from policies.model.fleet import Fleet, Gateway
from policies.model.plan import Plan, ReleaseRef
from tests.fakes.prometheus import prometheus_of

TICKS = 10
"""Ticks that are timed; the first reads the baseline, too."""

SCRAPES_BEFORE = 4
"""Scrapes of the whole fleet before the first tick."""

BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 30.0)
OUTCOMES = ("ok", "auth_fail", "tls_fail", "timeout", "internal", "cancelled")


class Exporters:
    """One server that answers for the exporters of all gateways, by path."""

    def __init__(self, names: Sequence[str], executables: tuple[str, str], changed: frozenset[str]) -> None:
        self._numbers = {name: number for number, name in enumerate(names)}
        self._old, self._new = executables
        self._changed = changed
        self._began = time.time()

    async def serve(self, told: Connection) -> None:
        """Listen on a free port of loopback, tell it, and answer until the process ends."""
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0, backlog=4096)
        told.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                name = request.split(b" ", 2)[1].decode().strip("/")
                body = self.page(name).encode()
                head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
                writer.write(head.encode() + body)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # Prometheus has ended, or the bench has
        finally:
            writer.close()

    def page(self, name: str) -> str:
        """Return what the exporter of that gateway says now: thirty logins a minute where new ones go."""
        number, passed = self._numbers[name], time.time() - self._began
        slots = [("a", self._old, 1000.0), *([("b", self._new, 2000.0)] if name in self._changed else [])]
        lines = [f'vpngw_boot_info{{boot_id="{name}"}} 1']
        for slot, digest, started in slots:
            serves = slot == slots[-1][0]
            logins = int(passed / 2) + number % 7 if serves else 5
            labels = f'slot="{slot}",digest="{digest}"'
            counts = {outcome: logins if outcome == "ok" else 1 for outcome in OUTCOMES}
            lines += [
                f'vpngw_first_attempts_total{{outcome="{outcome}",{labels}}} {count}'
                for outcome, count in counts.items()
            ]
            lines += [
                f'vpngw_handshake_seconds_bucket{{le="{bound}",{labels}}} {logins if place else logins // 2}'
                for place, bound in enumerate((*BOUNDS, "+Inf"))
            ]
            process = {"open_fds": 40, "max_fds": 1024, "resident_memory_bytes": 3e7}
            process |= {"start_time_seconds": started, "cpu_seconds_total": round(passed / 50, 2)}
            lines += [f"vpngw_process_{key}{{{labels}}} {value}" for key, value in process.items()]
            lines += [f"vpngw_sessions{{{labels}}} {100 + number % 50}", f"vpngw_probe_success{{{labels}}} 1"]
            if serves:
                lines.append(f'vpngw_build_info{{version="1",{labels}}} 1')
        return "\n".join(lines) + "\n"


def _serve(
    told: Connection, names: Sequence[str], executables: tuple[str, str], changed: frozenset[str]
) -> None:
    asyncio.run(Exporters(names, executables, changed).serve(told))


@contextmanager
def _exporters_of(fleet: Fleet, old: ReleaseRef, new: ReleaseRef, changed: frozenset[str]) -> Iterator[int]:
    """Run the exporters, and yield their port."""
    processes = multiprocessing.get_context("spawn")
    heard, told = processes.Pipe(duplex=False)
    names = [gateway.name for gateway in fleet.gateways]
    serving = processes.Process(
        target=_serve, args=(told, names, (old.executable, new.executable), changed), daemon=True
    )
    serving.start()
    told.close()  # else a child that died would be waited for
    try:
        port: int = heard.recv()
        yield port
    finally:
        serving.kill()
        serving.join()


def _labels(gateway: Gateway) -> dict[str, str]:
    return {"__metrics_path__": f"/{gateway.name}", "instance": gateway.metrics_target}


def _as_answered(series: Series) -> dict[str, object]:
    values = [(at, f"{value:g}") for at, value in series.samples]
    return {"metric": dict(series.labels), "values": values}


class Weighed:
    """The source of the product; what it answers is kept, to be weighed when the time is taken."""

    def __init__(self, source: PrometheusSource) -> None:
        self._source = source
        self._answers: list[Series] = []
        self._offenders = 0

    def taken(self) -> int:
        """Return the size of all answers since the last time, as Prometheus wrote them, in bytes."""
        answers = [json.dumps(_as_answered(one), separators=(",", ":")) for one in self._answers]
        found = sum(map(len, answers)) + self._offenders
        self._answers, self._offenders = [], 0
        return found

    async def raw(
        self, selector: str, instances: Sequence[str], at: datetime, lookback: timedelta
    ) -> tuple[Series, ...]:
        """Return what the source returns."""
        found = await self._source.raw(selector, instances, at, lookback)
        self._answers += found
        return found

    async def offenders(self, offence: Offence, at: datetime) -> frozenset[str]:
        """Return what the source returns."""
        found = await self._source.offenders(offence, at)
        self._offenders += sum(len(name) + 50 for name in found)
        return found


@dataclass(frozen=True)
class Ticks:
    """What reading a fleet takes: the first tick of a window reads the baseline, too.

    The slowest of the others is told apart from their median, since Prometheus collects its garbage on
    the same two processors: with 10,000 gateways it holds more than a gigabyte.
    """

    first: float
    """In seconds, as the others."""
    median: float
    slowest: float
    bytes: int
    """The largest of all ticks."""


async def measure_ticks(plan: Plan, old: ReleaseRef) -> Ticks:
    """Measure some ticks while all waves but the last are on trial."""
    changed = frozenset(name for wave in plan.waves[:-1] for name in wave.gateways)
    folder = Path(tempfile.mkdtemp(prefix="penstock-bench-ticks-"))
    book = Ledger.open(f"sqlite:///{folder / 'ledger.db'}")
    try:
        change = _standing(book, plan)
        scrape = f"{plan.gates.scrape.total_seconds():g}s"
        with _exporters_of(plan.fleet, old, plan.release, changed) as port:
            listening = [f"127.0.0.1:{port}"]
            targets = [{"targets": listening, "labels": _labels(gateway)} for gateway in plan.fleet.gateways]
            with prometheus_of(targets, scrape) as prometheus:
                await prometheus.start()
                await asyncio.sleep(SCRAPES_BEFORE * plan.gates.scrape.total_seconds())
                source = PrometheusSource(prometheus.url)
                try:
                    return await _ticks(book, plan, change, len(plan.waves) - 1, source)
                finally:
                    source.close()
    finally:
        book.close()
        shutil.rmtree(folder, ignore_errors=True)


async def _ticks(book: Ledger, plan: Plan, change: str, wave: int, source: PrometheusSource) -> Ticks:
    weighed = Weighed(source)
    seconds: dict[float, float] = {}
    sizes: list[int] = []
    blind: list[bool] = []

    def ended(packed_state: str) -> None:
        """Take the time from a tick's begin, which its state names, to the heartbeat that carries it."""
        now, state = time.time(), unpacked(packed_state)
        if state.last and state.last not in seconds:
            seconds[state.last] = round(now - state.last, 2)
            sizes.append(weighed.taken())
            blind.append(state.blind_since is not None)

    watch = WatchActivities(book, ObservationActivities(weighed, offenders=weighed))
    environment = ActivityEnvironment()
    environment.on_heartbeat = ended
    slice_length = plan.gates.tick * (TICKS - 1)
    asked = WatchSlice(change=change, plan=plan.digest, wave=wave, state="", slice=slice_length)
    found = await environment.run(watch.watch_wave, asked)
    if any(blind):
        raise SystemExit(f"bench: {sum(blind)} ticks did not read all they need: {found.decision.reason}")
    if len(seconds) < TICKS:
        raise SystemExit(f"bench: {len(seconds)} ticks of {TICKS}, and then: {found.decision.reason}")
    first, *others = seconds.values()
    return Ticks(first, round(statistics.median(others), 2), max(others), max(sizes))


def _standing(book: Ledger, plan: Plan) -> str:
    """Write a ledger in which all waves but the last are kept or on trial, and return the change's name."""
    opening = ChangeOpening(
        key="measured",
        fleet=plan.fleet.name,
        kind=ChangeKind.UPGRADE,
        requested_by="bench",
        reason="measuring",
        release=plan.release.version,
        plan=plan.digest,
    )
    book.record_plan(plan)
    change = book.open_change(opening)
    now = datetime.now(UTC)
    on_trial = {"state": "on trial", "slot": "b", "at": now, "started": now.timestamp()}
    results = [
        GatewayResult(gateway=name, wave=wave.number, **on_trial)
        for wave in plan.waves[:-1]
        for name in wave.gateways
    ]
    for first in range(0, len(results), 500):
        book.record_gateways(change, results[first : first + 500])
    return change
