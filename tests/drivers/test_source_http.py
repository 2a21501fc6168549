"""Downloads from a server that breaks off, stalls, lies or never ends."""

import fcntl
import gzip
import hashlib
import os
import random
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from activities.drivers.source.download import download
from activities.drivers.source.transport import Transport, shown
from activities.drivers.store.blobs import BlobStore
from activities.refusals import DownloadFailed, SizeExceeded, TransportRefused
from policies.model.origin import origin_of
from policies.model.refusals import DigestMismatch, TrustError
from policies.model.value import digest_of
from tests.fakes.hostile import HostileServer, Peer, Request, Script, blob_server, cut_after
from tests.patience import wait_until

SIZE = 3_000_007
CONTENT = random.Random(4).randbytes(SIZE)
DIGEST = digest_of(CONTENT)


def fetch(
    server: HostileServer, folder: Path, *, seconds: float = 10, allow: tuple[str, ...] = ()
) -> BlobStore:
    store = BlobStore(folder)
    transport = Transport([server.url, *allow], deadline_seconds=seconds)
    download(transport, f"{server.url}/blob", DIGEST, SIZE, store)
    return store


def verified(folder: Path) -> list[Path]:
    return [path for path in folder.glob("sha256/**/*") if path.is_file()]


def test_a_whole_answer_is_stored_under_its_digest(tmp_path: Path) -> None:
    with HostileServer(blob_server(CONTENT)) as server:
        store = fetch(server, tmp_path)
        fetch(server, tmp_path)
    assert store.read(DIGEST) == CONTENT
    assert len(server.requests) == 1
    assert not list((tmp_path / "partial").iterdir())


@pytest.mark.parametrize("number", range(20))
def test_a_download_cut_anywhere_resumes_and_transfers_little_more_than_once(
    tmp_path: Path, number: int
) -> None:
    offset = random.Random(number).randrange(1, SIZE)
    with HostileServer(cut_after(CONTENT, [offset])) as server:
        store = fetch(server, tmp_path)
    assert store.read(DIGEST) == CONTENT
    assert server.sent <= SIZE * 1.1
    assert [request.start for request in server.requests] == [0, offset]


def test_a_download_cut_twenty_times_in_a_row_still_transfers_little_more_than_once(tmp_path: Path) -> None:
    offsets = sorted(random.Random(7).sample(range(1, SIZE), 20))
    with HostileServer(cut_after(CONTENT, offsets)) as server:
        store = fetch(server, tmp_path, seconds=60)
    assert store.read(DIGEST) == CONTENT
    assert server.sent <= SIZE * 1.1


def test_what_arrived_before_a_worker_died_is_used_by_the_next_one(tmp_path: Path) -> None:
    half = SIZE // 2
    partial = BlobStore(tmp_path).partial(DIGEST)
    partial.write_bytes(CONTENT[:half])
    partial.with_name(f"{partial.name}.etag").write_text('"one"')
    with HostileServer(blob_server(CONTENT)) as server:
        store = fetch(server, tmp_path)
    assert store.read(DIGEST) == CONTENT
    assert server.requests[0].start == half


def test_a_killed_worker_leaves_a_part_that_the_next_one_completes(tmp_path: Path) -> None:
    def first_half_only(request: Request, peer: Peer) -> None:
        if request.number:
            blob_server(CONTENT)(request, peer)
            return
        peer.head(Content_Length=SIZE, ETag='"one"')
        peer.send(CONTENT[: SIZE // 2])
        peer.server.ended.wait(90)

    with HostileServer(first_half_only) as server:
        command = (
            "import sys\n"
            "from pathlib import Path\n"
            "from activities.drivers.source.download import download\n"
            "from activities.drivers.source.transport import Transport\n"
            "from activities.drivers.store.blobs import BlobStore\n"
            "url, digest, size, folder = sys.argv[1:]\n"
            "transport = Transport([url], deadline_seconds=60)\n"
            "download(transport, url + '/blob', digest, int(size), BlobStore(Path(folder)))\n"
        )
        arguments = [server.url, DIGEST, str(SIZE), str(tmp_path)]
        with subprocess.Popen([sys.executable, "-c", command, *arguments]) as worker:
            wait_until(lambda: server.sent > SIZE // 2)
            worker.kill()
        assert not verified(tmp_path)
        store = fetch(server, tmp_path)
    assert store.read(DIGEST) == CONTENT


def test_content_that_changed_between_two_parts_is_fetched_anew(tmp_path: Path) -> None:
    def script(request: Request, peer: Peer) -> None:
        if request.number == 0:
            peer.head(Content_Length=SIZE, ETag='"old"')
            peer.send(bytes(SIZE // 2))
        else:
            blob_server(CONTENT, '"new"')(request, peer)

    with HostileServer(script) as server:
        store = fetch(server, tmp_path)
    assert store.read(DIGEST) == CONTENT
    assert server.requests[1].headers["if-range"] == '"old"'


def test_a_part_whose_server_gave_no_strong_tag_is_never_continued(tmp_path: Path) -> None:
    def script(request: Request, peer: Peer) -> None:
        assert "range" not in request.headers
        peer.head(Content_Length=SIZE, ETag='W/"weak"')
        peer.send(CONTENT[: SIZE // 2] if request.number == 0 else CONTENT)

    with HostileServer(script) as server:
        assert fetch(server, tmp_path).read(DIGEST) == CONTENT
    assert len(server.requests) == 2


def test_a_busy_server_is_asked_again(tmp_path: Path) -> None:
    def script(request: Request, peer: Peer) -> None:
        if request.number < 3:
            peer.head("503 Service Unavailable", Content_Length=0)
        else:
            blob_server(CONTENT)(request, peer)

    with HostileServer(script) as server:
        assert fetch(server, tmp_path).read(DIGEST) == CONTENT


def test_a_chunked_answer_is_taken_too(tmp_path: Path) -> None:
    def script(request: Request, peer: Peer) -> None:
        peer.head(Transfer_Encoding="chunked")
        for start in range(0, SIZE, 100_000):
            piece = CONTENT[start : start + 100_000]
            peer.send(f"{len(piece):x}\r\n", piece, "\r\n")
        peer.send("0\r\n\r\n")

    with HostileServer(script) as server:
        assert fetch(server, tmp_path).read(DIGEST) == CONTENT


def _head_then(*body: bytes, **headers: object) -> Script:
    def script(request: Request, peer: Peer) -> None:
        peer.head("200 OK", **headers)
        for part in body:
            peer.send(part)

    return script


def _endless(request: Request, peer: Peer) -> None:
    peer.head(Connection="close")
    while not peer.server.ended.is_set():
        peer.send(CONTENT)


def _endless_chunks(request: Request, peer: Peer) -> None:
    peer.head(Transfer_Encoding="chunked")
    while not peer.server.ended.is_set():
        peer.send(f"{SIZE:x}\r\n", CONTENT, "\r\n")


def _wrong_range(request: Request, peer: Peer) -> None:
    if request.number == 0:
        peer.head(Content_Length=SIZE, ETag='"one"')
        peer.send(CONTENT[:1000])
    else:
        peer.head(
            "206 Partial Content", Content_Length=SIZE - 500, Content_Range=f"bytes 500-{SIZE - 1}/{SIZE}"
        )
        peer.send(CONTENT[500:])


def _redirect(target: str) -> Script:
    return lambda _, peer: peer.head("302 Found", Location=target, Content_Length=0)


FLIPPED = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])

REFUSED: dict[str, tuple[Script, type[TrustError]]] = {
    "one bit flipped": (blob_server(FLIPPED), DigestMismatch),
    "one byte too long": (blob_server(CONTENT + b"x"), SizeExceeded),
    "one byte too short": (blob_server(CONTENT[:-1]), DigestMismatch),
    "ends early without saying how long it is": (
        _head_then(CONTENT[:1000], Connection="close"),
        DigestMismatch,
    ),
    "endless": (_endless, SizeExceeded),
    "endless in chunks": (_endless_chunks, SizeExceeded),
    "gzip": (_head_then(gzip.compress(CONTENT), Content_Encoding="gzip"), TransportRefused),
    "redirect to another host": (_redirect("http://127.0.0.2:9/blob"), TransportRefused),
    "redirect to a file": (_redirect("file:///etc/passwd"), TransportRefused),
    "redirect in a circle": (_redirect("/blob"), TransportRefused),
    "another range than asked for": (_wrong_range, TransportRefused),
    "a range nobody asked for": (
        lambda r, p: p.head("206 Partial Content", Content_Range=f"bytes 0-{SIZE - 1}/{SIZE}"),
        TransportRefused,
    ),
    "not there": (lambda r, p: p.head("404 Not Found", Content_Length=0), DownloadFailed),
    "not allowed": (lambda r, p: p.head("401 Unauthorized", Content_Length=0), TransportRefused),
    "another status": (lambda r, p: p.head("418 Teapot", Content_Length=0), TransportRefused),
    "no HTTP at all": (lambda r, p: p.send("SSH-2.0-hello\r\n\r\n"), DownloadFailed),
    "closes at once": (lambda r, p: None, DownloadFailed),
    "a megabyte of headers": (lambda r, p: p.head(X="y" * 1_000_000), DownloadFailed),
    "two lengths": (
        lambda r, p: p.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"),
        DownloadFailed,
    ),
    "a length that is none": (
        lambda r, p: p.send("HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello"),
        DownloadFailed,
    ),
}


@pytest.mark.sweep
@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_answer_is_refused_and_nothing_gets_a_verified_name(tmp_path: Path, name: str) -> None:
    script, refusal = REFUSED[name]
    with HostileServer(script) as server, pytest.raises(refusal) as refused:
        fetch(server, tmp_path)
    assert refused.value.code == refusal.__name__
    assert not verified(tmp_path)
    if refusal is not DownloadFailed:
        assert not list((tmp_path / "partial").iterdir())


def _slow_headers(request: Request, peer: Peer) -> None:
    peer.trickle(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n" + b"x: y\r\n" * 1000, 0.2)


def _slow_body(request: Request, peer: Peer) -> None:
    peer.head(Content_Length=SIZE)
    peer.trickle(CONTENT, 0.2)


def _silent(request: Request, peer: Peer) -> None:
    peer.server.ended.wait(30)


@pytest.mark.parametrize("script", [_slow_headers, _slow_body, _silent])
def test_a_slow_server_is_left_at_the_deadline(
    tmp_path: Path, script: Callable[[Request, Peer], None]
) -> None:
    started = time.monotonic()
    with HostileServer(script) as server, pytest.raises(DownloadFailed) as failed:
        fetch(server, tmp_path, seconds=2)
    assert failed.value.retryable
    assert 1.9 <= time.monotonic() - started < 3
    assert not verified(tmp_path)


def test_a_redirect_to_an_allowed_origin_is_followed(tmp_path: Path) -> None:
    with (
        HostileServer(blob_server(CONTENT)) as mirror,
        HostileServer(_redirect(f"{mirror.url}/blob")) as server,
    ):
        assert fetch(server, tmp_path, allow=(mirror.url,)).read(DIGEST) == CONTENT


def test_a_source_that_is_not_on_the_list_is_not_even_connected_to(tmp_path: Path) -> None:
    transport = Transport(["https://elsewhere.example"], deadline_seconds=5)
    with HostileServer(blob_server(CONTENT)) as server:
        with pytest.raises(TransportRefused):
            download(transport, f"{server.url}/blob", DIGEST, SIZE, BlobStore(tmp_path))
        assert not server.requests


def test_proxies_of_the_environment_are_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with HostileServer(blob_server(CONTENT)) as server:
        assert fetch(server, tmp_path).read(DIGEST) == CONTENT


def test_two_workers_download_one_blob_once(tmp_path: Path) -> None:
    def script(request: Request, peer: Peer) -> None:
        time.sleep(0.3)
        blob_server(CONTENT)(request, peer)

    with HostileServer(script) as server:
        workers = [threading.Thread(target=fetch, args=(server, tmp_path)) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert len(server.requests) == 1
    assert BlobStore(tmp_path).read(DIGEST) == CONTENT


@pytest.mark.sweep
def test_a_gigabyte_takes_at_most_64_mib_of_memory(tmp_path: Path) -> None:
    mib, piece = 1024, os.urandom(1 << 20)
    hasher = hashlib.sha256()
    for _ in range(mib):
        hasher.update(piece)

    def script(request: Request, peer: Peer) -> None:
        peer.head(Content_Length=mib << 20, ETag='"big"')
        for _ in range(mib):
            peer.send(piece)

    command = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from activities.drivers.source.download import download\n"
        "from activities.drivers.source.transport import Transport\n"
        "from activities.drivers.store.blobs import BlobStore\n"
        "url, digest, size, folder = sys.argv[1:]\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "transport = Transport([url], deadline_seconds=120)\n"
        "download(transport, url + '/blob', digest, int(size), BlobStore(Path(folder)))\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    with HostileServer(script) as server:
        arguments = [server.url, f"sha256:{hasher.hexdigest()}", str(mib << 20), str(tmp_path)]
        done = subprocess.run(
            [sys.executable, "-c", command, *arguments], capture_output=True, text=True, check=True
        )
    assert int(done.stdout) <= 64 * 1024


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Repo.Example/x?token=1", "https://repo.example:443"),
        ("http://repo.example:8080", "http://repo.example:8080"),
        ("http://[::1]:80/", "http://[::1]:80"),
        ("ftp://repo.example", ""),
        ("http://user:secret@repo.example/", ""),
        ("http://repo.example:port/", ""),
        ("nonsense", ""),
    ],
)
def test_an_origin_is_scheme_host_and_port(url: str, origin: str) -> None:
    assert origin_of(url) == origin


def test_what_is_shown_of_an_address_holds_no_secret() -> None:
    assert shown("https://user:secret@repo.example/a/b?token=secret#secret") == "https://repo.example/a/b"


def test_headers_and_body_may_arrive_in_any_pieces(tmp_path: Path) -> None:
    dice = random.Random(11)
    content = dice.randbytes(5000)

    def script(request: Request, peer: Peer) -> None:
        raw = f'HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\nETag: "one"\r\n\r\n'.encode() + content
        peer.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while raw:
            count = dice.randrange(1, 40)
            peer.send(raw[:count])
            raw = raw[count:]

    with HostileServer(script) as server:
        for _ in range(20):
            store = BlobStore(tmp_path / str(len(server.requests)))
            transport = Transport([server.url], deadline_seconds=10)
            download(transport, f"{server.url}/blob", digest_of(content), len(content), store)
            assert store.read(digest_of(content)) == content


def test_whole_blocks_go_past_the_page_cache_and_the_rest_after_them(tmp_path: Path) -> None:
    content = random.Random(12).randbytes((24 << 20) + 5)
    with HostileServer(cut_after(content, [(9 << 20) + 3])) as server:
        store = BlobStore(tmp_path)
        transport = Transport([server.url], deadline_seconds=30)
        download(transport, f"{server.url}/blob", digest_of(content), len(content), store)
    assert store.read(digest_of(content)) == content
    assert len(server.requests) == 2


def test_a_disk_that_cannot_take_it_is_a_failed_download_that_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("activities.drivers.source.download._Part.write", full)
    with HostileServer(blob_server(CONTENT)) as server, pytest.raises(DownloadFailed, match="No space left"):
        fetch(server, tmp_path)
    assert not verified(tmp_path)
    assert BlobStore(tmp_path).partial(DIGEST).stat().st_size == 0


def test_a_file_system_without_direct_writes_takes_it_the_ordinary_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytes(8 << 20)
    monkeypatch.setattr("activities.drivers.source.download._past_cache", lambda _: None)
    with HostileServer(blob_server(content)) as server:
        store = BlobStore(tmp_path)
        transport = Transport([server.url], deadline_seconds=30)
        download(transport, f"{server.url}/blob", digest_of(content), len(content), store)
    assert store.read(digest_of(content)) == content


def test_a_second_worker_that_waits_too_long_gives_up(tmp_path: Path) -> None:
    with HostileServer(_slow_body) as server, BlobStore(tmp_path).partial(DIGEST).open("wb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(DownloadFailed):
            fetch(server, tmp_path, seconds=0.5)
        assert not server.requests


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, str]:
    """Return a server's side of TLS for localhost, and the certificate its clients must trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "tls.pem").write_bytes(secret + pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.pem")
    return context, pem.decode()


def test_over_tls_the_policys_authority_is_trusted_and_no_other(
    tmp_path: Path, tls: tuple[ssl.SSLContext, str]
) -> None:
    context, authority = tls
    with HostileServer(blob_server(CONTENT), tls=context) as server:
        url = server.url.replace("http://127.0.0.1", "https://localhost")
        trusting, distrusting = (
            Transport([url], deadline_seconds=10, authorities=pem) for pem in (authority, None)
        )
        download(trusting, f"{url}/blob", DIGEST, SIZE, BlobStore(tmp_path))
        assert BlobStore(tmp_path).read(DIGEST) == CONTENT
        with pytest.raises(TransportRefused):
            download(distrusting, f"{url}/blob", DIGEST, SIZE, BlobStore(tmp_path / "other"))


def test_a_redirect_from_https_to_http_is_refused_even_to_an_allowed_origin(
    tmp_path: Path, tls: tuple[ssl.SSLContext, str]
) -> None:
    context, authority = tls
    with (
        HostileServer(blob_server(CONTENT)) as plain,
        HostileServer(_redirect(f"{plain.url}/blob"), tls=context) as server,
    ):
        url = server.url.replace("http://127.0.0.1", "https://localhost")
        transport = Transport([url, plain.url], deadline_seconds=10, authorities=authority)
        with pytest.raises(TransportRefused):
            download(transport, f"{url}/blob", DIGEST, SIZE, BlobStore(tmp_path))
        assert not plain.requests
