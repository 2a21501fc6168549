"""Tests of sinks, asked for by the API and carried out by a worker, and what is wrong with sinks' files."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import delete, insert, select, update

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading, writing
from policies.model.notice import Delivery, Notice

TAKEN_WITHIN = timedelta(seconds=20)
"""How long after it was asked for a worker takes a test: later its caller has gone."""


class SinkTest(NamedTuple):
    """A test that a worker has claimed."""

    key: str
    delivery: Delivery


class SinkTestAnswer(NamedTuple):
    """How far a test has come."""

    claimed: bool
    answer: str | None
    """What the receiver answered, or why it did not; None as long as it is awaited."""
    failed: str
    """The name of the error, empty where there was none."""


class SinkChecks(Book):
    """What API and workers have to say to each other of sinks."""

    def ask_sink_test(self, sink: str, notice: Notice) -> None:
        """Have a worker tell the sink of this notice."""
        row = {"key": notice.key, "sink": sink, "body": notice.model_dump_json(), "asked": notice.at}
        with writing(self._engine) as connection:
            connection.execute(insert(tables.sink_tests), [row])

    def claim_sink_test(self) -> SinkTest | None:
        """Return the oldest test that no worker has claimed, claimed; None when there is none."""
        table, now = tables.sink_tests, datetime.now(UTC)
        wanted = select(table.c.key, table.c.sink, table.c.body).where(
            table.c.claimed.is_(None), table.c.asked > now - TAKEN_WITHIN
        )
        oldest = wanted.order_by(table.c.asked).limit(1)
        with reading(self._engine) as connection:
            if connection.execute(oldest).first() is None:
                return None
        with writing(self._engine) as connection:
            found = connection.execute(oldest).first()
            if found is None:
                return None
            connection.execute(update(table).where(table.c.key == found.key).values(claimed=now))
        notice = Notice.model_validate_json(found.body)
        return SinkTest(found.key, Delivery(sink=found.sink, notice=notice))

    def answer_sink_test(self, key: str, answer: str, failed: str = "") -> None:
        """Write down what the receiver answered, or why it did not, by the name of the error."""
        table = tables.sink_tests
        with writing(self._engine) as connection:
            values = {"answer": answer, "failed": failed}
            connection.execute(update(table).where(table.c.key == key).values(values))

    def sink_test_answer(self, key: str) -> SinkTestAnswer:
        """Return how far a test has come."""
        table = tables.sink_tests
        wanted = select(table.c.claimed, table.c.answer, table.c.failed).where(table.c.key == key)
        with reading(self._engine) as connection:
            found = connection.execute(wanted).one()
            return SinkTestAnswer(found.claimed is not None, found.answer, found.failed)

    def record_sink_faults(self, faults: Mapping[str, str]) -> None:
        """Write down what is wrong with each sink's files, in place of what was written before."""
        table, now = tables.sink_faults, datetime.now(UTC)
        rows = [{"sink": sink, "fault": fault, "at": now} for sink, fault in sorted(faults.items())]
        with writing(self._engine) as connection:
            connection.execute(delete(table))
            if rows:
                connection.execute(insert(table), rows)

    def sink_faults(self) -> Mapping[str, str]:
        """Return what is wrong with each sink that a worker looked at, empty where nothing is."""
        table = tables.sink_faults
        with reading(self._engine) as connection:
            rows = connection.execute(select(table.c.sink, table.c.fault).order_by(table.c.sink))
            return {str(sink): str(fault) for sink, fault in rows}

    def expire_sink_tests(self, before: datetime) -> None:
        """Forget tests that were asked for before that moment."""
        table = tables.sink_tests
        with writing(self._engine) as connection:
            connection.execute(delete(table).where(table.c.asked < before))
