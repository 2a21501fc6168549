"""Complaints and tickets joined with the change they fall into: real HTTP, a real ledger, every screen."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from activities.drivers.private_files import write_private
from orchestrator.api.limits import Kind
from orchestrator.processes.api import serving
from orchestrator.processes.listening import port_at
from orchestrator.service.complaints import LEAST_KEY, ComplaintService
from orchestrator.service.service import Service
from orchestrator.store import complaints as complaint_store
from orchestrator.store import tickets as ticket_store
from orchestrator.store.ledger import Ledger
from policies.judge.complaints import sign
from policies.model.change import ChangeKind, ChangeOpening, GatewayResult
from tests.service.command_line import CommandLine

KEY, OTHER = b"k" * LEAST_KEY, b"o" * LEAST_KEY
TICKETS, OTHER_TICKETS = b"t" * LEAST_KEY, b"u" * LEAST_KEY
GATEWAYS = """\
name: edge
product: ocserv
channel: stable
gateways:
"""
ONE = """\
  - name: edge-{n}
    addresses: [192.0.2.{n}]
    slots:
      - {{name: a, port: 4441, device: oca, pool4: 10.{n}.0.0/24}}
      - {{name: b, port: 4442, device: ocb, pool4: 10.{n}.1.0/24}}
"""


@pytest.fixture
def change(service: Service, ledger: Ledger, tmp_path: Path) -> str:
    """A change of a fleet of four under way: edge-1 was changed a minute ago."""
    file = tmp_path / "fleets" / "edge.yaml"
    file.write_text(GATEWAYS + "".join(ONE.format(n=number) for number in range(1, 5)))
    opening = ChangeOpening(
        fleet="edge",
        kind=ChangeKind.UPGRADE,
        requested_by="ana",
        reason="CVE fix",
        key="one",
        release="1.4.1",
    )
    name = ledger.open_change(opening)
    now = datetime.now(UTC)
    row = GatewayResult(gateway="edge-1", wave=1, state="on trial", slot="b", started=now.timestamp(), at=now)
    ledger.record_gateways(name, [row])
    return name


@pytest.fixture
async def door(service: Service, ledger: Ledger, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    keys = tmp_path / "keys"
    keys.mkdir()
    write_private(keys / "edge.key", KEY + b"\n")
    write_private(keys / "core.key", OTHER + b"\n")
    of_tickets = tmp_path / "tickets"
    of_tickets.mkdir()
    write_private(of_tickets / "edge.key", TICKETS + b"\n")
    write_private(of_tickets / "core.key", OTHER_TICKETS + b"\n")
    service.complaints = ComplaintService(ledger.engine, keys, of_tickets)
    at = port_at("127.0.0.1:0", "PENSTOCK_API_ADDRESS")
    async with (
        serving(service, at),
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{at.getsockname()[1]}/v1", trust_env=False, timeout=20
        ) as client,
    ):
        yield client


async def send(
    door: httpx.AsyncClient,
    what: str,
    said: dict[str, Any] | bytes,
    *,
    key: bytes | None = None,
    fleet: str = "edge",
    ago: int = 0,
) -> httpx.Response:
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    at = int(time.time()) - ago
    key = (TICKETS if what == "tickets" else KEY) if key is None else key
    headers = {"X-Penstock-At": str(at), "X-Penstock-Signature": sign(key, at, fleet, body)}
    return await door.post(f"/fleets/{fleet}/{what}", content=body, headers=headers)


def ticket(**changed: Any) -> dict[str, Any]:
    now = time.time()
    said: dict[str, Any] = {
        "id": "NOC-1181",
        "gateway": "edge-1",
        "severity": "page",
        "text": "calls about logins",
        "link": "https://noc.example/NOC-1181",
        "opened": now,
        "at": now,
    }
    return said | changed


async def complain(door: httpx.AsyncClient, user: int, gateway: str) -> None:
    answer = await send(door, "complaints", {"user": f"{user:032x}", "gateway": gateway, "at": time.time()})
    assert answer.status_code == 202, answer.text


async def test_what_people_say_is_shown_with_what_their_gateway_was_on_every_screen(
    door: httpx.AsyncClient,
    api: httpx.AsyncClient,
    page: httpx.AsyncClient,
    penstock: CommandLine,
    change: str,
) -> None:
    for user in (1, 2, 3, 3):
        await complain(door, user, "edge-1")
    assert (await send(door, "tickets", ticket())).json() == {"recorded": True, "new": True}
    wanted = "3 users complain on edge-1 (changed), 0 on 3 unchanged; ticket NOC-1181 (page, edge-1, changed)"
    found = (await api.get("/fleets/edge")).json()["signals"]
    assert (found["users"], found["open_tickets"]) == ({"changed": 3}, 1)
    assert found["complaining"][0] | {"since": None} == {
        "gateway": "edge-1", "stand": "changed", "users": 3, "since": None, "wave": 1, "slot": "b",
    }  # fmt: skip
    assert (await api.get(f"/changes/{change}")).json()["signals"] == found
    report = (await api.get(f"/changes/{change}/report")).json()
    assert report["signals"] == found
    for command in (["status", "edge"], ["explain", change]):
        shown = await penstock(*command)
        assert wanted in " ".join(shown.out.split()), shown.out
    for path in ("/fleets/edge", f"/changes/{change}", f"/changes/{change}/report.html"):
        shown_there = (await page.get(path)).text
        assert wanted in " ".join(shown_there.split()), path
    story = (await page.get(f"/changes/{change}/report.html")).text
    assert "opened: calls about logins https://noc.example/NOC-1181" in story


async def test_a_complaint_about_a_gateway_that_was_not_changed_is_told_apart(
    door: httpx.AsyncClient, api: httpx.AsyncClient, change: str
) -> None:
    await complain(door, 1, "edge-1")
    await complain(door, 2, "edge-3")
    found = (await api.get("/fleets/edge")).json()["signals"]
    assert found["users"] == {"changed": 1, "unchanged": 1}
    assert found["gateways"] == {"changed": 1, "unchanged": 3}


async def test_a_ticket_is_brought_up_to_date_by_its_name_whatever_arrives_late(
    door: httpx.AsyncClient, ledger: Ledger, change: str
) -> None:
    opened = time.time() - 60
    first = ticket(opened=opened, at=opened)
    closed = ticket(opened=opened, at=opened + 50, closed=opened + 50)
    assert [(await send(door, "tickets", one)).json()["new"] for one in (first, first, closed, first)] == [
        True, False, True, False,
    ]  # fmt: skip
    now = datetime.now(UTC)
    (known,) = ledger.tickets_between("edge", now - timedelta(hours=1), now)
    assert not known.is_open
    assert [one.action for one in ledger.audit_entries() if "ticket" in one.action] == [
        "ticket open",
        "ticket closed",
    ]


@pytest.mark.parametrize(
    ("changed", "status", "sentence"),
    [
        ({"text": "two\nlines"}, 400, "printable"),
        ({"text": "bell\x07"}, 400, "printable"),
        ({"text": "\u202eright to left"}, 400, "printable"),
        ({"text": "x" * 201}, 400, "text"),
        ({"text": "ada@example.org cannot log in"}, 400, "name no user"),
        ({"id": "../../etc"}, 400, "id"),
        ({"link": "javascript:alert(1)"}, 400, "link"),
        ({"gateway": "core-1"}, 400, "edge has no gateway 'core-1'"),
        ({"opened": time.time() - 40 * 86400}, 400, "over 30 days ago"),
        ({"opened": time.time() + 7200}, 400, "later than now"),
        ({"at": time.time() - 2 * 86400}, 400, "a day late"),
        ({"at": time.time() * 1000}, 400, "at"),
        ({"closed": time.time() + 7200}, 400, "closed is no later than at"),
        ({"closed": 5.0}, 400, "after it was opened"),
        ({"user": "ada"}, 400, "user"),
    ],
)
async def test_what_is_signed_and_no_ticket_is_refused_by_what_is_wrong_with_it(
    changed: dict[str, Any],
    status: int,
    sentence: str,
    door: httpx.AsyncClient,
    ledger: Ledger,
    change: str,
) -> None:
    answer = await send(door, "tickets", ticket(**changed))
    assert (answer.status_code, sentence in answer.json()["detail"]) == (status, True), answer.text
    now = datetime.now(UTC)
    assert ledger.tickets_between("edge", now - timedelta(days=90), now + timedelta(days=90)) == ()


async def test_a_stranger_and_another_fleets_key_tell_of_no_ticket(
    door: httpx.AsyncClient, ledger: Ledger, change: str
) -> None:
    for key, fleet, ago in (
        (OTHER_TICKETS, "edge", 0),
        (b"", "edge", 0),
        (TICKETS, "core", 0),
        (TICKETS, "edge", 400),
    ):
        answer = await send(door, "tickets", ticket(gateway=None), key=key, fleet=fleet, ago=ago)
        assert (answer.status_code, answer.json()["code"]) == (403, "NotAllowed")
    unsigned = await door.post("/fleets/edge/tickets", json=ticket())
    assert "not signed as agreed" in unsigned.json()["detail"]
    complaint = {"user": "ab" * 16, "gateway": "edge-1", "at": time.time()}
    assert (await send(door, "tickets", complaint)).status_code == 400, "a complaint is no ticket"
    now = datetime.now(UTC)
    assert ledger.tickets_between("edge", now - timedelta(hours=1), now) == ()


async def test_the_key_of_complaints_opens_and_closes_no_ticket(
    door: httpx.AsyncClient, ledger: Ledger, change: str
) -> None:
    assert (await send(door, "tickets", ticket())).status_code == 202
    now = time.time()
    closed = ticket(at=now, closed=now)
    for said in (closed, ticket(id="NOC-2")):
        refused = await send(door, "tickets", said, key=KEY)
        assert (refused.status_code, refused.json()["code"]) == (403, "NotAllowed")
    at = datetime.now(UTC)
    assert [one.is_open for one in ledger.tickets_between("edge", at, at)] == [True]


async def test_tickets_with_the_key_of_complaints_are_not_taken_and_the_sentence_says_why(
    door: httpx.AsyncClient, service: Service, tmp_path: Path, change: str
) -> None:
    write_private(tmp_path / "tickets" / "edge.key", KEY + b"\n")
    refused = await send(door, "tickets", ticket(), key=KEY)
    assert refused.status_code == 400
    sentence = "the key of complaints about edge: make another one for PENSTOCK_TICKETS_KEY"
    assert sentence in refused.json()["detail"]
    write_private(tmp_path / "keys" / "core.key", (b"c" * 32) + b"\n")
    write_private(tmp_path / "tickets" / "edge.key", (b"c" * 32) + b"\n")
    refused = await send(door, "tickets", ticket(), key=b"c" * 32)
    assert "tickets of edge have the key of complaints about core" in refused.json()["detail"], refused.text
    refused = await send(door, "tickets", ticket(), key=b"d" * 32)
    assert (refused.status_code, "core" in refused.text) == (403, False), "a stranger hears of no fleet"
    (tmp_path / "keys" / "core.key").write_text("too short")
    assert (await send(door, "tickets", ticket(), key=b"c" * 32)).status_code == 202, "of another fleet"
    service.complaints = ComplaintService(service.complaints.engine, tmp_path / "keys")
    refused = await send(door, "tickets", ticket())
    assert (refused.status_code, "PENSTOCK_TICKETS_KEY names no key" in refused.text) == (404, True)


async def test_a_flood_is_refused_and_what_came_before_it_stays_counted(
    door: httpx.AsyncClient,
    api: httpx.AsyncClient,
    change: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(complaint_store, "MOST_AN_HOUR", 20)
    monkeypatch.setattr(ticket_store, "MOST_KEPT", 5)
    said = []
    for user in range(25):
        body = {"user": f"{user:032x}", "gateway": "edge-1", "at": time.time()}
        said.append(await send(door, "complaints", body))
    assert [one.status_code for one in said] == [202] * 20 + [409] * 5
    assert "look who sends them" in said[-1].json()["detail"]
    told = [await send(door, "tickets", ticket(id=f"NOC-{number}")) for number in range(6)]
    assert [one.status_code for one in told] == [202] * 5 + [409]
    again = await send(door, "tickets", ticket(id="NOC-0", at=(later := time.time() + 1), closed=later))
    assert again.json() == {"recorded": True, "new": True}, "what is known is brought up to date"
    found = (await api.get("/fleets/edge")).json()["signals"]
    assert (found["users"]["changed"], found["all_tickets"]) == (20, 5)


@pytest.mark.sweep
async def test_more_messages_than_a_minute_may_have_are_refused_and_keep_nobody_from_looking(
    door: httpx.AsyncClient, api: httpx.AsyncClient, change: str
) -> None:
    body = json.dumps(ticket()).encode()
    answers = list[httpx.Response]()
    while (
        len(answers) < 3 * Kind.TICKET.size
    ):  # thirty connections at a time: one address has no more than 64
        answers += await asyncio.gather(*(send(door, "tickets", body) for _ in range(30)))
    codes = [answer.status_code for answer in answers]
    assert set(codes) == {202, 429}
    assert sum(answer.json().get("new", False) for answer in answers) == 1
    assert (await api.get("/fleets/edge")).status_code == 200
