"""Crowds at the relay's door: idle, slow and greedy callers keep nobody else from working."""

import asyncio
import os
import resource
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack

import grpc
import pytest
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice import v1 as api

from deploy.ports import free_port
from orchestrator.processes.listening import allow_descriptors
from orchestrator.relay.calls import SERVICE
from orchestrator.relay.limits import MOST_CONNECTIONS, MOST_POLLS
from orchestrator.store.ledger import Ledger
from tests.patience import PATIENCE, until
from tests.relay.installation import Installation, issued, queue_of, working
from tests.relay.test_attacks import caller
from tests.relay.test_processes import relay_process

CROWD = 1_000
HALF_A_HELLO = struct.pack("!BHH", 22, 0x0301, 512) + b"\1\0\1\xfc\3\3"
"""The beginning of a TLS record that never becomes whole."""


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    allow_descriptors(4 * CROWD)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def knock(address: str, said: bytes) -> socket.socket:
    host, _, port = address.rpartition(":")
    made = socket.create_connection((host, int(port)), timeout=PATIENCE)
    made.sendall(said)
    return made


def is_closed(one: socket.socket) -> bool:
    one.setblocking(False)
    try:
        while one.recv(4096):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


@pytest.mark.sweep
@pytest.mark.usefixtures("many_descriptors")
async def test_a_thousand_idle_and_a_thousand_slow_strangers_keep_no_agent_from_its_work(
    installation: Installation,
) -> None:
    changed = {"relay_address": f"127.0.0.1:{free_port()}", "enrolment_address": f"127.0.0.1:{free_port()}"}
    settings = installation.settings.model_copy(update=changed)
    crowded = Installation(
        settings, installation.client, installation.relay, installation.ledger, installation.authority
    )
    async with relay_process(settings) as process:
        agent = await crowded.agent("gw-1")
        async with working(agent, "gw-1"):
            with ExitStack() as crowd:
                strangers = [
                    crowd.enter_context(await asyncio.to_thread(knock, crowded.address, said))
                    for _ in range(CROWD)
                    for said in (b"", HALF_A_HELLO)
                ]
                assert await crowded.errand("gw-1", "in-a-crowd") == ["said in-a-crowd", "told to stop"]
                async with working(await crowded.agent("gw-2"), "gw-2"):
                    assert await crowded.errand("gw-2", "newcomer") == ["said newcomer", "told to stop"]
                await until(lambda: all(map(is_closed, strangers)))
        kept = sum(1 for _ in os.scandir(f"/proc/{process.pid}/fd"))
        assert kept < CROWD / 10


@pytest.mark.sweep
async def test_a_gateway_has_so_many_polls_and_connections_and_others_notice_nothing(
    installation: Installation,
) -> None:
    wanted = api.PollActivityTaskQueueRequest(
        namespace=installation.client.namespace, task_queue=TaskQueue(name=queue_of("gw-1"))
    )
    shown = issued(installation.authority, "gw-1")
    ask = caller(installation, shown)
    polls = [
        asyncio.ensure_future(ask(SERVICE + "PollActivityTaskQueue", wanted)) for _ in range(MOST_POLLS + 4)
    ]
    await until(lambda: sum(poll.done() for poll in polls) >= 4)
    waiting = [poll for poll in polls if not poll.done()]
    codes = {poll.exception().code() for poll in polls if poll.done()}  # type: ignore[union-attr]
    assert codes == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert len(waiting) == MOST_POLLS
    async with working(await installation.agent("gw-2"), "gw-2"):
        assert await installation.errand("gw-2", "beside") == ["said beside", "told to stop"]
    for one in waiting:
        one.cancel()


async def test_a_gateway_has_so_many_connections(installation: Installation) -> None:
    wanted = api.PollActivityTaskQueueRequest(
        namespace=installation.client.namespace, task_queue=TaskQueue(name=queue_of("gw-1"))
    )
    shown = issued(installation.authority, "gw-1")
    polls = [
        asyncio.ensure_future(connection(SERVICE + "PollActivityTaskQueue", wanted))
        for connection in [caller(installation, shown, number) for number in range(MOST_CONNECTIONS + 2)]
    ]
    refused = 0
    async with asyncio.timeout(PATIENCE):
        for first in asyncio.as_completed(polls):
            with pytest.raises(grpc.aio.AioRpcError, match="8 connections to this relay already"):
                await first
            refused += 1
            if refused == 2:
                break
    for one in polls:
        one.cancel()


async def test_the_same_refusal_is_written_down_once_an_hour_and_counted_each_time(
    installation: Installation,
) -> None:
    ask = caller(installation, issued(installation.authority, "gw-1"))
    for _ in range(50):
        with pytest.raises(grpc.aio.AioRpcError):
            await ask(SERVICE + "StartWorkflowExecution", api.GetSystemInfoRequest())
        with pytest.raises(grpc.aio.AioRpcError):
            await ask(SERVICE + f"Nonsense{_}", api.GetSystemInfoRequest())
    assert installation.relay.told.refused == {
        ("edge/gw-1", "StartWorkflowExecution"): 50,
        ("edge/gw-1", "another method"): 50,
    }
    await until(lambda: len(refusals(installation.ledger)) == 2)


def refusals(ledger: Ledger) -> list[str]:
    return [one.subject for one in ledger.audit_entries() if one.action == "call refused"]
