"""Ledgers that tests begin with: new ones, and those that earlier penstocks left, by the steps of that time.

To make every table by every migration takes longer than most tests do, so a new SQLite file is a copy of one
that was made so once in each process.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine

from orchestrator.store.database import MIGRATIONS
from orchestrator.store.ledger import Ledger


@cache
def _new() -> bytes:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "ledger.db"
        Ledger.open(f"sqlite:///{file}").close()
        return file.read_bytes()


def new_ledger(file: Path) -> str:
    """Place a ledger of the newest schema with nothing in it at this path; return its address."""
    file.write_bytes(_new())
    return f"sqlite:///{file}"


@contextmanager
def ledger_of(revision: str, url: str) -> Iterator[Connection]:
    """Give a connection to a new ledger of that revision, kept when nothing is raised."""
    engine, config = create_engine(url), Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        yield connection
    engine.dispose()
