"""Ledgers as earlier penstocks left them, made by the steps of that time."""

from collections.abc import Iterator
from contextlib import contextmanager

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine

from orchestrator.store.database import MIGRATIONS


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
