"""Snapshots on a host: the evidence of a failure, frozen as one file whose name is its digest."""

import asyncio
import json
import logging
import os
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

from activities.drivers.daemon.filled_secrets import secrets_in
from activities.drivers.disk import end_of, write_whole
from activities.drivers.metrics.process_tree import usage
from activities.drivers.rights import read_own
from activities.drivers.runtime.host.own_evidence import OwnEvidence, own_evidence
from activities.drivers.runtime.host.process import PROC, boot_id
from activities.drivers.runtime.host.slot_folders import AdoptedFolder, SlotFolder, SlotFolders
from activities.snapshots import Evidence
from policies.model.adoption import ADOPTED
from policies.model.errors import BadInput, PenstockError
from policies.model.fleet import Gateway
from policies.model.instance import GatewayState
from policies.model.operation import Operation
from policies.model.value import Digest, digest_of
from policies.pseudonyms import Address, Pseudonyms
from policies.redaction import with_short_lines, without_secrets, without_tokens, without_values

LOG_BYTES = 64 * 1024
KEPT = 20
"""Snapshots on the host itself: the newest ones; the control plane keeps them longer."""
KEPT_FOR = timedelta(days=30)
FORGET_EVERY = timedelta(hours=1)

KEY_BYTES = 32
_SALT_BYTES = 16

_log = logging.getLogger(__name__)


def read_fleet_key(path: Path) -> bytes:
    """Return the key of a fleet's pseudonyms, which stands in the file in hex.

    Raises:
        BadInput: It cannot be read, others can read it, or it is no such key.
    """
    try:
        said = read_own(path, secret=True).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"the key of pseudonyms {path} cannot be read: {type(error).__name__}") from None
    try:
        key = bytes.fromhex(said)
    except ValueError:
        key = b""
    if len(key) < KEY_BYTES:
        raise BadInput(f"{path} must hold {2 * KEY_BYTES} hex digits; make them with `openssl rand -hex 32`")
    return key


class HostSnapshots:
    """The folder `snapshots/` of one gateway's host.

    Credentials live in files of their own and are left out. The lines of these files are removed wherever
    they stand, since a config may have been filled with one and a log may quote it. What else could be a
    secret is removed everywhere. Users' names are replaced. Clients' addresses are replaced by
    words of the fleet's key, and left out without one.
    """

    def __init__(
        self,
        folders: SlotFolders,
        observe: Callable[[], Awaitable[GatewayState]],
        steering: Callable[[], Awaitable[str]],
        key: Path | None = None,
        kept_for: timedelta = KEPT_FOR,
        fronts: Sequence[Path] = (),
    ) -> None:
        """Take what is there, what observes it, and what steers in its own words.

        `key` is the file of the fleet's key, `kept_for` how long snapshots are kept, and `fronts` are the
        logs of proxies through which users come.
        """
        self._folders = folders
        self._observe = observe
        self._steering = steering
        self._folder = folders.root / "snapshots"
        self._key = key
        self._kept_for = kept_for
        self._fronts = fronts
        self._known = known_addresses(folders.gateway)

    async def freeze(self, operation: Operation, evidence: Evidence) -> Digest:
        """Write the snapshot and return its digest."""
        live, words = await self._folders.live(), self._words()
        slots = {folder.slot.name: await asyncio.to_thread(self._slot, folder) for folder in self._folders}
        if (adopted := self._folders.adopted) is not None:
            slots[ADOPTED] |= _own(adopted, await own_evidence(adopted, LOG_BYTES))
        for slot in slots.values():
            slot["log"] = with_short_lines(slot["log"])
        names = await asyncio.to_thread(self._names_in, [slot["log"] for slot in slots.values()])
        failure = evidence.model_dump(mode="json")

        def told(text: str) -> str:
            return words.without_addresses(words.without_names(without_tokens(text), names), self._known)

        for slot in slots.values():
            slot["log"] = told(slot["log"])
        failure["reason"] = told(failure["reason"])
        frozen = {
            "at": datetime.now(UTC).isoformat(),
            "operation": operation.model_dump(mode="json"),
            "failure": failure,
            "state": (await self._observe()).model_dump(mode="json"),
            "steering": told(await _said(self._steering())),
            "versions": self._versions(),
            "slots": slots,
            "fronts": {path.name: told(_end_of_front(path)) for path in self._fronts},
            "sessions": {
                slot: None
                if found is None
                else [self._session(session.model_dump(mode="json"), words) for session in found]
                for slot, found in live.items()
            },
        }
        known = await asyncio.to_thread(self._secrets)
        content = json.dumps(await asyncio.to_thread(_without, frozen, known), sort_keys=True, indent=1)
        digest = digest_of(content.encode())
        self._folder.mkdir(exist_ok=True, mode=0o700)
        await asyncio.to_thread(write_whole, self._path(digest), content)
        await asyncio.to_thread(self.forget_old)
        return digest

    def _secrets(self) -> frozenset[str]:
        """Return the secrets of all instances: one's log may have those of its predecessor."""
        return frozenset[str]().union(*(secrets_in(folder.path / "conf") for folder in self._folders))

    def _names_in(self, logs: Sequence[str]) -> frozenset[str]:
        return frozenset[str]().union(*map(self._folders.daemon.names_in, logs))

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

    def forget_old(self) -> None:
        """Remove what has been kept long enough, and more than the newest ones."""
        oldest = time.time() - self._kept_for.total_seconds()
        found = sorted(
            ((path.stat().st_mtime, path) for path in self._folder.glob("sha256-*.json")), reverse=True
        )
        for number, (at, path) in enumerate(found):
            if number >= KEPT or at < oldest:
                path.unlink(missing_ok=True)

    async def keep_forgetting(self) -> None:
        """Remove what is too old for ever, also on a gateway where nothing fails any more."""
        while True:
            try:
                await asyncio.to_thread(self.forget_old)
            except OSError as error:
                _log.warning("old snapshots were not removed: %s", error)
            await asyncio.sleep(FORGET_EVERY.total_seconds())

    def _words(self) -> Pseudonyms:
        """Return the words of the fleet's key, else those of a salt that is thrown away with the snapshot."""
        if self._key is not None:
            try:
                return Pseudonyms(read_fleet_key(self._key), addresses=True)
            except BadInput as error:  # evidence without its clients is better than none
                _log.warning("clients' addresses are left out of a snapshot: %s", error)
        return Pseudonyms(secrets.token_bytes(_SALT_BYTES), addresses=False)

    def _session(self, session: Mapping[str, Any], words: Pseudonyms) -> dict[str, Any]:
        told = {
            what: words.without_addresses(said, self._known) if what.endswith("_address") else said
            for what, said in session.items()
        }
        if (source := session["source"]) is not None:
            told["source"] = [words.without_addresses(source[0], self._known), source[1]]
        return told

    def _path(self, digest: Digest) -> Path:
        return self._folder / f"{digest.replace(':', '-')}.json"

    def _versions(self) -> dict[str, Any]:
        return {
            "penstock": version("penstock"),
            "kernel": os.uname().release,
            "boot": boot_id(),
            "staged": sorted(path.name for path in self._folders.versions.folder.glob("sha256-*")),
        }

    def _slot(self, folder: SlotFolder) -> dict[str, Any]:
        process, config = folder.process(), folder.path / "conf"
        log = end_of(folder.log, LOG_BYTES)
        pid = process.pid if process else None
        used = usage(pid) if pid is not None else None
        return {
            "state": folder.state,
            "config": {
                file.name: without_secrets(file.read_text(errors="replace"))
                for file in sorted(config.glob("*.conf"))
            },
            "log": log.decode(errors="replace"),
            "process": (PROC / str(pid) / "status").read_text() if pid is not None else None,
            "usage": asdict(used) if used else None,
        }


def _without(part: Any, values: Collection[str]) -> Any:
    """Return a part of a snapshot with these values removed from every text in it."""
    if isinstance(part, str):
        return without_values(part, values)
    if isinstance(part, Mapping):
        return {key: _without(one, values) for key, one in part.items()}
    return [_without(one, values) for one in part] if isinstance(part, list | tuple) else part


def _own(folder: AdoptedFolder, found: OwnEvidence) -> dict[str, Any]:
    """Return what a daemon that was adopted has by itself, in the form of a slot's."""
    config = {folder.own["config"]: without_secrets(found.config)} if found.config else {}
    return {"config": config, "log": found.log, "missing": found.missing}


def known_addresses(gateway: Gateway) -> frozenset[Address]:
    """Return the addresses that are the gateway's own: those users dial, its management, its pools."""
    pools = [pool for slot in gateway.slots for pool in (slot.pool4, slot.pool6) if pool is not None]
    networks = [address for pool in pools for address in (pool.network_address, pool.netmask)]
    return frozenset((*gateway.every_address, *networks))


def _end_of_front(path: Path) -> str:
    """Return the end of a log that is not ours; what cannot be read leaves the rest of the evidence whole."""
    try:
        return end_of(path, LOG_BYTES).decode(errors="replace")
    except OSError as error:
        return f"cannot be read: {error.strerror}"


async def _said(asked: Awaitable[str]) -> str:
    try:
        return await asked
    except PenstockError as error:
        return str(error)
