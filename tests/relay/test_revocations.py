"""A relay goes on reading revocations whatever comes between, from a real PostgreSQL."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, create_engine, text

from orchestrator.enrolment.names import Certified
from orchestrator.relay.revocations import Revocations
from orchestrator.store.ledger import Ledger
from tests.fakes.postgresql import PostgreSQL
from tests.relay.test_attacks import until

RENAMED = "ALTER TABLE gateway_certificates RENAME COLUMN {} TO {}"


@pytest.fixture
def database() -> Iterator[tuple[Ledger, Engine]]:
    with PostgreSQL() as server, server.database() as url:
        ledger, owner = Ledger.open(url), create_engine(url, isolation_level="AUTOCOMMIT")
        yield ledger, owner
        ledger.close()
        owner.dispose()


async def test_an_error_that_nobody_expected_of_the_ledger_ends_no_reading_of_revocations(
    database: tuple[Ledger, Engine], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("orchestrator.relay.revocations.EVERY", timedelta(milliseconds=20))
    ledger, owner = database
    revocations = Revocations(ledger.revoked_gateways)
    keeping = asyncio.create_task(revocations.keep(lambda: None))
    try:
        with owner.connect() as connection:
            connection.execute(text(RENAMED.format("serial", "number")))  # as a newer penstock's step may
            await until(lambda: "revocations cannot be read" in caplog.text)
            connection.execute(text(RENAMED.format("number", "serial")))
        ledger.revoke_certificates("edge", "gw-1", "ada", "stolen")
        stolen = Certified("edge", "gw-1", "1", datetime.now(UTC))
        await until(lambda: revocations.knows_revoked(stolen))
        assert "revocations are read again" in caplog.text
        assert not keeping.done()
    finally:
        keeping.cancel()
