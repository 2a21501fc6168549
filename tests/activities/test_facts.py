"""What a change asks of its fleet's facts, again and again while it goes on."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import ActivityEnvironment

from activities.facts import (
    NAMED,
    CapacityQuery,
    FactActivities,
    LeftOutQuery,
    MissedQuery,
    ReturnQuery,
    TriesEntry,
    UndoQuery,
)
from orchestrator.store.known_good import MOST
from orchestrator.store.ledger import Ledger
from policies.model.change import (
    PENSTOCK,
    ChangeEnding,
    ChangeKind,
    ChangeOpening,
    KnownGoodBatch,
    Outcome,
    Quarantine,
)
from policies.model.instance import GatewayState
from policies.model.operation import BREAK_GLASS
from policies.model.value import Value
from tests.fakes.control import FakeFleets
from tests.unit.fleets import NEW, OLD, Facts, facts_of, fleet, gateway, planned, state

FLEET = 2_000
LARGEST_PAYLOAD = 256 * 1024
"""Bytes from which on an engine warns."""


async def test_capacity_is_told_by_what_was_said_last_and_nothing_else_is_read_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.facts.RECENT", timedelta(seconds=-1))
    facts, ledger, read = facts_of(4), Ledger.open(url), list[Sequence[str]]()
    (fleet, states, _), plan = facts, ledger.record_plan(planned(facts))
    asked = CapacityQuery(plan=plan, gateways=("gw-1",), loads={})
    activities, reads = FactActivities(ledger, FakeFleets(fleet)), ledger.states_of

    def states_of(fleet: str, gateways: Sequence[str]) -> dict[str, GatewayState]:
        read.append(tuple(gateways))
        return reads(fleet, gateways)

    async def short() -> bool:
        found = await ActivityEnvironment().run(activities.find_short_of_capacity, asked)
        return bool(found.short)

    monkeypatch.setattr(ledger, "states_of", states_of)
    ledger.record_states("edge", [*states.values()], {})
    assert [await short(), await short()] == [False, False]
    ledger.record_states("edge", [state("gw-4", sessions=10_000)], {})
    assert await short()
    ledger.record_states("edge", [states["gw-4"]], {})
    assert not await short()
    ledger.record_states("edge", [], dict.fromkeys(("gw-1", "gw-2", "gw-3", "gw-4"), "does not answer"))
    assert await short()
    assert [sorted(some) for some in read] == [sorted(states), [], ["gw-4"], ["gw-4"], []]


def adrift() -> Facts:
    """Return thousands of gateways with names of the greatest length, of which none is on its known-good."""
    names = [f"gw-{number:05}.{'x' * 55}"[:63] for number in range(1, FLEET + 1)]
    by_hand = {"owner": BREAK_GLASS, "observed_at": datetime.now(UTC)}
    states = {
        name: state(name, on=NEW).model_copy(update=by_hand if number % 2 else {})
        for number, name in enumerate(names)
    }
    return fleet(*[gateway(name) for name in names]), states, dict.fromkeys(names, OLD)


async def test_what_is_found_of_thousands_of_gateways_that_drifted_fits_into_one_message(url: str) -> None:
    described, states, known_good = adrift()
    ledger = Ledger.open(url)
    opening = ChangeOpening(
        key="k", fleet="edge", kind=ChangeKind.UPGRADE, requested_by="ana", reason="r", release="1.3.0"
    )
    change = ledger.open_change(opening)
    for first in range(0, FLEET, MOST):
        some = [*states][first : first + MOST]
        releases = {name: known_good[name] for name in some}
        ledger.record_known_good_batch(KnownGoodBatch(fleet="edge", change=change, releases=releases))
        ledger.record_states("edge", [states[name] for name in some], {})
    activities = FactActivities(ledger, FakeFleets(described))
    found = await ActivityEnvironment().run(activities.find_strays, "edge")
    assert (len(found.strays), len(found.by_hand)) == (NAMED, NAMED)
    assert size_of(found) < LARGEST_PAYLOAD / 8


async def test_only_those_gateways_that_are_asked_about_are_named_of_whom_operators_left_out(
    url: str,
) -> None:
    described, _, _ = facts_of(3)
    ledger, since = Ledger.open(url), datetime.now(UTC)
    for name in ("gw-1", "gw-2"):
        ledger.set_quarantine(
            Quarantine(fleet="edge", gateway=name, reason="it burns", person="ana", since=since)
        )
    asked = LeftOutQuery(fleet="edge", gateways=("gw-2", "gw-3"))
    found = await ActivityEnvironment().run(
        FactActivities(ledger, FakeFleets(described)).find_left_out, asked
    )
    assert found == {"gw-2": "in quarantine by ana: it burns"}


async def test_a_change_finds_a_gateway_that_it_tries_again_where_its_step_is_repeated(url: str) -> None:
    described, states, known_good = facts_of(2)
    ledger, since = Ledger.open(url), datetime.now(UTC) - timedelta(minutes=5)
    opening = ChangeOpening(
        key="k", fleet="edge", kind=ChangeKind.UPGRADE, requested_by="ana", reason="r", release="1.3.0"
    )
    releases = {name: known_good[name] for name in states}
    batch = KnownGoodBatch(fleet="edge", change=ledger.open_change(opening), releases=releases)
    ledger.record_known_good_batch(batch)
    ledger.record_states("edge", [state("gw-1", on=NEW), states["gw-2"]], {})
    left_out = Quarantine(fleet="edge", gateway="gw-1", reason="silent", person=PENSTOCK, since=since)
    ledger.set_quarantine(left_out)
    activities, run = FactActivities(ledger, FakeFleets(described)), ActivityEnvironment().run

    async def planned_by(change: str) -> str | None:
        asked = ReturnQuery(fleet="edge", change=change, beside=batch.change, drifted=("gw-1",))
        found = await run(activities.plan_return, asked)
        return found.plan if found is not None else None

    assert (await run(activities.find_strays, "edge")).strays.keys() == {"gw-1"}
    first = await planned_by("edge-2")
    assert first is not None
    assert await planned_by("edge-2") == first
    await run(activities.record_tries, TriesEntry(fleet="edge", change="edge-2", gateways={"gw-1": True}))
    assert await planned_by("edge-3") is None
    assert (await run(activities.find_strays, "edge")).strays == {}


async def test_every_gateway_that_never_answered_a_reload_is_asked_however_it_came_to_miss_it(
    url: str,
) -> None:
    """gw-2 was in quarantine, gw-3 has joined since, gw-4 has another name, gw-5 has left, gw-6 is silent."""
    before, ledger = fleet(*[gateway(f"gw-{number}") for number in (1, 2, 5, 6)]), Ledger.open(url)
    opening = ChangeOpening(
        key="k",
        fleet="edge",
        kind=ChangeKind.RELOAD,
        requested_by="ana",
        reason="ben has left",
        release="credentials",
        plan=ledger.record_reload(before, ("gw-1", "gw-5", "gw-6")),
    )
    reload = ledger.open_change(opening)
    ledger.close_change(ChangeEnding(change=reload, outcome=Outcome.PROMOTED, sentence="3 of 3"))
    answers = {"gw-1": reload, "gw-2": "edge-0", "gw-3": "", "gw-4": "edge-0", "gw-5": ""}
    states = [state(name).model_copy(update={"reload_answered": one}) for name, one in answers.items()]
    ledger.record_states("edge", states, {"gw-6": "does not answer"})
    today = fleet(*[gateway(f"gw-{number}") for number in (1, 2, 3, 4, 6)])
    activities, run = FactActivities(ledger, FakeFleets(today)), ActivityEnvironment().run
    assert (await run(activities.find_strays, "edge")).missed == ("gw-2", "gw-3", "gw-4")
    asked = MissedQuery(fleet="edge", kind=ChangeKind.RELOAD, is_beside=True, still_moved=("gw-3",))
    found = await run(activities.plan_missed, asked)
    assert found is not None
    header = ledger.plan_header(found.plan)
    parts = [ledger.plan_part(found.plan, key) for key in header.keys]
    assert [one.gateway.name for part in parts for one in part.members] == ["gw-2", "gw-4"]
    assert (found.repeats, found.takes_back) == (reload, None)


def size_of(found: Value) -> int:
    return len(pydantic_data_converter.payload_converter.to_payload(found).data)


async def test_each_of_many_gateways_that_failed_alone_goes_back_to_what_it_had(url: str) -> None:
    """More than 500 at once were refused, each time they were tried: none of them was taken back."""
    ledger, (fleet, _, _) = Ledger.open(url), facts_of(MOST + 2)
    order: dict[str, str] = {"fleet": "edge", "requested_by": "ana", "reason": "CVE"}
    names = [gateway.name for gateway in fleet.gateways]
    changes = list[str]()
    for kind, release in ((ChangeKind.INSTALL, OLD), (ChangeKind.UPGRADE, NEW)):
        opening = ChangeOpening(key=kind.value, kind=kind, release=release.version, **order)
        changes.append(ledger.open_change(opening))
        for first in range(0, len(names), MOST):
            releases = dict.fromkeys(names[first : first + MOST], release)
            batch = KnownGoodBatch(fleet="edge", change=changes[-1], releases=releases)
            ledger.record_known_good_batch(batch)
        end = ChangeEnding(change=changes[-1], outcome=Outcome.PROMOTED, sentence="promoted")
        ledger.close_change(end)
    asked = UndoQuery(fleet="edge", change=changes[-1], gateways=tuple(names[:-1]))
    undo = await ActivityEnvironment().run(FactActivities(ledger, FakeFleets(fleet)).plan_undo, asked)
    assert undo.plan is not None
    assert {name: one.back for name, one in ledger.plan_members(undo.plan).items()} == dict.fromkeys(
        names[:-1], OLD
    )
