"""Looks: however many people ask what is true of a fleet, each of its gateways is asked once at a time."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import pytest
from sqlalchemy import update

from orchestrator.service import surveys
from orchestrator.service.changes import ChangeService
from orchestrator.service.drift import DriftService
from orchestrator.service.looks import Looks
from orchestrator.store import tables
from policies.model.errors import Refused, Unavailable
from policies.model.instance import GatewayState
from tests.patience import until
from tests.workflows.test_rollback_facts import without
from tests.workflows.world import NEW, World, fleet_of, steps_of
from workflows import steps


async def surveyed(world: World) -> list[str]:
    """Return the workflows that have looked at the fleet so far, as soon as the engine lists any."""
    found: list[str] = []

    async def are_listed() -> bool:
        found[:] = [one.id async for one in world.client.list_workflows("WorkflowType='Survey'")]
        return bool(found)

    await until(are_listed)
    return found


async def test_who_asks_while_the_fleet_is_looked_at_gets_what_that_look_finds(real: World) -> None:
    service = ChangeService(real.client, real.book)
    found = await asyncio.gather(*[service.surveys.of(real.fleet) for _ in range(20)])
    assert [set(one.states) for one in found] == [set(real.gateways)] * 20
    (survey,) = await surveyed(real)
    assert len(await steps_of(real.client, survey, "observe_gateway")) == len(real.gateways)


async def test_callers_who_start_no_changes_leave_one_survey_in_the_engine_however_often_they_ask(
    real: World,
) -> None:
    """A viewer filled the engine's disk: each question was a workflow with a step for each gateway."""
    service = ChangeService(real.client, real.book)
    found = [await service.surveys.shared(real.fleet) for _ in range(5)]
    assert all(one is found[0] for one in found)
    assert found[0].as_of is not None
    assert len(await surveyed(real)) == 1


async def test_a_look_is_shared_longer_in_a_larger_fleet() -> None:
    looks, began = Looks[int](timedelta(seconds=0), timedelta(hours=1)), []

    async def look() -> int:
        began.append(True)
        return len(began)

    edge, empty = fleet_of("edge"), fleet_of("edge").model_copy(update={"name": "empty", "gateways": ()})
    assert [await looks.at(edge, look) for _ in range(3)] == [1, 1, 1]
    assert [await looks.at(edge, look, "gw-1") for _ in range(2)] == [2, 2]
    assert [await looks.at(empty, look) for _ in range(2)] == [3, 4]


async def test_who_stops_waiting_ends_nobody_elses_look(real: World) -> None:
    service = ChangeService(real.client, real.book)
    first, second = (asyncio.create_task(service.surveys.of(real.fleet)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert set((await second).states) == set(real.gateways)
    assert first.cancelled()
    assert len(await surveyed(real)) == 1


async def test_the_next_look_sees_what_has_changed_since(real: World) -> None:
    service = ChangeService(real.client, real.book)
    before = (await service.surveys.of(real.fleet)).states["gw-1"]
    real.gateways["gw-1"].serve(NEW, "b")
    after = (await service.surveys.of(real.fleet)).states["gw-1"]
    assert (before.steering.serving, after.steering.serving) == ("a", "b")


async def test_a_look_names_no_gateway_that_has_just_left_the_fleets_file(real: World) -> None:
    """It had answered a moment before, and a reload was refused for a gateway that no file has."""
    service = ChangeService(real.client, real.book)
    await service.surveys.of(real.fleet)
    fleet = without(real.fleet, "gw-1")
    found = await service.surveys.of(fleet)
    assert {*found.states} == {one.name for one in fleet.gateways}
    assert "gw-1" not in found.silent


@pytest.mark.sweep
async def test_a_look_that_fails_fails_for_all_who_wait_and_for_nobody_later() -> None:
    looks, fleet = Looks[str](), fleet_of("edge")

    async def fail() -> str:
        raise Unavailable("the engine does not answer")

    async def succeed() -> str:
        return "seen"

    found = await asyncio.gather(*[looks.at(fleet, fail) for _ in range(2)], return_exceptions=True)
    assert [str(one) for one in found] == ["the engine does not answer"] * 2
    assert await looks.at(fleet, succeed) == "seen"


@pytest.mark.sweep
async def test_who_asks_for_a_look_of_his_own_shares_the_next_one_with_all_who_ask_before_it_begins() -> None:
    looks, fleet, began, over = Looks[int](), fleet_of("edge"), list[bool](), asyncio.Event()

    async def look() -> int:
        began.append(True)
        mine = len(began)
        await over.wait()
        return mine

    first = asyncio.create_task(looks.anew(fleet, look))
    await asyncio.sleep(0.01)
    others = [asyncio.create_task(looks.anew(fleet, look)) for _ in range(10)]
    await asyncio.sleep(0.01)
    assert len(began) == 1
    over.set()
    assert (await first, await asyncio.gather(*others)) == (1, [2] * 10)
    assert await looks.anew(fleet, look) == 3


@pytest.mark.sweep
async def test_a_fleet_whose_file_has_changed_is_looked_at_anew() -> None:
    looks, began = Looks[int](), []

    async def look() -> int:
        began.append(True)
        return len(began)

    fleets = [fleet_of("edge"), fleet_of("edge", size=5)]
    assert await asyncio.gather(*[looks.at(fleet, look) for fleet in fleets]) == [1, 2]


@pytest.mark.sweep
async def test_a_clock_that_is_set_back_during_a_look_hides_nobody(
    real: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = ChangeService(real.client, real.book)
    ahead = [timedelta(minutes=1)]  # at the first question, and never again

    class SetBack(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + (ahead.pop() if ahead else timedelta(0))

    monkeypatch.setattr(surveys, "datetime", SetBack)
    found = await service.surveys.of(real.fleet)
    assert (set(found.states), found.silent) == (set(real.gateways), {})


@pytest.mark.sweep
async def test_what_a_worker_with_another_clock_has_written_is_silence_and_never_all_well(
    real: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, record = ChangeService(real.client, real.book), real.book.record_states

    def late(fleet: str, states: Sequence[GatewayState], *others: Any) -> None:
        record(fleet, states, *others)
        with real.book.engine.begin() as connection:
            past = datetime.now(UTC) - timedelta(seconds=30)
            connection.execute(update(tables.gateway_states).values(at=past))

    monkeypatch.setattr(real.book, "record_states", late)
    found = await DriftService(service).drift(real.fleet)
    assert (found.gateways, found.silent) == (0, tuple(sorted(real.gateways)))
    with pytest.raises(Refused, match="no gateway of edge answers"):
        await service.plan_settings(real.fleet.model_copy(update={"settings": {"dns": ("10.0.0.53",)}}))


@pytest.mark.sweep
async def test_a_gateway_that_goes_while_a_silent_neighbour_is_waited_for_has_not_answered_since(
    real: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer was written with those of its neighbours, and looked as if it had come after that."""
    monkeypatch.setitem(steps.SURVEY, "schedule_to_close_timeout", timedelta(seconds=4))
    real.gateways["gw-2"].fail("observe", Unavailable("gw-2 does not answer"), times=10_000)
    gone, answered = real.gateways["gw-1"], asyncio.Event()
    observe = gone.observe

    async def heard() -> GatewayState:
        answered.set()
        return await observe()

    monkeypatch.setattr(gone, "observe", heard)
    looking = asyncio.create_task(ChangeService(real.client, real.book).surveys.of(real.fleet))
    await answered.wait()
    moved = datetime.now(UTC)
    assert not looking.done()
    found = await looking
    assert (sorted(found.states), [*found.silent]) == (["gw-1", "gw-3", "gw-4"], ["gw-2"])
    takes = real.book.takes("edge")
    assert takes["gw-1"].at < moved
    assert takes["gw-1"].at == takes["gw-2"].at  # both were asked then
