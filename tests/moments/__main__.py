"""Play sequences one after the other: `python -m tests.moments SEED...`; prints a line of JSON for each."""

import asyncio
import json
import sys
from dataclasses import asdict

from orchestrator.processes.leaving import leave
from tests.moments.play import automation_of, play
from tests.moments.stage import quicken, staged
from tests.workflows.engine import MOST_NAMESPACES, engine


async def main(seeds: list[int]) -> None:
    """Play the sequences of these seeds, on a new engine after every few."""
    quicken()
    while seeds:
        few, seeds = seeds[:MOST_NAMESPACES], seeds[MOST_NAMESPACES:]
        with engine() as server:
            for seed in few:
                async with staged(server, automation_of(seed)) as stage:
                    found = await play(stage, seed)
                print(json.dumps(asdict(found)), flush=True)


if __name__ == "__main__":
    asyncio.run(main([int(seed) for seed in sys.argv[1:]]))
    leave(0)
