"""One gateway that speaks of a change which the ledger does not know: what is rebuilt, and for whom."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.service.rebuilding import RebuildingService
from orchestrator.service.surveys import Surveyed
from orchestrator.store.ledger import Ledger
from policies.model.change import PENSTOCK, Quarantine
from policies.model.errors import Conflict, Refused
from policies.model.fleet import Fleet
from tests.activities.test_rebuilding import promote
from tests.unit.fleets import OLD, facts_of
from tests.unit.test_rebuilding import steered_by


class Gateways:
    """What gateways say, without an engine; nobody changes them. Everything they serve may be added."""

    def __init__(self, count: int) -> None:
        self.fleet: Fleet = facts_of(count)[0].model_copy(update={"name": "edge"})
        self.states = {one.name: steered_by(one.name, "edge-1/1") for one in self.fleet.gateways}

    async def is_under_way(self, fleet: str) -> bool:
        del fleet
        return False

    @property
    def surveys(self) -> "Gateways":
        return self

    async def of(self, fleet: Fleet) -> Surveyed:
        del fleet
        return Surveyed(states=self.states)

    async def add(self, *asked: object) -> SimpleNamespace:
        del asked
        return SimpleNamespace(release=OLD)


@pytest.fixture
def gateways() -> Gateways:
    return Gateways(20)


@pytest.fixture
def ledger(tmp_path: Path, gateways: Gateways) -> Ledger:
    made = Ledger.open(f"sqlite:///{tmp_path}/ledger.db")
    promote(made, "one", OLD, *gateways.states)
    return made


def rebuilding(ledger: Ledger, gateways: Any) -> RebuildingService:
    return RebuildingService(ledger=ledger, changes=gateways, releases=gateways)


async def test_a_ledger_is_rebuilt_for_the_one_gateway_that_knows_more(
    ledger: Ledger, gateways: Gateways
) -> None:
    gateways.states["gw-1"] = steered_by("gw-1", "edge-7/1")
    service = rebuilding(ledger, gateways)
    done = await service.rebuild(gateways.fleet, "ana", "its change was lost")
    assert (done.change, done.versions, done.lost) == ("edge-101", {"1.3.0": 1}, {})
    assert done.sentence.startswith(
        "known-good is written down again: 1.3.0 on 1 gateway; no session has moved; edge-101 rebuilt the "
        "ledger, so what served by then became known-good, good or bad."
    )
    assert done.to_repeat[-1] == "  penstock unpin edge --reason TEXT"
    assert ledger.known_good("edge").keys() == gateways.states.keys()
    with pytest.raises(Conflict, match="nothing to rebuild"):
        await service.rebuild(gateways.fleet, "ana", "once more")


async def test_a_number_that_no_ledger_can_have_lost_takes_none_from_later_changes(
    ledger: Ledger, gateways: Gateways
) -> None:
    gateways.states["gw-1"] = steered_by("gw-1", "edge-999999999/1")
    with pytest.raises(Refused, match=r"gw-1 was last steered by edge-999999999, .* who controls its host"):
        await rebuilding(ledger, gateways).rebuild(gateways.fleet, "ana", "doctor said so")
    assert ledger.newest_number("edge") == 1


async def test_a_ledger_is_rebuilt_for_what_it_may_have_lost_and_not_for_a_number_that_there_cannot_be(
    ledger: Ledger, gateways: Gateways
) -> None:
    gateways.states["gw-1"] = steered_by("gw-1", "edge-999999999/1")
    gateways.states["gw-2"] = steered_by("gw-2", "edge-7/1")
    done = await rebuilding(ledger, gateways).rebuild(gateways.fleet, "ana", "its change was lost")
    assert (done.change, done.versions) == ("edge-101", {"1.3.0": 1})


async def test_hosts_that_an_operator_has_quarantined_make_no_ledger_older(
    ledger: Ledger, gateways: Gateways
) -> None:
    """A rebuilt ledger forgets what gateways had before: lying hosts would take every rollback away."""
    for name in ("gw-1", "gw-2"):
        gateways.states[name] = steered_by(name, "edge-7/1")
    ledger.record_states("edge", [*gateways.states.values()], {})
    within = {"edge": timedelta(minutes=5)}
    assert ledger.ahead(within)["edge"].is_older
    for name, person, is_older in (("gw-1", PENSTOCK, True), ("gw-1", "ana", False)):
        out = Quarantine(fleet="edge", gateway=name, reason="lies", person=person, since=datetime.now(UTC))
        ledger.set_quarantine(out)
        assert ledger.ahead(within)["edge"].is_older is is_older
    assert ledger.ahead(within)["edge"].sentence.startswith("gw-2 was last steered by edge-7")
    ledger.set_quarantine(out.model_copy(update={"gateway": "gw-2"}))
    assert ledger.ahead(within) == {}
    with pytest.raises(Conflict, match="nothing to rebuild"):
        await rebuilding(ledger, gateways).rebuild(gateways.fleet, "ana", "doctor said so")
