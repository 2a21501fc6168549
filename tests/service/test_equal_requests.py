"""Equal requests: of those that come in one moment one is carried out, whoever's clock is ahead."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier

import pytest
from sqlalchemy import create_engine, update

from orchestrator.store import tables
from orchestrator.store.ledger import Ledger
from policies.model.errors import Conflict

AT_ONCE, KEYS = 8, 25


def test_of_equal_requests_that_come_in_one_moment_one_is_carried_out(ledger: Ledger) -> None:
    together = Barrier(AT_ONCE)

    def taken(key: str) -> bool:
        together.wait(30)
        try:
            return ledger.begin_request("ana", key, b"hold") is None
        except Conflict:
            return False

    with ThreadPoolExecutor(AT_ONCE) as threads:
        for number in range(KEYS):
            assert sum(threads.map(taken, [f"{number}"] * AT_ONCE)) == 1


@pytest.mark.parametrize(("ahead", "waits"), [(1, True), (60, False)])
def test_a_clock_that_is_a_little_ahead_lets_no_equal_request_through(
    ledger: Ledger, tmp_path: Path, ahead: int, waits: bool
) -> None:
    ledger.begin_request("ana", "1", b"hold")
    engine = create_engine(f"sqlite:///{tmp_path / 'ledger.db'}")
    with engine.begin() as connection:
        connection.execute(update(tables.requests).values(at=datetime.now(UTC) + timedelta(seconds=ahead)))
    engine.dispose()
    if waits:
        with pytest.raises(Conflict, match="still being carried out"):
            ledger.begin_request("ana", "1", b"hold")
    else:
        assert ledger.begin_request("ana", "1", b"hold") is None, "a clock that was set back keeps nobody out"
