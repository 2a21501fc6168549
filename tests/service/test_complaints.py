"""Complaints by signed webhook: real HTTP at the API, a real ledger, real curl."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from activities.drivers.private_files import write_private
from activities.files import load
from orchestrator.api.limits import Kind
from orchestrator.api.size import MOST_BYTES as MOST_OF_ALL
from orchestrator.processes.api import serving
from orchestrator.processes.listening import port_at
from orchestrator.service.complaints import LEAST_KEY, ComplaintService
from orchestrator.service.service import Service
from orchestrator.store.complaints import ComplaintList
from orchestrator.store.ledger import Ledger
from policies.judge.complaints import MOST_BYTES, sign
from policies.model.errors import BadInput, Unknown
from policies.model.fleet import Fleet
from tests.house.tree import ROOT
from tests.patience import PATIENCE

KEY, OTHER = b"k" * LEAST_KEY, b"o" * LEAST_KEY
ADA, BOB = "ad" * 16, "b0" * 16
PLACE = "192.0.2.1:9500"


@pytest.fixture
async def url(service: Service, ledger: Ledger, tmp_path: Path) -> AsyncIterator[str]:
    """Where the API answers on the network, with a key for each fleet but `core`."""
    keys = tmp_path / "keys"
    keys.mkdir()
    write_private(keys / "edge.key", KEY + b"\n")
    service.complaints = ComplaintService(ledger.engine, keys)
    at = port_at("127.0.0.1:0", "PENSTOCK_API_ADDRESS")
    async with serving(service, at):
        yield f"http://127.0.0.1:{at.getsockname()[1]}"


@pytest.fixture
async def sender(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"{url}/v1", trust_env=False, timeout=20) as client:
        yield client


def complaint(user: str = ADA, gateway: str = "edge-1", at: float | None = None) -> bytes:
    return json.dumps({"user": user, "gateway": gateway, "at": at or round(time.time())}).encode()


def signed(body: bytes, *, key: bytes = KEY, fleet: str = "edge", ago: int = 0) -> dict[str, str]:
    at = int(time.time()) - ago
    return {"X-Penstock-At": str(at), "X-Penstock-Signature": sign(key, at, fleet, body)}


async def send(
    sender: httpx.AsyncClient, body: bytes, headers: dict[str, str] | None = None, fleet: str = "edge"
) -> httpx.Response:
    found = signed(body, fleet=fleet) if headers is None else headers
    return await sender.post(f"/fleets/{fleet}/complaints", content=body, headers=found)


async def counted(ledger: Ledger, tmp_path: Path, fleet: str = "edge") -> dict[str, int]:
    """Return what the judge counts of everything that has arrived so far."""
    described = load(tmp_path / "fleets" / f"{fleet}.yaml", Fleet)
    now = datetime.now(UTC)
    book = ComplaintList(ledger.engine, described)
    return await book.distinct((PLACE,), now - timedelta(hours=1), now + timedelta(hours=1))


async def test_a_signed_complaint_is_recorded_and_counts_for_its_gateways_instance(
    sender: httpx.AsyncClient, ledger: Ledger, tmp_path: Path
) -> None:
    answers = [await send(sender, complaint(user)) for user in (ADA, BOB, ADA)]
    found = [(answer.status_code, answer.json()["recorded"]) for answer in answers]
    assert found == [(202, True)] * 3
    assert await counted(ledger, tmp_path) == {PLACE: 2}


async def test_a_repeat_of_a_message_is_accepted_and_counts_once(
    sender: httpx.AsyncClient, ledger: Ledger, tmp_path: Path
) -> None:
    body = complaint()
    headers = signed(body)
    answers = await asyncio.gather(*(send(sender, body, headers) for _ in range(5)))
    assert [answer.status_code for answer in answers] == [202] * 5
    assert sum(answer.json()["new"] for answer in answers) == 1
    assert await counted(ledger, tmp_path) == {PLACE: 1}


Signing = Callable[[bytes], dict[str, str]]


@pytest.mark.parametrize(
    ("signing", "sentence"),
    [
        (lambda body: {}, "not signed as agreed"),
        (lambda body: signed(body) | {"X-Penstock-At": "now"}, "not signed as agreed"),
        (lambda body: signed(body, key=OTHER), "does not fit"),
        (lambda body: signed(body + b" "), "does not fit"),
        (lambda body: signed(body, fleet="core"), "does not fit"),
        (lambda body: signed(body) | {"X-Penstock-At": str(int(time.time()) + 60)}, "does not fit"),
        (lambda body: signed(body, ago=400), "five minutes old or ahead"),
        (lambda body: signed(body, ago=-400), "five minutes old or ahead"),
    ],
    ids=[
        "unsigned",
        "no time",
        "another key",
        "another body",
        "another fleet",
        "another time",
        "old",
        "ahead",
    ],
)
async def test_what_is_not_genuine_and_fresh_is_not_recorded(
    sender: httpx.AsyncClient, ledger: Ledger, tmp_path: Path, signing: Signing, sentence: str
) -> None:
    body = complaint()
    answer = await send(sender, body, signing(body))
    assert answer.status_code == 403, answer.text
    assert sentence in answer.json()["detail"]
    assert await counted(ledger, tmp_path) == {}


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
        (lambda: b" " * (MOST_BYTES + 1), 400, f"{MOST_BYTES} bytes"),
        (lambda: b" " * (MOST_OF_ALL + 1), 413, f"{MOST_OF_ALL} bytes"),
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
        "ms",
        "never",
        "large",
        "huge",
    ],
)
async def test_what_is_signed_and_no_complaint_is_answered_with_its_reason_and_not_recorded(
    sender: httpx.AsyncClient,
    ledger: Ledger,
    tmp_path: Path,
    writing_it: Callable[[], bytes],
    status: int,
    sentence: str,
) -> None:
    answer = await send(sender, writing_it())
    assert answer.status_code == status, answer.text
    assert sentence in answer.json()["detail"]
    assert await counted(ledger, tmp_path) == {}


async def test_a_body_whose_length_is_not_told_in_advance_is_refused(
    sender: httpx.AsyncClient, ledger: Ledger, tmp_path: Path
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield b" " * 1024

    answer = await sender.post("/fleets/edge/complaints", content=pieces())
    assert answer.status_code == 411
    assert await counted(ledger, tmp_path) == {}


async def test_a_fleet_without_a_key_takes_none_and_no_other_fleets_key_opens_it(
    sender: httpx.AsyncClient, ledger: Ledger, tmp_path: Path
) -> None:
    body = complaint(gateway="core-1")
    for headers in (signed(body, fleet="core"), signed(body, fleet="edge")):
        answer = await send(sender, body, headers, fleet="core")
        assert (answer.status_code, answer.json()["code"]) == (403, "NotAllowed")
    assert await counted(ledger, tmp_path, "core") == {}


@pytest.mark.usefixtures("no_refill")
async def test_whoever_guesses_at_signatures_is_soon_not_heard_and_a_busy_sender_is(
    sender: httpx.AsyncClient,
) -> None:
    for number in range(Kind.STRANGER.size + 10):
        assert (await send(sender, complaint(user=f"{number:032x}"))).status_code == 202
    body = complaint()
    answers = [await send(sender, body, signed(body, key=OTHER)) for _ in range(Kind.STRANGER.size + 1)]
    assert {answer.status_code for answer in answers[:-1]} == {403}
    assert answers[-1].status_code == 429


def test_a_key_that_is_none_is_refused_without_being_said(ledger: Ledger, tmp_path: Path) -> None:
    path = tmp_path / "complaints.key"
    taken: Any = ComplaintService(ledger.engine, path)
    with pytest.raises(Unknown, match="no complaints are taken about edge"):
        taken.key_of("edge")
    for bad in (b"short", KEY + b"\n" + KEY, b""):
        write_private(path, bad)
        with pytest.raises(BadInput, match="one line of 32") as refused:
            taken.key_of("edge")
        assert not bad or bad.decode() not in str(refused.value)
    write_private(path, KEY + b"\n")
    path.chmod(0o644)
    with pytest.raises(BadInput, match=f"may be read by others; chmod 600 {path}"):
        taken.key_of("edge")
    path.chmod(0o600)
    assert taken.key_of("edge") == taken.key_of("core") == KEY
    with pytest.raises(Unknown, match="PENSTOCK_COMPLAINTS_KEY"):
        ComplaintService(ledger.engine, None).key_of("edge")


async def test_the_readmes_example_is_accepted(
    url: str, service: Service, ledger: Ledger, tmp_path: Path
) -> None:
    (example,) = re.findall(r"^```sh\n(.+?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    write_private(tmp_path / "complaints.key", KEY)
    (tmp_path / "users.key").write_text("x" * 32)
    service.complaints = ComplaintService(ledger.engine, tmp_path / "complaints.key")
    assert "https://penstock.example:9700" in example
    here = example.replace("https://penstock.example:9700", url).replace("gw-1", "edge-1")
    shell = await asyncio.create_subprocess_exec(
        "sh", "-euc", here,
        cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, errors = await asyncio.wait_for(shell.communicate(), PATIENCE)
    assert (shell.returncode, json.loads(out or "null")) == (0, {"recorded": True, "new": True}), errors
    assert await counted(ledger, tmp_path) == {PLACE: 1}
