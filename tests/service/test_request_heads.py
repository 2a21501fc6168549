"""What a client without a login can make a server parse: one head of bounded size, and no body in chunks."""

import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import h11
import httpx
import pytest
import uvicorn
from prometheus_client import CollectorRegistry

from orchestrator import request_heads
from orchestrator.processes.api import serving, socket_at
from orchestrator.processes.places import Listening
from orchestrator.processes.scraping import Scrapes, certified
from orchestrator.request_heads import MOST_HEAD, MOST_LINES, BoundedConnection
from orchestrator.service.service import Service
from tests.fakes.hostile_requests import HEAD, HOSTILE, ONE_BYTE_CHUNKS, Parsed, answer_to
from tests.service.test_exporter import Keys


@pytest.fixture(autouse=True)
def soon_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_heads, "UNREAD_SECONDS", 0.2)


@pytest.fixture
async def api_port(service: Service) -> AsyncIterator[tuple[str, int]]:
    at = socket.create_server(("127.0.0.1", 0))
    async with serving(service, at):
        yield at.getsockname()


@pytest.mark.parametrize("kind", HOSTILE)
async def test_the_port_of_the_api_refuses_a_costly_request_before_its_body(
    api_port: tuple[str, int], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    request, refused = HOSTILE[kind]
    parsed = Parsed(monkeypatch)
    answer = await answer_to(api_port, [request])
    assert answer.startswith(b"HTTP/1.1 " + refused)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert parsed.bodies == 0
    assert parsed.reads <= 2


async def test_the_local_socket_refuses_a_body_in_chunks_too(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = Parsed(monkeypatch)
    path = tmp_path / "penstock.sock"
    async with serving(service, socket_at(path)):
        answer = await answer_to(path, [ONE_BYTE_CHUNKS])
    assert answer.startswith(b"HTTP/1.1 411")
    assert parsed.bodies == 0


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("kind", HOSTILE)
async def test_a_metrics_port_refuses_a_costly_request_before_its_body(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, encrypted: bool
) -> None:
    request, refused = HOSTILE[kind]
    parsed, keys = Parsed(monkeypatch), Keys(tmp_path / "keys")
    serves = certified(keys.certificate, keys.key) if encrypted else None
    application = Scrapes(CollectorRegistry(), lambda: [b"good"])
    config = uvicorn.Config(application, http="h11", ws="none", lifespan="off", log_config=None)
    at = socket.create_server(("127.0.0.1", 0))
    async with Listening(config, (lambda: serves) if serves else None, 4).at(at):
        answer = await answer_to(at.getsockname(), [request], keys.trust if encrypted else None)
    assert answer.startswith(b"HTTP/1.1 " + refused)
    assert parsed.bodies == 0
    assert parsed.reads <= 2


async def test_strangers_write_no_line_into_the_log_of_a_server_and_its_own_failures_are_logged(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    upgrade = (
        b"GET /v1/whoami HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n"
    )
    at = socket.create_server(("127.0.0.1", 0))
    async with serving(service, at):
        for request in (ONE_BYTE_CHUNKS, b"nonsense\r\n\r\n", upgrade):
            assert (await answer_to(at.getsockname(), [request])).startswith(b"HTTP/1.1 4")
    assert not caplog.records

    async def fails(scope: object, receive: object, send: object) -> None:
        del scope, receive, send
        raise RuntimeError("the application fails")

    config = uvicorn.Config(fails, http="h11", ws="none", lifespan="off", log_config=None)
    at = socket.create_server(("127.0.0.1", 0))
    async with Listening(config, None, 4).at(at):
        await answer_to(at.getsockname(), [b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"])
    assert "the application fails" in caplog.text


async def test_nothing_is_parsed_that_comes_after_the_refusal(
    api_port: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = Parsed(monkeypatch)
    piece = b"1\r\n{\r\n" * 1_000
    await answer_to(api_port, [ONE_BYTE_CHUNKS, *[piece] * 200])
    assert parsed.bodies == 0
    assert parsed.requests == 1


async def test_a_request_behind_another_one_is_refused_in_its_turn(
    api_port: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = Parsed(monkeypatch)
    first = b"GET /v1/whoami HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = await answer_to(api_port, [first + ONE_BYTE_CHUNKS])
    assert re.findall(rb"HTTP/1\.1 (\d+)", answer) == [b"401", b"411"]
    assert parsed.bodies == 0


async def test_requests_of_a_usual_size_are_answered_in_any_pieces(api_port: tuple[str, int]) -> None:
    body = b'{"kind": "hold", "reason": "x"}'
    lines = b"".join(b"X-%d: a\tb\r\n" % number for number in range(MOST_LINES - 6))
    cookie = b"Cookie: " + b"c" * (MOST_HEAD - 2_000) + b"\r\n"
    length = b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
    request = HEAD + lines + cookie + length + body
    for pieces in ([request], [request[:100], request[100:-40], request[-40:]]):
        assert (await answer_to(api_port, pieces)).startswith(b"HTTP/1.1 401")


async def test_the_client_of_the_command_line_and_of_the_chat_sends_the_length_of_a_body(
    api_port: tuple[str, int],
) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{api_port[1]}/v1", trust_env=False) as client:
        for body in ({"json": {"kind": "hold"}}, {"content": "name: edge\n"}, {"data": {"a": "b"}}):
            assert (await client.post("/fleets/edge/commands", **body)).status_code == 401


def test_a_head_that_comes_byte_by_byte_is_searched_once() -> None:
    """The bytes that were searched are not searched again, and h11 is asked once for each read."""
    connection = BoundedConnection(h11.SERVER, MOST_HEAD)
    for byte in HEAD:
        connection.receive_data(bytes([byte]))
        assert connection.next_event() is h11.NEED_DATA
        received, _ = connection.trailing_data
        assert connection._searched == max(0, len(received) - 2)
    connection.receive_data(b"\r\n")
    assert isinstance(connection.next_event(), h11.Request)


def test_a_head_without_an_end_is_refused_at_its_limit() -> None:
    connection = BoundedConnection(h11.SERVER, MOST_HEAD)
    connection.receive_data(b"GET / HTTP/1.1\r\nA: " + b"a" * MOST_HEAD)
    with pytest.raises(h11.RemoteProtocolError):
        connection.next_event()
    assert connection.refusal.status == 431


@pytest.mark.parametrize("line", [b"A: a\x00", b"A: a\rB: b", b"A: \x0b", b"A\x7f: a"])
def test_a_byte_that_no_header_may_have_is_refused_before_its_line_is_parsed(
    monkeypatch: pytest.MonkeyPatch, line: bytes
) -> None:
    parsed = Parsed(monkeypatch)
    connection = BoundedConnection(h11.SERVER, MOST_HEAD)
    connection.receive_data(b"GET / HTTP/1.1\r\nHost: x\r\n" + line + b"\r\n\r\n")
    with pytest.raises(h11.RemoteProtocolError):
        connection.next_event()
    assert parsed.reads == 0
