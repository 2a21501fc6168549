"""One request to a peer that may be hostile: it ends at its deadline and at its bound, however it answers."""

import gzip
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from activities.drivers import exchange as exchange_module
from activities.drivers.addresses import MOST_LOOKUPS
from activities.drivers.exchange import MOST_HEAD, Answered, NotAnswered, exchange
from tests.fakes.connect_proxy import connect_proxy, refuses
from tests.fakes.hostile_peer import HEAD, Behaviour, HostilePeer, endless, hostile, named_by, says
from tests.fakes.silent import lookups, silent_name_servers
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
        (b"", "Remote end closed connection"),
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


# --- name servers ------------------------------------------------------------------------


@pytest.fixture
def silent_names() -> Iterator[set[str]]:
    with silent_name_servers() as names:
        yield names


@pytest.mark.usefixtures("silent_names")
def test_name_servers_that_do_not_answer_take_no_longer_than_the_deadline() -> None:
    began = time.monotonic()
    with pytest.raises(NotAnswered, match=r"within 0\.3 s"):
        exchange("https://silent.example/", tls=ssl.create_default_context(), seconds=SOON, most=MOST)
    assert time.monotonic() - began < PATIENCE / 2


def test_silent_name_servers_keep_few_threads_and_no_call_to_an_address(
    silent_names: set[str],
) -> None:
    for _ in range(3):
        with pytest.raises(NotAnswered):
            exchange("http://one.example/", tls=ssl.create_default_context(), seconds=0.05, most=MOST)
    assert lookups() == 1, "whoever asks for the same name waits for the same thread"
    for number in range(2 * MOST_LOOKUPS):
        name = f"http://{number}.example/"
        with pytest.raises(NotAnswered):
            exchange(name, tls=ssl.create_default_context(), seconds=0.02, most=MOST)
    assert lookups() == MOST_LOOKUPS
    assert len(silent_names) == MOST_LOOKUPS
    with hostile(says(LENGTH % 2 + b"{}")) as peer:
        assert asked(peer) == Answered(200, b"{}")


# --- proxies -----------------------------------------------------------------------------

NAME = "login.corp.example"
"""A peer that only the proxy can resolve."""


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


def through(tls: ssl.SSLContext, url: str = f"https://{NAME}/keys", seconds: float = PATIENCE) -> Answered:
    return exchange(url, tls=tls, seconds=seconds, most=MOST, proxied=True)


def test_a_peer_is_reached_and_verified_through_the_proxy_of_the_environment(
    tmp_path: Path, no_proxy: pytest.MonkeyPatch
) -> None:
    context, authority = named_by(tmp_path / "ca", NAME)
    tls = ssl.create_default_context(cafile=authority)
    with hostile(says(LENGTH % 2 + b"{}"), context) as peer, connect_proxy(peer.port) as proxy:
        no_proxy.setenv("HTTPS_PROXY", proxy.url.replace("http://", "http://ana:a%40b@"))
        assert through(tls) == Answered(200, b"{}")
        head = proxy.requests[0].split(b"\r\n")
        assert head[0] == f"CONNECT {NAME}:443 HTTP/1.1".encode()
        assert b"Proxy-Authorization: Basic YW5hOmFAYg==" in head
        assert peer.requests[0].startswith(b"GET /keys HTTP/1.1\r\n")
        assert b"Proxy-Authorization" not in peer.requests[0]
        with pytest.raises(NotAnswered, match=r"CERTIFICATE_VERIFY_FAILED.* \(proxy 127\.0\.0\.1:"):
            through(ssl.create_default_context())


def test_a_request_without_tls_goes_whole_to_the_proxy(no_proxy: pytest.MonkeyPatch) -> None:
    with hostile(says(LENGTH % 2 + b"{}")) as proxy:
        no_proxy.setenv("http_proxy", proxy.url)
        assert through(ssl.create_default_context(), f"http://ana:b@{NAME}/keys?a=b") == Answered(200, b"{}")
        head = proxy.requests[0].split(b"\r\n")
    assert head[0] == f"GET http://{NAME}/keys?a=b HTTP/1.1".encode()
    assert f"Host: {NAME}".encode() in head
    assert b"Authorization: Basic YW5hOmI=" in head


@pytest.mark.parametrize("without", ["127.0.0.1", "*", ".example, 127.0.0.1"])
def test_no_proxy_names_peers_that_are_reached_directly(without: str, no_proxy: pytest.MonkeyPatch) -> None:
    no_proxy.setenv("http_proxy", "http://127.0.0.1:1")
    no_proxy.setenv("NO_PROXY", without)
    with hostile(says(LENGTH % 2 + b"{}")) as peer:
        assert through(ssl.create_default_context(), peer.url) == Answered(200, b"{}")


def test_a_proxy_is_used_only_where_the_caller_wants_it(no_proxy: pytest.MonkeyPatch) -> None:
    no_proxy.setenv("http_proxy", "http://127.0.0.1:1")
    with hostile(says(LENGTH % 2 + b"{}")) as peer:
        assert asked(peer) == Answered(200, b"{}")


def test_a_proxy_that_refuses_is_named_with_its_status(no_proxy: pytest.MonkeyPatch) -> None:
    with hostile(refuses(b"407 Proxy Authentication Required")) as proxy:
        no_proxy.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(NotAnswered, match=r"proxy 127\.0\.0\.1:\d+ does not connect to it: .* 407"):
            through(ssl.create_default_context())


@pytest.mark.parametrize("url", ["socks5://127.0.0.1:1", "https://127.0.0.1:1", "http://"])
def test_a_proxy_of_another_kind_is_refused(url: str, no_proxy: pytest.MonkeyPatch) -> None:
    no_proxy.setenv("HTTPS_PROXY", url)
    with pytest.raises(NotAnswered, match="the proxy of the environment for https is no URL of http"):
        through(ssl.create_default_context())


@pytest.mark.parametrize("kind", ["header lines", "interim answers", "one header line"])
def test_a_proxy_that_never_ends_its_answer_is_bounded(kind: str, no_proxy: pytest.MonkeyPatch) -> None:
    with hostile(ENDLESS[kind]) as proxy:
        no_proxy.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(NotAnswered, match=r"more than|as HTTP requires"):
            through(ssl.create_default_context())


@pytest.mark.parametrize("begins", [b"", HEAD], ids=["nothing", "head"])
def test_a_proxy_that_drips_ends_at_the_deadline_of_everything(
    begins: bytes, no_proxy: pytest.MonkeyPatch
) -> None:
    with hostile() as proxy:
        proxy.behaves = proxy.drips(begins)
        no_proxy.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(NotAnswered, match=r"within 0\.3 s \(proxy "):
            through(ssl.create_default_context(), seconds=SOON)


# --- answers of which only the beginning counts --------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        LENGTH % 10**6 + b" " * 10**6,
        HEAD + b"\r\n" + b" " * 10**5,
        HEAD + b"Content-Encoding: gzip\r\nContent-Length: 2000\r\n\r\n" + b" " * 2_000,
    ],
    ids=["length", "until the end", "encoded"],
)
def test_the_beginning_of_a_long_body_is_returned_where_that_is_enough(answer: bytes) -> None:
    with hostile(says(answer)) as peer:
        found = exchange(peer.url, tls=ssl.create_default_context(), seconds=PATIENCE, most=MOST, cut=True)
    assert (found.status, found.body) == (200, b" " * MOST)
