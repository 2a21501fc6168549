"""Snapshots: the evidence of a failure, frozen as one file whose name is its digest."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

from activities.drivers.programs import run
from activities.drivers.runtime.berths import Berth, Berths
from activities.drivers.runtime.disk import write_whole
from activities.drivers.runtime.process import PROC
from policies.words.errors import PenstockError
from policies.words.instance import GatewayState
from policies.words.operation import Operation
from policies.words.word import digest_of

LOG_BYTES = 64 * 1024


async def freeze(berths: Berths, state: GatewayState, operation: Operation, reason: str) -> str:
    """Write the snapshot below `snapshots/` and return its digest.

    Credentials live in files of their own and are left out; the config only names their paths.
    """
    live = await berths.live()
    evidence = {
        "at": datetime.now(UTC).isoformat(),
        "reason": reason,
        "operation": operation.model_dump(mode="json"),
        "state": state.model_dump(mode="json"),
        "steering": await _words_of("nft", "list", "table", "inet", "penstock"),
        "slots": {berth.slot.name: _slot(berth) for berth in berths},
        "sessions": {
            slot: None if found is None else [session.model_dump(mode="json") for session in found]
            for slot, found in live.items()
        },
    }
    content = json.dumps(evidence, sort_keys=True, indent=1)
    digest = digest_of(content.encode())
    folder = berths.root / "snapshots"
    folder.mkdir(exist_ok=True, mode=0o700)
    await asyncio.to_thread(write_whole, folder / f"{digest.replace(':', '-')}.json", content)
    return digest


def _slot(berth: Berth) -> dict[str, Any]:
    process = berth.process()
    config = berth.folder / "conf"
    log = berth.log.read_bytes()[-LOG_BYTES:] if berth.log.exists() else b""
    return {
        "state": berth.state,
        "config": {file.name: file.read_text(errors="replace") for file in sorted(config.glob("*.conf"))},
        "log": log.decode(errors="replace"),
        "process": (PROC / str(process.pid) / "status").read_text() if process else None,
    }


async def _words_of(*command: str) -> str:
    try:
        said = await run(command)
    except PenstockError as error:
        return str(error)
    return said.out or said.err
