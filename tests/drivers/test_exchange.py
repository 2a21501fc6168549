"""One request to a peer that may be hostile: it ends at its deadline and at its bound, however it answers."""

import gzip
import socket
import ssl
import time
from pathlib import Path

import pytest

from activities.drivers import exchange as exchange_module
from activities.drivers.exchange import MOST_HEAD, Answered, NotAnswered, exchange
from tests.fakes.hostile_peer import HEAD, Behaviour, HostilePeer, endless, hostile, says
from tests.fakes.vault import FakeVault
from tests.patience import PATIENCE

MOST = 1_000
SOON = 0.3
"""The deadline of peers that never come to an end."""
LENGTH = HEAD + b"Content-Length: %d\r\n\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def asked(peer: HostilePeer, seconds: float = PATIENCE, most: int = MOST) -> Answered:
    return exchange(f"{peer.url}/a b?c=d", tls=ssl.create_default_context(), seconds=seconds, most=most)


@pytest.mark.parametrize(
    "pieces",
    [(LENGTH % 2 + b"{}",), (CHUNKED, b"1\r\n{\r\n", b"1\r\n}\r\n0\r\n\r\n"), (HEAD + b"\r\n", b"{", b"}")],
    ids=["length", "chunks", "until the end"],
)
def test_a_whole_answer_is_returned_with_its_status(pieces: tuple[bytes, ...]) -> None:
    with hostile(says(*pieces)) as peer:
        assert asked(peer) == Answered(200, b"{}")
    refused = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
    with hostile(says(refused)) as peer:
        assert asked(peer) == Answered(403, b"")


def test_a_body_is_sent_with_its_length_and_the_login_of_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with hostile(says(LENGTH % 2 + b"{}")) as peer:
        exchange(
            peer.url.replace("http://", "http://ana:a%40b@") + "/ä?x=y",
            tls=ssl.create_default_context(),
            seconds=PATIENCE,
            most=MOST,
            method="POST",
            content=b"a=b",
            headers={"X-A": "b"},
        )
        request = peer.requests[0]
    assert request.startswith(b"POST /%C3%A4?x=y HTTP/1.1\r\n")
    for line in (b"Content-Length: 3", b"Authorization: Basic YW5hOmFAYg==", b"X-A: b"):
        assert line in request.splitlines()
    assert b"Host: " + peer.url.removeprefix("http://").encode() in request.splitlines()
    assert b"Accept-Encoding: identity" in request.splitlines()


ENDLESS: dict[str, Behaviour] = {
    "body": endless(HEAD + b"\r\n", b" " * 65_536),
    "chunks": endless(CHUNKED, b"ffff\r\n" + b" " * 0xFFFF + b"\r\n"),
    "chunks of one byte": endless(CHUNKED, b"1\r\n \r\n" * 10_000),
    "extensions of chunks": endless(CHUNKED, b"1;" + b"a" * 10_000 + b"\r\n \r\n"),
    "trailers": endless(CHUNKED + b"0\r\n", b"a: b\r\n" * 10_000),
    "interim answers": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000),
    "header lines": endless(HEAD, b"a: b\r\n" * 10_000),
    "one header line": endless(HEAD + b"a: ", b" " * 65_536),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_an_answer_without_end_is_read_up_to_its_bound(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    receive = exchange_module._Wire.receive

    def counted(wire: exchange_module._Wire, memory: memoryview) -> int:
        try:
            return receive(wire, memory)
        finally:
            taken.append(wire._taken)

    monkeypatch.setattr(exchange_module._Wire, "receive", counted)
    with hostile(ENDLESS[kind]) as peer, pytest.raises(NotAnswered):
        asked(peer)
    assert taken[-1] <= 2 * (MOST + MOST_HEAD), "one read beyond the bound at most"


def test_a_length_beyond_the_bound_is_refused_before_its_body() -> None:
    with hostile(says(LENGTH % 10**15)) as peer, pytest.raises(NotAnswered, match="announces"):
        asked(peer)


@pytest.mark.parametrize(
    "begins",
    [b"", HEAD, HEAD + b"\r\n", LENGTH % 900, CHUNKED, CHUNKED + b"1;"],
    ids=["nothing", "head", "body", "length", "chunks", "chunk line"],
)
def test_an_answer_that_drips_ends_at_the_deadline_of_everything(begins: bytes) -> None:
    with hostile() as peer:
        peer.behaves = peer.drips(begins)
        began = time.monotonic()
        with pytest.raises(NotAnswered, match=r"within 0\.3 s"):
            asked(peer, SOON)
        assert time.monotonic() - began < PATIENCE / 2


def test_a_handshake_that_never_ends_ends_at_the_deadline() -> None:
    with hostile() as peer:
        peer.behaves = lambda _: (peer.over.wait(PATIENCE), None)[1]
        secret = peer.url.replace("http:", "https:")
        with pytest.raises(NotAnswered, match=r"within 0\.3 s"):
            exchange(secret, tls=ssl.create_default_context(), seconds=SOON, most=MOST)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b" " * 10**6), "encoded body"),
        (LENGTH % 100 + b"{}", "98 bytes to go"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "as HTTP requires"),
        (b"", "RemoteDisconnected"),
    ],
    ids=["encoded", "broken off", "another protocol", "nothing"],
)
def test_what_is_no_whole_answer_is_refused(answer: bytes, why: str) -> None:
    with hostile(says(answer)) as peer, pytest.raises(NotAnswered, match=why):
        asked(peer)


def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    with hostile() as peer:
        peer.behaves = says(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")
        assert asked(peer).status == 302
        assert len(peer.requests) == 1


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/a", "https://", "http://[::1"])
def test_an_address_of_another_kind_is_opened_nowhere(url: str) -> None:
    with pytest.raises(NotAnswered):
        exchange(url, tls=ssl.create_default_context(), seconds=SOON, most=MOST)


def test_each_address_of_a_name_has_a_part_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with hostile(says(LENGTH % 2 + b"{}")) as peer:
        port = int(peer.url.rpartition(":")[2])
        found = socket.getaddrinfo("127.0.0.1", port, type=socket.SOCK_STREAM)
        away = [(*found[0][:4], ("127.0.0.1", 1))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: away + found)
        assert asked(peer) == Answered(200, b"{}")


def test_a_peer_is_verified_and_its_certificate_named(tmp_path: Path) -> None:
    with FakeVault(tmp_path / "vault").running() as vault:
        trusted = ssl.create_default_context(cafile=vault.tls.roots)
        assert exchange(vault.address, tls=trusted, seconds=PATIENCE, most=10**5).status >= 400
        with pytest.raises(NotAnswered, match="CERTIFICATE_VERIFY_FAILED"):
            exchange(vault.address, tls=ssl.create_default_context(), seconds=PATIENCE, most=MOST)
