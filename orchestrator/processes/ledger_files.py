"""The ledger as a file and back, by whoever may read and write its database: with or without an API."""

import os
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from orchestrator.service.checkpoints import Checkpoints, Parted
from orchestrator.service.people import PeopleFile, system_name
from orchestrator.settings import Settings, read_settings
from orchestrator.store.backup import backed_up, require_whole, restore
from orchestrator.store.database import file_of, open_database, open_existing
from orchestrator.store.ledger import Ledger
from orchestrator.store.rebuilding import RESTORED
from orchestrator.store.trail import Trail
from policies.model.errors import BadInput, Conflict, NotAllowed
from policies.rebuilding import orders_to_repeat

ABANDONED_SECONDS = 24 * 3600.0
"""A partial backup that nobody has written into for so long was killed, by whatever name it was begun."""
_PART = re.compile(r"\.(?P<whole>.+)\.[0-9a-f]{8}\.part")


def back_up(to: Path) -> int:
    """Write the whole ledger into a new file that only its owner reads; return how many rows it has.

    Raises:
        Conflict: There is something at that path.
        BadInput: There is no ledger, it is empty, or nothing can be written there. Nothing was made.
    """
    settings = read_settings()
    engine = open_existing(settings.ledger_url)
    if not Trail(engine).audit_head().seq:
        place = file_of(settings.ledger_url) or repr(engine.url)
        raise BadInput(
            f"no backup was made: the ledger {place} is empty, its audit log has no entry. Restore a lost "
            "ledger: penstock runbook show ledger-restore"
        )
    if to.exists():
        raise Conflict(f"there is a {to} already: backups are never overwritten")
    for part in to.parent.glob(".*.part"):
        named = _PART.fullmatch(part.name)
        with suppress(FileNotFoundError):
            if named and (
                named["whole"] == to.name or time.time() - part.stat().st_mtime > ABANDONED_SECONDS
            ):
                part.unlink()
    part = to.with_name(f".{to.name}.{secrets.token_hex(4)}.part")
    try:
        with open(part, "x", opener=_for_its_owner) as file:
            file.writelines(backed_up(engine))
            file.flush()
            os.fsync(file.fileno())
        os.link(part, to)
    except FileExistsError as error:
        raise Conflict(f"there is a {to} already: backups are never overwritten") from error
    except OSError as error:
        raise BadInput(f"{to} cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
    with to.open() as lines:
        rows = require_whole(lines)
    _note(Trail(engine), settings, "ledger backed up", {"rows": rows})
    engine.dispose()
    return rows


class BroughtBack(NamedTuple):
    """A ledger that was restored."""

    rows: int
    fault: str | None
    """What is wrong with its audit log, None when that is whole."""
    parted: Parted | None
    """The entries of the audit log that the backup has not, None when no checkpoint knows of such."""
    to_repeat: tuple[str, ...]
    """What operators do now, a line each."""


def bring_back(source: Path) -> BroughtBack:
    """Restore a backup into the empty ledger of the settings.

    Checkpoints of entries that are not in it are moved aside, or the entries that are written next would not
    fit them. What root writes, also before a refusal, belongs to the owner of its folder: the services' user.

    Raises:
        BadInput: It is no whole backup, has no rows, or is of another schema.
        Conflict: The ledger is not empty.
    """
    settings = read_settings()
    try:
        with source.open() as lines:
            rows = require_whole(lines)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{source} cannot be read: {error}") from error
    if not rows:
        raise BadInput(f"{source} has no rows: it is the backup of an empty ledger. Restore an older backup")
    written = [*_files_of(settings.ledger_url), settings.audit_checkpoints]
    try:
        engine = open_database(settings.ledger_url)
        with source.open() as lines:
            last = restore(engine, lines, by=_person(settings))
        ledger = Ledger(engine)
        fault = ledger.verify_audit()
        checkpoints = Checkpoints(ledger, settings.audit_key, settings.audit_checkpoints)
        parted = checkpoints.part_from(last)
        body: dict[str, object] = {"rows": rows}
        if parted is not None:
            written.append(parted.file)
            body |= {"missing": [parted.first, parted.last], "checkpoints": str(parted.file)}
        _note(Trail(engine), settings, RESTORED, body)
        engine.dispose()
    finally:
        _leave_to_owner(written)
    return BroughtBack(rows, fault, parted, orders_to_repeat())


def _files_of(url: str) -> list[Path]:
    """Return the files that SQLite writes for the ledger at this address."""
    file = file_of(url)
    return [Path(f"{file}{end}") for end in ("", "-wal", "-shm")] if file is not None else []


def _leave_to_owner(files: Sequence[Path]) -> None:
    """Give files of root to the owner of their folder, as whom the services run; they cannot open root's."""
    if os.geteuid() != 0:
        return
    for file in files:
        with suppress(FileNotFoundError):
            if file.lstat().st_uid == 0:
                folder = file.parent.stat()
                os.chown(file, folder.st_uid, folder.st_gid, follow_symlinks=False)


def _note(trail: Trail, settings: Settings, action: str, body: Mapping[str, object]) -> None:
    trail.audit(_person(settings), "cli", action, "ledger", body)


def _person(settings: Settings) -> str:
    """Return the operator who runs this command, or the system user: that of the services is no person."""
    user = os.geteuid()
    try:
        return PeopleFile(settings.people).at_the_socket(user).person
    except (NotAllowed, BadInput):
        return f"system user {system_name(user)}"


def _for_its_owner(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
