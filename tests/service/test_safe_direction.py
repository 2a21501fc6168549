"""The safe direction: a change is held and taken back whatever else is broken or busy."""

import asyncio
import json
import os
import socket
import sqlite3
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from inspect import isasyncgenfunction, iscoroutinefunction
from pathlib import Path

import httpx
import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from temporalio.client import WorkflowHandle

from activities import files
from activities.files import FleetFiles
from orchestrator.api.app import _ROUTES
from orchestrator.processes.api import serving, socket_at
from orchestrator.processes.composition import Installation, compose
from orchestrator.service import changes
from orchestrator.service.checkpoints import PUBLIC, Checkpoints
from orchestrator.service.patience import Patience
from orchestrator.settings import Settings
from orchestrator.store.later import LateEntries
from orchestrator.store.ledger import Ledger
from policies.model.audit import LateEntry
from policies.model.change import ChangeKind, ChangeOpening, ChangeOrder, ChangeResult
from policies.model.errors import Unavailable
from policies.model.people import Via
from policies.model.value import digest_of
from tests.fakes.audit_record import noted
from tests.service.command_line import CommandLine
from tests.service.conftest import FLEETS, installed
from tests.workflows.engine import Engine
from workflows.change import Change, ChangeRun
from workflows.identities import change_of
from workflows.steps import CONTROL_QUEUE


@dataclass(frozen=True)
class Night:
    """An installation whose change no worker looks after, with its API."""

    folder: Path
    change: WorkflowHandle[Change, ChangeResult]
    settings: Settings
    installation: Installation
    api: httpx.AsyncClient

    @property
    def file(self) -> Path:
        return self.folder / "fleets" / "edge.yaml"

    @property
    def database(self) -> Path:
        return self.folder / "ledger.db"

    async def order(self, kind: str, key: str) -> httpx.Response:
        asked = {"kind": kind, "reason": "it hurts"}
        return await self.api.post("/fleets/edge/commands", json=asked, headers={"Idempotency-Key": key})

    async def heard(self) -> set[str]:
        """Return the ids of the orders that the engine keeps for the change."""
        found = set()
        async for event in self.change.fetch_history_events():
            if event.HasField("workflow_execution_signaled_event_attributes"):
                told = event.workflow_execution_signaled_event_attributes.input.payloads[0].data
                found.add(json.loads(told)["id"])
        return found

    def command_line(self) -> CommandLine:
        given = {
            "PENSTOCK_STATE": self.folder,
            "PENSTOCK_TEMPORAL_ADDRESS": self.settings.temporal_address,
            "PENSTOCK_TEMPORAL_NAMESPACE": self.settings.temporal_namespace,
            "PENSTOCK_LEDGER_URL": self.settings.ledger_url,
            "PENSTOCK_FLEET": self.settings.fleet,
            "PENSTOCK_PEOPLE": self.settings.people,
            "PENSTOCK_SOCKET": self.folder / "nobody.sock",
        }
        base = {"PATH": os.environ["PATH"], "PYTHONPATH": os.fspath(Path.cwd()), "TZ": "UTC"}
        base["PENSTOCK_MISSPELT"] = "no reason to let a change go on"
        return CommandLine(base | {name: str(value) for name, value in given.items()})


@pytest.fixture
async def night(tmp_path: Path, server: Engine) -> AsyncIterator[Night]:
    client = await server.client()
    order = ChangeOrder(fleet="edge", kind=ChangeKind.UPGRADE, plan=digest_of(b"plan"), reason="CVE")
    change = await client.start_workflow(
        Change.run, ChangeRun(order=order), id=change_of("edge"), task_queue=CONTROL_QUEUE
    )
    settings = installed(tmp_path, server.address, client.namespace)
    installation, path = await compose(settings), tmp_path / "penstock.sock"
    async with (
        serving(installation.service, socket_at(path)),
        httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=os.fspath(path), verify=False),
            base_url="http://penstock/v1",
            timeout=60,
        ) as api,
    ):
        yield Night(tmp_path, change, settings, installation, api)


async def both_are_heard(night: Night) -> None:
    for kind in ("hold", "roll_back"):
        answer = await night.order(kind, kind)
        assert answer.status_code == 200, answer.text
        assert answer.json()["accepted"], answer.text
    assert await night.heard() == {"root/hold", "root/roll_back"}


@pytest.mark.sweep
async def test_a_typo_in_the_fleets_file_takes_them_from_nobody(night: Night) -> None:
    night.file.write_text(night.file.read_text() + "typo: 1\n")
    await both_are_heard(night)


async def test_a_fleet_without_a_file_is_held_and_taken_back_by_its_name(night: Night) -> None:
    night.file.unlink()
    await both_are_heard(night)
    nobody = await night.api.post(
        "/fleets/nowhere/commands", json={"kind": "hold", "reason": "x"}, headers={"Idempotency-Key": "n"}
    )
    assert nobody.status_code == 404, nobody.text


@pytest.mark.sweep
async def test_a_ledger_that_somebody_has_locked_is_not_waited_for_and_hears_of_it_later(
    night: Night,
) -> None:
    with closing(sqlite3.connect(night.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await both_are_heard(night)
        again = await night.order("hold", "hold")
        assert again.status_code == 200, again.text
    assert await night.heard() == {"root/hold", "root/roll_back"}
    assert await night.installation.service.deliver_late_entries()
    assert await night.installation.service.deliver_late_entries() == 0
    entries = [one for one in night.installation.ledger.audit_entries() if one.person == "root"]
    asked = [(one.action, json.loads(one.body)["asked"]["id"]) for one in entries if "asked" in one.action]
    assert {*asked} >= {("hold asked for", "root/hold"), ("rollback asked for", "root/roll_back")}
    assert night.installation.ledger.verify_audit() is None


@pytest.mark.sweep
async def test_root_holds_it_where_file_ledger_key_and_api_are_gone_at_once(night: Night) -> None:
    night.file.write_text("typo: 1\n")
    (night.folder / "audit.key").write_bytes(b"")
    with closing(sqlite3.connect(night.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        said = await night.command_line()("hold", "edge", "--reason", "it hurts", "--id", "night")
    assert said.code == 8, said.err  # stored: no worker runs here
    assert await night.heard() == {"root/night"}
    assert "hold asked for" in (night.folder / "audit-late.jsonl").read_text()


@pytest.mark.sweep
async def test_an_engine_that_listens_and_says_nothing_is_not_waited_for(
    night: Night, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        found = await compose(night.settings.model_copy(update={"temporal_address": address}))
        path = tmp_path / "other.sock"
        transport = httpx.AsyncHTTPTransport(uds=os.fspath(path), verify=False)
        async with (
            serving(found.service, socket_at(path)),
            httpx.AsyncClient(transport=transport, base_url="http://penstock/v1", timeout=20) as api,
        ):
            for kind in ("hold", "roll_back"):
                asked = {"kind": kind, "reason": "it hurts"}
                headers = {"Idempotency-Key": kind}
                answer = await api.post("/fleets/edge/commands", json=asked, headers=headers)
                assert answer.status_code == 503, answer.text
                assert "the engine does not answer in time" in answer.json()["detail"]


async def test_a_ledger_file_that_was_replaced_is_the_one_that_is_written(
    night: Night, tmp_path: Path
) -> None:
    assert (await night.api.get("/tokens")).status_code == 200
    other = tmp_path / "restored.db"
    Ledger.open(f"sqlite:///{other}").close()
    other.replace(night.database)
    asked = {"name": "bot", "grants": [{"fleet": "edge", "roles": ["viewer"]}]}
    assert (await night.api.post("/tokens", json=asked)).status_code == 201
    again = Ledger.open(f"sqlite:///{night.database}")
    assert [row.name for row in again.tokens()] == ["bot"]
    again.close()


def test_nobody_waits_for_a_file_that_is_being_read_but_who_plans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOMENT_SECONDS", 0.2)
    (tmp_path / "edge.yaml").write_text(FLEETS.format(name="edge"))
    fleets = FleetFiles(tmp_path)
    assert [*fleets.lately()[0]] == ["edge"]
    (tmp_path / "core.yaml").write_text(FLEETS.format(name="core"))
    large, load = threading.Event(), files.load_own

    def slowly(path: Path, model: type[files.W], *, of: int | None = None) -> files.W:
        large.wait(20)
        return load(path, model, of=of)

    monkeypatch.setattr(files, "load_own", slowly)
    assert [*fleets.lately()[0]] == ["edge"]
    assert [*fleets.known()] == ["edge"]
    threading.Timer(0.5, large.set).start()
    assert [*FleetFiles(tmp_path).lately()[0]] == ["core", "edge"]  # which has nothing of before to say
    assert [*fleets.all()] == ["core", "edge"]
    assert [*fleets.lately()[0]] == ["core", "edge"]


async def test_a_ledger_that_was_silent_is_left_alone_for_a_moment() -> None:
    patience, asked, free = Patience(), 0, threading.Event()

    def ask() -> None:
        nonlocal asked
        asked += 1
        free.wait(20)

    for _ in range(3):
        with pytest.raises(Unavailable):
            await patience.ask(ask)
    free.set()
    assert asked == 1


def entry(key: str) -> LateEntry:
    return LateEntry.model_validate(
        {"key": key, "at": "2026-11-22T03:00:00Z", "person": "ana", "via": Via.CLI}
        | {"action": "hold asked for", "subject": "edge", "body": {"asked": "x"}, "fleet": "edge"}
    )


def test_late_entries_are_written_in_once_each_and_half_a_line_is_none(
    tmp_path: Path, ledger: Ledger
) -> None:
    late, path = LateEntries(tmp_path / "late.jsonl"), tmp_path / "late.jsonl"
    assert late.deliver(ledger) == 0
    ledger.enter(entry("one"))  # which the ledger took, too late for whoever waited
    for key in ("one", "two"):
        late.keep(entry(key))
    with path.open("a") as file:
        file.write('{"key": "thr')
    late.keep(entry("four"))
    late.deliver(ledger)
    assert len(ledger.audit_entries()) == 3
    assert path.read_text() == ""
    assert json.loads(ledger.audit_entries()[-1].body)["at"].startswith("2026-11-22T03:00:00")


def test_nobody_who_keeps_an_entry_waits_for_a_ledger_that_takes_none(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    late, path = LateEntries(tmp_path / "late.jsonl"), tmp_path / "late.jsonl"
    late.keep(entry("one"))
    entering = threading.Event()
    enter = ledger.enter

    def entered(late: LateEntry) -> None:
        entering.set()
        enter(late)

    monkeypatch.setattr(ledger, "enter", entered)
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        delivering = threading.Thread(target=late.deliver, args=(ledger,))
        delivering.start()
        assert entering.wait(5)
        keeping = threading.Thread(target=late.keep, args=(entry("two"),), daemon=True)
        keeping.start()
        keeping.join(5)
        assert not keeping.is_alive()
    delivering.join()
    assert [LateEntry.model_validate_json(line).key for line in path.open()] == ["two"]


def test_a_checkpoint_that_was_half_written_ends_no_others(tmp_path: Path, ledger: Ledger) -> None:
    points = noted(ledger, tmp_path)
    kept = tmp_path / "checkpoints.jsonl"
    with kept.open("a") as file:
        file.write('{"seq": 25, "ha')
    assert points.verify().fault is None
    assert points.note(now=True) is not None
    assert (points.verify().fault, points.verify().checkpoints) == (None, 3)


def test_the_key_is_made_whole_or_not_at_all(tmp_path: Path, ledger: Ledger) -> None:
    made = [Checkpoints(ledger, tmp_path / "audit.key", tmp_path / "points") for _ in range(8)]
    together = threading.Barrier(8)
    keys: list[str] = []

    def use(points: Checkpoints) -> None:
        together.wait()
        points.publish()
        keys.append(points.public_key)

    threads = [threading.Thread(target=use, args=(points,)) for points in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({*keys}) == 1
    assert {one.name for one in tmp_path.iterdir() if "audit" in one.name} == {"audit.key", PUBLIC}


async def test_who_follows_many_streams_keeps_connections_to_stop_something(night: Night) -> None:
    streams = []
    path = os.fspath(night.folder / "penstock.sock")
    try:
        for number in range(20):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(
                b"GET /v1/fleets/edge/events HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n"
            )
            streams.append(writer)
            status = int((await reader.readline()).split()[1])
            assert status == (200 if number < 16 else 429), number
        assert (await night.order("hold", "hold")).status_code == 200
    finally:
        for writer in streams:
            writer.close()


@pytest.mark.sweep
async def test_a_question_to_gateways_that_no_worker_takes_ends_soon_and_says_so(night: Night) -> None:
    answer = await night.api.get("/fleets/edge/gateways")
    assert answer.status_code == 503, answer.text
    assert "no worker takes questions to gateways" in answer.json()["detail"]


async def test_a_change_whose_next_step_no_worker_takes_is_said_to_stand_still(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "TAKEN_WITHIN", timedelta(0))
    opening = ChangeOpening(
        key="run", fleet="edge", kind=ChangeKind.UPGRADE, requested_by="ana", reason="CVE", release="1.3.0"
    )
    night.installation.ledger.open_change(opening)
    found = (await night.api.get("/fleets/edge")).json()
    assert "no worker has taken the next step of edge's change since" in found["concern"]


@pytest.mark.sweep
async def test_a_rollback_that_nobody_can_watch_says_so_and_ends(night: Night) -> None:
    said = await night.command_line()("rollback", "edge", "--reason", "it hurts", "--wait")
    assert said.code == 8, said.err
    assert "No API says how it ends" in said.err


def test_no_dependency_of_a_request_takes_a_thread_that_all_callers_share() -> None:
    """S1: FastAPI hands plain functions and classes to threads of its own, where a hold waits for others."""

    def dependencies(dependant: Dependant) -> Iterator[object]:
        for one in dependant.dependencies:
            yield one.call
            yield from dependencies(one)

    routes = [one for module in _ROUTES for one in module.router.routes if isinstance(one, APIRoute)]
    assert len(routes) > 50
    shared = {
        getattr(call, "__name__", str(call))
        for route in routes
        for call in (route.endpoint, *dependencies(route.dependant))
        if not (iscoroutinefunction(call) or isasyncgenfunction(call))
    }
    assert shared == set()
