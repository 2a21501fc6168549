"""Prometheus as companies have it: own TLS, a token, a tenant, two replicas (case 06, newcomer 11)."""

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from activities.drivers.metrics.access import Access
from activities.drivers.metrics.replicas import Replicas
from activities.observation import BadQuery, MetricsUnavailable
from policies.model.errors import BadInput
from tests.drivers.test_prometheus import envelope, matrix, page, server
from tests.fakes.authority import EnterpriseCa

SECOND = timedelta(seconds=1)
LOOPBACK = (x509.IPAddress(ip_address("127.0.0.1")),)
WHOLE = envelope(matrix("1"))
Headers = dict[str, str]
"""What a request showed."""


async def read(prometheus: Replicas) -> int:
    """Return how many series are found."""
    return len(await prometheus.raw("up{$cohort}", ["a"], datetime.now(UTC), SECOND))


@contextmanager
def client_of(access: Access) -> Iterator[Replicas]:
    prometheus = Replicas.of(access)
    try:
        yield prometheus
    finally:
        prometheus.close()


class Secured:
    """A server with a certificate of the company's own authority, which keeps what it was shown."""

    def __init__(self, folder: Path) -> None:
        self.shown: list[Headers] = []
        self.authority = EnterpriseCa(folder)
        shown = self.shown

        class Answer(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                shown.append(dict(self.headers))
                page(WHOLE)(self)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        key, certificate = self.leaf(ExtendedKeyUsageOID.SERVER_AUTH)
        self.tls.load_cert_chain(certificate, key)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.server.daemon_threads = True
        self.url = f"https://127.0.0.1:{self.server.server_port}"

    def leaf(self, usage: x509.ObjectIdentifier) -> tuple[Path, Path]:
        return self.authority.leaf("penstock", usage=usage, names=LOOPBACK)

    def ask_for_clients(self) -> None:
        self.tls.verify_mode = ssl.CERT_REQUIRED
        self.tls.load_verify_locations(self.authority.roots)

    def start(self) -> None:
        self.server.socket = self.tls.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Secured]:
    made = Secured(tmp_path / "authority")
    yield made
    made.server.shutdown()
    made.server.server_close()


async def test_an_authority_of_the_company_is_named_in_the_settings(secured: Secured) -> None:
    """Case 06, newcomer 11: there was no setting for it."""
    secured.start()
    with client_of(Access((secured.url,), authority=secured.authority.roots)) as prometheus:
        assert await read(prometheus) == 1


async def test_a_server_that_no_authority_vouches_for_is_named_with_the_setting_that_helps(
    secured: Secured,
) -> None:
    """Case 06: the sentence was `cannot be read: SSLError`."""
    secured.start()
    with (
        client_of(Access((secured.url,))) as prometheus,
        pytest.raises(MetricsUnavailable, match="prometheus_authority") as refused,
    ):
        await read(prometheus)
    assert secured.url in str(refused.value)
    assert secured.shown == []


async def test_the_authorities_of_this_host_count(secured: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
    """newcomer 11: a CA in the system's store was not asked; here the store is this one."""
    monkeypatch.setenv("SSL_CERT_FILE", str(secured.authority.roots))
    secured.start()
    with client_of(Access((secured.url,))) as prometheus:
        assert await read(prometheus) == 1


async def test_a_client_certificate_is_shown_where_one_is_asked_for(secured: Secured) -> None:
    secured.ask_for_clients()
    secured.start()
    access = Access((secured.url,), authority=secured.authority.roots)
    with client_of(access) as prometheus, pytest.raises(MetricsUnavailable):
        await read(prometheus)
    key, certificate = secured.leaf(ExtendedKeyUsageOID.CLIENT_AUTH)
    shown = Access((secured.url,), authority=secured.authority.roots, certificate=certificate, key=key)
    shown.require_sound()
    with client_of(shown) as prometheus:
        assert await read(prometheus) == 1


async def test_the_token_is_read_anew_and_the_tenant_is_shown_with_each_request(
    secured: Secured, tmp_path: Path
) -> None:
    """newcomer 11: a token that is renewed each hour needs no restart."""
    secured.start()
    token = private(tmp_path / "token", "first")
    access = Access(
        (secured.url,),
        token=token,
        authority=secured.authority.roots,
        headers={"X-Scope-OrgID": "vpn"},
    )
    with client_of(access) as prometheus:
        await read(prometheus)
        private(token, "second")
        await read(prometheus)
    assert [shown["Authorization"] for shown in secured.shown] == ["Bearer first", "Bearer second"]
    assert [shown["X-Scope-OrgID"] for shown in secured.shown] == ["vpn", "vpn"]


async def test_a_token_that_is_away_or_readable_by_everybody_is_never_shown_and_is_named(
    secured: Secured, tmp_path: Path
) -> None:
    secured.start()
    access = Access((secured.url,), token=tmp_path / "token", authority=secured.authority.roots)
    with (
        client_of(access) as prometheus,
        pytest.raises(MetricsUnavailable, match=f"{tmp_path / 'token'} cannot be read"),
    ):
        await read(prometheus)
    assert secured.shown == []


def private(path: Path, content: str) -> Path:
    path.write_text(f"{content}\n")
    path.chmod(0o600)
    return path


async def test_the_first_replica_that_answers_whole_has_the_read_and_keeps_the_next_ones() -> None:
    """Case 06: a pair of servers; a partial answer of one is no answer."""
    asked: list[str] = []

    def by(name: str, **more: Any) -> Any:
        def answer(request: BaseHTTPRequestHandler) -> None:
            asked.append(name)
            page(envelope(matrix("1"), **more))(request)

        return answer

    with server(by("a", isPartial=True)) as a, server(by("b")) as b, client_of(Access((a, b))) as prometheus:
        assert await read(prometheus) == 1
        assert await read(prometheus) == 1
    assert asked == ["a", "b", "b"]


async def test_where_no_replica_answers_whole_each_is_named_with_its_reason() -> None:
    partial = page(envelope([], warnings=["partial"]))
    with server(page(b"busy", 503)) as a, server(partial) as b, client_of(Access((a, b))) as prometheus:
        found = await asyncio.gather(read(prometheus), return_exceptions=True)
    (refused,) = found
    assert isinstance(refused, MetricsUnavailable)
    assert f"{a} answers HTTP Status Code 503" in str(refused)
    assert f"{b} warns of its answer: partial" in str(refused)


async def test_a_replica_whose_stores_are_away_leaves_the_question_to_the_other() -> None:
    """R8, a fresh reader's F7: Thanos answers 422 then, and the second replica was not asked."""
    away = b'{"status": "error", "errorType": "execution", "error": "No StoreAPIs matched for this query"}'
    with server(page(away, 422)) as a, server(page(WHOLE)) as b, client_of(Access((a, b))) as prometheus:
        assert await read(prometheus) == 1


async def test_a_question_that_is_wrong_is_not_asked_again_of_another_replica() -> None:
    with (
        server(page(b'{"status": "error", "errorType": "bad_data", "error": "parse error"}', 400)) as a,
        server(page(WHOLE)) as b,
        client_of(Access((a, b))) as prometheus,
        pytest.raises(BadQuery),
    ):
        await read(prometheus)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"headers": {"X Scope": "vpn"}}, "prometheus_headers: X Scope is no header"),
        ({"headers": {"X-Scope-OrgID": "a\nb"}}, "prometheus_headers: X-Scope-OrgID is no header"),
        ({"headers": {"Authorization": "Bearer x"}}, "write the token into a file, prometheus_token"),
        ({"headers": {"Host": "x"}}, "prometheus_headers: Host belongs to the request itself"),
        ({"token": Path("nowhere")}, "prometheus_token: nowhere cannot be read: No such file"),
        ({"authority": Path("pyproject.toml")}, "prometheus_authority: pyproject.toml has no certificate"),
        ({"certificate": Path("pyproject.toml")}, "prometheus_certificate: pyproject.toml cannot be read"),
        ({"key": Path("pyproject.toml")}, "prometheus_key: it has no certificate"),
    ],
)
def test_a_setting_that_is_wrong_is_named_with_what_to_do(more: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as refused:
        Access(("https://prometheus.example",), **more).require_sound()
    assert said in str(refused.value)


def test_a_token_that_every_user_of_the_host_may_read_is_refused(tmp_path: Path) -> None:
    token = private(tmp_path / "token", "a-secret")
    Access(("https://prometheus.example",), token=token).require_sound()
    with pytest.raises(BadInput, match="remove one of the two"):
        Access(("https://me:word@prometheus.example",), token=token).require_sound()
    token.chmod(0o644)
    for folder in (tmp_path, *tmp_path.parents):
        folder.chmod(folder.stat().st_mode | 0o111)
    with pytest.raises(BadInput, match="every user of this host may read") as refused:
        Access(("https://prometheus.example",), token=token).require_sound()
    assert "a-secret" not in str(refused.value)
