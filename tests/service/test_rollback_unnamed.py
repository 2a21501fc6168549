"""A rollback that no worker has begun is reported as stored, and is never taken for another change."""

import asyncio
import json
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowExecutionDescription, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from activities.drivers.private_files import write_private
from orchestrator.cli.following import code_of_begun
from orchestrator.exit_code import ExitCode
from orchestrator.noticing.around import LookingAround
from orchestrator.processes import worker
from orchestrator.processes.api import serving, socket_at
from orchestrator.processes.composition import checkpoints_of, compose
from orchestrator.service import changes
from orchestrator.service.changes import KEY, EngineView
from orchestrator.service.service import Service
from orchestrator.settings import Settings
from orchestrator.store.ledger import Ledger
from policies.model.change import ChangeEnding, ChangeKind, ChangeOpening, ChangeOrder, Outcome
from policies.model.people import Caller
from policies.model.status import EventRow
from policies.notices.states import NoticeState
from tests.fakes.ledgers import new_ledger
from tests.patience import until
from tests.service.command_line import CommandLine
from tests.service.conftest import installed
from tests.service.test_notices_of_states import RULES, looking
from tests.service.test_rollbacks import change
from tests.workflows.engine import Engine
from workflows.change import Change, ChangeRun
from workflows.identities import change_of
from workflows.steps import CONTROL_QUEUE

ROLLBACK = ("rollback", "edge", "--reason", "users call")
STORED = "The order is stored, and begins when a worker is back"


@dataclass(frozen=True)
class Installation:
    """An installation whose engine answers and has no worker."""

    service: Service
    ledger: Ledger
    penstock: CommandLine
    keys: Path
    """The file of its payload keys, which one that seals nothing does not have."""


def write_keys(file: Path, *keys: str) -> None:
    write_private(file, "".join(f"{key}\n" for key in keys).encode())


def new_key() -> str:
    return f"k{secrets.token_hex(4)}:{secrets.token_hex(32)}"


@pytest.fixture(params=[False, True], ids=["plain", "sealed"])
def is_sealed(request: pytest.FixtureRequest) -> bool:
    """Whether the installation seals what travels through the engine, as the packages and the lab do."""
    sealed: bool = request.param
    return sealed


@pytest.fixture
async def without_worker(
    tmp_path: Path, server: Engine, monkeypatch: pytest.MonkeyPatch, is_sealed: bool
) -> AsyncIterator[Installation]:
    monkeypatch.setattr(changes, "ANSWER", timedelta(seconds=1))
    client, ledger = await server.client(), Ledger.open(new_ledger(tmp_path / "ledger.db"))
    settings, keys = installed(tmp_path, server.address, client.namespace), tmp_path / "payload.keys"
    if is_sealed:
        write_keys(keys, new_key())
        settings = settings.model_copy(update={"payload_keys": keys})
    service = (await compose(settings)).service
    path = tmp_path / "penstock.sock"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.fspath(Path.cwd()), "TZ": "UTC"}
    change(ledger, ChangeKind.INSTALL, "1.1.6")
    change(ledger, ChangeKind.UPGRADE, "1.3.0")
    async with serving(service, socket_at(path)):
        penstock = CommandLine(environment | {"PENSTOCK_SOCKET": os.fspath(path)})
        yield Installation(service, ledger, penstock, keys)


def of_edge(kind: ChangeKind) -> ChangeRun:
    """What penstock itself begins; what goes back are single gateways."""
    return ChangeRun(
        order=ChangeOrder(fleet="edge", kind=kind, bakes_on=kind is ChangeKind.GO_BACK, reason="it strayed")
    )


@pytest.mark.parametrize("newest", [Outcome.PROMOTED, Outcome.ROLLED_BACK])
async def test_a_rollback_that_no_worker_begins_is_stored_and_ends_as_no_other_change(
    without_worker: Installation, newest: Outcome
) -> None:
    """`--wait` ended with the code of the change before: 0, or 3, while the bad release served."""
    if newest is Outcome.ROLLED_BACK:
        name = change(without_worker.ledger, ChangeKind.UPGRADE, "1.4.0", None)
        without_worker.ledger.close_change(ChangeEnding(change=name, outcome=newest, sentence="went back"))
    said = await without_worker.penstock(*ROLLBACK, "--wait", "--timeout", "9s")
    assert said.code == 8, said
    assert said.out.startswith(f"{STORED}. Then: 1.3.0, promoted by edge-2, is taken back: edge-1 will serve")
    assert "Rolling back" not in said.out
    assert "penstock watch edge" in said.err


@pytest.mark.sweep
@pytest.mark.parametrize("is_under_way", [False, True])
async def test_a_rollback_that_is_only_stored_says_so_and_does_not_end_as_done(
    without_worker: Installation, is_under_way: bool
) -> None:
    """It ended with 0 while the bad release served, and a script went on."""
    if is_under_way:
        await without_worker.service._changes.client.start_workflow(
            Change.run, of_edge(ChangeKind.UPGRADE), id=change_of("edge"), task_queue=CONTROL_QUEUE
        )
    for _ in range(2):
        said = await without_worker.penstock(*ROLLBACK, "--id", "once", "-o", "json")
        receipt = json.loads(said.out)["data"]
        assert "order is stored" in receipt["sentence"]
        assert (receipt["stored"], said.code) == (True, 8), said


@pytest.mark.sweep
async def test_a_command_that_is_only_stored_says_that_it_is_not_in_force_and_does_not_end_as_done(
    without_worker: Installation,
) -> None:
    """Hold and abort ended with 0 while the change went on, and nothing was held."""
    change(without_worker.ledger, ChangeKind.UPGRADE, "1.4.0", None)
    await without_worker.service._changes.client.start_workflow(
        Change.run, of_edge(ChangeKind.UPGRADE), id=change_of("edge"), task_queue=CONTROL_QUEUE
    )
    for verb in ("hold", "resume", "promote", "abort"):
        said = await without_worker.penstock(verb, "edge", "--reason", "users call")
        assert said.out.startswith("Not in force yet: the order is stored"), (verb, said)
        assert said.code == 8, (verb, said)


async def test_a_change_that_is_only_stored_when_it_is_started_does_not_end_as_done() -> None:
    """A script went on to the next fleet as if the upgrade had begun."""
    assert code_of_begun({"change": None}) is ExitCode.TIMED_OUT
    assert code_of_begun({"change": "edge-7"}) is ExitCode.DONE


@pytest.mark.sweep
async def test_a_repeated_rollback_names_what_the_stored_one_leads_to(without_worker: Installation) -> None:
    """It said that nothing is taken back, and that every gateway then serves the bad release."""
    await without_worker.penstock(*ROLLBACK)
    again = await without_worker.penstock(*ROLLBACK, "--wait")
    assert "nothing is taken back" not in again.out
    assert " ".join(again.out.split()).endswith("Then edge-1 will serve 1.1.6.")
    assert again.code == 8, again


async def test_a_fleet_with_a_stored_rollback_needs_an_operator_on_every_screen(
    without_worker: Installation,
) -> None:
    """`status` was PROMOTED and 0 as if nothing had been ordered."""
    await without_worker.penstock(*ROLLBACK)
    said = await without_worker.penstock("status", "edge")
    shown = " ".join(said.out.split())
    assert said.code == 6, said
    assert "PROMOTED" not in shown
    assert "No worker has begun the rollback that" in shown
    assert "not yet carried out: go back by" in shown
    caller = without_worker.service.people.at_the_socket(0)

    async def listed() -> bool:
        glances = await without_worker.service.glances(caller)
        edge = next(one for one in glances if one.fleet == "edge")
        return edge.concern is not None and "No worker has begun the rollback" in edge.concern

    await until(listed)


async def test_a_watch_waits_for_the_stored_rollback_and_shows_no_change_before_it(
    without_worker: Installation,
) -> None:
    await without_worker.penstock(*ROLLBACK)
    watch = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "orchestrator", "watch", "edge"],
        env=without_worker.penstock.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert watch.stderr is not None
    said = (await watch.stderr.readline()).decode()
    assert said.startswith("not yet carried out: go back by"), said
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(watch.wait(), 1.5)
    watch.kill()
    out, _ = await watch.communicate()
    assert out == b""


async def test_a_change_is_followed_by_its_name_past_the_one_after_it(
    penstock: CommandLine, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest change of the fleet was taken for the one that was followed."""
    name, followed, events = change(ledger, ChangeKind.UPGRADE, "1.4.0", None), list[str](), Service.events

    async def noted(service: Service, caller: Caller, fleet: str, *more: int) -> tuple[EventRow, ...]:
        followed.append(fleet)
        return await events(service, caller, fleet, *more)

    monkeypatch.setattr(Service, "events", noted)
    watch = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "orchestrator", "watch", "edge"],
        env=penstock.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    await until(lambda: bool(followed))
    ledger.close_change(ChangeEnding(change=name, outcome=Outcome.ROLLED_BACK, sentence="went back"))
    change(ledger, ChangeKind.UPGRADE, "1.5.0", Outcome.PROMOTED)
    _, err = await watch.communicate()
    assert watch.returncode == 3, err


async def test_a_change_that_a_worker_has_just_been_given_is_no_stored_order(
    without_worker: Installation,
) -> None:
    """A change that begins as it should needs no operator."""
    await without_worker.penstock(*ROLLBACK)
    service = without_worker.service._changes
    assert (await service.seen_by_engine("core", is_open=False)) == EngineView()
    begun = (await service.seen_by_engine("edge")).unbegun
    assert begun is not None
    assert datetime.now(UTC) - begun.at < timedelta(minutes=1)


async def test_a_rollback_that_no_worker_begins_is_reported_once_until_a_worker_begins_it(
    without_worker: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only those who looked at a status learnt that the bad release still served."""
    monkeypatch.setattr(worker, "TAKEN_WITHIN", timedelta(seconds=1))
    service, ledger = without_worker.service._changes, without_worker.ledger
    looks = looking(ledger)
    around = LookingAround(ledger, looks)
    points = checkpoints_of(Settings(audit_checkpoints=tmp_path / "points.jsonl"), ledger)

    async def look() -> list[tuple[str, str]]:
        around.look(RULES, await worker.whats_wrong(service, points))
        waiting = [one.notice for one in ledger.waiting_notices() if one.notice.state == NoticeState.UNBEGUN]
        return [(one.headline, str(one.runbook)) for one in waiting]

    assert await look() == []
    await without_worker.penstock(*ROLLBACK)
    await asyncio.sleep(1.1)  # an order that was given a moment ago is none
    [(headline, runbook)] = await look()
    assert headline.startswith("edge: No worker has begun the rollback that")
    assert runbook == "worker-or-temporal-down"
    with monkeypatch.context() as away:
        away.setattr(WorkflowHandle, "describe", silent)
        assert [one for one, _ in await look()] == [headline]
    stored = await service.client.get_workflow_handle(change_of("edge")).describe()
    begun = ChangeOpening(
        key=(await stored.memo())[KEY],
        fleet="edge",
        kind=ChangeKind.GO_BACK,
        requested_by="ana",
        reason="users call",
        release="1.1.6",
    )
    ledger.open_change(begun)
    assert await look() == []
    told = [row.notice.state for row in ledger.notice_rows(["edge"], 10)]
    assert told.count("unbegun") == 1


async def silent(*_: object, **__: object) -> WorkflowExecutionDescription:
    raise RPCError("nothing is heard", RPCStatusCode.DEADLINE_EXCEEDED, b"")


@pytest.mark.parametrize("newest", [None, Outcome.ROLLED_BACK])
async def test_a_status_has_the_engine_describe_the_change_once(
    without_worker: Installation, monkeypatch: pytest.MonkeyPatch, newest: Outcome | None
) -> None:
    """Each of the many operators who have the page open asks again every second."""
    change(without_worker.ledger, ChangeKind.UPGRADE, "1.4.0", newest)
    await without_worker.service._changes.client.start_workflow(
        Change.run, of_edge(ChangeKind.UPGRADE), id=change_of("edge"), task_queue=CONTROL_QUEUE
    )
    asked, describe = list[str](), WorkflowHandle.describe

    async def counted(handle: WorkflowHandle[object, object], **more: Any) -> WorkflowExecutionDescription:
        asked.append(handle.id)
        return await describe(handle, **more)

    monkeypatch.setattr(WorkflowHandle, "describe", counted)
    status = await without_worker.service.status(without_worker.service.people.at_the_socket(0), "edge")
    assert status.change is not None
    assert asked == [change_of("edge")]


@pytest.mark.sweep
@pytest.mark.parametrize("kind", [ChangeKind.GO_BACK, ChangeKind.CONFIGURE])
async def test_a_rollback_that_what_penstock_has_begun_only_ends_for_is_never_called_stored(
    without_worker: Installation, kind: ChangeKind
) -> None:
    """A worker that came back ended the return of single gateways, and no rollback began."""
    await without_worker.service._changes.client.start_workflow(
        Change.run, of_edge(kind), id=change_of("edge"), task_queue=CONTROL_QUEUE
    )
    said = await without_worker.penstock(*ROLLBACK)
    assert said.code != 0, said
    assert "was ordered to end and has not yet, so nothing is taken back yet: repeat the rollback" in said.err


@pytest.mark.sweep
@pytest.mark.parametrize("is_sealed", [True], ids=["sealed"], indirect=True)
async def test_a_stored_rollback_that_cannot_be_opened_here_needs_an_operator_until_its_key_is_back(
    without_worker: Installation,
) -> None:
    """It was shown as nothing, and the fleet as promoted."""
    await without_worker.penstock(*ROLLBACK)
    key = without_worker.keys.read_text().strip()
    write_keys(without_worker.keys, new_key())
    said = await without_worker.penstock("status", "edge")
    shown = " ".join(said.out.split())
    assert said.code == 6, said
    assert "PROMOTED" not in shown
    assert "cannot be opened here, so it is not known what it does" in shown
    assert "sealed with a key that is not in the payload key file" in shown
    found = json.loads((await without_worker.penstock("status", "edge", "-o", "json")).out)["data"]
    assert found["unbegun"]["kind"] is None
    again = await without_worker.penstock(*ROLLBACK)
    assert "it is not known what each gateway serves then" in again.out
    assert "will serve" not in again.out
    assert again.code == 8, again
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(without_worker.penstock("watch", "edge"), 3)
    write_keys(without_worker.keys, key)
    said = await without_worker.penstock("status", "edge")
    assert "No worker has begun the rollback that" in " ".join(said.out.split())


@pytest.mark.parametrize("is_sealed", [True], ids=["sealed"], indirect=True)
async def test_a_rollback_by_force_ends_a_change_that_cannot_be_opened_here(
    without_worker: Installation,
) -> None:
    await without_worker.penstock(*ROLLBACK)
    write_keys(without_worker.keys, new_key())
    said = await without_worker.penstock(*ROLLBACK, "--force", "--yes")
    assert said.out.startswith("The change of edge was ended by force."), said
    assert "edge-1 will serve 1.1.6" in said.out


@pytest.mark.sweep
async def test_a_command_that_is_stored_for_a_change_is_named_or_needs_an_operator(
    without_worker: Installation, is_sealed: bool
) -> None:
    """Where payloads are sealed it was named nowhere, and offered again."""
    change(without_worker.ledger, ChangeKind.UPGRADE, "1.4.0", None)
    await without_worker.service._changes.client.start_workflow(
        Change.run, of_edge(ChangeKind.UPGRADE), id=change_of("edge"), task_queue=CONTROL_QUEUE
    )
    await without_worker.penstock("hold", "edge", "--reason", "users call")
    said = await without_worker.penstock("status", "edge", "-o", "json")
    found = json.loads(said.out)["data"]
    assert [(one["kind"], one["reason"]) for one in found["stored"]] == [("hold", "users call")]
    assert "hold" not in [offer["verb"] for offer in found["offers"]]
    if not is_sealed:
        return
    write_keys(without_worker.keys, new_key())
    said = await without_worker.penstock("status", "edge")
    assert said.code == 6, said
    shown = " ".join(said.out.split())
    assert "cannot be opened here, so it is not known what it does" in shown
    assert "not yet carried out: an order of" in shown
