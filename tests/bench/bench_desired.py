"""Desired state: what `penstock diff` and `apply` cost for a large fleet, beside libyaml alone on its file.

Ledger, comparison and writing are real, in this process; no gateway is there to be asked.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from activities.files import PlainLoader, parse
from deploy.lab.lab import write_yaml
from orchestrator.processes.composition import compose
from orchestrator.service.desired import DescriptionApplied
from orchestrator.service.people import OF_ROOT
from policies.model.desired import Compared, Text
from policies.model.fleet import Fleet
from policies.model.people import Caller, Via
from policies.model.value import digest_of
from tests.bench.simulated_agents import fleet
from tests.service.conftest import installed

GATEWAYS = 10_000
CALLER = Caller(person="root", grants=OF_ROOT, via=Via.CLI)


@dataclass(frozen=True)
class Cost:
    """What something cost this process, in seconds."""

    what: str
    wall: float
    cpu: float


def main(json_path: Path | None, arguments: list[str]) -> int:
    """Measure reading, comparing and applying; print each beside libyaml alone."""
    parser = argparse.ArgumentParser(prog="bench desired")
    parser.add_argument("--gateways", type=int, default=GATEWAYS)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        costs = asyncio.run(_measure(Path(folder), asked.gateways))
    bare = costs[0]
    print(f"desired state of {asked.gateways} gateways\n{'':<34}  wall s   cpu s   cpu / libyaml alone")
    for cost in costs:
        print(f"{cost.what:<34}{cost.wall:>8.2f}{cost.cpu:>8.2f}{cost.cpu / bare.cpu:>8.1f}")
    if json_path is not None:
        json_path.write_text(json.dumps([asdict(cost) for cost in costs], indent=2) + "\n")
    return 0


async def _measure(folder: Path, gateways: int) -> list[Cost]:
    settings, described = installed(folder), fleet(gateways)
    place = write_yaml(folder / "fleets" / f"{described.name}.yaml", described)
    text = place.read_text()
    wanted = f"# reviewed\n{text.replace('capacity: 1000', 'capacity: 999', 1)}"
    desired = (await compose(settings)).service.desired
    file = Text(path="fleet.yaml", text=wanted)
    description = DescriptionApplied(file=file, base=digest_of(text.encode()), reason="measured")

    compared = Compared(description=file).model_dump_json().encode()

    async def bare() -> None:
        for _ in yaml.parse(wanted, Loader=PlainLoader):
            pass

    async def read() -> None:
        parse(wanted, "fleet.yaml", Fleet)

    return [
        await _cost("libyaml alone", bare()),
        await _cost("reading it, with lines and types", read()),
        await _cost("the first comparison", desired.compare(CALLER, described.name, compared)),
        await _cost("a comparison", desired.compare(CALLER, described.name, compared)),
        await _cost("applying it", desired.describe(CALLER, described.name, description)),
        await _cost("applying it again", desired.describe(CALLER, described.name, description)),
    ]


async def _cost(what: str, work: Awaitable[Any]) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    await work
    return Cost(what, time.perf_counter() - wall, time.process_time() - cpu)
