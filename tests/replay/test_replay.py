"""A rollout that is under way goes on with the next version of the code: what was recorded still replays."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer, WorkflowRunner

from orchestrator.engine.sealing import data_converter
from orchestrator.processes.worker import WORKFLOWS
from orchestrator.tracing.interceptor import Tracing
from orchestrator.tracing.spans import Span
from tests.replay.commands import commands_now, commands_of
from tests.replay.record import BASELINE, HISTORIES
from workflows.sandbox import RUNNER, STRICT

WHAT_TO_DO = (
    "a rollout under way could not go on with it. Guard it with workflow.patched; or, when no released "
    "version has run it yet, record again with python -m tests.replay.record and say so in CHANGELOG.md"
)

RECORDED = sorted(HISTORIES.glob("*.json"))


async def _histories() -> AsyncIterator[WorkflowHistory]:
    for path in RECORDED:
        said = json.loads(path.read_text())
        yield WorkflowHistory.from_json(said["id"], said["history"])


@pytest.mark.timeout(900)  # what is ended in the middle of a replay does not end: the SDK waits for it
@pytest.mark.parametrize(
    ("runner", "traced"),
    [
        pytest.param(RUNNER, False, id="as in the worker"),
        pytest.param(STRICT, False, id="strict", marks=pytest.mark.sweep),
        pytest.param(STRICT, True, id="traced", marks=pytest.mark.sweep),
    ],
)
async def test_every_recorded_history_replays(runner: WorkflowRunner, traced: bool) -> None:
    told: list[Span] = []
    replayer = Replayer(
        workflows=WORKFLOWS,
        interceptors=[Tracing(told.append)] if traced else [],
        workflow_runner=runner,
        data_converter=data_converter(None),
        workflow_failure_exception_types=[Exception],
        debug_mode=True,  # without it, two seconds of a busy machine are a deadlock of the workflow's
    )
    replayed = 0
    async with replayer.workflow_replay_iterator(_histories()) as results:
        async for result in results:
            name = RECORDED[replayed].name
            failure = result.replay_failure
            assert failure is None, f"{name} does not replay, {WHAT_TO_DO}: {failure}"
            replayed += 1
    assert replayed == len(RECORDED)
    assert not told, "what is replayed was told before"


ANSWERS = {
    "arrived": (
        "EXTERNAL_WORKFLOW_EXECUTION_SIGNALED",
        "externalWorkflowExecutionSignaledEventAttributes",
        {},
    ),
    "failed": (
        "SIGNAL_EXTERNAL_WORKFLOW_EXECUTION_FAILED",
        "signalExternalWorkflowExecutionFailedEventAttributes",
        {"cause": "SIGNAL_EXTERNAL_WORKFLOW_EXECUTION_FAILED_CAUSE_EXTERNAL_WORKFLOW_EXECUTION_NOT_FOUND"},
    ),
}


@pytest.mark.parametrize("first", ["the answer", "the cancellation"])
@pytest.mark.parametrize("answer", ANSWERS)
async def test_a_watch_ends_where_its_cancellation_and_the_answer_to_a_signal_are_in_one_task(
    answer: str, first: str
) -> None:
    """The SDK revoked a signal that was answered: on a busy machine the watch failed, and in each replay."""
    said = json.loads((HISTORIES / "promoted.Watch.json").read_text())
    replayer = Replayer(
        workflows=WORKFLOWS, workflow_runner=RUNNER, data_converter=data_converter(None), debug_mode=True
    )
    history = {"events": list(_cancelled_at_its_first_signal(said["history"]["events"], answer, first))}
    async with asyncio.timeout(60):  # the library waits for ever for a run that fails otherwise than recorded
        await replayer.replay_workflow(WorkflowHistory.from_json(said["id"], history))


def _cancelled_at_its_first_signal(events: list[Any], answer: str, first: str) -> Iterator[Any]:
    """Return the history until its first signal, and that both end the workflow in the next task."""
    kinds = [event["eventType"].removeprefix("EVENT_TYPE_") for event in events]
    sent = kinds.index("SIGNAL_EXTERNAL_WORKFLOW_EXECUTION_INITIATED")
    kind, key, attributes = ANSWERS[answer]
    answered = kind, key, {"initiatedEventId": str(sent + 1)} | attributes
    cancelled: tuple[str, str, dict[str, str]]
    cancelled = "WORKFLOW_EXECUTION_CANCEL_REQUESTED", "workflowExecutionCancelRequestedEventAttributes", {}
    both = [answered, cancelled] if first == "the answer" else [cancelled, answered]
    scheduled, started = str(sent + 4), str(sent + 5)
    task = {"scheduledEventId": scheduled}
    queue = events[1]["workflowTaskScheduledEventAttributes"]
    yield from events[: sent + 1]
    for number, (kind, key, told) in enumerate(
        [
            *both,
            ("WORKFLOW_TASK_SCHEDULED", "workflowTaskScheduledEventAttributes", queue),
            ("WORKFLOW_TASK_STARTED", "workflowTaskStartedEventAttributes", task),
            (
                "WORKFLOW_TASK_COMPLETED",
                "workflowTaskCompletedEventAttributes",
                task | {"startedEventId": started},
            ),
            (
                "WORKFLOW_EXECUTION_CANCELED",
                "workflowExecutionCanceledEventAttributes",
                {"workflowTaskCompletedEventId": str(sent + 6)},
            ),
        ],
        start=sent + 2,
    ):
        yield {
            "eventId": str(number),
            "eventTime": events[sent]["eventTime"],
            "eventType": f"EVENT_TYPE_{kind}",
            key: told,
        }


def test_every_workflow_has_a_recorded_history() -> None:
    recorded = {json.loads(path.read_text())["workflow"] for path in RECORDED}
    assert recorded == {getattr(made, "__temporal_workflow_definition").name for made in WORKFLOWS}


def test_the_commands_of_every_workflow_are_those_of_the_baseline() -> None:
    before, now = json.loads(BASELINE.read_text()), commands_now()
    changed = sorted(
        f"{module}.{function}"
        for module in before.keys() | now.keys()
        for function in before.get(module, {}).keys() | now.get(module, {}).keys()
        if before.get(module, {}).get(function) != now.get(module, {}).get(function)
    )
    assert not changed, f"the commands of {', '.join(changed)} changed; {WHAT_TO_DO}"


def test_an_inserted_timer_changes_the_commands_of_its_function() -> None:
    before = "async def run(self):\n    await workflow.execute_activity_method(A.b, c)\n"
    after = before + "    await workflow.sleep(5)\n"
    assert commands_of(before) == {"run": ["execute_activity_method A.b"]}
    assert commands_of(after) == {"run": ["execute_activity_method A.b", "sleep 5"]}


def test_recorded_histories_name_no_machine() -> None:
    for path in RECORDED:
        assert not re.search(r'/(work|root|home|tmp)/|"stackTrace"', path.read_text()), path.name
