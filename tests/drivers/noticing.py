"""A worker's keeping of notices, to be killed: `python -m tests.drivers.noticing LEDGER FILE SECONDS`."""

import asyncio
import sys
from datetime import timedelta
from pathlib import Path

from orchestrator.noticing.around import Wrong
from orchestrator.noticing.delivering import Delivering
from orchestrator.noticing.keeping import keep_noticing
from orchestrator.noticing.rules import RulesFile
from orchestrator.store.ledger import Ledger


async def main(url: str, file: str, seconds: str) -> None:
    """Notice and deliver until killed; claims hold so many seconds."""
    ledger, rules = Ledger.open(url), RulesFile(Path(file))

    async def wrong() -> Wrong:
        return Wrong({}, {})

    delivering = Delivering(ledger, rules, timedelta(seconds=float(seconds)))
    await asyncio.gather(*keep_noticing(ledger, rules, delivering, wrong))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
