"""Fleet: a whole change of a SIMULATED fleet on the real engine, clean and turned round at 60 %.

The gateways and their agents are simulated (`simulated_agents`, one process, a queue a gateway);
engine, workflows, ledger and worker are real, and the worker is a process of its own whose
processor time and memory are what is measured. Admission and the judge are scripted; the judge's
own cost is measured apart, on a real Prometheus (`tick`).
"""

import argparse
import asyncio
import gc
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import update
from temporalio.client import Client, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError

from activities.files import load
from activities.quarantines import FRESH
from deploy.ports import free_port
from orchestrator.engine import development as development_engine
from orchestrator.engine.client import connect
from orchestrator.service.changes import ChangeService
from orchestrator.service.quarantine import QuarantineService
from orchestrator.store import tables
from orchestrator.store.database import writing
from orchestrator.store.ledger import Ledger
from policies.model.change import (
    ChangeEnding,
    ChangeKind,
    ChangeOpening,
    ChangeResult,
    KnownGoodBatch,
    Outcome,
    Phase,
)
from policies.model.command import MOST_GATEWAYS, Command, CommandKind
from policies.model.errors import PenstockError
from policies.model.fleet import Fleet
from policies.model.gates import GatePolicy
from policies.model.instance import GatewayState
from policies.model.plan import Plan, ReleaseRef, Strategy
from policies.model.value import digest_of
from policies.planning.parts import parted
from policies.planning.plan import plan as make_plan
from tests.bench.fleet_metrics import measure_ticks
from tests.bench.simulated_agents import FLEET, NEW_VERSION, OLD_VERSION, STEPS, Faults, fleet, release
from tests.fakes.gateway import FakeGateway
from workflows.identities import change_of

SIZES = (100, 1_000, 10_000)
LAB = load(Path("deploy/lab/gates.yaml"), GatePolicy)
PRODUCTION = load(Path("deploy/prometheus/gates.yaml"), GatePolicy)
FAULTY_FLEET = 1_000
TURNED_ROUND_IN_WAVE = 3
"""The wave after which sixty per cent of the gateways have changed."""

LOST_IN = 8
"""One gateway in so many is at the site that is lost."""

AT_ONCE = 0.2
"""Seconds in which an engine answers that is not busy with 10,000 agents who connect."""

WITHIN = 3600.0
"""Seconds after which a change counts as hung."""

SETTLING = 5.0
"""Seconds after the last instance was started in which its trial begins."""

PLANNED = 5
"""Times that a plan is made, to say how long it takes."""

TEN_SECONDS = 10
"""Counts, of which there is one a second."""

PATIENCE = timedelta(minutes=1)
"""How long the engine may take to give a page of what it keeps of a large fleet."""

SCANNED = 80
"""Histories of each kind that are read for their largest payload."""


@dataclass
class Size:
    """What a fleet of that size cost."""

    gateways: int
    plan_s: float = 0.0
    slowest_plan_s: float = 0.0
    wall_s: float = 0.0
    worker_cpu_s: float = 0.0
    worker_rss_mb: float = 0.0
    events: int = 0
    longest_history: int = 0
    longest_of: str = ""
    """Which workflow has it."""
    largest_payload_bytes: int = 0
    steps_per_s: float = 0.0
    most_steps_per_s: float = 0.0
    restored_s: float = 0.0
    restored: int = 0
    back_wall_s: float = 0.0
    back_worker_cpu_s: float = 0.0
    back_worker_rss_mb: float = 0.0
    first_tick_s: float = -1
    tick_s: float = 0.0
    slowest_tick_s: float = 0.0
    tick_bytes: int = 0


@dataclass
class Misfortune:
    """How a change went on while gateways failed by themselves."""

    gateways: int
    dead: int
    rebooting: int
    silent: int
    refusing: int
    outcome: str
    wall_s: float
    on_new: int
    """Gateways that give new sessions to the new release at its end."""
    elsewhere: dict[str, str]
    """After a promotion: what those say that do not and have not gone for good, and how each is named."""
    lasting: int
    """Gateways that stay away."""
    named: int
    """How many of them the change names at its end, or counts beside those whom it names."""
    sentence: str


def main(json_path: Path | None, arguments: list[str]) -> int:
    """Measure every size; 1 when a change did not end as it should."""
    parser = argparse.ArgumentParser(prog="bench fleet")
    parser.add_argument("--gateways", type=int, action="append", help="only this size; may be repeated")
    parser.add_argument("--watch", type=float, default=None, help="seconds everybody stays on trial")
    parser.add_argument("--only-faults", action="store_true", help="only the runs in which gateways fail")
    parser.add_argument("--lost-site", action="store_true", help="only the way back, with one in eight lost")
    chosen = parser.parse_args(arguments)
    print("SIMULATED gateways and agents on a real engine, ledger and worker")
    sizes, misfortunes = [], []
    if chosen.lost_site:
        losses = [asyncio.run(_lose(count)) for count in chosen.gateways or SIZES]
        if json_path is not None:
            json_path.write_text(json.dumps({"simulated": True, "lost": losses}, indent=2) + "\n")
        return 0
    for count in chosen.gateways or SIZES if not chosen.only_faults else ():
        sizes.append(asyncio.run(_measure(count, chosen.watch)))
        print(_line(sizes[-1]), flush=True)
    expected = ((_few, Outcome.PROMOTED), (_many, Outcome.ROLLBACK_INCOMPLETE))
    for faults, outcome in expected if chosen.only_faults or not chosen.gateways else ():
        misfortunes.append(asyncio.run(_suffer(faults, outcome)))
        print(_line(misfortunes[-1]), flush=True)
    figures = {
        "simulated": True,
        "sizes": [asdict(size) for size in sizes],
        "faults": [asdict(one) for one in misfortunes],
    }
    if json_path is not None:
        json_path.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


async def _measure(count: int, watch: float | None) -> Size:
    size = Size(gateways=count)
    plan = plan_of(count, size, LAB)
    longest = max(wave.lease for wave in plan.waves).total_seconds()
    patience = watch if watch is not None else longest / 3 + 30
    async with standing(count, harm_in_wave=0, patience=patience) as setup:
        result = await setup.upgrade(plan)
        _expect(result, Outcome.PROMOTED)
        size.wall_s = setup.wall
        size.worker_cpu_s, size.worker_rss_mb = setup.cost()
        size.steps_per_s, size.most_steps_per_s = setup.steps_a_second(patience)
        size.events = await setup.read_histories(size)
    print(f"  so far {_line(size)}", flush=True)
    async with standing(count, harm_in_wave=TURNED_ROUND_IN_WAVE, patience=5.0) as setup:
        result = await setup.upgrade(plan)
        _expect(result, Outcome.ROLLED_BACK)
        size.back_wall_s = setup.wall
        size.back_worker_cpu_s, size.back_worker_rss_mb = setup.cost()
        size.restored_s = (
            round(result.steered_back_after.total_seconds(), 2) if result.steered_back_after else -1
        )
        size.restored = result.touched
        await setup.read_histories(size)
    measured = plan_of(count, Size(gateways=count), PRODUCTION)
    ticks = await measure_ticks(measured, release(OLD_VERSION))
    size.first_tick_s, size.tick_s, size.slowest_tick_s = ticks.first, ticks.median, ticks.slowest
    size.tick_bytes = ticks.bytes
    return size


async def _lose(count: int) -> dict[str, float | str]:
    """Lose one gateway in eight with the order to go back; return how soon the others are back.

    The agents' own counts tell it, once a second: the change goes on to wait for those that are lost. Once
    it has named them all, they are given up with one order: how soon that is answered, and the change over.
    """
    plan = plan_of(count, Size(gateways=count), LAB)
    lost = frozenset(range(0, count, LOST_IN))
    changed = [name for wave in plan.waves[:TURNED_ROUND_IN_WAVE] for name in wave.gateways]
    reachable = sum(int(name.removeprefix("gw-")) not in lost for name in changed)
    given = Faults(lost=lost)
    async with standing(count, harm_in_wave=TURNED_ROUND_IN_WAVE, patience=5.0, faults=given) as setup:
        upgrading = asyncio.create_task(setup.upgrade(plan))
        try:
            async with asyncio.timeout(WITHIN):
                while (took := setup.back_after(reachable)) is None:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(1)
                service = await setup.service()
                missing = len(changed) - reachable
                while (await service.status(FLEET)).not_back < missing:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(1)
                began = time.monotonic()
                out = await asyncio.to_thread(service.ledger.quarantined, FLEET)
                given_up = [one.gateway for one in out][:MOST_GATEWAYS]
                said = await QuarantineService(service).leave_out(plan.fleet, given_up, "bench", "no power")
                answered = time.monotonic() - began
                _expect(await upgrading, Outcome.ROLLBACK_INCOMPLETE)
                ended = time.monotonic() - began
        finally:
            upgrading.cancel()
    figures: dict[str, float | str] = {
        "gateways": count,
        "reachable": reachable,
        "lost": len(changed) - reachable,
        "back_s": took,
        "answered_s": round(answered, 1),
        "ended_s": round(ended, 1),
        "said": said,
    }
    print("  " + ", ".join(f"{name} {value}" for name, value in figures.items()), flush=True)
    return figures


async def _suffer(faults: Callable[[Sequence[int]], Faults], outcome: Outcome) -> Misfortune:
    """Run an upgrade during which gateways fail; none of the first wave does."""
    plan = plan_of(FAULTY_FLEET, Size(gateways=FAULTY_FLEET), LAB)
    later = [int(name.removeprefix("gw-")) for wave in plan.waves[1:] for name in wave.gateways]
    given = faults(random.Random(0).sample(later, len(later)))
    async with standing(FAULTY_FLEET, harm_in_wave=0, patience=5.0, faults=given) as setup:
        giving_up = asyncio.create_task(setup.give_up_the_dead(given.dead))
        result = await setup.upgrade(plan)
        giving_up.cancel()
        _expect(result, outcome)
        elsewhere = await setup.not_on(NEW_VERSION, plan.fleet)
        lasting = given.dead | given.silent | given.refusing
        named = result.aside | result.incomplete
        return Misfortune(
            gateways=FAULTY_FLEET,
            dead=len(given.dead),
            rebooting=len(given.rebooting),
            silent=len(given.silent),
            refusing=len(given.refusing),
            outcome=result.outcome,
            wall_s=setup.wall,
            on_new=FAULTY_FLEET - len(elsewhere),
            elsewhere={
                name: f"{said}; {named.get(name, 'not named')}"
                for name, said in elsewhere.items()
                if outcome is Outcome.PROMOTED and int(name.removeprefix("gw-")) not in lasting
            },
            named=sum(f"gw-{number:05}" in named for number in lasting) + result.more_incomplete,
            lasting=len(lasting),
            sentence=result.reason,
        )


def _few(names: Sequence[int]) -> Faults:
    """One per cent each, and one that refuses."""
    return Faults(
        dead=frozenset(names[:10]),
        rebooting=frozenset(names[10:20]),
        silent=frozenset(names[20:30]),
        refusing=frozenset(names[30:31]),
    )


def _many(names: Sequence[int]) -> Faults:
    """Six per cent die."""
    return Faults(dead=frozenset(names[:60]))


def plan_of(count: int, size: Size, gates: GatePolicy, new: ReleaseRef | None = None) -> Plan:
    """Return the plan of the upgrade to `new`, a simulated one unless given, timed from facts to parts.

    Its time is the median of some: a machine that is shared takes half as long again for one of them.
    """
    old, new = release(OLD_VERSION), new or release(NEW_VERSION)
    simulated = fleet(
        count,
        steps=STEPS,
        switching=max(50, count // 20),
        switching_per_domain=50,
        draining=count,
        holdout="0",
    )
    states = _states(simulated)
    known_good = {gateway.name: old for gateway in simulated.gateways}
    took = []
    for _ in range(PLANNED):
        gc.collect()  # what is left of ten thousand simulated gateways is not the plan's
        began = time.perf_counter()
        plan = make_plan(
            simulated, states, known_good, new, Strategy.CANARY, gates=gates, trust_policy=digest_of(b"trust")
        )
        parted(plan)
        took.append(round(time.perf_counter() - began, 3))
    size.plan_s, size.slowest_plan_s = statistics.median(took), max(took)
    return plan


def _states(simulated: Fleet) -> dict[str, GatewayState]:
    """Return what every gateway of a fleet says that runs the old release."""
    states = {}
    for gateway in simulated.gateways:
        fake = FakeGateway(gateway)
        fake.serve(release(OLD_VERSION))
        states[gateway.name] = fake._state(changed=False)
    return states


@dataclass
class Setup:
    """Engine, simulated agents and the measured worker of one run."""

    address: str
    folder: Path
    url: str
    """Of the ledger that the worker uses."""
    worker: "subprocess.Popen[str]"
    wall: float = 0.0

    @property
    def ledger(self) -> Ledger:
        """The ledger that the worker uses."""
        return Ledger.open(self.url)

    async def service(self) -> ChangeService:
        """Return what a frontend asks."""
        return ChangeService(await connect(self.address, "default"), self.ledger)

    async def upgrade(self, plan: Plan) -> ChangeResult:
        """Run the plan to its end."""
        book = self.ledger
        begin(book, plan.fleet)
        service = await self.service()
        began = time.monotonic()
        await service.start(plan, "http://simulated", "bench", "measuring")
        handle: WorkflowHandle[Any, ChangeResult] = service.client.get_workflow_handle(
            change_of(FLEET), result_type=ChangeResult
        )
        looking = asyncio.create_task(_keep_looking(book, plan.fleet))
        try:
            async with asyncio.timeout(WITHIN):
                result = await handle.result()
        finally:
            looking.cancel()
        self.wall = round(time.monotonic() - began, 1)
        return result

    async def not_on(self, version: str, simulated: Fleet) -> dict[str, str]:
        """Return which gateways do not say that they give new sessions to this version, and what they say."""
        survey = await (await self.service()).surveys.of(simulated)
        wanted, found = release(version).digest, dict(survey.silent)
        for name, state in survey.states.items():
            if state.serving is None:
                found[name] = "serves nobody"
            elif state.serving.release != wanted:
                found[name] = f"serves {state.serving.release}"
        return found

    async def give_up_the_dead(self, dead: Collection[int]) -> None:
        """Give up each dead gateway that a change waits for on its way back, as a person would."""
        service = await self.service()
        names = {f"gw-{number:05}" for number in dead}
        while True:
            await asyncio.sleep(0.5)
            with suppress(PenstockError):  # not begun yet
                status = await service.status(FLEET)
                if status.phase is not Phase.ROLLING_BACK:
                    continue
                missing = {line.partition(":")[0] for line in status.incomplete}
                for name in sorted(missing & names):
                    order = {"person": "bench", "reason": "it is dead", "gateway": name}
                    command = Command(id=f"give-up-{name}", kind=CommandKind.QUARANTINE, **order)
                    await service.command(FLEET, command)

    def back_after(self, gateways: int) -> float | None:
        """Return the seconds from the first gateway that went back until so many had; None before that."""
        counts = (self.folder / "counts.jsonl").read_text().rpartition("\n")[0].splitlines()
        back = [(line["at"], line["steps"].get("restore_gateway", 0)) for line in map(json.loads, counts)]
        began = next((at for at, number in back if number), 0.0) - 1
        ended = next((at for at, number in back if number >= gateways), None)
        return None if ended is None else round(ended - began, 1)

    def cost(self) -> tuple[float, float]:
        """Return the worker's processor seconds so far, and the most memory it had, in MB."""
        stat = Path(f"/proc/{self.worker.pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks = int(stat[11]) + int(stat[12])
        status = Path(f"/proc/{self.worker.pid}/status").read_text()
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return ticks / 100, int(peak.split()[1]) / 1024

    def steps_a_second(self, patience: float) -> tuple[float, float]:
        """Return the mean and the most steps a second while everybody was on trial and nobody was kept.

        The most is that of any ten seconds: batches renew together.
        """
        lines = [json.loads(line) for line in (self.folder / "counts.jsonl").read_text().splitlines()]
        last_trial = max(line["steps"].get("start_instance", 0) for line in lines)
        trial = [line for line in lines if line["steps"].get("start_instance", 0) == last_trial]
        begins = trial[0]["at"] + SETTLING
        taken = [
            (line["at"], sum(line["steps"].values()))
            for line in trial
            if begins <= line["at"] <= begins + patience - SETTLING
        ]
        pairs = [(taken[0], taken[-1]), *zip(taken, taken[TEN_SECONDS:], strict=False)]
        rates = [(steps - before) / max(1.0, at - earlier) for (earlier, before), (at, steps) in pairs]
        return round(rates[0], 1), round(max(rates), 1)

    async def read_histories(self, size: Size) -> int:
        """Return all events; the size keeps the longest history and the largest payload read."""
        client, events = await connect(self.address, "default"), 0
        read: dict[str, int] = {}
        async for found in client.list_workflows(rpc_timeout=PATIENCE):
            length = found.history_length or 0
            events += length
            if length > size.longest_history:
                size.longest_history, size.longest_of = length, found.id
            if read.get(found.workflow_type, 0) < SCANNED:
                read[found.workflow_type] = read.get(found.workflow_type, 0) + 1
                largest = await _largest_payload(client, found.id, found.run_id)
                size.largest_payload_bytes = max(size.largest_payload_bytes, largest)
        return events


async def _largest_payload(client: Client, workflow: str, run: str) -> int:
    largest = 0
    handle = client.get_workflow_handle(workflow, run_id=run)
    async for event in handle.fetch_history_events(rpc_timeout=PATIENCE):
        largest = max(largest, event.ByteSize())
    return largest


def begin(book: Ledger, simulated: Fleet) -> None:
    """Write the ledger of a fleet that was installed long ago."""
    old = release(OLD_VERSION)
    opening = ChangeOpening(
        key=f"first {simulated.name}",
        fleet=simulated.name,
        kind=ChangeKind.INSTALL,
        requested_by="bench",
        reason="it begins",
        release="1",
    )
    name = book.open_change(opening)
    names = [gateway.name for gateway in simulated.gateways]
    for first in range(0, len(names), 500):
        releases = dict.fromkeys(names[first : first + 500], old)
        book.record_known_good_batch(KnownGoodBatch(fleet=simulated.name, change=name, releases=releases))
    book.close_change(ChangeEnding(change=name, outcome=Outcome.PROMOTED, sentence="installed"))
    book.record_states(simulated.name, [*_states(simulated).values()], {})


def keep_fresh(book: Ledger) -> None:
    """Have what gateways said count for an hour more, where nobody looks at them while it is measured."""
    later = datetime.now(UTC) + timedelta(hours=1)
    with writing(book.engine) as connection:
        connection.execute(update(tables.gateway_states).values(at=later))


async def _keep_looking(book: Ledger, simulated: Fleet) -> None:
    """Keep what gateways said as fresh as reconcile does, which runs beside every other fleet."""
    while True:
        await asyncio.sleep(FRESH.total_seconds() / 2)
        await asyncio.to_thread(book.record_states, FLEET, [*_states(simulated).values()], {})


MANY_AGENTS = (
    "frontend.namespaceCount=30000",
    "frontend.namespaceRPS=20000",
    "frontend.rps=20000",
    "matching.numTaskqueueReadPartitions=1",
    "matching.numTaskqueueWritePartitions=1",
    'matching.updateAckInterval="15m"',
    "metrics.breakdownByTaskQueue=false",
    'matching.backlogMetricsEmitInterval="1h"',
    'matching.ephemeralDataUpdateInterval="1h"',
)
"""Without these the server refuses the 1,201st agent that waits for work (research: scale.md).

By its default it notes every minute how far each queue was read: 10,000 writes a minute, which one SQLite
does not take beside a change. It also keeps metrics of its own of every queue, whose report and whose
memory take a good part of a processor.
"""

RARELY_COLLECTED = {"GOGC": "400", "GOMEMLIMIT": "14GiB"}
"""How the engine's memory is collected: with 10,000 queues that takes four tenths of its time by default."""


@asynccontextmanager
async def standing(
    count: int,
    *,
    harm_in_wave: int,
    patience: float,
    faults: Faults | None = None,
    ledger: str | None = None,
) -> AsyncIterator[Setup]:
    """Start everything, and end it by its own process id; the ledger is a file of its own by default."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-bench-fleet-"))
    port = free_port()
    address = f"127.0.0.1:{port}"
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        start_process(
            stack,
            development_engine.command("127.0.0.1", port, folder / "engine.sqlite", settings=MANY_AGENTS),
            folder / "engine.log",
            {**os.environ, **RARELY_COLLECTED},
        )
        await answering_engine(address)
        given = (faults or Faults()).model_dump_json()
        agents = [sys.executable, "-m", "tests.bench.simulated_agents", address, str(count)]
        start_process(stack, [*agents, str(folder / "counts.jsonl"), given], folder / "agents.log")
        url = ledger or f"sqlite:///{folder / 'ledger.db'}"
        worker = [sys.executable, "-m", "tests.bench.fleet_worker", address, url]
        Ledger.open(url).close()
        running = start_process(
            stack, [*worker, str(count), str(harm_in_wave), str(patience)], folder / "worker.log"
        )
        await asyncio.sleep(5 + count / 500)  # the simulated agents connect over twenty seconds
        await prompt_engine(address)
        yield Setup(address=address, folder=folder, url=url, worker=running)


def start_process(
    stack: ExitStack, command: list[str], log: Path, environment: Mapping[str, str] | None = None
) -> "subprocess.Popen[str]":
    """Start a process that ends with the stack; what it says goes into the log."""
    file = stack.enter_context(log.open("w"))
    process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, text=True, env=environment)
    stack.callback(_end, process)
    return process


def _end(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


async def answering_engine(address: str) -> None:
    """Return once the engine serves."""
    async with asyncio.timeout(60):
        while True:
            try:
                await (await Client.connect(address)).count_workflows()
            except (RPCError, RuntimeError):
                await asyncio.sleep(0.2)
            else:
                return


async def prompt_engine(address: str) -> None:
    """Return once the engine has written down all agents' queues, by how soon it begins something else."""
    client, prompt = await Client.connect(address), 0
    async with asyncio.timeout(300):
        while prompt < 3:
            began = time.monotonic()
            try:
                await client.start_workflow(
                    "nothing",
                    id="nothing",
                    task_queue="nobody",
                    id_conflict_policy=WorkflowIDConflictPolicy.TERMINATE_EXISTING,
                )
            except RPCError:
                prompt = 0
            else:
                prompt = prompt + 1 if time.monotonic() - began < AT_ONCE else 0
            await asyncio.sleep(1)
        await client.get_workflow_handle("nothing").terminate()


def _expect(result: ChangeResult, outcome: Outcome) -> None:
    if result.outcome is not outcome:
        raise SystemExit(f"bench: ended {result.outcome}, not {outcome}: {result.reason}")


def _line(size: Size | Misfortune) -> str:
    return "  ".join(f"{name} {value}" for name, value in asdict(size).items())
