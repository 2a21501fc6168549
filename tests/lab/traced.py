"""Changes of a lab whose API, worker and agents all trace, and log as JSON.

`python -m tests.lab.traced` tells what became of them, and what a collector has heard, as lines of JSON.
Nobody takes traces while the fleet is installed; a collector hears a whole upgrade, and then it refuses what
it is sent, and hangs.
"""

import asyncio
import json
import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from deploy.lab import namespaces
from deploy.lab.lab import Lab, Shape, lab
from deploy.lab.rehearsal import Rehearsal
from orchestrator.processes.leaving import leave
from policies.model.verdict import Window
from tests.fakes.collector import Collector, collecting
from tests.patience import until

PREFIX = "psc-"
SHAPE = Shape(prefix=PREFIX, folder="lab-traced", gateways=2, sites=4)
SHORT = Window(
    minimum=timedelta(seconds=6),
    nominal=timedelta(seconds=8),
    extension=timedelta(seconds=10),
    cap=timedelta(seconds=60),
)
PORT = 4318
"""Of a collector, by OTLP; each network of the lab has a loopback of its own."""

WHY = ("--reason", "carol.secret at 192.0.2.77")
"""What no trace may say."""

_OF_STANDARD_OUTPUT = re.compile(r"ready: |\S+Z +[A-Z]+ temporalio_sdk_core")


def doors(built: Lab) -> Iterator[socket.socket]:
    """Listen at the same address in the network of the orchestrator and in that of each gateway."""
    for host in (built.topology.hub, *built.topology.gateways):
        with namespaces.inside(host.namespace):
            yield socket.create_server(("127.0.0.1", PORT))


async def typed(built: Lab, *words: str) -> dict[str, Any]:
    """Type a command at the lab's API; return what it said, and what became of the change."""
    child = await asyncio.create_subprocess_exec(
        Path(sys.prefix) / "bin" / "penstock",
        *words,
        *WHY,
        env={**os.environ, "PENSTOCK_STATE": str(built.folder)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await child.communicate()
    newest = await built.status()
    found = {"said": said.decode(), "change": newest.rollout, "outcome": newest.outcome}
    return {"code": child.returncode, **found}


async def all_told(collector: Collector, change: str) -> None:
    """Return once the change's end is told, and each span that others name as theirs."""

    async def are_told() -> bool:
        told = list(collector.spans)
        known = {one.span_id for one in told}
        known |= {one.parent_span_id for one in told if one.name.endswith(" begins")}  # some go on
        ended = {collector.said(one).get("penstock.change") for one in told if one.name == "Change"}
        return change in ended and all(one.parent_span_id in known for one in told if one.parent_span_id)

    with suppress(TimeoutError):  # what has not come is missed by who reads what was told
        await until(are_told)


def heard(collector: Collector, built: Lab) -> dict[str, Any]:
    """Return what the collector heard, in plain words, and what of it nobody outside may know."""
    spans = [
        {
            "name": one.name,
            "process": collector.process_of(one),
            "trace": one.trace_id.hex(),
            "span": one.span_id.hex(),
            "parent": one.parent_span_id.hex(),
            "said": collector.said(one),
        }
        for one in list(collector.spans)
    ]
    return {"spans": spans, "leaked": [one for one in private(built) if one.encode() in collector.raw]}


def private(built: Lab) -> list[str]:
    """Return reasons, names, passwords, keys and addresses of people and of this installation."""
    who = built.logins.settings.who
    key = (built.folder / "etc" / "payload.keys").read_text().strip().rpartition(":")[2]
    addresses = [str(address) for gateway in built.fleet.gateways for address in gateway.addresses]
    return [*WHY[1].split(" at "), who.password, *who.people, key, *addresses]


def logged(built: Lab) -> dict[str, list[str]]:
    """Return what each process that traces has logged.

    On standard output, in the same file, are when it is ready and what the engine's client says by itself.
    """
    logs = {"api": built.folder / "api.log", "worker": built.worker.log, "agent": built.agents["gw-1"].log}
    return {
        name: [line for line in path.read_text().splitlines() if not _OF_STANDARD_OUTPUT.match(line)]
        for name, path in logs.items()
    }


async def main() -> None:
    """Install with no collector, upgrade with one, reload while it refuses and while it hangs."""
    os.environ |= {"PENSTOCK_TRACING_URL": f"http://127.0.0.1:{PORT}", "PENSTOCK_LOG": "json"}
    async with lab(print, SHAPE) as built:
        Rehearsal(built).judge_by(SHORT)
        _say("AWAY", {"outcome": (await built.result()).outcome})
        with collecting(*doors(built)) as collector:
            upgrade = await typed(built, "upgrade", "start", "--to", built.newer.version, "--wait")
            await all_told(collector, upgrade["change"])
            _say("HEARD", upgrade | heard(collector, built))
            collector.status = 503
            _say("REFUSES", await typed(built, "credentials", "reload"))
            collector.hang()
            _say("HANGS", await typed(built, "credentials", "reload"))
        _say("LOGGED", logged(built))


def _say(what: str, content: dict[str, Any]) -> None:
    print(what, json.dumps(content), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
    leave(0)
