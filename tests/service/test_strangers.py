"""Strangers and noisy callers: what they cost, and whom they keep from what."""

import asyncio
import os
from pathlib import Path

import httpx
import pytest

from orchestrator.api import peer
from orchestrator.api.limits import Kind, Limits, TooMany
from orchestrator.store.ledger import Ledger
from policies.model.people import Role
from tests.service.test_api import token


class Clock:
    """A clock that is moved by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_is_emptied_and_fills_up_again() -> None:
    clock = Clock()
    limits = Limits(clock)
    for _ in range(Kind.CHANGE.size):
        limits.take("ana", Kind.CHANGE)
    with pytest.raises(TooMany) as refused:
        limits.take("ana", Kind.CHANGE)
    clock.now += refused.value.after
    limits.take("ana", Kind.CHANGE)


def test_nobody_empties_the_bucket_of_another_or_of_the_safe_direction() -> None:
    limits = Limits(Clock())
    for _ in range(Kind.CHANGE.size):
        limits.take("robot", Kind.CHANGE)
    limits.take("ana", Kind.CHANGE)
    limits.take("robot", Kind.SAFE)


async def test_a_noisy_machine_hears_when_to_ask_again_and_may_still_hold(
    api: httpx.AsyncClient, ledger: Ledger
) -> None:
    shown = token(ledger, Role.OPERATOR)
    answer = None
    for number in range(Kind.CHANGE.size + 1):
        asked = {"kind": "resume", "reason": "again"}
        headers = shown | {"Idempotency-Key": str(number)}
        answer = await api.post("/fleets/edge/commands", json=asked, headers=headers)
    assert answer is not None
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    held = await api.post(
        "/fleets/edge/commands",
        json={"kind": "hold", "reason": "x"},
        headers=shown | {"Idempotency-Key": "h"},
    )
    assert held.status_code != 429


async def test_callers_that_say_nothing_or_not_enough_are_let_go(
    api: httpx.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer, "PATIENCE_SECONDS", 0.2)
    path = os.fspath(tmp_path / "penstock.sock")
    silent = [await asyncio.open_unix_connection(path) for _ in range(20)]
    slow = [await asyncio.open_unix_connection(path) for _ in range(20)]
    for _, writer in slow:
        writer.write(b"POST /v1/plans HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
    assert (await api.get("/whoami")).status_code == 200
    async with asyncio.timeout(10):
        for reader, writer in [*silent, *slow]:
            await reader.read()
            writer.close()
    assert (await api.get("/whoami")).status_code == 200
