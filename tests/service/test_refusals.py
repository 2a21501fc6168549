"""What unauthenticated clients cost the audit record, and whom they delay."""

import asyncio
import base64
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from orchestrator import refusals
from orchestrator.api import turns
from orchestrator.api.limits import Limits
from orchestrator.processes.api import serving, socket_at
from orchestrator.processes.listening import answering_at
from orchestrator.refusals import Refusals
from orchestrator.service.caller_refusals import CallerRefusals
from orchestrator.service.service import Service
from orchestrator.store.later import LateEntries
from orchestrator.store.ledger import Ledger
from policies.model.errors import Unavailable
from policies.model.people import Caller, Role, Via
from tests.patience import PATIENCE, until
from tests.service.test_api import token
from tests.service.test_identity import issuer

__all__ = ["issuer"]
WHY = "that is no token of penstock"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def entries(ledger: Ledger) -> list[tuple[str, int]]:
    return [(one.subject, json.loads(one.body)["count"]) for one in ledger.audit_entries()]


def test_refusals_of_one_network_are_one_entry_an_hour_with_their_number(ledger: Ledger) -> None:
    """S3: each refused token was an entry of a record that is kept for ever."""
    clock = Clock()
    counted = Refusals(ledger, clock)
    for number in range(1_000):
        counted.note("api", "token refused", f"2001:db8::{number:x}", WHY)
    assert (counted.write(), counted.write()) == (1, 0)
    for _ in range(50):
        counted.note("api", "token refused", "2001:db8::1", WHY)
    clock.now = refusals.HOUR_SECONDS - 1
    assert counted.write() == 0
    assert entries(ledger) == [("2001:db8::/64", 1_000)]
    clock.now += 2
    assert counted.write() == 1
    assert entries(ledger)[1] == ("2001:db8::/64", 50)


@pytest.mark.sweep
def test_the_record_grows_by_a_bounded_number_of_entries_an_hour(ledger: Ledger) -> None:
    """S3: client networks are free, so that a bound for each of them is none."""
    clock = Clock()
    counted = Refusals(ledger, clock)
    for number in range(refusals.MOST_CLIENTS * 2):
        counted.note("api", "token refused", f"10.{number >> 8}.{number & 255}.1", WHY)
        counted.write()
    assert len(ledger.audit_entries()) == refusals.MOST_ENTRIES
    clock.now = refusals.HOUR_SECONDS
    counted.write()
    assert len(ledger.audit_entries()) <= 2 * refusals.MOST_ENTRIES + 1
    assert sum(count for _, count in entries(ledger)) == refusals.MOST_CLIENTS * 2


def test_refusals_that_a_silent_ledger_did_not_take_are_written_later(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3: what is only counted is not lost."""
    counted = Refusals(ledger)
    counted.note("web", "login refused", "192.0.2.1", WHY)
    with monkeypatch.context() as patched:

        def silent(*_: object) -> None:
            raise Unavailable("the ledger does not answer")

        patched.setattr(ledger, "audit", silent)
        with pytest.raises(Unavailable):
            counted.write()
    counted.note("web", "login refused", "192.0.2.1", WHY)
    assert counted.write() == 1
    assert entries(ledger) == [("192.0.2.1", 2)]


@pytest.fixture
async def port(service: Service) -> AsyncIterator[int]:
    listening = socket.create_server(("127.0.0.1", 0))
    async with serving(service, listening, limits=Limits()):
        yield listening.getsockname()[1]


async def test_refused_tokens_are_not_written_while_their_clients_wait(
    port: int, service: Service, ledger: Ledger
) -> None:
    """S3: refusals by strangers kept the writer of the ledger busy, and a hold waited for it."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/v1") as stranger:
        for _ in range(5):
            answer = await stranger.get("/whoami", headers={"Authorization": "Bearer nonsense"})
            assert answer.status_code == 403
    assert ledger.audit_entries() == ()
    assert await service.write_refusals() == 1
    assert entries(ledger) == [("127.0.0.1", 5)]


def by_an_unauthenticated_client(ledger: Ledger, folder: Path, why: str) -> None:
    del folder
    counted = Refusals(ledger)
    counted.note("api", "token refused", "192.0.2.1", why)
    counted.write()


def by_a_known_caller(ledger: Ledger, folder: Path, why: str) -> None:
    viewer = Caller(person="vera", grants={"edge": frozenset({Role.VIEWER})}, via=Via.API)
    CallerRefusals(ledger, LateEntries(folder / "late")).note(viewer, "edge", "edge", {"why": why})


def by_a_gateway(ledger: Ledger, folder: Path, why: str) -> None:
    del folder
    ledger.note_refusal("edge/gw-1", "edge", "call refused", {"why": why}, "same")


@pytest.mark.parametrize("refuse", [by_an_unauthenticated_client, by_a_known_caller, by_a_gateway])
def test_whatever_is_refused_writes_one_short_line_into_the_record(
    ledger: Ledger, tmp_path: Path, refuse: Callable[[Ledger, Path, str], None]
) -> None:
    refuse(ledger, tmp_path, "no such thing:\n\x1b[2J" + "A" * 30_000)
    (entry,) = ledger.audit_entries()
    why = json.loads(entry.body)["why"]
    assert why.startswith("no such thing: [2J")
    assert len(why) <= 500


def believe(service: Service, issuer: str) -> None:
    people = service.people._path
    oidc = f"oidc: {{issuer: '{issuer}', audience: penstock, client: penstock}}\n"
    people.write_text(f"apiVersion: penstock/v1\n{oidc}people: []\n")
    people.chmod(0o600)


@pytest.mark.parametrize("header", [{"kid": "A" * 9_000}, {"kid": "k", "crit": ["A" * 9_000]}, {}])
async def test_nothing_that_a_made_up_token_says_is_in_the_record_or_the_answer(
    header: dict[str, object], port: int, service: Service, ledger: Ledger, issuer: str
) -> None:
    """The library's own text repeats the name of the key, and one such token was a long entry."""
    believe(service, issuer)

    def part(said: dict[str, object]) -> str:
        return base64.urlsafe_b64encode(json.dumps(said).encode()).rstrip(b"=").decode()

    shown = f"{part({'alg': 'RS256', **header})}.{part({'sub': 'A' * 300})}.AAAA"
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/v1", timeout=PATIENCE) as stranger:
        answer = await stranger.get("/whoami", headers={"Authorization": f"Bearer {shown}"})
    assert answer.status_code == 403
    assert "AAAA" not in answer.text
    await service.write_refusals()
    (entry,) = [one for one in ledger.audit_entries() if one.action == "token refused"]
    assert "this login is none of" in entry.body
    assert "AAAA" not in entry.body


async def test_a_known_caller_waits_for_no_turn_of_unauthenticated_clients(
    port: int, ledger: Ledger, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3: the requests of two hundred strangers stood between the pieces of one hold."""
    monkeypatch.setattr(turns, "TURN_SECONDS", 3600.0)
    shown = token(ledger, Role.OPERATOR)
    url = f"http://127.0.0.1:{port}/v1"
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as known:
        assert (await known.get("/whoami", headers=shown)).status_code == 200
    free, begun, recognise = asyncio.Event(), [], service.caller_of_token

    async def held_up(secret: str, address: str) -> object:
        if secret == "nonsense":
            begun.append(secret)
            await free.wait()
        return await recognise(secret, address)

    monkeypatch.setattr(service, "caller_of_token", held_up)
    path = tmp_path / "penstock.sock"
    local = httpx.AsyncHTTPTransport(uds=os.fspath(path), verify=False)
    async with (
        serving(service, socket_at(path)),
        httpx.AsyncClient(base_url=url, timeout=PATIENCE) as stranger,
        httpx.AsyncClient(base_url=url, timeout=PATIENCE) as operator,
        httpx.AsyncClient(transport=local, base_url="http://p/v1", timeout=PATIENCE) as root,
    ):
        wrong = {"Authorization": "Bearer nonsense"}
        waiting = [asyncio.create_task(stranger.get("/whoami", headers=wrong)) for _ in range(20)]
        async with asyncio.timeout(PATIENCE):
            while len(begun) < turns.AT_ONCE:  # noqa: ASYNC110 - the server's task counts them
                await asyncio.sleep(0.01)
        assert (await operator.get("/whoami", headers=shown)).status_code == 200
        assert (await root.get("/whoami")).status_code == 200
        assert len(begun) == turns.AT_ONCE
        free.set()
        assert {(await one).status_code for one in waiting} == {403}


async def test_strangers_who_wait_for_the_identity_provider_keep_nobody_from_a_turn(
    port: int, ledger: Ledger, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3, the same kind: a turn that waits for somebody else would be one less for everybody."""
    shown, never, recognise = token(ledger, Role.OPERATOR), asyncio.Event(), service.caller_of_token

    async def held_up(secret: str, address: str) -> object:
        if secret == "nonsense":
            await never.wait()
        return await recognise(secret, address)

    monkeypatch.setattr(service, "caller_of_token", held_up)
    url = f"http://127.0.0.1:{port}/v1"
    async with (
        httpx.AsyncClient(base_url=url, timeout=PATIENCE) as stranger,
        httpx.AsyncClient(base_url=url, timeout=PATIENCE) as operator,
    ):
        wrong = {"Authorization": "Bearer nonsense"}
        waiting = [asyncio.create_task(stranger.get("/whoami", headers=wrong)) for _ in range(20)]
        assert (await operator.get("/whoami", headers=shown)).status_code == 200
        never.set()
        await asyncio.gather(*waiting)


async def test_slow_requests_of_strangers_take_no_turn(port: int, ledger: Ledger) -> None:
    """S3, the same kind: a turn would be held for as long as a stranger sends a byte now and then."""
    shown = token(ledger, Role.VIEWER)
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(turns.AT_ONCE * 2)]
    try:
        for one in slow:
            one.sendall(b"POST /v1/fleets/edge/commands HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/v1", timeout=PATIENCE) as viewer:
            assert (await viewer.get("/whoami", headers=shown)).status_code == 200
    finally:
        for one in slow:
            with closing(one):
                pass


async def test_a_request_that_is_whole_is_let_go_for_no_connection_that_says_nothing() -> None:
    """S3, the same kind: with an address each, idle strangers took the places of requests under way."""
    free, begun = asyncio.Event(), asyncio.Event()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        begun.set()
        await free.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"held"})

    at, most = socket.create_server(("127.0.0.1", 0)), 5
    port = at.getsockname()[1]
    async with answering_at(application, at, tls=None, most=most):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /v1/whoami HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await asyncio.wait_for(begun.wait(), PATIENCE)
        idle = [
            await asyncio.open_connection("127.0.0.1", port, local_addr=(f"127.9.0.{number}", 0))
            for number in range(1, most * 3)
        ]
        for gone, _ in idle[: most * 2 - 1]:
            with suppress(ConnectionResetError):
                assert await asyncio.wait_for(gone.read(), PATIENCE) == b""
        free.set()
        assert b"held" in await asyncio.wait_for(reader.read(), PATIENCE)
        for _, one in [(reader, writer), *idle]:
            one.close()


async def test_two_who_come_at_once_from_one_address_lose_no_place_to_those_who_say_nothing() -> None:
    """S3, the same kind: two operators behind one proxy were a larger crowd than any stranger."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"held"})

    at, most = socket.create_server(("127.0.0.1", 0)), 5
    port = at.getsockname()[1]
    async with answering_at(application, at, tls=None, most=most):

        async def silent(number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            return await asyncio.open_connection("127.0.0.1", port, local_addr=(f"127.9.0.{number}", 0))

        before = [await silent(number) for number in range(1, most + 1)]
        both = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        after = [await silent(number) for number in range(most + 1, most + 3)]
        for gone, _ in before[:4]:
            with suppress(ConnectionResetError):
                assert await asyncio.wait_for(gone.read(), PATIENCE) == b""
        for reader, writer in both:
            writer.write(b"GET /v1/whoami HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert b"held" in await asyncio.wait_for(reader.read(), PATIENCE)
        for _, one in [*before, *both, *after]:
            one.close()


class Held:
    """An application that keeps every request until it is free, and notes which it was given."""

    def __init__(self) -> None:
        self.begun = list[str]()
        self.free = asyncio.Event()
        self.turns = turns.Turns(self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        self.begun.append(scope["path"])
        await self.free.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"held"})

    @property
    def waiting(self) -> int:
        return sum(map(len, self.turns._waiting.values()))


@dataclass
class Sent:
    """A request that was sent; its connection ends with the answer."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def answer(self) -> bytes:
        async with asyncio.timeout(PATIENCE):
            found = await self.reader.read()
        self.writer.close()
        return found


async def sent(port: int, path: str, address: str = "127.0.0.1") -> Sent:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    return Sent(reader, writer)


@pytest.fixture
async def held(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Held, int]]:
    """An application all of whose turns are taken, until it is free."""
    monkeypatch.setattr(turns, "TURN_SECONDS", 3600.0)
    made, at = Held(), socket.create_server(("127.0.0.1", 0))
    port = at.getsockname()[1]
    async with answering_at(made.turns, at, tls=None, most=100):
        first = [await sent(port, f"/first/{number}") for number in range(turns.AT_ONCE)]
        await until(lambda: len(made.begun) == turns.AT_ONCE)
        yield made, port
        made.free.set()
        for one in first:
            assert b"held" in await one.answer()


async def test_a_request_whose_client_has_left_is_not_worked_on(held: tuple[Held, int]) -> None:
    """It kept its place before everybody who came later, and one address made any number of them."""
    application, port = held
    for _ in range(20):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /left HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: application.waiting == 1)
        writer.close()
        await until(lambda: application.waiting == 0)
    slow = b"POST /left HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(slow)
    writer.close()
    hold = await sent(port, "/hold")
    application.free.set()
    assert b"held" in await hold.answer()
    assert application.begun[turns.AT_ONCE :] == ["/hold"]


async def test_networks_have_turns_one_after_the_other(held: tuple[Held, int]) -> None:
    """The requests of one address stood before those of all others."""
    application, port = held
    many = [await sent(port, "/many", "127.9.0.1") for _ in range(20)]
    await until(lambda: application.waiting == len(many))
    hold = await sent(port, "/hold", "127.9.0.2")
    await until(lambda: application.waiting == len(many) + 1)
    application.free.set()
    for one in (hold, *many):
        assert b"held" in await one.answer()
    assert application.begun[turns.AT_ONCE :].index("/hold") == 1


async def test_where_too_many_wait_the_network_with_most_of_them_has_one_refused(
    held: tuple[Held, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "MOST_WAITING", 5)
    application, port = held
    before = [await sent(port, "/many", "127.9.0.1") for _ in range(turns.MOST_WAITING)]
    await until(lambda: application.waiting == turns.MOST_WAITING)
    refused = await (await sent(port, "/many", "127.9.0.1")).answer()
    assert b" 429 " in refused.partition(b"\r\n")[0]
    assert b"retry-after: 1" in refused.lower()
    assert b"ask again in 1 s" in refused
    hold = await sent(port, "/hold", "127.9.0.2")
    assert b" 429 " in await before[-1].answer()
    application.free.set()
    for one in (hold, *before[:-1]):
        assert b"held" in await one.answer()
