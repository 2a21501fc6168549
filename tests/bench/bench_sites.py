"""What upgrades behind HAProxy cost two sites of two gateways each, looked at from outside penstock.

Every 100 ms users ask all gateways for a new session, 2,000 source addresses connect to see where a share of
them goes, and 24 users have tunnels. The parts: a clean upgrade, one to a release on which logins fail, one
in whose trial HAProxies are reloaded, written on by others and killed, and one with a HAProxy that takes what
it is told and does not do it.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from deploy.lab.lab import lab
from orchestrator.exit_code import ExitCode
from orchestrator.processes.leaving import leave
from policies.model.errors import PenstockError
from tests.bench.site_runs import SHAPE, Part, Sites, part_of

PARTS = ("failing", "struck", "lying", "clean", "shares")
"""In this order: each but the last two ends where it began."""
ENDS_AS = {
    "failing": "rolled_back",
    "struck": "rolled_back",
    "lying": "rolled_back",
    "clean": "promoted",
    "shares": "promoted",
}
POINTS = 3.0


def main(json_path: Path | None, arguments: list[str]) -> int:
    """Print what each part cost; 0 when all ended as they should, and kept what is promised."""
    chosen = _parse(arguments)
    if chosen.lab is not None:
        _be_a_lab(chosen.parts, chosen.lab)
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as scratch:
        report = Path(scratch, "parts.json")
        command = [sys.executable, "-m", "tests.bench", "sites", "--lab", str(report)]
        if code := subprocess.run([*command, "--parts", ",".join(chosen.parts)], check=False).returncode:
            return code
        document = json.loads(report.read_text())
    console = Console(width=120)
    parts = [part_of(one) for one in document["parts"]]
    for table in (_parts(parts), _shares(parts), _strikes(parts)):
        console.print(table)
    if json_path:
        json_path.write_text(json.dumps(document, indent=1) + "\n")
    return 0 if all(map(is_kept, parts)) else 1


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./run bench sites", description=__doc__)
    parser.add_argument(
        "--parts", type=lambda text: text.split(","), default=[*PARTS], help=f"which of {', '.join(PARTS)}"
    )
    parser.add_argument("--lab", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if unknown := sorted(set(chosen.parts) - set(PARTS)):
        parser.error(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    return chosen


async def _measured(names: Sequence[str]) -> list[Part]:
    async with lab(_tell, SHAPE) as built, Sites(built, _tell).watched() as sites:
        plays = {
            "failing": sites.failing,
            "struck": sites.struck,
            "lying": sites.lying,
            "clean": sites.clean,
            "shares": sites.shares,
        }
        return [await plays[name]() for name in PARTS if name in names]


def _be_a_lab(names: Sequence[str], report: Path) -> None:
    """Play the parts on a lab, and end this process, which the lab has led into a network of its own."""
    try:
        parts = asyncio.run(_measured(names))
        report.write_text(json.dumps({"parts": [part.as_json() for part in parts]}))
        code = int(ExitCode.DONE)
    except PenstockError as error:
        sys.stderr.write(f"{error.code}: {error}\n")
        code = int(error.exit_code)
    leave(code)


def _tell(sentence: str) -> None:
    sys.stderr.write(f"{sentence}\n")


def is_kept(part: Part) -> bool:
    """Whether the part ended as it should, and kept capacity, shares and sessions."""
    return (
        part.outcome == ENDS_AS[part.name]
        and not part.below_floor
        and not part.sessions_lost
        and all(abs(one.found - one.asked) < POINTS for one in part.shares)
    )


def _parts(parts: Sequence[Part]) -> Table:
    table = Table(title="Two sites behind HAProxy, as users count it", title_justify="left")
    titles = (
        *("part", "ended", "samples", "below the floor", "least capacity", "floor"),
        *("sessions lost", "pings lost"),
    )
    for title in titles:
        table.add_column(title)
    for part in parts:
        table.add_row(
            *(part.name, part.outcome.replace("_", " "), str(part.samples), str(part.below_floor)),
            ", ".join(f"{site} {least}" for site, least in part.least_capacity.items()),
            ", ".join(f"{site} {floor}" for site, floor in part.floor.items()),
            f"{part.sessions_lost} of {part.sessions}",
            f"{part.pings_lost} of {part.pings_sent}",
        )
    return table


def _shares(parts: Sequence[Part]) -> Table:
    table = Table(title="Shares of 2,000 source addresses", title_justify="left")
    for title in ("part", "site", "asked", "found", "after its HAProxy was"):
        table.add_column(title)
    for part in parts:
        for one in part.shares:
            table.add_row(part.name, one.site, f"{one.asked} %", f"{one.found:.1f} %", one.after)
    return table


def _strikes(parts: Sequence[Part]) -> Table:
    table = Table(title="HAProxies struck in the middle of a trial", title_justify="left")
    titles = (
        *("HAProxy", "of", "says the same again", "nobody let in for", "reconnected", "lost"),
        *("gap over UDP", "gap over TCP"),
    )
    for title in titles:
        table.add_column(title)
    for one in (strike for part in parts for strike in part.strikes):
        table.add_row(
            *(one.what, one.gateway, _seconds(one.mended_s), _seconds(one.turned_away_s)),
            *(str(one.reconnected), str(one.lost)),
            *(_seconds(one.gap_over_udp_s), _seconds(one.gap_over_tcp_s)),
        )
    return table


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f} s"
