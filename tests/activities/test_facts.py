"""What a change asks of its fleet's facts, again and again while it goes on."""

from collections.abc import Sequence
from datetime import timedelta

import pytest
from temporalio.testing import ActivityEnvironment

from activities.facts import CapacityQuery, FactActivities
from orchestrator.store.ledger import Ledger
from policies.model.instance import GatewayState
from tests.fakes.control import FakeFleets
from tests.unit.fleets import facts_of, planned, state


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
