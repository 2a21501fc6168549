"""The ledger's tests run on both databases that a ledger can be on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.ledgers import new_ledger
from tests.fakes.postgresql import PostgreSQL
from tests.sampled import sampled

BOTH = ["sqlite", "postgresql"]


@pytest.fixture(scope="package")
def postgresql() -> Iterator[PostgreSQL]:
    """Give one server for all tests here."""
    with PostgreSQL() as server:
        yield server


@pytest.fixture(params=sampled(BOTH, "sqlite"))
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Give the address of a new ledger; what migrations do is usual on each kind of database."""
    if request.param == "sqlite":
        yield new_ledger(tmp_path / "ledger.db")
        return
    server: PostgreSQL = request.getfixturevalue("postgresql")
    with server.ledger() as address:
        yield address


@pytest.fixture(params=BOTH)
def bare(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Give the address where a ledger will be: no table of it is there, on each kind of database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/bare.db"
        return
    server: PostgreSQL = request.getfixturevalue("postgresql")
    with server.database() as address:
        yield address
