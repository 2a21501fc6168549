"""Complaints from the sender's message to what the judge counts: real HTTP, a real ledger, real curl."""

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine, insert, text

from activities.observation import ObservationActivities
from orchestrator.complaints import (
    LEAST_KEY,
    MOST_CONNECTIONS,
    PATIENCE,
    ComplaintDoor,
    read_place,
    taking_complaints,
)
from orchestrator.settings import Settings
from orchestrator.store.complaints import ONCE_WITHIN, ComplaintList
from orchestrator.store.database import open_database, writing
from orchestrator.store.ledger import Ledger
from orchestrator.store.tables import complaints as table
from policies.judge.complaints import MOST_BYTES, Complaint, sign
from policies.judge.counts import Series
from policies.judge.look import Memory
from policies.judge.reading import COMPLAINTS
from policies.judge.window import WindowState
from policies.model.errors import BadInput, Unavailable
from policies.model.fleet import Fleet
from policies.model.gates import GatePolicy
from policies.model.verdict import Cohorts
from tests.fakes.ledgers import ledger_of
from tests.house.tree import ROOT
from tests.unit.fleets import gateway

KEY = b"k" * LEAST_KEY
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


@pytest.fixture
async def port(book: ComplaintList) -> AsyncIterator[int]:
    async with ComplaintDoor(KEY, book).open("127.0.0.1", 0) as chosen:
        yield chosen


def complaint(user: str = ADA, gateway: str = "gw-1", at: float | None = None) -> bytes:
    return json.dumps({"user": user, "gateway": gateway, "at": at or round(time.time())}).encode()


def signed(body: bytes, *, key: bytes = KEY, ago: int = 0) -> dict[str, str]:
    at = int(time.time()) - ago
    return {"X-Penstock-At": str(at), "X-Penstock-Signature": sign(key, at, body)}


async def send(
    port: int,
    body: bytes,
    headers: dict[str, str] | None = None,
    method: str = "POST",
    path: str = "/complaints",
) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
        return await client.request(
            method,
            f"http://127.0.0.1:{port}{path}",
            content=body,
            headers=signed(body) if headers is None else headers,
        )


async def say(port: int, *pieces: bytes) -> bytes:
    """Say this as it is, and return all that comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        return await reader.read()
    finally:
        writer.close()


async def counted(book: ComplaintList) -> dict[str, int]:
    """Return what the judge counts of everything that has arrived so far."""
    now = datetime.now(UTC)
    return await book.distinct((ONE, TWO), now - timedelta(hours=1), now + timedelta(hours=1))


async def test_a_signed_complaint_is_recorded_and_counts_for_its_gateways_instance(
    port: int, book: ComplaintList
) -> None:
    answers = [
        await send(port, complaint(*said)) for said in ((ADA, "gw-1"), (BOB, "gw-2"), ("c0" * 8, "gw-2"))
    ]
    assert [(answer.status_code, answer.json()) for answer in answers] == [(202, {"recorded": True})] * 3
    assert await counted(book) == {ONE: 1, TWO: 2}


async def test_a_repeat_of_a_message_is_accepted_and_counts_once(
    port: int, book: ComplaintList, engine: Engine
) -> None:
    body = complaint()
    headers = signed(body)
    answers = await asyncio.gather(*(send(port, body, headers) for _ in range(5)))
    assert [answer.status_code for answer in answers] == [202] * 5
    with writing(engine) as connection:
        assert connection.execute(text("SELECT count(*) FROM complaints")).scalar_one() == 1
    assert await counted(book) == {ONE: 1}


Signing = Callable[[bytes], dict[str, str]]


@pytest.mark.parametrize(
    ("signing", "sentence"),
    [
        (lambda body: {}, "not signed as agreed"),
        (lambda body: signed(body) | {"X-Penstock-At": "now"}, "not signed as agreed"),
        (lambda body: signed(body, key=b"another"), "does not fit"),
        (lambda body: signed(body + b" "), "does not fit"),
        (lambda body: signed(body) | {"X-Penstock-At": str(int(time.time()) + 60)}, "does not fit"),
        (lambda body: signed(body, ago=400), "five minutes old or ahead"),
        (lambda body: signed(body, ago=-400), "five minutes old or ahead"),
    ],
    ids=["unsigned", "no time", "another key", "another body", "another time", "old", "ahead"],
)
async def test_what_is_not_genuine_and_fresh_is_not_recorded(
    port: int, book: ComplaintList, signing: Signing, sentence: str
) -> None:
    body = complaint()
    answer = await send(port, body, signing(body))
    assert answer.status_code == 403
    assert sentence in answer.json()["error"]
    assert await counted(book) == {}


@pytest.mark.parametrize(
    ("writing_it", "status", "sentence"),
    [
        (lambda: b"no JSON", 400, "must be JSON"),
        (lambda: b"", 400, "must be JSON"),
        (lambda: b"[" * 50_000, 400, "must be JSON"),
        (lambda: b"\xff\xfe", 400, "must be JSON"),
        (lambda: complaint(user="ada"), 400, "a hash"),
        (lambda: complaint(gateway="gw-9"), 400, "edge has no gateway 'gw-9'"),
        (lambda: complaint(at=time.time() - 7200), 400, "an hour ago"),
        (lambda: complaint(at=time.time() + 7200), 400, "later than now"),
        (lambda: complaint(at=time.time() * 1000), 400, "in seconds"),
        (lambda: complaint(at=float("inf")), 400, "in seconds"),
        (lambda: b" " * (MOST_BYTES + 1), 413, f"{MOST_BYTES} bytes"),
    ],
    ids=[
        "words",
        "empty",
        "deep",
        "bytes",
        "name",
        "gateway",
        "old",
        "ahead",
        "milliseconds",
        "never",
        "large",
    ],
)
async def test_what_is_signed_and_no_complaint_is_answered_with_its_reason_and_not_recorded(
    port: int, book: ComplaintList, writing_it: Callable[[], bytes], status: int, sentence: str
) -> None:
    answer = await send(port, writing_it())
    assert answer.status_code == status
    assert sentence in answer.json()["error"]
    assert await counted(book) == {}


@pytest.mark.parametrize(
    ("request_line", "more", "status"),
    [
        (b"POST /other HTTP/1.1", b"Content-Length: 0\r\n", b"404"),
        (b"POST /complaints?all HTTP/1.1", b"Content-Length: 0\r\n", b"404"),
        (b"GET /complaints HTTP/1.1", b"", b"405"),
        (b"POST /complaints HTTP/1.1", b"", b"403"),
        (b"POST /complaints HTTP/1.1", b"Content-Length: -1\r\n", b"400"),
        (b"POST /complaints HTTP/1.1", b"Content-Length: " + b"9" * 5000 + b"\r\n", b"400"),
        (b"POST /complaints HTTP/1.1", b"Content-Length: 999999999999\r\n", b"413"),
        (b"POST /complaints HTTP/1.1", b"Content-Length: 1\r\nTransfer-Encoding: gzip\r\n", b"501"),
        (b"POST /complaints HTTP/1.1", b"X: " + b"x" * 20_000 + b"\r\n", b"431"),
        (b"POST /complaints HTTP/2", b"Content-Length: 0\r\n", b"400"),
        (b"complaints!", b"", b"400"),
    ],
)
async def test_a_request_that_is_not_the_agreed_one_is_told_so(
    port: int, request_line: bytes, more: bytes, status: bytes
) -> None:
    said = await say(port, request_line + b"\r\nHost: door\r\n" + more + b"\r\n")
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status + b" ")
    assert (b"\r\nAllow: POST" in head) is (status == b"405")
    assert list(json.loads(body)) == ["error"]


async def test_a_body_in_pieces_is_no_longer_than_one_that_is_told_in_advance(
    port: int, book: ComplaintList
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(80):
            yield b" " * 1024

    async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
        answer = await client.post(f"http://127.0.0.1:{port}/complaints", content=pieces())
    assert answer.status_code == 413
    assert await counted(book) == {}


async def test_a_sender_that_drips_is_cut_off_while_others_are_heard(book: ComplaintList) -> None:
    assert timedelta(seconds=10) == PATIENCE
    async with ComplaintDoor(KEY, book, patience=timedelta(seconds=3)).open("127.0.0.1", 0) as port:
        began = time.monotonic()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /complaints HTTP/1.1\r\nHost: door\r\nContent-Length: 60000\r\n\r\n")

        async def drip() -> None:
            while True:
                writer.write(b"x")
                await asyncio.sleep(0.05)

        dripping, answer = asyncio.create_task(drip()), asyncio.create_task(reader.read())
        assert (await send(port, complaint())).status_code == 202
        assert not answer.done()
        said = await answer
        dripping.cancel()
        writer.close()
    assert said.startswith(b"HTTP/1.1 408 ")
    assert 3 <= time.monotonic() - began < 10
    assert await counted(book) == {ONE: 1}


async def test_only_so_many_may_talk_at_once(port: int, book: ComplaintList) -> None:
    idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MOST_CONNECTIONS)]
    one_more = await say(port)
    assert one_more.startswith(b"HTTP/1.1 503 ")
    for reader, writer in idle:
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
    assert (await send(port, complaint())).status_code == 202


async def test_a_ledger_that_does_not_answer_is_the_senders_reason_to_try_again(
    port: int, engine: Engine, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    with writing(engine) as connection:
        connection.execute(text("DROP TABLE complaints"))
    answer = await send(port, complaint())
    assert answer.status_code == 503
    assert "again" in answer.json()["error"]
    assert str(tmp_path) not in answer.text
    assert "complaint was not recorded" in caplog.text
    assert not any(secret in caplog.text for secret in (ADA, KEY.decode(), "Traceback"))


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
            insert(table), [{"user": u, "gateway": g, "at": now - t, "arrived": now - t} for u, g, t in said]
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


def test_a_ledger_from_before_complaints_keeps_what_it_has(url: str) -> None:
    with ledger_of("0001", url) as connection:
        connection.execute(
            text("INSERT INTO floors VALUES ('ocserv', 'stable', 'main', 9, '2030-01-02 03:04:05.000000')")
        )
    book = ComplaintList.open(url, FLEET)
    assert book.add(Complaint(user=ADA, gateway="gw-1", at=time.time()))
    book.close()
    ledger = Ledger.open(url)
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
        row = {"user": ADA, "gateway": "gw-1", "at": arrived, "arrived": arrived}
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


def settings(folder: Path, **more: object) -> Settings:
    return Settings.model_validate({"ledger_url": f"sqlite:///{folder}/ledger.db"} | more)


def key_file(folder: Path, content: bytes = KEY + b"\n") -> Path:
    path = folder / "complaints.key"
    path.write_bytes(content)
    return path


def test_without_settings_there_is_no_door(tmp_path: Path) -> None:
    assert read_place(settings(tmp_path)) is None


def test_the_settings_name_the_doors_place_and_key(tmp_path: Path) -> None:
    path = key_file(tmp_path)
    place = read_place(settings(tmp_path, complaints_address="[::1]:9600", complaints_key=path))
    assert place == ("::1", 9600, KEY)


@pytest.mark.parametrize(
    ("address", "key", "wrong"),
    [
        ("127.0.0.1:9600", None, "go together"),
        (None, KEY, "go together"),
        ("127.0.0.1", KEY, "write host:port"),
        (":9600", KEY, "write host:port"),
        ("127.0.0.1:0", KEY, "write host:port"),
        ("127.0.0.1:65536", KEY, "write host:port"),
        ("127.0.0.1:9600", b"short\n", "at least 32"),
        ("127.0.0.1:9600", KEY + b"\n" + KEY, "one line"),
        ("127.0.0.1:9600", b"", "at least 32"),
    ],
)
def test_half_a_door_is_refused_in_one_sentence_without_the_key(
    tmp_path: Path, address: str | None, key: bytes | None, wrong: str
) -> None:
    path = None if key is None else key_file(tmp_path, key)
    with pytest.raises(BadInput, match=wrong) as refused:
        read_place(settings(tmp_path, complaints_address=address, complaints_key=path))
    assert not key or key.decode().strip() not in str(refused.value)


def test_a_key_that_is_not_there_is_named(tmp_path: Path) -> None:
    given = settings(tmp_path, complaints_address="127.0.0.1:9600", complaints_key=tmp_path / "none")
    with pytest.raises(BadInput, match="none cannot be read"):
        read_place(given)


async def test_the_door_is_open_as_long_as_the_worker_runs_and_a_taken_place_is_bad_input(
    tmp_path: Path, port: int
) -> None:
    path = key_file(tmp_path)
    taken = settings(tmp_path, complaints_address=f"127.0.0.1:{port}", complaints_key=path)
    with pytest.raises(BadInput, match="correct PENSTOCK_COMPLAINTS_ADDRESS"):
        async with taking_complaints(taken, FLEET):
            pass
    own = settings(tmp_path, complaints_address=f"127.0.0.7:{port}", complaints_key=path)
    async with taking_complaints(own, FLEET):
        _, writer = await asyncio.open_connection("127.0.0.7", port)
        writer.close()
    with pytest.raises(OSError, match="Connect call failed"):
        await asyncio.open_connection("127.0.0.7", port)


async def test_the_readmes_example_is_accepted(tmp_path: Path, port: int, book: ComplaintList) -> None:
    (example,) = re.findall(r"^```sh\n(.+?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    key_file(tmp_path)
    key_file(tmp_path).with_name("users.key").write_text("x" * 32)
    assert "127.0.0.1:9600" in example
    shell = await asyncio.create_subprocess_exec(
        "sh", "-euc", example.replace("127.0.0.1:9600", f"127.0.0.1:{port}"),
        cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, errors = await asyncio.wait_for(shell.communicate(), 60)
    assert (shell.returncode, json.loads(out)) == (0, {"recorded": True}), errors
    assert await counted(book) == {ONE: 1}
