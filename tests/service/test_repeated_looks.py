"""Repeated looks: however often a caller looks, hold and rollback are given, and others are answered."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from orchestrator.service import background
from orchestrator.service.background import FLEETS, Pool
from orchestrator.service.service import Service
from orchestrator.service.ways_back import WaysBack
from orchestrator.store.ledger import Ledger
from policies.model.people import Role
from policies.model.release import ReleaseRow
from policies.model.way_back import RollbackAsked, RollbackPreview
from tests.patience import PATIENCE, until
from tests.service.conftest import PAGE
from tests.service.test_api import token
from tests.service.test_safe_direction import Night, both_are_heard, night
from tests.workflows.conftest import engines, server  # noqa: F401 - fixtures

__all__ = ["night"]

LOOKS = 40
"""More than any pool of the process has threads where tests run."""


class Gate:
    """Work that begins and does not end before the test lets it."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.begun = threading.Semaphore(0)
        self.count = 0

    def passed(self) -> int:
        """Wait until the gate is open; return how many had come before."""
        self.count, before = self.count + 1, self.count
        self.begun.release()
        assert self.open.wait(PATIENCE)
        return before

    async def until_begun(self, count: int = 1) -> None:
        for _ in range(count):
            while not self.begun.acquire(blocking=False):  # noqa: ASYNC110 - looks may have every thread
                await asyncio.sleep(0.01)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()  # no thread of a pool is left waiting


def slow_previews(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, is_slow: Callable[[WaysBack, Any], bool] = lambda *_: True
) -> None:
    preview = WaysBack.preview

    def slow(self: WaysBack, fleet: Any, asked: Any, *given: Any, **named: Any) -> RollbackPreview:
        if is_slow(self, asked):
            gate.passed()
        return preview(self, fleet, asked, *given, **named)

    monkeypatch.setattr(WaysBack, "preview", slow)


@asynccontextmanager
async def logged_in(night: Night) -> AsyncIterator[httpx.AsyncClient]:
    service = night.installation.service
    link = await service.page_logins.make_link(service.people.at_the_socket(0), 0)
    transport = httpx.AsyncHTTPTransport(uds=os.fspath(night.folder / "penstock.sock"), verify=False)
    async with httpx.AsyncClient(transport=transport, base_url=PAGE, timeout=PATIENCE) as page:
        await page.post(link.url, headers={"Origin": PAGE})
        yield page


@asynccontextmanager
async def looking(night: Night, gate: Gate) -> AsyncIterator[None]:
    """Have a viewer ask what rollbacks do, on many connections, until the body ends."""
    vera = token(night.installation.ledger, Role.VIEWER, name="vera")
    looks = [asyncio.create_task(night.api.get("/fleets/edge/rollback", headers=vera)) for _ in range(LOOKS)]
    try:
        await gate.until_begun()
        yield
    finally:
        gate.open.set()
        await asyncio.gather(*looks, return_exceptions=True)


async def test_hold_and_rollback_and_their_sheets_wait_for_no_look_of_a_viewer(
    night: Night, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R12: a viewer's token made the sheets of hold and rollback take 34 s, and the orders 8 s."""
    of_viewers = night.installation.ledger
    slow_previews(gate, monkeypatch, lambda ways_back, _: ways_back.ledger is of_viewers)
    async with asyncio.timeout(PATIENCE), logged_in(night) as page, looking(night, gate):
        for kind in ("hold", "abort", "roll_back"):
            sheet = await page.get(f"/fleets/edge/orders/{kind}")
            assert sheet.status_code == 200, sheet.text
            assert ('class="does"' in sheet.text) == (kind == "roll_back")
            assert "found out within" not in sheet.text
        await both_are_heard(night)
        assert not gate.open.is_set()


async def test_the_sheets_of_hold_and_rollback_are_shown_without_what_comes_late(
    night: Night, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R12: on the page no hold is given before its sheet."""
    slow_previews(gate, monkeypatch)
    monkeypatch.setattr(Ledger, "last_change", lambda *_: gate.passed())
    async with asyncio.timeout(PATIENCE), logged_in(night) as page:
        for kind in ("hold", "abort", "roll_back"):
            sheet = await page.get(f"/fleets/edge/orders/{kind}")
            assert sheet.status_code == 200, sheet.text
            assert ("was not found out within 1 s" in sheet.text) == (kind == "roll_back")
        assert not gate.open.is_set()


async def test_a_look_that_is_late_says_what_keeps_it_and_blames_no_ledger(
    api: httpx.AsyncClient, ledger: Ledger, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R12: most were answered that the ledger does not answer, which was not so."""
    slow_previews(gate, monkeypatch)
    monkeypatch.setattr("orchestrator.service.service.PREVIEWED_WITHIN_SECONDS", 1.0)
    late = await api.get("/fleets/edge/rollback", headers=token(ledger, Role.VIEWER))
    assert late.status_code == 503
    assert late.json()["detail"] == "what a rollback does was not found out within 1 s; ask again"


async def test_the_looks_of_one_person_leave_every_second_turn_to_another() -> None:
    """R12: a viewer waited for all that another one had asked before."""
    pool, gate, done = Pool("test", 1, most_of_one=16), Gate(), list[str]()
    first = asyncio.create_task(pool.run(gate.passed, "vera"))
    await gate.until_begun()
    more = [asyncio.create_task(pool.run(lambda: done.append("vera"), "vera")) for _ in range(10)]
    await asyncio.sleep(0)
    more.append(asyncio.create_task(pool.run(lambda: done.append("olga"), "olga")))
    await asyncio.sleep(0)
    gate.open.set()
    await asyncio.gather(first, *more)
    assert done.index("olga") <= 1


async def test_the_same_question_is_answered_once_for_all_who_ask_before_it_is_looked_up() -> None:
    """R12: 50 connections of one viewer had one preview computed 50 times, side by side."""
    pool, gate = Pool("test", 2, most_of_one=2), Gate()

    def ask(person: str) -> "asyncio.Task[int]":
        return asyncio.create_task(pool.run(gate.passed, person, key="what a rollback does"))

    running = []
    for _ in range(2):
        running.append(ask("vera"))
        await gate.until_begun()
    asked_later = [ask(person) for person in ("olga", "olga", "ada") for _ in range(LOOKS)]
    await asyncio.sleep(0)
    gate.open.set()
    assert await asyncio.gather(*running) == [0, 1]
    assert {*await asyncio.gather(*asked_later)} == {2}  # none has what was looked up before it asked


async def test_a_look_begins_only_while_a_caller_waits_for_it(
    api: httpx.AsyncClient, ledger: Ledger, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R12: what a caller had asked was computed long after the caller had gone."""
    asked = list[bool]()

    def is_slow(_: WaysBack, rollback: RollbackAsked) -> bool:
        asked.append(rollback.settings)
        return True

    slow_previews(gate, monkeypatch, is_slow)
    vera, olga = (token(ledger, Role.VIEWER, name=name) for name in ("vera", "olga"))
    held = []
    for _ in range(2):
        held.append(asyncio.create_task(api.get("/fleets/edge/rollback?settings=true", headers=vera)))
        await gate.until_begun()
    leaving = asyncio.create_task(api.get("/fleets/edge/rollback", headers=olga))
    async with asyncio.timeout(PATIENCE):
        while not FLEETS._tasks["olga"]:  # noqa: ASYNC110 - the API's process has no event for it
            await asyncio.sleep(0.01)
        leaving.cancel()
        while FLEETS._tasks["olga"]:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
    gate.open.set()
    await asyncio.gather(*held)
    assert asked == [True, True]


async def test_releases_are_read_once_for_all_who_ask_before_they_are_looked_up(
    service: Service, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R12: each request parsed every release of the ledger, in threads that all requests share."""

    def slow(_: Ledger) -> tuple[ReleaseRow, ...]:
        gate.passed()
        return ()

    monkeypatch.setattr(Ledger, "releases", slow)
    root, running = service.people.at_the_socket(0), []
    for _ in range(2):
        running.append(asyncio.create_task(service.releases(root)))
        await gate.until_begun()
    running += [asyncio.create_task(service.releases(root)) for _ in range(LOOKS)]
    waiting = ("releases", service)
    shared = background.LOOKS._shared
    await until(lambda: waiting in shared and len(shared[waiting].answers) == LOOKS)
    gate.open.set()
    assert {*await asyncio.gather(*running)} == {()}
    assert gate.count == 3
