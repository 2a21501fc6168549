"""One trace a change, told to a real collector over HTTP; one that hangs changes nothing."""

import asyncio
import logging
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from activities.drivers.private_files import write_private
from orchestrator.engine.sealing import data_converter
from orchestrator.tracing.exporting import Spans
from orchestrator.tracing.interceptor import Tracing
from orchestrator.tracing.spans import HEADER, Place, Span, beginning_of
from policies.model.change import Outcome, Phase
from policies.model.command import CommandKind
from tests.fakes.collector import Collector, collecting
from tests.fakes.control import UNDECIDED, UNHEALTHY
from tests.workflows.conftest import LEASE
from tests.workflows.engine import Engine
from tests.workflows.world import World, agent_worker, fleet_of, in_phase, result_of, say, working


@contextmanager
def told_to(collector: Collector) -> Iterator[Spans]:
    """Give what tells the collector; everything is told by the end of the body."""
    spans = Spans(collector.url, "test")
    yield spans
    spans._processor.force_flush()
    spans.close()


def traced(client: Client, tracing: Tracing, **more: Any) -> Client:
    return Client(**{**client.config(), "interceptors": [tracing], **more})


async def traced_world(server: Engine, spans: Spans, **more: Any) -> World:
    """Return a world whose client traces, and finds the runs of changes in the ledger of that world."""
    tracing = Tracing(spans.tell, lambda fleet: world.book.newest_run(fleet))  # noqa: PLW0108 - made later
    world = World.made(traced(await server.client(), tracing, **more), fleet_of("edge", lease=LEASE))
    return world


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


@pytest.mark.sweep
async def test_a_change_is_one_trace_of_its_request_waves_and_steps_though_its_history_is_cut(
    server: Engine, collector: Collector
) -> None:
    with told_to(collector) as spans:
        world = await traced_world(server, spans)
        async with working(world):
            result = await world.upgrade(("gw-1",), ("gw-2", "gw-3"))
            assert result.outcome is Outcome.PROMOTED
    of_change = [one for one in collector.spans if collector.said(one).get("penstock.change") == world.newest]
    (request,) = collector.named("ask for a change")
    trace = request.trace_id
    assert [span.name for span in of_change if span.trace_id != trace] == []
    mine = [span for span in collector.spans if span.trace_id == trace]
    begun = {span.parent_span_id for span in mine if span.name.endswith(" begins")}  # some go on
    known = begun | {span.span_id for span in mine}
    assert [span.name for span in mine if span.parent_span_id not in known] == [request.name]
    assert {"1", "2"} <= {collector.said(span).get("penstock.wave") for span in collector.named("Wave")}
    starts = collector.named("start_instance")
    assert {collector.said(span)["penstock.gateway"] for span in starts} == {"gw-1", "gw-2", "gw-3"}
    assert {collector.said(span)["penstock.change"] for span in starts} == {world.newest}
    assert {span.trace_id for span in starts} == {trace}
    runs = collector.named("Change")
    assert len(runs) > 1, "its history was not cut"
    assert {(one.trace_id, one.parent_span_id) for one in runs} == {(trace, request.span_id)}
    assert all(one.end_time_unix_nano > one.start_time_unix_nano for one in runs)


@pytest.mark.sweep
async def test_commands_and_the_way_back_belong_to_the_trace_of_the_change_and_no_words_do(
    server: Engine, collector: Collector
) -> None:
    with told_to(collector) as spans:
        world = await traced_world(server, spans)
        async with working(world):
            world.judge.says(UNDECIDED)
            rollout = await world.start(("gw-1",), ("gw-2",))
            await in_phase(rollout, Phase.OBSERVING)
            await say(rollout, CommandKind.HOLD, reason="carol.secret at 192.0.2.77")
            await say(rollout, CommandKind.ROLL_BACK, reason="carol.secret at 192.0.2.77")
            assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK
    (request,) = collector.named("ask for a change")
    heard = [span for span in collector.spans if span.name.startswith("hear ")]
    given = [span for span in collector.spans if span.name.startswith("give ")]
    assert len(heard) == len(given) == 2
    assert {span.trace_id for span in (*heard, *given)} == {request.trace_id}
    assert {span.trace_id for span in collector.named("Restore")} == {request.trace_id}
    assert b"carol" not in collector.raw
    assert b"192.0.2.77" not in collector.raw


@pytest.mark.sweep
async def test_a_collector_that_hangs_or_refuses_changes_nothing(
    server: Engine, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.hang()
    spans = Spans(collector.url, "test")
    now = time.time_ns()
    spans.tell(Span("before", beginning_of(str(uuid.uuid4())), None, now, now, {}))
    assert await asyncio.to_thread(collector.asked.wait, 30), "the collector was never told anything"
    world = await traced_world(server, spans)
    world.judge.says(UNHEALTHY)
    async with working(world):
        assert (await world.upgrade(("gw-1",))).outcome is Outcome.ROLLED_BACK
    assert collector.spans == []


async def test_what_the_engine_carries_of_a_sealed_change_names_nothing(
    server: Engine, collector: Collector, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    write_private(keys, f"first:{'ab' * 32}\n".encode())
    with told_to(collector) as spans:
        world = await traced_world(server, spans, data_converter=data_converter(keys))
        async with working(world):
            assert (await world.upgrade(("gw-1",))).outcome is Outcome.PROMOTED
    headers = []
    async for execution in world.client.list_workflows():
        handle = world.client.get_workflow_handle(execution.id, run_id=execution.run_id)
        async for event in handle.fetch_history_events():
            for attributes in (
                event.workflow_execution_started_event_attributes,
                event.activity_task_scheduled_event_attributes,
                event.start_child_workflow_execution_initiated_event_attributes,
            ):
                headers += [dict(attributes.header.fields)] if attributes.header.fields else []
    assert headers
    for header in headers:
        assert header.keys() == {HEADER}
        assert world.newest.encode() not in header[HEADER].data
        assert header[HEADER].data.startswith(b'{"traceparent": "00-')
        assert len(header[HEADER].data) == 74
    assert collector.named("start_instance")


@pytest.mark.sweep
@pytest.mark.parametrize("traces_it", ["worker", "agents"])
async def test_who_traces_works_with_who_does_not(
    server: Engine, collector: Collector, traces_it: str
) -> None:
    plain = await server.client()
    with told_to(collector) as spans:
        tracing = traced(plain, Tracing(spans.tell))
        worker, agents = (tracing, plain) if traces_it == "worker" else (plain, tracing)
        world = World.made(worker, fleet_of("edge", lease=LEASE))
        async with working(world, agent=lambda _, fake: agent_worker(agents, fake)):
            assert (await world.upgrade(("gw-1",))).outcome is Outcome.PROMOTED
    assert bool(collector.named("Wave")) is (traces_it == "worker")
    assert not collector.named("start_instance")


def test_a_refusing_collector_is_said_once_and_again_when_it_takes_them(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.status = 400
    with caplog.at_level(logging.WARNING), told_to(collector) as spans:
        for number in range(1, 4):
            spans.tell(Span("x", Place(1, number), None, 1, 2))
            spans._processor.force_flush()
        collector.status = 200
        for number in range(4, 6):
            spans.tell(Span("x", Place(1, number), None, 1, 2))
            spans._processor.force_flush()
    said = [record.getMessage() for record in caplog.records if "collector" in record.getMessage()]
    assert [("no traces" in line, "again" in line) for line in said] == [(True, False), (False, True)]
