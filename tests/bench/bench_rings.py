"""Rings: whatever confirms a canary is cut off, frozen, killed or deleted; known-good without a person."""

import argparse
import asyncio
import json
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

from deploy.lab.lab import lab
from tests.chaos.rings import LEASE, Returned, Rings
from tests.chaos.runs import Chaos, shape

WITHIN_LEASE = LEASE.total_seconds() + 1
WITHIN_RECONCILE = 90.0
STARTED_WITHIN = 2.0


def main(json_path: Path | None, arguments: list[str]) -> int:
    """Play every ring on one lab and print its seconds; 1 when one was late, wrong, or cost a session."""
    parser = argparse.ArgumentParser(prog="bench rings")
    parser.add_argument("--unplugged", type=float, default=600, help="seconds without any control plane")
    chosen = parser.parse_args(arguments)
    figures = asyncio.run(_play(timedelta(seconds=chosen.unplugged)))
    print(table(figures))
    if json_path is not None:
        json_path.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if figures["as_they_must_be"] else 1


async def _play(unplugged: timedelta) -> dict[str, Any]:
    async with lab(print, shape(prefix="psr-", folder="lab-rings")) as built:
        chaos = Chaos(built, built.installation.changes.client)
        await chaos.open()
        rings = Rings(chaos)
        lost = built.users.view()["totals"]["lost"]
        by_lease = [*await rings.leases(), await rings.unplugged(unplugged)]
        by_workflow = await rings.ended()
        by_reconcile = [await rings.terminated(), await rings.engine_lost()]
        lost = built.users.view()["totals"]["lost"] - lost
    kept = all(_kept(ring, WITHIN_LEASE) and ring.logins[0] and not ring.logins[1] for ring in by_lease)
    kept = kept and all(_kept(ring, WITHIN_RECONCILE) for ring in (*by_workflow, *by_reconcile))
    kept = kept and all(ring.started is not None and ring.started <= STARTED_WITHIN for ring in by_workflow)
    return {
        "rings": [asdict(ring) for ring in (*by_lease, *by_workflow, *by_reconcile)],
        "lease_seconds": LEASE.total_seconds(),
        "sessions_lost": lost,
        "as_they_must_be": kept and not lost,
    }


def _kept(ring: Returned, within: float) -> bool:
    return ring.on_known_good and ring.seconds <= within


def table(figures: dict[str, Any]) -> str:
    """Return one line for each ring, and what all of it cost."""
    heads = {"started": 10, "back after": 12, "known-good": 12, "logins there": 14, "on trial": 10}
    lines = [f"{'what':42}" + "".join(f"{head:>{width}}" for head, width in heads.items())]
    for ring in figures["rings"]:
        started = "-" if ring["started"] is None else f"{ring['started']:.1f} s"
        known_good = "yes" if ring["on_known_good"] else "NO"
        cells = (started, f"{ring['seconds']:.1f} s", known_good, *ring["logins"])
        lines.append(
            f"{ring['what']:42}"
            + "".join(f"{cell:>{width}}" for cell, width in zip(cells, heads.values(), strict=True))
        )
    lines.append(f"lease {figures['lease_seconds']:.0f} s; {figures['sessions_lost']} sessions lost")
    return "\n".join(lines)
