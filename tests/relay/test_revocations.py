"""A relay goes on reading revocations whatever comes between, from a real PostgreSQL."""

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text

from orchestrator.enrolment.names import Certified
from orchestrator.relay.revocations import Admissions, Revocations
from orchestrator.store.ledger import Ledger
from tests.fakes.postgresql import PostgreSQL
from tests.patience import until

NOW = datetime.now(UTC)
RENAMED = "ALTER TABLE gateway_certificates RENAME COLUMN {} TO {}"


@pytest.fixture
def database() -> Iterator[tuple[Ledger, Engine]]:
    with PostgreSQL() as server, server.ledger() as url:
        ledger, owner = Ledger.open(url), create_engine(url, isolation_level="AUTOCOMMIT")
        yield ledger, owner
        ledger.close()
        owner.dispose()


async def test_an_error_that_nobody_expected_of_the_ledger_ends_no_reading_of_revocations(
    database: tuple[Ledger, Engine], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("orchestrator.relay.revocations.EVERY", timedelta(milliseconds=20))
    ledger, owner = database
    revocations = Revocations(ledger.admitted_certificates)
    keeping = asyncio.create_task(revocations.keep(lambda: None))
    try:
        with owner.connect() as connection:
            connection.execute(text(RENAMED.format("serial", "number")))  # as a newer penstock's step may
            await until(lambda: "revocations cannot be read" in caplog.text)
            connection.execute(text(RENAMED.format("number", "serial")))
        ledger.revoke_certificates("edge", "gw-1", "ada", "stolen")
        stolen = Certified("edge", "gw-1", "1", NOW, NOW)
        await until(lambda: revocations.knows_revoked(stolen))
        assert "revocations are read again" in caplog.text
        assert not keeping.done()
    finally:
        keeping.cancel()


async def test_many_revoked_callers_share_one_reading(tmp_path: Path) -> None:
    ledger = Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    for number in range(50):
        ledger.revoke_certificates("edge", f"gw-{number}", "ada", "stolen")
    readings, again, asked = 0, threading.Event(), threading.Event()

    def read() -> Admissions:
        nonlocal readings
        readings += 1
        if readings > 1:
            asked.set()
            again.wait(20)
        return ledger.admitted_certificates()

    revocations = Revocations(read)
    assert await revocations.refresh()
    callers = [Certified("edge", f"gw-{number}", "1", NOW, NOW) for number in range(50)]
    waiting = [asyncio.create_task(revocations.refuses(one)) for one in callers]
    await asyncio.to_thread(asked.wait, 20)
    ledger.revoke_certificates("edge", "gw-late", "ada", "stolen")
    late = asyncio.create_task(revocations.refresh())
    await asyncio.sleep(0)
    again.set()
    assert all(await asyncio.gather(*waiting))
    assert await late
    assert revocations.knows_revoked(Certified("edge", "gw-late", "1", NOW, NOW))
    assert readings <= 3, "one that was under way, and one for all who asked meanwhile"
    ledger.close()
