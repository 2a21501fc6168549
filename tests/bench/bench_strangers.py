"""Strangers: how long the safe direction takes while each attacker of the reviews is at work.

The API's half measures hold and rollback, at the socket and over the network. API, ledger, engine and worker
are real; the change is simulated. The relay's half measures calls of another agent. Attackers run on this
host, too, at a lower priority. Every figure stands beside its baseline of the same run.
"""

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

from tests.bench import strangers_api, strangers_relay
from tests.bench.strangers import Half

HALVES: tuple[Half, ...] = (strangers_api.HALF, strangers_relay.HALF)
SECONDS = 20.0


def main(json_path: Path | None, arguments: list[str]) -> int:
    """Measure every half; 1 when a bar is missed."""
    parser = argparse.ArgumentParser(prog="bench strangers")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long each attacker is at work")
    parser.add_argument("--half", choices=[half.name for half in HALVES], help="measure only this half")
    chosen = parser.parse_args(arguments)
    figures: dict[str, Any] = {"seconds": chosen.seconds}
    missed: list[str] = []
    for half in HALVES:
        if chosen.half in {None, half.name}:
            print(f"{half.name}:", flush=True)
            found = asyncio.run(half.measure(chosen.seconds))
            figures |= found
            missed += half.misses(found)
    figures["passes"] = not missed
    for sentence in missed:
        print(f"MISSES: {sentence}")
    if json_path is not None:
        json_path.write_text(json.dumps(figures, indent=2) + "\n")
    return 1 if missed else 0
