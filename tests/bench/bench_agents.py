"""Agents: what a gateway's agent and exporter cost their host once they have been through a whole upgrade."""

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

from deploy.lab.lab import Lab, Shape, lab
from deploy.lab.screen import Screen
from deploy.lab.stories import Storyteller
from policies.model.change import Outcome
from tests.bench.process_costs import IDLE_SECONDS, costs_of, resident_mb

MOST_MB, MOST_PERCENT = 120.0, 0.5


def main(json_path: Path | None, arguments: list[str]) -> int:
    """Print the figures; 1 when an agent costs more than it may."""
    parser = argparse.ArgumentParser(prog="bench agents")
    parser.add_argument(
        "--idle", type=float, default=IDLE_SECONDS, help="seconds for which they are left alone"
    )
    parser.add_argument("--gateways", type=int, default=2, help="gateways of the lab")
    chosen = parser.parse_args(arguments)
    figures = asyncio.run(_measure(chosen.gateways, chosen.idle))
    for name, figure in figures.items():
        print(f"{name:24}{figure}")
    if json_path is not None:
        json_path.write_text(json.dumps(figures, indent=2) + "\n")
    kept = figures["agent_rss_mb"] <= MOST_MB and figures["agent_idle_percent"] <= MOST_PERCENT
    return 0 if kept and figures["outcome"] == Outcome.PROMOTED else 1


async def _measure(gateways: int, idle: float) -> dict[str, Any]:
    shape = Shape(prefix="psa-", folder="lab-agents", gateways=gateways, sites=4)
    with Screen() as screen:
        async with lab(screen.tell, shape) as built:
            fresh = max(resident_mb(pid) for pid in _agents(built).values())
            told = await Storyteller(built, screen).clean()
            exporters = max(resident_mb(pid) for pid in _exporters(built))
            costs = await costs_of(_agents(built), idle)
    return {
        "outcome": told.outcome,
        "sessions_lost": told.sessions_lost,
        **costs,
        "agent_rss_mb_installed": round(fresh, 1),
        "exporter_rss_mb": round(exporters, 1),
    }


def _agents(built: Lab) -> dict[str, int]:
    return {name: program.pid for name, program in built.agents.items() if program.pid is not None}


def _exporters(built: Lab) -> list[int]:
    return [program.pid for program in built.exporters.values() if program.pid is not None]
