"""S2: floods of HTTP/2 at a relay as it is deployed, by holders of good and of revoked certificates."""

import asyncio
import os
import signal
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import grpc
import grpc.aio
import httpx
import pytest
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice import v1 as api

from deploy.ports import free_port
from orchestrator.processes.relay import relaying
from orchestrator.relay import front
from orchestrator.relay.calls import SERVICE
from orchestrator.relay.front import MOST_CONNECTIONS, MOST_REFUSALS
from tests.patience import PATIENCE
from tests.relay.bare import Bare
from tests.relay.flooded import flooding, noticed, resident_mb
from tests.relay.floods import KINDS
from tests.relay.installation import Installation, issued, queue_of, working
from tests.relay.test_attacks import caller, until
from tests.relay.test_processes import beside, relay_process
from tests.relay.test_thieves import another_relay

GROWTH_MB = 100
CALLS = 25
"""Of another agent during each flood: two seconds, where none of them is delayed."""


async def test_floods_by_one_certificate_good_or_revoked_delay_no_other_agent_and_take_no_memory(
    installation: Installation,
) -> None:
    settings = another_relay(installation)
    good, stolen, other = (issued(installation.authority, f"gw-{number}") for number in (1, 2, 3))
    installation.ledger.revoke_certificates("edge", "gw-2", "ada", "stolen")
    async with relay_process(settings) as process:
        at = beside(settings, installation).address
        before = resident_mb(process.pid)
        for kind in KINDS:
            for shown in (good, stolen):
                async with flooding(kind, at, shown):
                    found = await noticed(at, other, installation.authority.pem, CALLS)
                    grown = resident_mb(process.pid) - before
                print(f"{kind}: p99 {found.p99_ms:.0f} ms, {grown} MB")
                assert (kind, found.failures) == (kind, [])
                assert grown <= GROWTH_MB, kind


async def test_a_connection_by_a_revoked_certificate_ends_after_a_few_refused_calls(
    installation: Installation,
) -> None:
    stolen = issued(installation.authority, "gw-2")
    installation.ledger.revoke_certificates("edge", "gw-2", "ada", "stolen")
    assert await installation.relay.look_again()
    with closing(await asyncio.to_thread(Bare, installation.address, stolen)) as thief:
        for number in range(MOST_REFUSALS):
            thief.call(1 + 2 * number, SERVICE + "GetSystemInfo")
            thief.message(1 + 2 * number, b"")
            while 1 + 2 * number not in thief.ended:
                await asyncio.to_thread(thief.listen, 0.1)
            assert b"was revoked" in thief.ended[1 + 2 * number]
        assert not thief.closed
        thief.call(1 + 2 * MOST_REFUSALS, SERVICE + "GetSystemInfo")
        while not thief.closed:
            await asyncio.to_thread(thief.listen, 0.1)
    assert installation.relay.told.calls["GetSystemInfo"] == MOST_REFUSALS


async def test_a_connection_without_a_call_ends_although_it_pings(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "IDLE", timedelta(seconds=1))
    settings = another_relay(installation)
    async with relaying(settings):
        at = beside(settings, installation).address
        with closing(await asyncio.to_thread(Bare, at, issued(installation.authority, "gw-1"))) as idle:
            idle.call(1, SERVICE + "GetSystemInfo")
            idle.message(1, b"")
            while not idle.closed:
                idle.ping()
                await asyncio.to_thread(idle.listen, 0.05)


async def test_one_certificate_has_so_many_connections_with_calls_or_without(
    installation: Installation,
) -> None:
    shown = issued(installation.authority, "gw-1")
    held = []
    try:
        for _ in range(MOST_CONNECTIONS):
            held.append(await asyncio.to_thread(Bare, installation.address, shown))
            assert not held[-1].closed
        more = 0
        for _ in range(3):
            try:
                held.append(await asyncio.to_thread(Bare, installation.address, shown))
                more += not held[-1].closed
            except OSError:
                continue
        assert more == 0
        ask = caller(installation, issued(installation.authority, "gw-2"))
        await ask(SERVICE + "GetSystemInfo", api.GetSystemInfoRequest())
    finally:
        for one in held:
            one.close()


async def test_no_caller_names_another_certificate_than_its_own(installation: Installation) -> None:
    shown = issued(installation.authority, "gw-2")
    credentials = grpc.ssl_channel_credentials(installation.authority.pem, shown.key, shown.certificate)
    options = [("grpc.ssl_target_name_override", "relay.penstock")]
    wanted = api.PollActivityTaskQueueRequest(
        namespace=installation.client.namespace, task_queue=TaskQueue(name=queue_of("gw-1"))
    )
    forged = ((front.CERTIFICATE, "AAAA"), (front.CALLER, "192.0.2.1:1"), (front.REFUSED, "yes"))
    async with grpc.aio.secure_channel(installation.address, credentials, options=options) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            SERVICE + "PollActivityTaskQueue"
        )
        with pytest.raises(grpc.aio.AioRpcError, match="edge/gw-2 may not poll 'gateway/edge/gw-1'"):
            await call(wanted.SerializeToString(), metadata=forged, timeout=10)


async def test_agents_come_back_when_haproxy_ended(
    installation: Installation, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(front, "AGAIN_AFTER", 0.01)
    settings = another_relay(installation)
    before = children()
    async with relaying(settings):
        again = beside(settings, installation)
        async with working(await again.agent("gw-1"), "gw-1"):
            (haproxy,) = children() - before
            os.kill(haproxy, signal.SIGKILL)
            await until(lambda: "HAProxy before the relay ended with" in caplog.text)
            assert await again.errand("gw-1", "after-all") == ["said after-all", "told to stop"]
    assert children() == before


async def test_a_relay_whose_haproxy_ended_is_not_ready(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "AGAIN_AFTER", 3_600.0)
    metrics = f"127.0.0.1:{free_port()}"
    settings = another_relay(installation).model_copy(update={"relay_metrics_address": metrics})
    before = children()
    async with relaying(settings), httpx.AsyncClient() as client:
        (haproxy,) = children() - before
        os.kill(haproxy, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE):
            while "haproxy: does not answer" not in (await client.get(f"http://{metrics}/readyz")).text:
                continue


async def test_a_relay_at_every_address_takes_agents_by_ipv6_and_ipv4(installation: Installation) -> None:
    port = free_port()
    settings = another_relay(installation).model_copy(update={"relay_address": f"[::]:{port}"})
    async with relaying(settings):
        for number, host in enumerate(("[::1]", "127.0.0.1")):
            reached = settings.model_copy(update={"relay_address": f"{host}:{port}"})
            ask = caller(beside(reached, installation), issued(installation.authority, "gw-1"), number)
            await ask(SERVICE + "GetSystemInfo", api.GetSystemInfoRequest())


def children() -> set[int]:
    """Return the processes named haproxy that this one has started."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        for pid in map(int, (task / "children").read_text().split()):
            if Path(f"/proc/{pid}/comm").read_text().strip() == "haproxy":
                found.add(pid)
    return found
