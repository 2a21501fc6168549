"""Complaints in the ledger, and what the judge counts of them."""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from itertools import pairwise

import pytest
from sqlalchemy import Engine, insert, text

from activities.observation import ObservationActivities
from orchestrator.store.complaints import ONCE_WITHIN, ComplaintList
from orchestrator.store.database import open_database, writing
from orchestrator.store.ledger import Ledger
from orchestrator.store.tables import complaints as table
from policies.judge.complaints import Complaint
from policies.judge.counts import Series
from policies.judge.look import Memory
from policies.judge.reading import COMPLAINTS
from policies.judge.window import WindowState
from policies.model.errors import Unavailable
from policies.model.fleet import Fleet
from policies.model.gates import GatePolicy
from policies.model.verdict import Cohorts
from tests.fakes.ledgers import ledger_of
from tests.unit.fleets import gateway

FLEET = Fleet(
    name="edge",
    product="ocserv",
    gateways=tuple(
        gateway(f"gw-{n}").model_copy(update={"addresses": (IPv4Address(f"192.0.2.{n}"),)}) for n in (1, 2)
    ),
)
ONE, TWO = "192.0.2.1:9500", "192.0.2.2:9500"
ADA, BOB = "ad" * 16, "b0" * 16


@pytest.fixture
def book(url: str) -> Iterator[ComplaintList]:
    opened = ComplaintList.open(url, FLEET)
    yield opened
    opened.close()


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    opened = open_database(url)
    yield opened
    opened.dispose()


async def counted(book: ComplaintList) -> dict[str, int]:
    """Return what the judge counts of everything that has arrived so far."""
    now = datetime.now(UTC)
    return await book.distinct((ONE, TWO), now - timedelta(hours=1), now + timedelta(hours=1))


async def test_a_user_counts_once_a_day_and_for_the_first_gateway(
    book: ComplaintList, engine: Engine
) -> None:
    now = datetime.now(UTC)
    said = [
        (ADA, "gw-1", timedelta(hours=30)),
        (ADA, "gw-2", timedelta(hours=1)),
        (BOB, "gw-1", timedelta(hours=2)),
        (BOB, "gw-2", timedelta(minutes=1)),
        ("c0" * 8, "gw-2", timedelta(minutes=2)),
        ("c0" * 8, "gw-1", timedelta(minutes=1)),
        ("d0" * 8, "gw-gone", timedelta(minutes=1)),
    ]
    with writing(engine) as connection:
        connection.execute(
            insert(table),
            [
                {"fleet": "edge", "user": u, "gateway": g, "at": now - t, "arrived": now - t}
                for u, g, t in said
            ],
        )
    since = now - timedelta(minutes=90)
    assert await book.distinct((ONE, TWO), since, now) == {TWO: 2}
    assert await book.distinct((ONE,), since, now) == {}
    assert await book.distinct((ONE, TWO), now, now + ONCE_WITHIN) == {}
    assert await book.distinct((ONE, TWO), now - timedelta(hours=40), now) == {ONE: 2, TWO: 1}


async def test_looks_that_follow_each_other_count_every_complaint_once(book: ComplaintList) -> None:
    looked = [datetime.now(UTC)]
    for number in range(6):
        book.add(Complaint(user=f"{number:016x}", gateway="gw-1", at=time.time()))
        looked.append(datetime.now(UTC))
    looked.append(looked[-1] + timedelta(minutes=1))
    found = [await book.distinct((ONE,), *pair) for pair in pairwise(looked)]
    assert sum(one.get(ONE, 0) for one in found) == 6


async def test_a_ticket_made_before_the_last_look_still_counts_when_it_arrives(book: ComplaintList) -> None:
    now = datetime.now(UTC)
    book.add(Complaint(user=ADA, gateway="gw-1", at=(now - timedelta(minutes=20)).timestamp()))
    assert await book.distinct((ONE,), now, now + timedelta(minutes=1)) == {ONE: 1}


async def test_complaints_are_forgotten_when_they_have_been_kept_long_enough(book: ComplaintList) -> None:
    book.add(Complaint(user=ADA, gateway="gw-1", at=time.time()))
    book.expire(datetime.now(UTC) - timedelta(minutes=1))
    assert await counted(book) == {ONE: 1}
    book.expire(datetime.now(UTC) + timedelta(minutes=1))
    assert await counted(book) == {}


def test_a_ledger_from_before_complaints_keeps_what_it_has(bare: str) -> None:
    with ledger_of("0001", bare) as connection:
        connection.execute(
            text("INSERT INTO floors VALUES ('ocserv', 'stable', 'main', 9, '2030-01-02 03:04:05.000000')")
        )
    book = ComplaintList.open(bare, FLEET)
    assert book.add(Complaint(user=ADA, gateway="gw-1", at=time.time()))
    book.close()
    ledger = Ledger.open(bare)
    assert ledger.floor("ocserv", "stable", "main") == 9
    assert ledger.verify_audit() is None
    ledger.close()


GATES = GatePolicy.model_validate(
    {
        "name": "complaining",
        "gates": [{"id": "complaints", "kind": "complaints", "total": "vpngw_sessions{$cohort}"}],
    }
)
COHORTS = Cohorts(canary=(ONE,), control=(TWO,), expected={})


class NoMetrics:
    """A source that answers, and has nothing."""

    async def raw(
        self, selector: str, instances: Sequence[str], at: datetime, lookback: timedelta
    ) -> tuple[Series, ...]:
        return ()


async def test_the_judge_reads_complaints_since_it_last_counted(book: ComplaintList, engine: Engine) -> None:
    now = datetime.now(UTC)
    arrived = now - timedelta(seconds=8)
    with writing(engine) as connection:
        row = {"fleet": "edge", "user": ADA, "gateway": "gw-1", "at": arrived, "arrived": arrived}
        connection.execute(insert(table).values(row))
    # Between two scrapes the judge looks without counting; what it saw then must be there the next time.
    memory = Memory(based=True, counted=now.timestamp() - 15)
    state = WindowState(last=now.timestamp() - 5, memory=memory)
    reading = await ObservationActivities(NoMetrics(), complaints=book).read(GATES, COHORTS, state)
    assert (reading.complaints, reading.unread) == ({ONE: 1}, {})


async def test_a_book_that_cannot_be_read_is_not_a_book_without_complaints(
    book: ComplaintList, engine: Engine
) -> None:
    with writing(engine) as connection:
        connection.execute(text("DROP TABLE complaints"))
    with pytest.raises(Unavailable):
        await counted(book)
    state = WindowState(last=time.time(), memory=Memory(based=True, counted=time.time() - 15))
    reading = await ObservationActivities(NoMetrics(), complaints=book).read(GATES, COHORTS, state)
    assert "does not answer" in reading.unread[COMPLAINTS]
