"""Agents whose reports break a decoder: whatever one of them sends, the others go back."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc.aio
import pytest
from temporalio import activity
from temporalio.api.failure.v1 import Failure
from temporalio.client import Client
from temporalio.common import RawValue
from temporalio.worker import Worker

from orchestrator.enrolment.names import Certified
from orchestrator.relay.calls import SERVICE, Calls
from orchestrator.relay.task_tokens import TaskTokens
from policies.model.command import CommandKind
from tests.fakes.gateway import FakeGateway
from tests.patience import until
from tests.workflows.engine import Engine
from tests.workflows.hostile_calls import (
    COMPLETED,
    FAILED,
    Reported,
    completed,
    failed,
    nested,
    of_unknown_category,
    plain,
    stored_elsewhere,
    with_endless_delay,
    with_unknown_timeout_as_cause,
)
from tests.workflows.world import (
    NEW,
    World,
    agent_worker,
    fleet_of,
    result_of,
    say,
    status_of,
    steps_on,
    working,
)

BAD, OTHERS = "gw-3", ("gw-1", "gw-2", "gw-4")
TOKENS = TaskTokens([secrets.token_bytes(32)])


@asynccontextmanager
async def fleet_with(server: Engine, step: str, reported: Reported, *, relayed: bool) -> AsyncIterator[World]:
    """Run a fleet of four, one of which reports this of the step, through the relay's calls or directly."""
    method = FAILED if reported.DESCRIPTOR.name.startswith(FAILED) else COMPLETED
    whose = Certified("edge", BAD, "abc", datetime.now(UTC), datetime.now(UTC) + timedelta(days=1))

    def agent(client: Client, fake: FakeGateway) -> Worker:
        if fake.gateway.name != BAD:
            return agent_worker(client, fake)
        calls = Calls(client.namespace, TOKENS)

        @activity.defn(dynamic=True)
        async def hostile(_: Sequence[RawValue]) -> Any:
            token = activity.info().task_token
            sent = type(reported).FromString(reported.SerializeToString())
            sent.task_token, sent.namespace = token, client.namespace
            if relayed:
                sent.task_token = TOKENS.mark(token, whose.task_queue)
                body = calls.outgoing(method, sent.SerializeToString(), whose).body
            else:
                body = sent.SerializeToString()
            async with grpc.aio.insecure_channel(server.address) as channel:
                call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(SERVICE + method)
                await call(body)
            await asyncio.Event().wait()

        return agent_worker(client, fake, [hostile, *[one for one in steps_on(fake) if one.__name__ != step]])

    world = World.made(await server.client(), fleet_of("edge", lease=timedelta(seconds=15)))
    async with working(world, failures=(), agent=agent):
        yield world


async def goes_back_without_the_hostile_one(world: World) -> str:
    """Roll all back until nobody but the hostile gateway is left, and return why that one is."""
    for fake in world.gateways.values():
        fake.serve(NEW, "b")
    world.look()
    back = await world.go_back()
    await until(lambda: all(world.gateways[name].serving == "a" for name in OTHERS))

    async def is_named() -> bool:
        return len((await status_of(back)).incomplete) == 1

    await until(is_named)
    why = (await status_of(back)).incomplete[0]
    await say(back, CommandKind.QUARANTINE, gateways=(BAD,))
    async with asyncio.timeout(30):
        result = await result_of(back)
    assert result.incomplete.keys() == {BAD}
    return why


@pytest.mark.parametrize(
    ("reported", "why"),
    [
        (failed(nested(95)), "no room"),
        (completed(plain(), plain()), "its agent's answer cannot be read (restore gateway)"),
        (completed(stored_elsewhere()), "its agent's answer cannot be read (restore gateway)"),
    ],
    ids=["nested causes", "two results", "external storage"],
)
async def test_no_report_that_the_relay_hands_on_keeps_another_gateway_from_its_way_back(
    server: Engine, reported: Reported, why: str
) -> None:
    async with fleet_with(server, "restore_gateway", reported, relayed=True) as world:
        assert await goes_back_without_the_hostile_one(world) == f"{BAD}: {why}"


@pytest.mark.sweep
@pytest.mark.parametrize(
    "failure",
    [of_unknown_category(), with_unknown_timeout_as_cause(), with_endless_delay()],
    ids=["unknown category", "unknown cause", "endless delay"],
)
async def test_no_failure_that_cannot_be_decoded_keeps_another_gateway_from_its_way_back(
    server: Engine, failure: Failure
) -> None:
    """Where no relay has made it anew: an error while the engine applies it is repeated for ever."""
    async with fleet_with(server, "restore_gateway", failed(failure), relayed=False) as world:
        assert await goes_back_without_the_hostile_one(world) == f"{BAD}: no room"
