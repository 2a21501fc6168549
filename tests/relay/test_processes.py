"""Relays as processes: beside each other, without rights, before an engine that is away, and ended."""

import asyncio
import os
import shutil
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice import v1 as api
from temporalio.client import Client

from activities.drivers.private_files import write_private
from deploy.ports import free_port
from orchestrator.enrolment.authority import Authority
from orchestrator.processes.relay import relaying
from orchestrator.processes.serve import relaying_where_asked
from orchestrator.relay import front
from orchestrator.relay.calls import SERVICE
from orchestrator.settings import Settings
from orchestrator.store.ledger import Ledger
from policies.model.errors import BadInput, Unavailable
from tests.patience import PATIENCE, until
from tests.relay.installation import (
    Installation,
    installed,
    issued,
    queue_of,
    settings_of,
    working,
)
from tests.relay.test_attacks import ask_until_a_task, caller, refusal_of
from tests.workflows.engine import Engine, engine

NOBODY = 65534


def environment(settings: Settings) -> dict[str, str]:
    named = (
        "temporal_address",
        "temporal_namespace",
        "relay_address",
        "enrolment_address",
        "relay_key",
        "authority",
        "ledger_url",
        "audit_key",
        "relay_connections",
    )
    said = {f"PENSTOCK_{name.upper()}": str(getattr(settings, name)) for name in named}
    return {"PATH": os.environ["PATH"], "PYTHONPATH": os.fspath(Path.cwd())} | said


@asynccontextmanager
async def relay_process(
    settings: Settings, before: Sequence[str] = ()
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(*before, sys.executable, "-m", "orchestrator", "relay"),
        env=environment(settings),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), PATIENCE)
        if not line:
            assert process.stderr is not None
            raise AssertionError((await process.stderr.read()).decode())
        assert line.decode() == f"ready: {settings.relay_address}\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def beside(settings: Settings, first: Installation) -> Installation:
    return Installation(settings, first.client, first.relay, first.ledger, first.authority)


async def test_several_relays_share_a_key_and_nothing_else(installation: Installation) -> None:
    second = installation.settings.model_copy(
        update={"relay_address": f"127.0.0.1:{free_port()}", "enrolment_address": f"127.0.0.1:{free_port()}"}
    )
    shown = issued(installation.authority, "gw-1")
    errand = asyncio.create_task(installation.errand("gw-1", "shared"))
    async with relay_process(second) as process:
        here, there = caller(installation, shown), caller(beside(second, installation), shown)
        wanted = api.PollActivityTaskQueueRequest(
            namespace=installation.client.namespace, task_queue=TaskQueue(name=queue_of("gw-1"))
        )
        given = await ask_until_a_task(here, wanted)
        beat = api.RecordActivityTaskHeartbeatRequest(task_token=given.task_token)
        await there(SERVICE + "RecordActivityTaskHeartbeat", beat)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
        await here(SERVICE + "RecordActivityTaskHeartbeat", beat)
    errand.cancel()


@pytest.mark.sweep
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take its own rights away")
async def test_a_relay_runs_as_nobody_without_any_capability(server: Engine, tmp_path: Path) -> None:
    client = await server.client()
    folder = Path("/tmp") / f"penstock-relay-{os.getpid()}"
    folder.mkdir(mode=0o700)
    os.chown(folder, NOBODY, NOBODY)
    rights = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs")
    try:
        settings = settings_of(folder, client.namespace, server.address)
        async with relay_process(settings, (*rights, "--bounding-set=-all", "--inh-caps=-all")) as process:
            status = await asyncio.to_thread(Path(f"/proc/{process.pid}/status").read_text)
            assert "CapEff:\t0000000000000000" in status
            assert f"Uid:\t{NOBODY}" in status
            # Ours to read as one of our own: a key that belongs to somebody else is refused.
            authority = Authority.open(shutil.copytree(folder / "authority", tmp_path / "authority"))
            ledger = Ledger.open(settings.ledger_url)
            made = Installation(settings, client, None, ledger, authority)  # type: ignore[arg-type]
            async with working(await made.agent("gw-1"), "gw-1"):
                assert await made.errand("gw-1", "as-nobody") == ["said as-nobody", "told to stop"]
            ledger.close()
    finally:
        shutil.rmtree(folder)


@pytest.mark.sweep
async def test_an_agent_stays_up_while_the_engine_is_away(tmp_path: Path) -> None:
    with engine() as own:
        client = await own.client("away")
        async with installed(tmp_path, client, own.address) as made:
            ask = caller(made, issued(made.authority, "gw-1"))
            agent = await made.agent("gw-1")
            async with working(agent, "gw-1"):
                assert await made.errand("gw-1", "before") == ["said before", "told to stop"]
                own.kill()
                code, why = await refusal_of(ask(SERVICE + "GetSystemInfo", api.GetSystemInfoRequest()))
                assert code is grpc.StatusCode.UNAVAILABLE
                assert why == "the engine does not answer this relay now"
                polls = made.relay.told.calls["PollActivityTaskQueue"]
                await until(lambda: made.relay.told.calls["PollActivityTaskQueue"] > polls + 2)
                own.start()
                await own.client("away")
                assert await made.errand("gw-1", "after") == ["said after", "told to stop"]


@pytest.mark.sweep
async def test_a_relay_without_an_address_or_with_a_taken_one_says_what_to_set(
    installation: Installation,
) -> None:
    for changed, sentence in (
        ({"PENSTOCK_RELAY_ADDRESS": None}, "set PENSTOCK_RELAY_ADDRESS to HOST:PORT"),
        (
            {},
            f"nobody can listen at {installation.settings.relay_address} (address already in use)",
        ),
        (
            {"PENSTOCK_RELAY_ADDRESS": f"127.0.0.1:{free_port()}"},
            f"nobody can listen at {installation.settings.enrolment_address}",
        ),
    ):
        said = environment(installation.settings) | changed
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "orchestrator", "relay"),
            env={name: value for name, value in said.items() if value is not None},
            stderr=asyncio.subprocess.PIPE,
        )
        _, error = await asyncio.wait_for(process.communicate(), PATIENCE)
        assert process.returncode == 2
        assert sentence in error.decode()


async def test_one_who_could_never_read_revocations_lets_nobody_in(
    server: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise Unavailable("the ledger does not answer")

    with monkeypatch.context() as patched:
        patched.setattr("orchestrator.store.certificates._admitted", away)
        client: Client = await server.client()
        async with installed(tmp_path, client, server.address) as made:
            ask = caller(made, issued(made.authority, "gw-1"))
            code, why = await refusal_of(ask(SERVICE + "GetSystemInfo", api.GetSystemInfoRequest()))
            assert code is grpc.StatusCode.UNAVAILABLE
            assert why.startswith("this relay has never read which certificates are revoked")
            patched.undo()
            assert await made.relay.look_again()
            await ask(SERVICE + "GetSystemInfo", api.GetSystemInfoRequest())


async def test_one_that_cannot_read_revocations_any_more_keeps_what_it_knew_and_says_so(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*_: object) -> None:
        raise Unavailable("the ledger does not answer")

    ask, revoked = (
        caller(installation, issued(installation.authority, name), connection)
        for connection, name in enumerate(("gw-1", "gw-2"))
    )
    installation.ledger.revoke_certificates("edge", "gw-2", "ada", "stolen")
    assert await installation.relay.look_again()
    monkeypatch.setattr("orchestrator.store.certificates._admitted", away)
    assert not await installation.relay.look_again()
    assert "what was known before is still refused" in caplog.text
    await ask(SERVICE + "GetSystemInfo", api.GetSystemInfoRequest())
    code, _ = await refusal_of(revoked(SERVICE + "GetSystemInfo", api.GetSystemInfoRequest()))
    assert code is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.sweep
async def test_an_engine_of_ones_own_has_a_relay_beside_it_where_it_is_asked_for(
    installation: Installation,
) -> None:
    changed = {"relay_address": f"127.0.0.1:{free_port()}", "enrolment_address": None}
    settings = installation.settings.model_copy(update=changed)
    async with relaying_where_asked(settings):
        agent = await beside(settings, installation).agent("gw-1")
        async with working(agent, "gw-1"):
            assert await installation.errand("gw-1", "at-home") == ["said at-home", "told to stop"]
    async with relaying_where_asked(settings.model_copy(update={"relay_address": None})):
        pass


def certificate_shown(address: str) -> int:
    """Return the number of the certificate that a relay shows to whoever knocks."""
    host, _, port = address.rpartition(":")
    pem = ssl.get_server_certificate((host, int(port)), timeout=PATIENCE)
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


async def test_a_relay_takes_a_new_certificate_of_its_own_without_a_restart(
    installation: Installation,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(front, "LOOK_AGAIN", timedelta(milliseconds=20))
    certificate, key = tmp_path / "relay.pem", tmp_path / "own.key"

    def renewed() -> tuple[bytes, bytes]:
        made_key, made = installation.authority.issue_relay(timedelta(days=1))
        return made_key, made

    first_key, first = renewed()
    write_private(key, first_key)
    write_private(certificate, first)
    changed = {
        "relay_address": f"127.0.0.1:{free_port()}",
        "enrolment_address": None,
        "relay_certificate": certificate,
        "relay_certificate_key": key,
    }
    settings = installation.settings.model_copy(update=changed)
    async with relaying(settings) as relay:
        second = replace(installation, settings=settings, relay=relay)
        agent = await second.agent("gw-1")
        before = await asyncio.to_thread(certificate_shown, second.address)
        assert before == x509.load_pem_x509_certificate(first).serial_number
        next_key, following = renewed()
        write_private(certificate, following)  # with the old key still: not yet
        await until(lambda: f"{key} is not the key of {certificate}" in caplog.text)
        assert await asyncio.to_thread(certificate_shown, second.address) == before
        write_private(key, next_key)
        wanted = x509.load_pem_x509_certificate(following).serial_number
        async with asyncio.timeout(PATIENCE):
            while await asyncio.to_thread(certificate_shown, second.address) != wanted:
                continue
        async with working(agent, "gw-1"):
            assert await second.errand("gw-1", "renewed") == ["said renewed", "told to stop"]
        ask = caller(second, issued(installation.authority, "gw-2"), 1)
        await ask(SERVICE + "GetSystemInfo", api.GetSystemInfoRequest())
        stranger = issued(Authority.open(tmp_path / "stranger"), "gw-3")
        code, _ = await refusal_of(
            caller(second, stranger, 2)(SERVICE + "GetSystemInfo", api.GetSystemInfoRequest())
        )
        assert code is grpc.StatusCode.UNAVAILABLE


async def test_a_relay_says_what_is_wrong_with_its_own_certificate(
    installation: Installation, tmp_path: Path
) -> None:
    certificate, key = tmp_path / "relay.pem", tmp_path / "own.key"
    made_key, made = installation.authority.issue_relay(timedelta(seconds=-1))
    for secret, shown, sentence in (
        (b"no key", made, "are no certificate with its key"),
        (installation.authority.issue_relay(timedelta(days=1))[0], made, "is not the key of"),
        (made_key, made, "expired at"),
        (made_key, None, "goes with its key"),
    ):
        write_private(key, secret)
        if shown is not None:
            write_private(certificate, shown)
        changed = {
            "relay_address": f"127.0.0.1:{free_port()}",
            "relay_certificate": certificate if shown is not None else None,
            "relay_certificate_key": key,
        }
        with pytest.raises(BadInput, match=sentence):
            async with relaying(installation.settings.model_copy(update=changed)):
                pass
