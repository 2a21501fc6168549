"""Plans of large fleets are long work: no look, and no order in the safe direction, waits for it."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from activities.files import load
from orchestrator.service import changes as changes_module
from orchestrator.service import service as service_module
from orchestrator.service.approvals import ApprovalService
from orchestrator.service.background import MOST_OF_ONE, PLANS
from orchestrator.service.planning import PlanService
from orchestrator.service.surveys import Surveyed, SurveyService
from orchestrator.store.ledger import Ledger
from policies.model.change import ChangeKind, ChangeOpening, KnownGoodBatch
from policies.model.errors import TooMany
from policies.model.fleet import Fleet
from policies.model.people import Caller, Role, Via
from policies.model.plan import Strategy
from policies.planning.plan import plan as make_plan
from tests.fakes.gateway import FakeGateway
from tests.patience import until
from tests.service.test_approvals import DORA, House, Releases, house, place, releases

__all__ = ["house", "place", "releases"]

STEPS = (
    (changes_module, "make_plan"),
    (service_module, "outlined"),
    (Ledger, "record_plan"),
    (Ledger, "known_good"),
    (ApprovalService, "require_as_signed"),
    (PlanService, "_view"),
)
"""What takes seconds for ten thousand gateways."""


@pytest.fixture
async def surveyed(
    house: House,
    releases: Releases,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, str]:
    """Have every gateway answer that it serves the oldest release; return what is to be planned."""
    old, same, _ = releases
    states = {}
    for gateway in load(house.folder / "fleet.yaml", Fleet).gateways:
        fake = FakeGateway(gateway)
        fake.serve(old)
        states[gateway.name] = await fake.observe()

    opening = ChangeOpening(
        key="first",
        fleet="edge",
        kind=ChangeKind.INSTALL,
        requested_by="dora",
        reason="first",
        release=old.version,
    )
    change = house.ledger.open_change(opening)
    known_good = KnownGoodBatch(fleet="edge", change=change, releases=dict.fromkeys(states, old))
    house.ledger.record_known_good_batch(known_good)

    async def survey(*_: object) -> Surveyed:
        return Surveyed(states=states)

    monkeypatch.setattr(SurveyService, "of", survey)
    return {"fleet": "edge", "to": same.version}


def caller(person: str) -> Caller:
    return Caller(person=person, grants={"edge": frozenset({Role.OPERATOR})}, via=Via.CLI)


def watched(done: Callable[..., Any], seen: list[str]) -> Callable[..., Any]:
    def watching(*given: Any, **named: Any) -> Any:
        seen.append(threading.current_thread().name)
        return done(*given, **named)

    return watching


async def test_all_that_takes_long_of_a_plan_is_done_in_the_threads_for_plans(
    house: House,
    surveyed: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R12: it took the threads that authorise a hold, and those of short looks."""
    seen: dict[str, list[str]] = {name: [] for _, name in STEPS}
    for place_of, name in STEPS:
        monkeypatch.setattr(place_of, name, watched(getattr(place_of, name), seen[name]))
    status, found = await house.by(DORA)("POST", "/plans", surveyed)
    assert status == 200, found
    pools = {name: {one.partition("_")[0] for one in threads} for name, threads in seen.items()}
    assert pools == {name: {"plans"} for _, name in STEPS}
    seen["_view"].clear()
    status, found = await house.by(DORA)("GET", f"/plans/{found['digest'][7:19]}")
    assert status == 200, found
    assert {one.partition("_")[0] for one in seen["_view"]} == {"looks"}


async def test_a_person_who_has_many_plans_made_at_once_keeps_nobody_from_planning_or_looking(
    house: House, surveyed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    free, made, service = threading.Event(), make_plan, house.installation.service

    def slow(*given: Any, **named: Any) -> Any:
        free.wait()
        return made(*given, **named)

    def plan(person: str) -> Coroutine[Any, Any, object]:
        return service.plan(caller(person), "edge", surveyed["to"], Strategy.CANARY)

    monkeypatch.setattr(changes_module, "make_plan", slow)
    planning = [asyncio.create_task(plan("dora")) for _ in range(MOST_OF_ONE)]
    try:
        await until(lambda: PLANS._tasks["dora"] == MOST_OF_ONE)
        with pytest.raises(TooMany, match="dora has 4 long requests"):
            await plan("dora")
        planning.append(asyncio.create_task(plan("anna")))
        await until(lambda: PLANS._tasks["anna"] == 1)
        assert len(await service.history(caller("dora"), "edge", 10)) == 1
    finally:
        free.set()
    assert len(await asyncio.gather(*planning)) == MOST_OF_ONE + 1
