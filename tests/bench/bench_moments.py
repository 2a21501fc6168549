"""Moments: random sequences of events on a SIMULATED fleet, held to an oracle that follows gateways.

Gateways, metrics and patch windows are simulated; service, workflows, ledger and engine are real. Each lane
is a process with an engine of its own, and each sequence a fleet of eight with a ledger of its own. Many more
histories run on the pure decisions alone. Everything is drawn from the seed: a sequence that fails is printed
with its seed and events, and `--seed` plays it alone.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.moments.play import FAULTS
from tests.moments.pure import PureFound, play_pure

SEQUENCES, PURE = 500, 20_000
LANES = os.cpu_count() or 2
"""Sequences that are played side by side: an engine and its worker keep a core busy."""

HARM_TO_ROLLBACK_S = 60.0
SHOWN = 100
"""Sequences of which each is shown when it is over; of more only one in ten."""
BEGINS = '{"seed"'


def main(json_path: Path | None, arguments: list[str]) -> int:
    """Play every sequence; 1 when a gateway served the wrong release, or another bar is missed."""
    parser = argparse.ArgumentParser(prog="bench moments")
    parser.add_argument("--sequences", type=int, default=SEQUENCES, help="on the real engine")
    parser.add_argument("--pure", type=int, default=PURE, help="on the pure decisions alone")
    parser.add_argument("--first", type=int, default=1, help="the seed of the first one")
    parser.add_argument("--seed", type=int, help="play this sequence alone")
    parser.add_argument("--lanes", type=int, default=LANES, help="sequences played side by side")
    chosen = parser.parse_args(arguments)
    print("SIMULATED gateways, metrics and windows; real service, workflows, ledger and engine", flush=True)
    if chosen.seed is not None:
        chosen.first, chosen.sequences, chosen.pure, chosen.lanes = chosen.seed, 1, 0, 1
    pure = play_pure(chosen.pure, 1)
    _tell_pure(pure)
    began = time.monotonic()
    found = _played(range(chosen.first, chosen.first + chosen.sequences), chosen.lanes)
    figures = _figures(found, pure) | {"seconds": round(time.monotonic() - began, 1)}
    for name, value in figures.items():
        print(f"  {name}: {value}")
    if json_path is not None:
        json_path.write_text(json.dumps(figures, indent=2) + "\n")
    slowest = max(figures["harm_to_rollback_s_max"], figures["alone_to_return_s_max"])
    missed = len(found) < chosen.sequences or slowest > HARM_TO_ROLLBACK_S
    return 1 if missed or pure.wrong_targets or any(figures[name] for name in FAULTS) else 0


def _tell_pure(pure: PureFound) -> None:
    for wrong in pure.wrong_targets:
        print(f"WRONG: pure {wrong}", flush=True)


def _played(seeds: range, lanes: int) -> list[dict[str, Any]]:
    """Play the sequences in so many processes side by side; print each that fails."""
    found: list[dict[str, Any]] = []
    printing = threading.Lock()

    def play(lane: int) -> None:
        mine = [str(seed) for seed in seeds[lane::lanes]]
        if not mine:
            return
        command = [sys.executable, "-m", "tests.moments", *mine]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if not line.startswith(BEGINS):  # the engine's client warns there, too
                    continue
                one = json.loads(line)
                with printing:
                    found.append(one)
                    _tell(one, len(found), len(seeds))
        if process.returncode:
            print(f"FAILED: a lane ended with {process.returncode}; see {' '.join(command[1:4])}", flush=True)

    with ThreadPoolExecutor(lanes) as pool:
        list(pool.map(play, range(lanes)))
    return found


def _tell(one: dict[str, Any], number: int, of: int) -> None:
    faults = [f"{name}: {fault}" for name in FAULTS for fault in one[name]]
    if not faults:
        if number % 10 == 0 or of <= SHOWN:
            print(f"  {number} of {of}: seed {one['seed']}, {one['seconds']} s", flush=True)
        return
    print(f"FAILED: seed {one['seed']} (repeat it: ./run bench moments --seed {one['seed']})")
    for event in one["events"]:
        print(f"    {event}")
    for fault in faults:
        print(f"    -> {fault}", flush=True)


def _figures(found: list[dict[str, Any]], pure: PureFound) -> dict[str, Any]:
    harm = [seconds for one in found for seconds in one["harm_to_rollback_s"]]
    alone = [seconds for one in found for seconds in one["alone_to_return_s"]]
    counted = {name: sum(len(one[name]) for one in found) for name in FAULTS}
    counted["wrong_targets"] += len(pure.wrong_targets)
    return {
        "simulated": ["gateways", "metrics", "windows"],
        "sequences": len(found),
        "events": sum(len(one["events"]) for one in found),
        "pure_sequences": pure.sequences,
        "pure_events": pure.events,
        "pure_rollbacks": pure.rollbacks,
        **counted,
        "kinds": dict(Counter(kind for one in found for kind in one["kinds"]).most_common()),
        "harms": len(harm),
        "harm_to_rollback_s_max": max(harm, default=0.0),
        "failed_alone": len(alone),
        "alone_to_return_s_max": max(alone, default=0.0),
        "failed_seeds": sorted(one["seed"] for one in found if any(one[name] for name in FAULTS)),
    }
