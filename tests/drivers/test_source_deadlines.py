"""One deadline for all of a release, threads that end with their step, and redirects that are no address."""

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from activities.drivers.source.transport import Transport
from activities.drivers.source.wire import CONNECT_SECONDS
from activities.refusals import DownloadFailed, TransportRefused
from policies.model.errors import BadInput, PenstockError
from tests.fakes.hostile import HostileServer, Peer, Request, Script, blob_server
from tests.fakes.registry import FakeRegistry
from tests.fakes.silent import silent_name_servers, unreachable_server
from tests.fakes.stage import Stage
from tests.patience import PATIENCE, until


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path) as stage:
        yield stage


def fetching() -> list[str]:
    """Return the functions of our sources that some thread is in right now."""
    found: list[str] = []
    for top in sys._current_frames().values():
        found += [
            frame.f_code.co_name
            for frame, _ in traceback.walk_stack(top)
            if "activities/drivers/source" in frame.f_code.co_filename
        ]
    return found


async def test_the_deadline_is_for_all_requests_of_a_release_together(stage: Stage) -> None:
    """M7: `deadline_s=2` with 16 slow signatures took 33 s."""
    stage.sign_again(*(stage.bundles() * 8))
    stage.change_policy(lambda policy: policy["sources"].update(deadline_s=2.0))

    def slowly(request: Request, peer: Peer) -> None:
        peer.server.ended.wait(0.9)
        content = (stage.root / request.path.lstrip("/")).read_bytes()
        blob_server(content)(replace(request, number=0), peer)

    stage.overrides["/blobs"] = slowly
    started = time.monotonic()
    with pytest.raises(DownloadFailed):
        await stage.admit()
    assert time.monotonic() - started < 4


@pytest.mark.parametrize("path", ["/statements", "/blobs"])
@pytest.mark.parametrize("after_head", [False, True])
async def test_a_download_ends_with_the_step_that_wanted_it(
    stage: Stage, path: str, after_head: bool
) -> None:
    """M7: threads outlived their cancelled activity, up to the deadline of minutes."""
    asked = threading.Event()

    def silent(request: Request, peer: Peer) -> None:
        if after_head:
            peer.head(Content_Length=1000)
            peer.send("x")
        asked.set()
        peer.server.ended.wait(60)

    stage.overrides[path] = silent
    step = asyncio.create_task(stage.admit())
    await asyncio.to_thread(asked.wait, PATIENCE)
    step.cancel()
    started = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await step
    assert time.monotonic() - started < 5
    assert fetching() == []


async def test_a_connection_that_no_packet_answers_ends_soon_after_its_step() -> None:
    """R4: a check of the way back that may take 4 s took 10 s where a firewall drops packets."""
    with unreachable_server() as address:
        transport = Transport([address], deadline_seconds=60)
        get = partial(transport.get, f"{address}/x", most=1, deadline=transport.deadline())
        step = asyncio.create_task(transport.beside(get))
        await until(lambda: "connect_tcp" in fetching())
        step.cancel()
        started = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await step
        assert time.monotonic() - started < 4


async def test_name_servers_that_do_not_answer_keep_no_download_after_its_step() -> None:
    """R4: `getaddrinfo` alone took half a minute, whatever deadline the download had."""
    with silent_name_servers():
        transport = Transport(["https://repository.example"], deadline_seconds=60)
        get = partial(transport.get, "https://repository.example/x", most=1, deadline=transport.deadline())
        step = asyncio.create_task(transport.beside(get))
        await until(lambda: "connect_tcp" in fetching())
        step.cancel()
        started = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await step
        assert time.monotonic() - started < 4


@pytest.mark.sweep
def test_an_address_that_no_packet_answers_is_tried_for_ten_seconds() -> None:
    with unreachable_server() as address:
        transport = Transport([address], deadline_seconds=60)
        started = time.monotonic()
        with pytest.raises(DownloadFailed, match="broke off: ConnectTimeout"):
            transport.get(f"{address}/x", most=1, deadline=transport.deadline())
        assert CONNECT_SECONDS <= time.monotonic() - started < CONNECT_SECONDS + 5


@pytest.mark.parametrize(
    "location",
    ["http:\\\\x", "http://[::1", "http://h:port/", "//", "http://a\\@b/", "http://", "http://\x7f/"],
)
async def test_a_redirect_to_no_address_is_refused_in_our_words_and_on_record(
    stage: Stage, location: str
) -> None:
    """Low: the redirect `http:\\x` was a foreign exception without an audit line."""
    stage.overrides["/statements"] = lambda _, peer: peer.head(
        "302 Found", Location=location, Content_Length=0
    )
    with pytest.raises(PenstockError):
        await stage.admit()
    assert stage.verdicts() in (["TransportRefused"], ["DownloadFailed"])  # httpx says some of them first


@pytest.mark.parametrize("realm", ["http://[::1", "http://h:port", "//", "x", "http:\\\\y", ""])
async def test_a_token_service_that_is_no_address_is_refused_in_our_words_and_on_record(
    stage: Stage, realm: str
) -> None:
    """Low: the registry's `realm="http://[::1"` was a foreign exception without an audit line."""
    with FakeRegistry() as registry:
        stage.lab.write_policy(allow=[registry.url])
        registry.realm, registry.challenges = "x", (f'Bearer realm="{realm}"',)
        with pytest.raises(PenstockError):
            await stage.releases.admit(stage.digest, f"oci+{registry.url}/vpn/ocserv")
    assert stage.verdicts() == ["TransportRefused"]


def test_an_origin_that_is_none_does_not_open_the_list() -> None:
    """M2: with `repo.corp.example:443` in the list, a redirect to `http://x@internal/` was followed."""
    with pytest.raises(BadInput, match="origin"):
        Transport(["repo.corp.example:443"], deadline_seconds=1)


async def test_a_credential_goes_to_its_own_origin_and_to_no_other_allowed_one(
    stage: Stage, tmp_path: Path
) -> None:
    """M4: the credential went to whichever allowed origin the order named."""
    (tmp_path / "token").write_text("a-secret-token")
    (tmp_path / "token").chmod(0o600)
    seen: dict[str, set[str]] = {}

    def serve(name: str) -> Script:
        def script(request: Request, peer: Peer) -> None:
            seen.setdefault(name, set()).add(request.headers.get("authorization", ""))
            file = stage.root / request.path.lstrip("/")
            blob_server(file.read_bytes() if file.is_file() else b"")(replace(request, number=0), peer)

        return script

    with HostileServer(serve("own")) as own, HostileServer(serve("other")) as other:
        token = {own.url: f"file:{tmp_path / 'token'}"}
        stage.lab.write_policy(allow=[own.url, other.url], credentials=token)
        for server in (other, own):
            await stage.compose().admit(stage.digest, server.url)
    assert seen == {"own": {"Bearer a-secret-token"}, "other": {""}}


async def test_a_credential_does_not_travel_where_everybody_reads_it() -> None:
    """M4: over plain http it did."""
    transport = Transport(["http://repo.corp.example"], deadline_seconds=1)
    with pytest.raises(TransportRefused, match="https"):
        transport.authorize("http://repo.corp.example/x", "Bearer secret")
