"""Gateways that were returned are shown in no quarantine any more."""

from datetime import UTC, datetime

from orchestrator.service.drift import DriftService, behind_of
from policies.model.change import Outcome, Quarantine
from tests.workflows.recorded import Recorded


async def test_drift_shows_a_returned_gateway_in_no_quarantine(recorded: Recorded) -> None:
    out = Quarantine(fleet="edge", gateway="gw-4", reason="repair", person="ana", since=datetime.now(UTC))
    recorded.ledger.set_quarantine(out)
    assert (await recorded.upgrade(("gw-1",), ("gw-2", "gw-3", "gw-4"))).outcome is Outcome.PROMOTED
    behind = behind_of(recorded.ledger, recorded.world.fleet)
    assert behind is not None
    assert behind.reasons["gw-4"] == "in quarantine by ana: repair"
    assert recorded.ledger.clear_quarantine("edge", "gw-4", "ana", "repaired")
    [left] = (await DriftService(recorded.service).drift(recorded.world.fleet)).differences
    assert left.gateway == "gw-4"
    assert "(quarantined by ana: repair; returned since)" in left.sentence
