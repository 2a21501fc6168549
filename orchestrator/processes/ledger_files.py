"""The ledger as a file and back, by whoever may read and write its database: with or without an API."""

import glob
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from orchestrator.service.checkpoints import Checkpoints, Parted
from orchestrator.service.people import PeopleFile
from orchestrator.settings import Settings, read_settings
from orchestrator.store.backup import backed_up, require_whole, restore
from orchestrator.store.database import open_database
from orchestrator.store.ledger import Ledger
from orchestrator.store.rebuilding import RESTORED
from orchestrator.store.trail import Trail
from policies.model.errors import BadInput, Conflict
from policies.rebuilding import orders_to_repeat


def back_up(to: Path) -> int:
    """Write the whole ledger into a new file that only its owner reads; return how many rows it has.

    Raises:
        Conflict: There is something at that path.
        BadInput: Nothing can be written there.
    """
    settings = read_settings()
    engine = open_database(settings.ledger_url)
    if to.exists():
        raise Conflict(f"there is a {to} already: backups are never overwritten")
    for killed in to.parent.glob(f".{glob.escape(to.name)}.*.part"):
        killed.unlink(missing_ok=True)
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
    fit them. What root writes belongs to the owner of its folder, as which the services run.

    Raises:
        BadInput: It is no whole backup, or of another schema.
        Conflict: The ledger is not empty.
    """
    settings = read_settings()
    try:
        with source.open() as lines:
            rows = require_whole(lines)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{source} cannot be read: {error}") from error
    engine = open_database(settings.ledger_url)
    with source.open() as lines:
        last = restore(engine, lines, by=_person(settings))
    ledger = Ledger(engine)
    fault = ledger.verify_audit()
    checkpoints = Checkpoints(ledger, settings.audit_key, settings.audit_checkpoints)
    parted = checkpoints.part_from(last)
    body: dict[str, object] = {"rows": rows}
    if parted is not None:
        body |= {"missing": [parted.first, parted.last], "checkpoints": str(parted.file)}
    _note(Trail(engine), settings, RESTORED, body)
    engine.dispose()
    written = [settings.audit_checkpoints, *([parted.file] if parted else [])]
    _leave_to_owner([*_files_of(engine.url.database if engine.dialect.name == "sqlite" else None), *written])
    return BroughtBack(rows, fault, parted, orders_to_repeat())


def _files_of(database: str | None) -> list[Path]:
    """Return what SQLite writes of a database."""
    return [Path(f"{database}{end}") for end in ("", "-wal", "-shm")] if database else []


def _leave_to_owner(files: Sequence[Path]) -> None:
    """Have these files belong to the owner of their folder: root's own the services could not open."""
    if os.geteuid() != 0:
        return
    for file in files:
        if file.exists():
            folder = file.parent.stat()
            os.chown(file, folder.st_uid, folder.st_gid, follow_symlinks=False)


def _note(trail: Trail, settings: Settings, action: str, body: Mapping[str, object]) -> None:
    trail.audit(_person(settings), "cli", action, "ledger", body)


def _person(settings: Settings) -> str:
    """Return the name of the operator who runs this command."""
    return PeopleFile(settings.people).at_the_socket(os.geteuid()).person


def _for_its_owner(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)
