"""Shared surveys: however often callers ask who start no changes, gateways are asked a few times a minute."""

import asyncio
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.service.allowance import Allowance
from orchestrator.service.surveys import (
    FRESH_A_MINUTE,
    SHARED_A_MINUTE,
    WALKS_A_MINUTE,
    Surveyed,
    SurveyService,
)
from orchestrator.store.ledger import Ledger
from policies.model.errors import Unavailable
from policies.model.fleet import Fleet
from policies.model.instance import GatewayState, Steering
from policies.model.path import PathWalked
from policies.model.people import Role
from tests.service.conftest import FLEETS
from tests.service.test_api import token


def surveyed(count: int) -> Surveyed:
    names = [f"edge-{number}" for number in range(count)]
    states = {
        name: GatewayState(
            gateway=name,
            instances=(),
            steering=Steering(primed=True),
            epoch=1,
            observed_at=datetime.now(UTC),
            described=("x" * 100,) * 10,
        )
        for name in names
    }
    return Surveyed(states=states, silent={"edge-9999": "its agent did not answer"}, as_of=datetime.now(UTC))


class Surveys:
    """Surveys that the API begins: how many, and in which threads their answers are made into bytes."""

    def __init__(self) -> None:
        self.begun = 0
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.threads: list[str] = []
        self.fails = False
        self.size = 1

    async def look(self, fleet: Fleet, first: str | None = None) -> Surveyed:
        del fleet, first
        self.begun += 1
        await self.go_on.wait()
        if self.fails:
            raise Unavailable("no worker takes questions to gateways: is one running?")
        return surveyed(self.size)


@pytest.fixture
def surveys(monkeypatch: pytest.MonkeyPatch) -> Iterator[Surveys]:
    found, dump = Surveys(), Surveyed.model_dump_json

    def counted(value: Surveyed, **named: Any) -> str:
        found.threads.append(threading.current_thread().name)
        return dump(value, **named)

    async def look(_: SurveyService, *given: Any) -> Surveyed:
        return await found.look(*given)

    monkeypatch.setattr(Surveyed, "model_dump_json", counted)
    monkeypatch.setattr(SurveyService, "_look", look)
    yield found
    found.go_on.set()


@pytest.fixture
def no_more_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refill no allowance and end no shared answer within the test, however busy the machine is."""
    begin = Allowance.__init__

    def never_refilled(allowance: Allowance, size: int, seconds: float) -> None:
        begin(allowance, size, seconds * 1e6)

    monkeypatch.setattr(Allowance, "__init__", never_refilled)
    for name in ("SHARED_FOR", "WALK_SHARED_FOR"):
        monkeypatch.setattr(f"orchestrator.service.surveys.{name}", timedelta(hours=1))


def with_gateways(folder: Path, count: int) -> None:
    """Let the fleet edge have so many gateways."""
    head, one = FLEETS.format(name="edge").split("  - name: edge-1\n")
    rows = [
        f"  - name: edge-{number}\n" + one.replace("192.0.2.1", f"192.0.2.{number}")
        for number in range(1, count + 1)
    ]
    (folder / "fleets" / "edge.yaml").write_text(f"nat: true\n{head}{''.join(rows)}")


@pytest.mark.usefixtures("no_more_allowed")
async def test_a_viewer_has_the_gateways_asked_once_however_often_and_sees_when(
    api: httpx.AsyncClient, ledger: Ledger, surveys: Surveys
) -> None:
    """Each look is a workflow with a step for each gateway, which the engine keeps for its retention."""
    vera = token(ledger, Role.VIEWER, name="vera")
    answers = [
        (await api.get(f"/fleets/edge/{what}", headers=vera)).json() for what in ("gateways", "drift") * 5
    ]
    assert surveys.begun == 1
    assert len({one["as_of"] for one in answers}) == 1
    assert datetime.fromisoformat(answers[0]["as_of"]) <= datetime.now(UTC)


@pytest.mark.usefixtures("no_more_allowed")
async def test_an_operator_has_every_gateway_asked_now_and_a_script_gets_the_shared_survey(
    api: httpx.AsyncClient, ledger: Ledger, surveys: Surveys
) -> None:
    olga, vera = token(ledger, Role.OPERATOR, name="olga"), token(ledger, Role.VIEWER, name="vera")
    await api.get("/fleets/edge/gateways", headers=vera)
    asked = [
        (await api.get("/fleets/edge/gateways", headers=olga)).json()["as_of"] for _ in range(FRESH_A_MINUTE)
    ]
    assert surveys.begun == 1 + FRESH_A_MINUTE
    assert len({*asked}) == FRESH_A_MINUTE
    later = [(await api.get("/fleets/edge/gateways", headers=olga)).json()["as_of"] for _ in range(5)]
    assert surveys.begun == 1 + FRESH_A_MINUTE
    assert {*later}.isdisjoint(asked)  # its time says that it is older


@pytest.mark.usefixtures("no_more_allowed")
async def test_surveys_that_fail_are_begun_for_viewers_a_few_times_a_minute(
    api: httpx.AsyncClient, ledger: Ledger, surveys: Surveys
) -> None:
    surveys.fails = True
    vera = token(ledger, Role.VIEWER, name="vera")
    answers = [await api.get("/fleets/edge/gateways", headers=vera) for _ in range(SHARED_A_MINUTE + 3)]
    assert [one.status_code for one in answers] == [503] * SHARED_A_MINUTE + [429] * 3
    assert surveys.begun == SHARED_A_MINUTE
    assert "the gateways of edge were asked 4 times in this minute" in answers[-1].json()["detail"]
    assert (await api.get("/fleets/edge/gateways")).status_code == 503  # an operator's question is asked


@pytest.mark.usefixtures("no_more_allowed")
async def test_a_viewer_has_a_tunnel_tried_once_for_a_gateway_and_few_times_for_a_fleet(
    api: httpx.AsyncClient, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is a login of the probe's user and a workflow that the engine keeps."""
    with_gateways(tmp_path, WALKS_A_MINUTE + 2)
    walked = list[str]()

    async def walk(_: SurveyService, fleet: Fleet, gateway: str) -> PathWalked:
        walked.append(gateway)
        return PathWalked(fleet=fleet.name, gateway=gateway, findings=(), as_of=datetime.now(UTC))

    monkeypatch.setattr(SurveyService, "walk", walk)
    vera = token(ledger, Role.VIEWER, name="vera")
    names = [f"edge-{number}" for number in range(1, WALKS_A_MINUTE + 3)]
    codes = [
        (await api.get(f"/fleets/edge/gateways/{name}/path", headers=vera)).status_code
        for name in names
        for _ in range(2)
    ]
    assert codes == [200] * 2 * WALKS_A_MINUTE + [429] * 4
    assert walked == names[:WALKS_A_MINUTE]
    missing = await api.get("/fleets/edge/gateways/edge-99/path", headers=vera)
    assert missing.json()["detail"].startswith("edge has no gateway edge-99")
    for _ in range(2):
        assert (await api.get("/fleets/edge/gateways/edge-1/path")).status_code == 200
    assert walked[WALKS_A_MINUTE:] == ["edge-1", "edge-1"]


def test_an_allowance_refills_evenly_and_says_how_long_that_takes() -> None:
    now = [0.0]
    allowance = Allowance(4, 60.0, lambda: now[0])
    assert [allowance.take("edge") for _ in range(5)] == [0.0] * 4 + [15.0]
    assert allowance.take("core") == 0.0
    now[0] = 14.0
    assert allowance.take("edge") == pytest.approx(1.0)
    now[0] = 15.0
    assert allowance.take("edge") == 0.0
    now[0] = 1000.0
    assert [allowance.take("edge") for _ in range(5)] == [0.0] * 4 + [15.0]
