"""The ledger as a file and back, by whoever may read and write its database: with or without an API."""

import os
from pathlib import Path

from orchestrator.service.people import PeopleFile
from orchestrator.settings import Settings, read_settings
from orchestrator.store.backup import backed_up, require_whole, restore
from orchestrator.store.database import open_database
from orchestrator.store.ledger import Ledger
from orchestrator.store.trail import Trail
from policies.model.errors import BadInput, Conflict


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
    part = to.with_name(f".{to.name}.part")  # one that was killed leaves it to the next one
    try:
        with open(part, "w", opener=_for_its_owner) as file:
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


def bring_back(source: Path) -> tuple[int, str | None]:
    """Restore a backup into the empty ledger of the settings; return its rows, and what is wrong with them.

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
        restore(engine, lines)
    fault = Ledger(engine).verify_audit()
    _note(Trail(engine), settings, "ledger restored", {"rows": rows})
    engine.dispose()
    return rows, fault


def _note(trail: Trail, settings: Settings, action: str, body: dict[str, int]) -> None:
    person = PeopleFile(settings.people).at_the_socket(os.geteuid()).person
    trail.audit(person, "cli", action, "ledger", body)


def _for_its_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
