"""What `penstock fleet drift` finds on a fleet whose gateways answer."""

from datetime import UTC, datetime

from orchestrator.service.drift import DriftService
from policies.model.change import Outcome, Quarantine
from policies.model.errors import Refused
from tests.workflows.recorded import Recorded
from tests.workflows.world import NEW


async def test_what_runs_and_what_files_say_is_compared_and_who_is_silent_named(
    recorded: Recorded,
) -> None:
    fleet, gateways = recorded.world.fleet, recorded.world.gateways
    drift = DriftService(recorded.service)
    found = await drift.drift(fleet)
    assert (found.differences, found.gateways, found.silent) == ((), 4, ())
    gateways["gw-1"].serve(NEW)
    gateways["gw-2"].gateway = gateways["gw-2"].gateway.model_copy(update={"port": 8443})
    gateways["gw-3"].fail("observe", Refused("gw-3 does not say"))
    found = await drift.drift(fleet)
    assert [(one.gateway, one.sentence) for one in found.differences] == [
        ("gw-1", "what runs: it runs a release that is not its known-good 1.1.6"),
        ("gw-2", "port: fleet.yaml says 443, its agent's file 8443"),
    ]
    assert (found.count, found.gateways, found.silent) == (2, 3, ("gw-3",))


async def test_a_gateway_that_a_promotion_did_not_reach_is_named_with_the_command_that_brings_it_along(
    recorded: Recorded,
) -> None:
    drift, ledger = DriftService(recorded.service), recorded.ledger
    assert (await recorded.upgrade(("gw-1",), ("gw-2", "gw-3"))).outcome is Outcome.PROMOTED
    [left] = (await drift.drift(recorded.world.fleet)).differences
    along = "penstock plan edge --to 1.3.0"
    sentence = f"release: it is on 1.1.6; edge-2 promoted 1.3.0 without it. Bring it along: {along}"
    assert (left.gateway, left.sentence) == ("gw-4", sentence)
    out = Quarantine(fleet="edge", gateway="gw-4", reason="repair", person="ana", since=datetime.now(UTC))
    ledger.set_quarantine(out)
    [left] = (await drift.drift(recorded.world.fleet)).differences
    assert left.sentence.endswith(f"penstock gateway return edge gw-4 --reason TEXT, then {along}")
    assert ledger.clear_quarantine("edge", "gw-4", "ana", "repaired")
    await recorded.start(("gw-4",))
    assert (await drift.drift(recorded.world.fleet)).differences == ()
    await recorded.nothing_under_way()
    assert (await drift.drift(recorded.world.fleet)).differences == ()
