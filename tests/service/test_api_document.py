"""The API's own document: open to everybody, made once, and counted."""

import asyncio
import threading

import httpx
import pytest
from fastapi import FastAPI

from orchestrator.api.limits import PER_MINUTE, Kind


async def test_the_document_is_made_once_and_not_by_the_event_loop(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[threading.Thread] = []
    make = FastAPI.openapi

    def noted(app: FastAPI) -> object:
        made.append(threading.current_thread())
        return make(app)

    monkeypatch.setattr(FastAPI, "openapi", noted)
    answers = await asyncio.gather(*(api.get("/openapi.json") for _ in range(4)))
    answers.append(await api.get("/openapi.json"))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert answers[0].headers["content-type"] == "application/json"
    assert "/v1/fleets/{fleet}/commands" in answers[0].json()["paths"]
    assert len(made) == 1
    assert made[0] is not threading.main_thread()


async def test_a_document_that_could_not_be_made_is_made_by_the_next_request(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: FastAPI) -> object:
        raise RuntimeError("no memory")

    with monkeypatch.context() as patched:
        patched.setattr(FastAPI, "openapi", fails)
        assert (await api.get("/openapi.json")).status_code == 500
    assert (await api.get("/openapi.json")).status_code == 200


@pytest.mark.usefixtures("no_refill")
async def test_a_client_without_a_login_has_the_document_so_often_in_a_minute(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PER_MINUTE, Kind.STRANGER, 3)
    statuses = [(await api.get("/openapi.json")).status_code for _ in range(4)]
    assert statuses == [200, 200, 200, 429]
    assert (await api.get("/whoami")).status_code == 200
