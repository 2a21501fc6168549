"""The relay: what it costs a step, and thousands of agents that wait at relays of this machine.

The pollers are SIMULATED agents, a certificate and a connection each; engine, relays, and the twenty agents
whose steps are timed are real. A step's time is the engine's own: from scheduled to completed.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio import activity, workflow
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from deploy.ports import free_port
from orchestrator.enrolment.authority import Authority
from orchestrator.processes.listening import allow_descriptors
from orchestrator.settings import Settings
from tests.bench.bench_fleet import MANY_AGENTS
from tests.relay.installation import Shown, issued, settings_of
from tests.relay.test_processes import relay_process
from tests.workflows.engine import engine

POLLERS, RELAYS, AGENTS, STEPS = 10_000, 2, 20, 20
PER_PROCESS = 5_000
"""Simulated agents in one process: each has a connection, and a process has only so many open files."""

SETTLE = 150.0
"""Seconds until the polls are counted, of which the last seventy count: every poll ends once in that time."""

FLEET = "bench"
LIVES = timedelta(days=1)


@activity.defn(name="step")
async def step() -> str:
    """Do nothing."""
    return "done"


@workflow.defn(name="Steps", sandboxed=False)
class Steps:
    """Asks one agent for steps, one after the other."""

    @workflow.run
    async def run(self, queue: str) -> None:
        """Ask for all of them."""
        for _ in range(STEPS):
            await workflow.execute_activity(
                "step", task_queue=queue, start_to_close_timeout=timedelta(seconds=60)
            )


def main(json_path: Path | None, arguments: list[str]) -> int:
    """Time steps without a relay, with one, and with thousands who wait; 1 when a poll failed."""
    parser = argparse.ArgumentParser(prog="bench relay")
    parser.add_argument("--agents", type=int, default=POLLERS, help="simulated agents that wait")
    chosen = parser.parse_args(arguments)
    print("SIMULATED agents wait at real relays before a real engine", flush=True)
    figures = asyncio.run(_measure(chosen.agents))
    for name, value in figures.items():
        print(f"{name:28}{value}")
    if json_path is not None:
        json_path.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if figures["failed_polls"] == 0 else 1


async def _measure(pollers: int) -> dict[str, Any]:
    allow_descriptors(pollers)
    with engine(MANY_AGENTS) as server, tempfile.TemporaryDirectory(prefix="penstock-bench-relay-") as folder:
        client = await server.client("bench")
        first = settings_of(Path(folder), client.namespace, server.address)
        figures: dict[str, Any] = {"simulated": True, "agents": pollers, "real_agents": AGENTS}
        figures |= _named("direct", await _steps(client, [client] * AGENTS))
        async with _relays(first) as relays:
            authority = Authority.open(first.authority)
            agents = [
                await _agent(client, authority, _at(relays[number % RELAYS][0]), number)
                for number in range(AGENTS)
            ]
            figures |= _named("relay", await _steps(client, agents))
            figures["rss_mb_idle"] = _rss(relays)
            async with _polling(Path(folder), client.namespace, authority, relays, pollers) as waiting:
                figures["connected_within_s"] = waiting.within
                await asyncio.sleep(SETTLE)
                figures["polls_per_s"] = waiting.per_second()
                figures |= _named("crowd", await _steps(client, agents))
                figures["rss_mb"] = _rss(relays)
                figures["engine_rss_mb"] = _rss_of([server.pid or 0])[0]
                figures["failed_polls"] = waiting.failed()
    return figures


@asynccontextmanager
async def _relays(first: Settings) -> AsyncIterator[list[tuple[Settings, int]]]:
    """Run them over one ledger and one key; yield the settings and the process of each."""
    async with AsyncExitStack() as held:
        found = []
        for number in range(RELAYS):
            changed = {
                "relay_address": f"127.0.0.1:{free_port()}",
                "enrolment_address": f"127.0.0.1:{free_port()}",
            }
            settings = first.model_copy(update=changed) if number else first
            process = await held.enter_async_context(relay_process(settings))
            found.append((settings, process.pid))
        yield found


def _at(settings: Settings) -> str:
    assert settings.relay_address is not None
    return settings.relay_address


async def _agent(client: Client, authority: Authority, at: str, number: int) -> Client:
    shown = _issued(authority, f"real-{number}")
    return await Client.connect(
        at, namespace=client.namespace, tls=shown.tls(authority.pem), data_converter=client.data_converter
    )


def _issued(authority: Authority, gateway: str) -> Shown:
    return issued(authority, gateway, LIVES, fleet=FLEET)


async def _steps(client: Client, agents: Iterable[Client]) -> list[float]:
    """Return how many milliseconds each step took, when all agents work at once."""
    async with AsyncExitStack() as held:
        for number, agent in enumerate(agents):
            worker = Worker(
                agent,
                task_queue=f"gateway/{FLEET}/real-{number}",
                activities=[step],
                max_concurrent_activity_task_polls=1,
                graceful_shutdown_timeout=timedelta(seconds=1),
            )
            await held.enter_async_context(worker)
        control = Worker(
            client,
            task_queue="control",
            workflows=[Steps],
            workflow_runner=UnsandboxedWorkflowRunner(),
        )
        await held.enter_async_context(control)
        handles = [
            await client.start_workflow(
                Steps.run, f"gateway/{FLEET}/real-{number}", id=f"steps-{number}", task_queue="control"
            )
            for number in range(AGENTS)
        ]
        await asyncio.gather(*(handle.result() for handle in handles))
        took: list[float] = []
        for handle in handles:
            begun: dict[int, float] = {}
            async for event in handle.fetch_history_events():
                at = event.event_time.ToNanoseconds() / 1e6
                if event.event_type is EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                    begun[event.event_id] = at
                elif event.event_type is EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
                    took.append(at - begun[event.activity_task_completed_event_attributes.scheduled_event_id])
    return took


def _named(name: str, took: list[float]) -> dict[str, float]:
    parts = statistics.quantiles(took, n=20)
    return {
        f"step_p50_ms_{name}": round(statistics.median(took), 1),
        f"step_p95_ms_{name}": round(parts[-1], 1),
    }


class _Waiting:
    """What the processes of simulated agents have said."""

    def __init__(self) -> None:
        self.within = 0.0
        self._said: dict[int, list[tuple[float, int]]] = {}

    def heard(self, number: int, line: str) -> None:
        """Remember a line."""
        kind, *words = line.split()
        if kind == "polling:":
            self.within = max(self.within, float(words[1]))
        elif kind == "polls:":
            self._said.setdefault(number, []).append((float(words[0]), int(words[1])))

    def per_second(self) -> float:
        """Return the polls a second of all of them, over the time that one poll takes."""
        means = (statistics.mean(one[0] for one in said[-14:]) for said in self._said.values())
        return round(sum(means), 1)

    def failed(self) -> int:
        """Return how many polls ended otherwise than without a task."""
        return sum(said[-1][1] for said in self._said.values())


@asynccontextmanager
async def _polling(
    folder: Path, namespace: str, authority: Authority, relays: list[tuple[Settings, int]], count: int
) -> AsyncIterator[_Waiting]:
    waiting = _Waiting()
    processes, listening = [], []
    try:
        for number, begin in enumerate(range(0, count, PER_PROCESS)):
            bundle = folder / f"certificates-{number}.json"
            many = range(begin, min(begin + PER_PROCESS, count))
            await asyncio.to_thread(_write_certificates, bundle, authority, many)
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.bench.relay_pollers", str(bundle), namespace),
                *(_at(settings) for settings, _ in relays),
                stdout=asyncio.subprocess.PIPE,
                env=os.environ | {"GRPC_VERBOSITY": "NONE"},
            )
            processes.append(process)
            assert process.stdout is not None
            line = await process.stdout.readline()
            waiting.heard(number, line.decode())
            print(f"{line.decode().strip()} s", flush=True)
            listening.append(asyncio.create_task(_listen(waiting, number, process.stdout)))
        yield waiting
        if ended := [process.returncode for process in processes if process.returncode is not None]:
            raise SystemExit(f"bench: processes of simulated agents ended by themselves with {ended}")
    finally:
        for task in listening:
            task.cancel()
        for process in processes:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def _listen(waiting: _Waiting, number: int, said: asyncio.StreamReader) -> None:
    while line := await said.readline():
        waiting.heard(number, line.decode())


def _write_certificates(path: Path, authority: Authority, numbers: Iterable[int]) -> None:
    held = []
    for number in numbers:
        shown = _issued(authority, f"sim-{number}")
        held.append(
            {"gateway": f"sim-{number}", "key": shown.key.decode(), "certificate": shown.certificate.decode()}
        )
    path.write_text(json.dumps({"authority": authority.pem.decode(), "gateways": held}))


def _rss(relays: list[tuple[Settings, int]]) -> list[float]:
    return _rss_of([pid for _, pid in relays])


def _rss_of(pids: Iterable[int]) -> list[float]:
    page = os.sysconf("SC_PAGE_SIZE")
    return [round(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page / 1e6, 1) for pid in pids]
