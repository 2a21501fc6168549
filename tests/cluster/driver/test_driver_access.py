"""The driver reaches its API server by what its files say now, safely or not at all."""

import gzip
import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from activities.drivers.runtime.kubernetes.access import Access
from activities.drivers.runtime.kubernetes.answers import Absent, GoneBy, Stale, Unread
from activities.drivers.runtime.kubernetes.api import Api, Call
from activities.drivers.runtime.kubernetes.rights import LIST_NODES, NINE, lacking
from deploy.cluster.identities import Identities
from policies.model.errors import BadInput, NotAllowed, Refused, Unavailable
from tests.cluster.driver.driving import inline

NODES = Call(LIST_NODES, "/api/v1/nodes")


@dataclass
class Stub:
    """An API server that answers what it is told, and remembers what it was asked."""

    url: str = ""
    answers: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    """One for each request in turn; the last one for all that come after."""
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def answers_with(self, status: int, body: Any, **headers: str) -> None:
        """Add an answer; `headers` with underscores in place of hyphens."""
        text = body if isinstance(body, str) else json.dumps(body) if not isinstance(body, bytes) else ""
        content = body if isinstance(body, bytes) else text.encode()
        self.answers.append(
            (status, {key.replace("_", "-"): value for key, value in headers.items()}, content)
        )


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Identities:
    """Give an authority with a certificate for this address, and tokens."""
    return Identities(tmp_path_factory.mktemp("identities"))


@pytest.fixture
def stub(identities: Identities) -> Iterator[Stub]:
    """Give a server behind TLS."""
    found = Stub()

    class Answering(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found.asked.append((self.path, dict(self.headers)))
            status, headers, content = found.answers[0] if len(found.answers) == 1 else found.answers.pop(0)
            self.send_response(status)
            chunked = "Transfer-Encoding" in headers
            length = {} if chunked else {"Content-Length": str(len(content))}
            for key, value in (length | headers).items():
                self.send_header(key, value)
            self.end_headers()
            for piece in (content[:50], content[50:], b"") if chunked else (content,):
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as its own is called
            """Say nothing."""

    key, certificate = identities.server
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    shown = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    shown.load_cert_chain(certificate, key)
    server.socket = shown.wrap_socket(server.socket, server_side=True)
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    serving.start()
    found.url = f"https://127.0.0.1:{server.server_address[1]}"
    yield found
    server.shutdown()
    server.server_close()


@pytest.fixture
def kubeconfig(identities: Identities, stub: Stub) -> Path:
    return identities.kubeconfig("admin", stub.url)


def api(kubeconfig: Path | None, **options: Any) -> Api:
    patience = options.pop("patience", 0.3)
    return Api(Access(kubeconfig, "penstock/1.2", **options), "penstock", {}, patience=patience)


def rewritten(kubeconfig: Path, into: Path, *, user: Any = None, cluster: Any = None) -> Path:
    """Return a kubeconfig with other lines for its user, or more for its cluster."""
    content: Any = yaml.safe_load(kubeconfig.read_text())
    content["users"][0]["user"] = user or content["users"][0]["user"]
    content["clusters"][0]["cluster"] |= cluster or {}
    into.touch(mode=0o600)
    into.write_text(yaml.safe_dump(content))
    return into


async def test_a_call_says_who_asks_and_shows_its_token(
    kubeconfig: Path, stub: Stub, identities: Identities
) -> None:
    stub.answers_with(200, {"items": []})
    assert await api(kubeconfig).listed(NODES) == []
    ((path, headers),) = stub.asked
    assert path == "/api/v1/nodes?limit=500"
    assert headers["User-Agent"] == "penstock/1.2"
    assert headers["authorization"] == f"Bearer {identities.token('admin')}"
    assert headers["Accept-Encoding"] == "gzip"


async def test_a_token_in_a_file_is_read_again_when_it_changes_and_without_the_end_of_its_line(
    kubeconfig: Path, stub: Stub, tmp_path: Path
) -> None:
    stub.answers_with(200, {"items": []})
    token = tmp_path / "token"
    token.write_text("first\n")
    one = api(rewritten(kubeconfig, tmp_path / "own.kubeconfig", user={"tokenFile": "token"}))
    await one.listed(NODES)
    await one.listed(NODES)
    token.with_name("next").write_text("another\n")
    token.with_name("next").replace(token)
    await one.listed(NODES)
    shown = [headers["authorization"] for _, headers in stub.asked]
    assert shown == ["Bearer first", "Bearer first", "Bearer another"]


async def test_a_pod_of_the_cluster_shows_its_accounts_token_and_the_next_one_when_it_is_there(
    stub: Stub, identities: Identities, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.answers_with(200, {"items": []})
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", stub.url.rpartition(":")[2])
    (tmp_path / "ca.crt").write_bytes(identities.authority.read_bytes())
    (tmp_path / "token").write_text("of-this-hour\n")
    one = api(None, account=tmp_path)
    await one.listed(NODES)
    (tmp_path / "token").write_text("of-the-next-hour\n")
    await one.listed(NODES)
    shown = [headers["authorization"] for _, headers in stub.asked]
    assert shown == ["bearer of-this-hour", "bearer of-the-next-hour"]


async def test_what_stands_in_a_kubeconfig_is_used_and_left_on_no_disk(
    kubeconfig: Path, stub: Stub, identities: Identities, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.answers_with(200, {"items": []})
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    one = api(inline(kubeconfig, tmp_path / "inline.kubeconfig"))
    assert await one.listed(NODES) == []
    assert list((tmp_path / "temporary").iterdir()) == []


def descriptors() -> int:
    """How many this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_token_that_is_away_for_long_costs_no_descriptors(
    kubeconfig: Path, stub: Stub, identities: Identities, tmp_path: Path
) -> None:
    stub.answers_with(200, {"items": []})
    there = inline(kubeconfig, tmp_path / "inline.kubeconfig")
    content = yaml.safe_load(there.read_text())
    token = content["users"][0]["user"].pop("token")
    content["users"][0]["user"]["tokenFile"] = "token"
    there.write_text(yaml.safe_dump(content))
    one = api(there)
    with pytest.raises(BadInput):
        await one.listed(NODES)
    before = descriptors()
    for _ in range(30):
        with pytest.raises(BadInput):
            await one.listed(NODES)
    assert descriptors() <= before
    (tmp_path / "token").write_text(token)
    (tmp_path / "token").chmod(0o600)
    assert await one.listed(NODES) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"insecure-skip-tls-verify": True}, "says insecure-skip-tls-verify: take it out"),
        ({"server": "http://127.0.0.1:1"}, "orders go only to an https:// server"),
        ({"certificate-authority": "nowhere.pem"}, "does not say how the API server is reached"),
        ({"certificate-authority-data": "%"}, "certificate-authority-data is not base64"),
    ],
)
async def test_a_server_that_cannot_be_known_is_not_asked(
    changed: dict[str, Any], said: str, kubeconfig: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=said):
        await api(rewritten(kubeconfig, tmp_path / "bad.kubeconfig", cluster=changed)).listed(NODES)


async def test_a_kubeconfig_that_others_read_or_that_is_none_is_refused(
    kubeconfig: Path, tmp_path: Path
) -> None:
    open_to_all = rewritten(kubeconfig, tmp_path / "open.kubeconfig")
    open_to_all.chmod(0o644)
    with pytest.raises(BadInput, match="may be read by others"):
        await api(open_to_all).listed(NODES)
    for content in ("", "[]", "{", "current-context: x"):
        open_to_all.chmod(0o600)
        open_to_all.write_text(content)
        with pytest.raises(BadInput, match="does not say how the API server is reached"):
            await api(open_to_all).listed(NODES)


async def test_a_server_of_another_authority_gets_no_token(
    kubeconfig: Path, stub: Stub, tmp_path: Path
) -> None:
    stub.answers_with(200, {"items": []})
    other = Identities(tmp_path / "others").authority
    strange = rewritten(kubeconfig, tmp_path / "s.kubeconfig", cluster={"certificate-authority": str(other)})
    with pytest.raises(Unavailable, match="certificate verify failed"):
        await api(strange).listed(NODES)
    assert stub.asked == []


@pytest.mark.parametrize(
    ("status", "body", "raised"),
    [
        (404, {"message": "not found"}, Absent),
        (409, {"message": "changed"}, Stale),
        (410, {"message": "expired"}, GoneBy),
        (422, {"message": "only its image"}, Refused),
        (429, "Too many requests, please try again later.\n", Unavailable),
        (500, "{", Unavailable),
        (503, {"message": "starting"}, Unavailable),
        (200, "<html>", Unread),
        (200, "[]", Unread),
        (400, {"message": "no"}, Refused),
        (301, "", Refused),
        (401, "Unauthorized", NotAllowed),
    ],
)
async def test_every_answer_that_is_none_has_its_own_error_and_sentence(
    status: int, body: Any, raised: type[Exception], kubeconfig: Path, stub: Stub
) -> None:
    stub.answers_with(status, body, Location="https://example.test/", Retry_After="1")
    with pytest.raises(raised, match=r"list nodes|does not know us"):
        await api(kubeconfig).call(NODES)
    assert len(stub.asked) == 1 or status == 401


async def test_a_server_that_wants_a_rest_gets_it_and_is_asked_again(kubeconfig: Path, stub: Stub) -> None:
    stub.answers_with(429, "Too many requests, please try again later.\n", Retry_After="1")
    stub.answers_with(200, {"items": [{"metadata": {"name": "n"}}]})
    assert len(await api(kubeconfig, patience=5).listed(NODES)) == 1
    assert len(stub.asked) == 2


async def test_a_list_that_cannot_go_on_begins_again_and_comes_whole(kubeconfig: Path, stub: Stub) -> None:
    first, second = {"metadata": {"name": "n1"}}, {"metadata": {"name": "n2"}}
    stub.answers_with(200, {"items": [first], "metadata": {"continue": "token"}})
    stub.answers_with(410, {"message": "too old"})
    stub.answers_with(200, {"items": [first], "metadata": {"continue": "other"}})
    stub.answers_with(200, {"items": [second], "metadata": {}})
    assert await api(kubeconfig).listed(NODES) == [first, second]
    assert [path.partition("?")[2] for path, _ in stub.asked[1::2]] == [
        "continue=token&limit=500",
        "continue=other&limit=500",
    ]


async def test_a_long_list_comes_packed_and_in_pieces(kubeconfig: Path, stub: Stub) -> None:
    items = [{"metadata": {"name": f"node-{one}"}} for one in range(500)]
    packed = gzip.compress(json.dumps({"items": items}).encode())
    stub.answers_with(200, packed, Transfer_Encoding="chunked", Content_Encoding="gzip")
    assert await api(kubeconfig).listed(NODES) == items


def test_rights_for_some_names_are_rights_for_these_alone() -> None:
    rules = [
        {"verbs": [one.verb], "apiGroups": [one.group], "resources": [one.kind], "resourceNames": ["x"]}
        for one in NINE
    ]
    every = {one: ("x",) for one in NINE if one.verb in ("get", "patch", "update")}
    said = lacking({"status": {"resourceRules": rules}}, every)
    assert [str(one) for one in said] == [
        *("list nodes", "list pods", "create events", "create leases.coordination.k8s.io"),
    ]
    more = dict.fromkeys(every, ("x", "y"))
    missing = lacking({"status": {"resourceRules": rules}}, more)
    assert "get daemonsets.apps y" in [str(one) for one in missing]
    whole = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
    assert lacking({"status": {"resourceRules": [whole]}}, more) == ()
    assert lacking({"status": {"incomplete": True}}, more) == ()
    assert len(lacking({}, {})) == len(NINE)
