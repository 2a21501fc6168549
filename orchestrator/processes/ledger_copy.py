"""A copy of a ledger, asked without any API: in an emergency, or long after, on any host."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.service.decisions import decision_of, decisions_of
from orchestrator.service.signals import signals_about
from orchestrator.service.telling import ChangeView, told_of
from orchestrator.store.backup import require_whole, restore
from orchestrator.store.database import open_database
from orchestrator.store.ledger import Ledger
from policies.model.errors import BadInput

SQLITE = b"SQLite format 3\x00"
"""How a database file begins; everything else is taken for a backup."""
_WITH_IT = ("", "-wal")
"""What lies in a database's file, and what was written since into the one beside it."""
PAGE = 200


class LedgerCopy:
    """What the API would answer of changes, from a ledger that nobody serves."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def get(self, *path: str, after: int | None = None, limit: int | None = None) -> Any:
        """Return what the API answers at this path.

        Raises:
            Unknown: There is no such change or decision.
            BadInput: That cannot be asked of a copy.
        """
        match path:
            case ("fleets",):
                return {"fleets": list(self._ledger.fleets_with_changes())}
            case ("fleets", fleet, "changes"):
                rows = self._ledger.history(fleet, limit)
                return {"changes": [row.model_dump(mode="json") for row in rows]}
            case ("changes", name):
                record = self._ledger.change(name)
                status = told_of(self._ledger, record)
                said = signals_about(self._ledger, record, sum(status.counts.values()))
                harm = self._ledger.newest_harm(record.name)
                view = ChangeView(record=record, status=status, signals=said, harm=harm)
                return view.model_dump(mode="json")
            case ("changes", name, "decisions"):
                found = decisions_of(self._ledger, self._ledger.change(name).name, after or 0, PAGE)
                return {"decisions": [row.model_dump(mode="json") for row in found]}
            case ("changes", name, "decisions", number):
                made = decision_of(self._ledger, self._ledger.change(name), int(number))
                return made.model_dump(mode="json")
            case _:
                pass
        raise BadInput(f"a copy of a ledger cannot answer /{'/'.join(path)}; ask the API")


@contextmanager
def answers_of(file: Path) -> Iterator[LedgerCopy]:
    """Give the answers of a backup or a copied database; the file itself is only read.

    Raises:
        BadInput: It is neither, or cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-ledger-") as folder:
        engine = open_database(f"sqlite:///{_copied(file, Path(folder))}")
        try:
            if not _is_database(file):
                _restore(file, engine)
            yield LedgerCopy(Ledger(engine))
        finally:
            engine.dispose()


def _copied(file: Path, folder: Path) -> Path:
    """Return where a database lies that may be brought to the newest schema; a backup gets an empty one."""
    place = folder / "ledger.db"
    if _is_database(file):
        for beside in _WITH_IT:
            written = file.with_name(f"{file.name}{beside}")
            if written.exists():
                shutil.copyfile(written, place.with_name(f"{place.name}{beside}"))
    return place


def _is_database(file: Path) -> bool:
    try:
        with file.open("rb") as content:
            return content.read(len(SQLITE)) == SQLITE
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}") from error


def _restore(file: Path, engine: Any) -> None:
    try:
        with file.open() as lines:
            require_whole(lines)
    except (OSError, UnicodeDecodeError, BadInput) as error:
        raise BadInput(f"{file} is no database and no whole backup of a ledger: {error}") from error
    with file.open() as lines:
        restore(engine, lines)
