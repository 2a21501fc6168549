"""Every surface shows that no change can run, also while none is under way."""

import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from orchestrator.api.watch import Watch
from orchestrator.monitoring.readiness import Readiness
from orchestrator.processes.api import serving, socket_at
from orchestrator.processes.composition import compose
from orchestrator.service import engine_health
from orchestrator.service.service import Service
from orchestrator.store.ledger import Ledger
from orchestrator.words.standing import NO_ENGINE
from tests.fakes.ledgers import new_ledger
from tests.patience import until
from tests.service.chat_rooms import Process, link, token, with_chat
from tests.service.command_line import CommandLine
from tests.service.conftest import NOBODY, PAGE, installed
from tests.service.test_every_state import STATES, written
from tests.workflows.engine import Engine
from tests.workflows.world import is_heard
from workflows.adopt import Examine
from workflows.change import Change
from workflows.steps import CONTROL_QUEUE

RUNBOOK = "worker-or-temporal-down"
ENDED = "promoted"


@dataclass(frozen=True)
class Surfaces:
    """One installation as its operators read it."""

    service: Service
    ledger: Ledger
    api: httpx.AsyncClient
    socket: str

    @property
    def line(self) -> CommandLine:
        """The terminal of an operator."""
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.fspath(Path.cwd()), "TZ": "UTC"}
        return CommandLine(environment | {"PENSTOCK_SOCKET": self.socket})

    async def worker(self) -> tuple[str, str]:
        """Return what `penstock doctor` finds of the worker: how it is, and the sentence."""
        found = json.loads((await self.line("doctor", "-o", "json")).out)["data"]
        return next((one["health"], one["sentence"]) for one in found if one["about"] == "worker")

    async def read(self) -> dict[str, str]:
        """Return what each surface shows of the fleet edge."""
        line = self.line
        link_to_page = await self.service.page_logins.make_link(self.service.people.at_the_socket(0), 0)
        transport = httpx.AsyncHTTPTransport(uds=self.socket, verify=False)
        async with httpx.AsyncClient(transport=transport, base_url=PAGE, timeout=30) as browser:
            await browser.post(link_to_page.url, headers={"Origin": PAGE})
            shown = {
                "page of all fleets": (await browser.get("/")).text,
                "page of the fleet": (await browser.get("/fleets/edge")).text,
            }
        shown |= {
            "terminal": (await line("status", "edge")).out,
            "terminal, of the fleet": (await line("fleet", "show", "edge")).out,
            "chat": (await Process(self.api, token(self.ledger)).say("ana", "status edge")).text,
        }
        return {name: " ".join(text.split()) for name, text in shown.items()}


@asynccontextmanager
async def surfaces(folder: Path, *engine: str) -> AsyncIterator[Surfaces]:
    settings = installed(folder, *engine)
    new_ledger(folder / "ledger.db")
    with_chat(folder)
    installation, path = await compose(settings), folder / "penstock.sock"
    link(installation.ledger, "ana")
    transport = httpx.AsyncHTTPTransport(uds=os.fspath(path), verify=False)
    async with (
        serving(installation.service, socket_at(path)),
        httpx.AsyncClient(transport=transport, base_url="http://penstock/v1", timeout=60) as api,
    ):
        yield Surfaces(installation.service, installation.ledger, api, os.fspath(path))


async def shown_alike(found: Surfaces, why: str) -> None:
    """Require that each surface shows the concern of the API, with its runbook."""
    concern = (await found.api.get("/fleets/edge")).json()["concern"]
    assert concern is not None
    assert why in concern
    for surface, text in (await found.read()).items():
        assert concern in text.replace("&#39;", "'"), surface
        assert RUNBOOK in text, surface


@pytest.mark.parametrize("state", [None, ENDED])
async def test_a_dead_engine_is_shown_on_every_surface_also_without_a_change(
    state: str | None, tmp_path: Path
) -> None:
    """Screens 8: with the engine dead `status` exited 0 and showed nothing."""
    async with surfaces(tmp_path, NOBODY) as found:
        if state is not None:
            written(found.ledger, STATES[state])
        await shown_alike(found, "the engine cannot be reached: no change begins, and no rollback")


@pytest.mark.parametrize("state", [None, ENDED])
async def test_a_fleet_without_any_worker_is_shown_on_every_surface_also_without_a_change(
    state: str | None, tmp_path: Path, server: Engine
) -> None:
    """Screens 8: with every worker dead `status` exited 0 and showed nothing."""
    async with surfaces(tmp_path, server.address, (await server.client()).namespace) as found:
        if state is not None:
            written(found.ledger, STATES[state])
        await shown_alike(found, "no worker has asked for work for more than a minute")


async def test_the_concern_ends_with_its_cause(
    tmp_path: Path, server: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_health, "KEPT_SECONDS", 0.0)
    client = await server.client()
    async with surfaces(tmp_path, server.address, client.namespace) as found:
        assert (await found.api.get("/fleets/edge")).json()["concern"] is not None
        async with worker(client):
            await until(lambda: is_heard(client))
            assert (await found.api.get("/fleets/edge")).json()["concern"] is None


async def test_a_concern_of_all_fleets_is_shown_once_above_them(tmp_path: Path) -> None:
    """Screens 14, 16: one cause, one line."""
    async with surfaces(tmp_path, NOBODY) as found:
        page = (await found.read())["page of all fleets"]
    assert page.count("no change begins, and no rollback") == 1


async def test_the_doctor_calls_a_worker_well_only_while_one_carries_steps_out(
    tmp_path: Path, server: Engine
) -> None:
    """For 75 s after the worker had died, doctor said that it was well, and ended with 0."""
    client = await server.client()
    async with surfaces(tmp_path, server.address, client.namespace) as found:
        async with worker(client):
            await until(lambda: is_heard(client))
            assert (await found.worker())[0] == "well"
        assert await is_heard(client)  # the engine remembers it
        health, sentence = await found.worker()
    assert (health, sentence.partition(":")[0]) == (
        "wrong",
        "no worker took a step within 3 s, though one asked for work in the last 75 s",
    )


def worker(client: Client) -> Worker:
    return Worker(
        client,
        task_queue=CONTROL_QUEUE,
        workflows=[Change, Examine],
        workflow_runner=UnsandboxedWorkflowRunner(),
    )


async def test_each_page_shows_a_dead_engine_once_and_alike(tmp_path: Path) -> None:
    """Pages of a fleet had two banners about the engine, each in its own words."""

    async def away() -> None:
        raise OSError

    settings = installed(tmp_path, NOBODY)
    new_ledger(tmp_path / "ledger.db")
    installation, path = await compose(settings), tmp_path / "penstock.sock"
    readiness = Readiness({"engine": away})
    await readiness.look()
    transport = httpx.AsyncHTTPTransport(uds=os.fspath(path), verify=False)
    async with (
        serving(installation.service, socket_at(path), watch=Watch(readiness)),
        httpx.AsyncClient(transport=transport, base_url=PAGE, timeout=60) as browser,
    ):
        service = installation.service
        link_to_page = await service.page_logins.make_link(service.people.at_the_socket(0), 0)
        await browser.post(link_to_page.url, headers={"Origin": PAGE})
        for page in ("/", "/fleets/edge", "/fleets/edge/orders/hold", "/releases", "/doctor"):
            text = " ".join((await browser.get(page)).text.split())
            notices = re.findall(r'<p class="needs"[^>]*>(.*?)</p>', text)
            assert [NO_ENGINE in one for one in notices].count(True) == 1, (page, notices)
            assert not [one for one in notices if "engine" in one and NO_ENGINE not in one], (page, notices)
