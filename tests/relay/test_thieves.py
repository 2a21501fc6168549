"""A certificate in wrong hands, good or revoked: what its holder takes of a relay, and for how long."""

import asyncio
import struct
import time
from contextlib import ExitStack, closing
from datetime import timedelta

import pytest
from temporalio.api.workflowservice import v1 as api
from temporalio.client import Client

from deploy.ports import free_port
from orchestrator.processes.relay import relaying
from orchestrator.relay import front
from orchestrator.relay import server as relay_server
from orchestrator.relay.calls import SERVICE
from orchestrator.relay.front import STREAMS
from orchestrator.relay.limits import LARGEST_MESSAGE, MOST_CALLS, MOST_CONNECTIONS
from orchestrator.settings import Settings
from tests.patience import PATIENCE, until
from tests.relay.bare import MOST_OF_A_FRAME, Bare
from tests.relay.flooded import resident_mb
from tests.relay.installation import Installation, issued, working
from tests.relay.test_attacks import caller
from tests.relay.test_processes import beside, relay_process

WORST_MB = 50
"""What is written in docs/relay.md that one certificate takes of a relay's memory."""

ANSWER = SERVICE + "RespondActivityTaskCompleted"


def another_relay(installation: Installation, connections: int = 20_000) -> Settings:
    changed = {
        "relay_address": f"127.0.0.1:{free_port()}",
        "enrolment_address": f"127.0.0.1:{free_port()}",
        "relay_connections": connections,
    }
    return installation.settings.model_copy(update=changed)


async def test_who_is_revoked_or_asks_for_what_no_agent_may_is_refused_before_a_message_came(
    installation: Installation,
) -> None:
    stolen = issued(installation.authority, "gw-2")
    installation.ledger.revoke_certificates("edge", "gw-2", "ada", "stolen")
    assert await installation.relay.look_again()
    for shown, path, why in (
        (stolen, ANSWER, b"was revoked"),
        (issued(installation.authority, "gw-1"), SERVICE + "StartWorkflowExecution", b"agents may not call"),
    ):
        with closing(await asyncio.to_thread(Bare, installation.address, shown)) as thief:
            thief.call(1, path)
            await asyncio.to_thread(hear, thief, 1)
            assert why in thief.ended[1]


def hear(thief: Bare, calls: int) -> None:
    """Listen until so many calls have ended."""
    over = time.monotonic() + PATIENCE
    while len(thief.ended) < calls and time.monotonic() < over:
        thief.listen(0.1)


async def test_a_message_that_does_not_come_ends_its_call_and_gives_its_place_back(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_server, "WHOLE_WITHIN", 3.0)  # longer than a busy machine calls for
    shown = issued(installation.authority, "gw-1")
    with ExitStack() as held:
        thieves = [await asyncio.to_thread(Bare, installation.address, shown) for _ in range(3)]
        for thief in thieves:
            held.enter_context(closing(thief))
            for number in range(STREAMS):
                thief.call(1 + 2 * number, ANSWER)
                thief.send_as_much_as_may_be(1 + 2 * number, struct.pack("!BI", 0, 1_000))
        await until(lambda: installation.relay.told.calls["RespondActivityTaskCompleted"] == 3 * STREAMS)
        for thief in thieves:
            await asyncio.to_thread(hear, thief, STREAMS)
        ends = [end for thief in thieves for end in thief.ended.values()]
        assert len(ends) == 3 * STREAMS
        assert sum(b"calls at this relay already" in end for end in ends) == 3 * STREAMS - MOST_CALLS
        assert sum(b"was not there within" in end for end in ends) == MOST_CALLS
        async with working(await installation.agent("gw-1", shown), "gw-1"):
            assert await installation.errand("gw-1", "after") == ["said after", "told to stop"]


async def test_answers_that_an_agent_does_not_read_are_dropped_and_cost_the_relay_nothing(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "HANDSHAKE", timedelta(seconds=1))
    settings, shown = another_relay(installation), issued(installation.authority, "gw-1")
    async with relaying(settings) as relay:
        at = beside(settings, installation)
        with ExitStack() as held:
            thieves = [await asyncio.to_thread(Bare, at.address, shown, 0) for _ in range(3)]
            for thief in thieves:
                held.enter_context(closing(thief))
                for number in range(STREAMS):
                    thief.call(1 + 2 * number, SERVICE + "GetSystemInfo")
                    thief.message(1 + 2 * number, b"")
            await until(lambda: relay.told.calls["GetSystemInfo"] == 3 * STREAMS)
            ask = caller(at, shown)
            await ask(SERVICE + "GetSystemInfo", api.GetSystemInfoRequest())
            for thief in thieves:
                await asyncio.to_thread(hear_resets, thief)
            async with working(await at.agent("gw-2"), "gw-2"):
                assert await at.errand("gw-2", "beside") == ["said beside", "told to stop"]


def hear_resets(thief: Bare) -> None:
    """Listen until HAProxy has ended every call, or the connection."""
    while len(thief.reset | thief.ended.keys()) < STREAMS and not thief.closed:
        thief.listen(0.1)


async def test_places_of_a_revoked_certificate_are_free_again_once_it_makes_no_calls(
    installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "IDLE", timedelta(seconds=1))
    stolen = issued(installation.authority, "gw-2")
    installation.ledger.revoke_certificates("edge", "gw-2", "ada", "stolen")
    settings = another_relay(installation, connections=4)
    async with relaying(settings):
        crowded = beside(settings, installation)
        with ExitStack() as held:
            for _ in range(4):
                thief = await asyncio.to_thread(Bare, crowded.address, stolen)
                held.enter_context(closing(thief))
                thief.call(1, SERVICE + "PollActivityTaskQueue")
            agent = await asyncio.wait_for(agent_as_soon_as_it_gets_in(crowded), PATIENCE)
            async with working(agent, "gw-1"):
                assert await crowded.errand("gw-1", "after-all") == ["said after-all", "told to stop"]


async def agent_as_soon_as_it_gets_in(installation: Installation) -> Client:
    while True:
        try:
            return await installation.agent("gw-1")
        except RuntimeError:
            await asyncio.sleep(0.2)


@pytest.mark.sweep
async def test_one_certificate_takes_few_megabytes_of_a_relay(installation: Installation) -> None:
    settings, shown = another_relay(installation), issued(installation.authority, "gw-1")
    async with relay_process(settings) as process:
        at = beside(settings, installation).address
        before = resident_mb(process.pid)
        with ExitStack() as held:
            thieves = [await asyncio.to_thread(Bare, at, shown) for _ in range(MOST_CONNECTIONS)]
            for thief in thieves:
                held.enter_context(closing(thief))
            sent = await asyncio.to_thread(send_all_but_the_end, thieves)
            took = resident_mb(process.pid) - before
        print(f"{sent >> 20} MB were sent, and a relay took {took} MB")
        assert took <= WORST_MB
        async with working(await beside(settings, installation).agent("gw-2"), "gw-2"):
            assert await installation.errand("gw-2", "beside") == ["said beside", "told to stop"]


def send_all_but_the_end(thieves: list[Bare]) -> int:
    """Send as much of unfinished messages, on all streams there may be, as is taken; return how much."""
    body = struct.pack("!BI", 0, LARGEST_MESSAGE) + bytes(LARGEST_MESSAGE - 1)
    sent = {(thief, 1 + 2 * number): 0 for thief in thieves for number in range(STREAMS)}
    for thief, stream in sent:
        thief.call(stream, ANSWER)
    last = time.monotonic()
    while time.monotonic() - last < 1:
        for thief in thieves:
            thief.listen(0.001)
        for (thief, stream), size in sent.items():
            if more := thief.send_as_much_as_may_be(stream, body[size : size + MOST_OF_A_FRAME]):
                sent[thief, stream], last = size + more, time.monotonic()
    return sum(sent.values())
