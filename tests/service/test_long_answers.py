"""Long answers: each is made once, off the event loop, and no person has many of them under way."""

import asyncio
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.api import long_answers
from orchestrator.api.disconnects import while_connected
from orchestrator.api.long_answers import MOST_ANSWERS, as_json
from orchestrator.page import render
from orchestrator.reporting.render import as_html, as_markdown
from orchestrator.service.surveys import Surveyed
from orchestrator.store.ledger import Ledger
from policies.model.change import ChangeKind, ChangeOpening
from policies.model.people import Role
from tests.patience import PATIENCE, until
from tests.service.test_api import token
from tests.service.test_shared_surveys import Surveys, surveyed, surveys

__all__ = ["surveys"]

MANY = 3_000
"""Gateways whose survey is longer than what kernel and connection hold of an answer."""


def in_answers(threads: list[str]) -> bool:
    return bool(threads) and all(one.startswith("answers") for one in threads)


async def test_viewers_who_ask_together_share_one_survey_that_is_made_into_bytes_once(
    api: httpx.AsyncClient, ledger: Ledger, surveys: Surveys
) -> None:
    """64 connections of one viewer had it dumped 64 times in the event loop, which stood still for 17 s."""
    shown = [token(ledger, Role.VIEWER, name=name) for name in ("vera", "vito")]
    surveys.go_on.clear()
    asked = [
        asyncio.create_task(api.get("/fleets/edge/gateways", headers=one))
        for one in shown
        for _ in range(MOST_ANSWERS)
    ]
    await until(lambda: surveys.begun == 1)
    await asyncio.sleep(0.2)
    surveys.go_on.set()
    answers = await asyncio.gather(*asked)
    assert [one.status_code for one in answers] == [200] * 2 * MOST_ANSWERS
    assert len({one.content for one in answers}) == 1
    assert surveys.begun == 1
    assert len(surveys.threads) == 1
    assert in_answers(surveys.threads)


async def test_more_long_answers_of_one_person_are_refused_and_orders_are_heard_meanwhile(
    api: httpx.AsyncClient, ledger: Ledger, surveys: Surveys
) -> None:
    """R12: with 64 of them under way a hold took 28 s."""
    vera, vito = (token(ledger, Role.VIEWER, name=name) for name in ("vera", "vito"))
    surveys.go_on.clear()
    asked = {asyncio.create_task(api.get("/fleets/edge/gateways", headers=vera)) for _ in range(12)}
    await until(lambda: sum(one.done() for one in asked) == 12 - MOST_ANSWERS)
    for refused in (one.result() for one in asked if one.done()):
        assert refused.status_code == 429
        assert refused.headers["Retry-After"] == "2"
        assert "vera has 4 long answers under way" in refused.json()["detail"]
    waiting = [one for one in asked if not one.done()]
    others = asyncio.create_task(api.get("/fleets/edge/gateways", headers=vito))
    hold = {"kind": "hold", "reason": "harm"}
    heard = await api.post("/fleets/edge/commands", json=hold, headers={"Idempotency-Key": "1"})
    assert heard.json()["code"] == "NotOrdered"  # its engine is away; nothing was waited for
    assert not surveys.go_on.is_set()
    surveys.go_on.set()
    answers = await asyncio.gather(*waiting, others)
    assert [one.status_code for one in answers] == [200] * (MOST_ANSWERS + 1)
    assert (await api.get("/fleets/edge/gateways", headers=vera)).status_code == 200


async def test_a_connection_that_takes_nothing_is_closed_and_no_longer_counts(
    api: httpx.AsyncClient,
    ledger: Ledger,
    surveys: Surveys,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waiting = list[Any]()

    async def noted(request: Any, work: Any) -> Any:
        waiting.append(request)
        return await while_connected(request, work)

    monkeypatch.setattr(long_answers, "while_connected", noted)
    monkeypatch.setattr(long_answers, "TAKEN_SECONDS", 0.3)
    surveys.size = MANY
    vera = token(ledger, Role.VIEWER, name="vera")
    silent = []
    surveys.go_on.clear()
    head = (
        f"GET /v1/fleets/edge/gateways HTTP/1.1\r\nHost: x\r\nAuthorization: {vera['Authorization']}\r\n\r\n"
    )
    for _ in range(MOST_ANSWERS):
        reader, writer = await asyncio.open_unix_connection(os.fspath(tmp_path / "penstock.sock"), limit=1000)
        writer.write(head.encode())
        silent.append((reader, writer))

    async def codes(count: int) -> list[int]:
        asked = [api.get("/fleets/edge/gateways", headers=vera) for _ in range(count)]
        return [one.status_code for one in await asyncio.gather(*asked)]

    async def is_empty() -> bool:
        return await codes(MOST_ANSWERS) == [200] * MOST_ANSWERS

    async with asyncio.timeout(PATIENCE):
        await until(lambda: len(waiting) == MOST_ANSWERS)
        surveys.go_on.set()
        await until(is_empty)
        for reader, writer in silent:
            taken = b""
            while more := await reader.read(1 << 16):
                taken += more
            assert len(taken) < MANY * 1000
            writer.close()


async def test_what_is_dumped_value_by_value_is_the_same_json() -> None:
    found = surveyed(200)
    assert json.loads(as_json(found)) == json.loads(found.model_dump_json())
    assert Surveyed.model_validate_json(as_json(found)) == found
    alone = Surveyed(states={}, silent={})
    assert as_json(alone) == alone.model_dump_json().encode()


@pytest.mark.parametrize(("limit", "pool"), [(20, "fleets"), (1000, "looks")])
async def test_a_long_list_of_changes_takes_no_thread_that_all_callers_share(
    limit: int, pool: str, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R12: 600 lists of 1000 changes a minute ran in the threads that authorise a hold."""
    threads = list[str]()

    def history(*_: object) -> tuple[()]:
        threads.append(threading.current_thread().name)
        return ()

    monkeypatch.setattr(Ledger, "history", history)
    assert (await api.get(f"/fleets/edge/changes?limit={limit}")).json() == {"changes": [], "before": None}
    assert threads
    assert all(one.startswith(pool) for one in threads)


@pytest.mark.parametrize(
    "path", ["/fleets/edge/gateways", "/audit", "/releases", "/fleets/edge/certificates"]
)
async def test_pages_that_grow_with_a_fleet_are_rendered_off_the_event_loop(
    path: str, page: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, rendered = list[str](), render.rendered

    def noted(*given: Any, **named: Any) -> Any:
        threads.append(threading.current_thread().name)
        return rendered(*given, **named)

    monkeypatch.setattr(render, "rendered", noted)
    assert (await page.get(path)).status_code == 200
    assert in_answers(threads)


@pytest.mark.parametrize(
    "form", ["/changes/{}/report", "/changes/{}/report.markdown", "/v1/changes/{}/report?format=html"]
)
async def test_a_report_is_rendered_off_the_event_loop(
    form: str, page: httpx.AsyncClient, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening = ChangeOpening(
        key="run", fleet="edge", kind=ChangeKind.UPGRADE, requested_by="ana", reason="CVE", release="1.3.0"
    )
    change = ledger.open_change(opening)
    threads = list[str]()

    def noted(make: Callable[[Any], str]) -> Callable[[Any], str]:
        def made(report: Any) -> str:
            threads.append(threading.current_thread().name)
            return make(report)

        return made

    for make in (as_html, as_markdown):
        monkeypatch.setattr(f"orchestrator.api.routes.reports.{make.__name__}", noted(make))
    answer = await page.get(form.format(change))
    assert answer.status_code == 200, answer.text
    assert in_answers(threads)
