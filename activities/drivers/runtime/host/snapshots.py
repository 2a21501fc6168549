"""Snapshots on a host: the evidence of a failure, frozen as one file whose name is its digest."""

import asyncio
import json
import os
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from activities.drivers.disk import write_whole
from activities.drivers.metrics.process_tree import usage
from activities.drivers.programs import run
from activities.drivers.runtime.host.process import PROC, boot_id
from activities.drivers.runtime.host.slot_folders import SlotFolder, SlotFolders
from activities.snapshots import Evidence
from policies.model.errors import BadInput, PenstockError
from policies.model.instance import GatewayState
from policies.model.operation import Operation
from policies.model.value import Digest, digest_of
from policies.redaction import without_names, without_secrets

LOG_BYTES = 64 * 1024
KEPT = 20
"""Snapshots on the host itself: the newest ones; the control plane keeps them longer."""


class HostSnapshots:
    """The folder `snapshots/` of one gateway's host.

    Credentials live in files of their own and are left out; a config only names their paths,
    and what else could be a secret is removed. Users' names are replaced.
    """

    def __init__(self, folders: SlotFolders, observe: Callable[[], Awaitable[GatewayState]]) -> None:
        self._folders = folders
        self._observe = observe
        self._folder = folders.root / "snapshots"

    async def freeze(self, operation: Operation, evidence: Evidence) -> Digest:
        """Write the snapshot and return its digest."""
        live = await self._folders.live()
        frozen = {
            "at": datetime.now(UTC).isoformat(),
            "operation": operation.model_dump(mode="json"),
            "failure": evidence.model_dump(mode="json"),
            "state": (await self._observe()).model_dump(mode="json"),
            "steering": await _words_of("nft", "list", "table", "inet", "penstock"),
            "versions": self._versions(),
            "slots": {folder.slot.name: self._slot(folder) for folder in self._folders},
            "sessions": {
                slot: None if found is None else [session.model_dump(mode="json") for session in found]
                for slot, found in live.items()
            },
        }
        content = json.dumps(frozen, sort_keys=True, indent=1)
        digest = digest_of(content.encode())
        self._folder.mkdir(exist_ok=True, mode=0o700)
        await asyncio.to_thread(write_whole, self._path(digest), content)
        await asyncio.to_thread(self._forget_old)
        return digest

    def read_frozen(self, digest: Digest) -> bytes:
        """Return a frozen snapshot.

        Raises:
            BadInput: there is none, or its bytes are not what was frozen.
        """
        path = self._path(digest)
        content = path.read_bytes() if path.exists() else b""
        if digest_of(content) != digest:
            raise BadInput(f"snapshot {digest} is not on {self._folders.gateway.name} any more")
        return content

    def _path(self, digest: Digest) -> Path:
        return self._folder / f"{digest.replace(':', '-')}.json"

    def _forget_old(self) -> None:
        newest_first = sorted(self._folder.glob("sha256-*.json"), key=lambda path: -path.stat().st_mtime)
        for old in newest_first[KEPT:]:
            old.unlink(missing_ok=True)

    def _versions(self) -> dict[str, Any]:
        return {
            "penstock": version("penstock"),
            "kernel": os.uname().release,
            "boot": boot_id(),
            "staged": sorted(path.name for path in self._folders.versions.folder.glob("sha256-*")),
        }

    def _slot(self, folder: SlotFolder) -> dict[str, Any]:
        process, config = folder.process(), folder.path / "conf"
        log = folder.log.read_bytes()[-LOG_BYTES:] if folder.log.exists() else b""
        text = log.decode(errors="replace")
        names = self._folders.daemon.names_in(text)
        used = usage(process.pid) if process else None
        return {
            "state": folder.state,
            "config": {
                file.name: without_secrets(file.read_text(errors="replace"))
                for file in sorted(config.glob("*.conf"))
            },
            "log": without_names(text, names, secrets.token_hex(16)),
            "process": (PROC / str(process.pid) / "status").read_text() if process else None,
            "usage": asdict(used) if used else None,
        }


async def _words_of(*command: str) -> str:
    try:
        result = await run(command)
    except PenstockError as error:
        return str(error)
    return result.out or result.err
