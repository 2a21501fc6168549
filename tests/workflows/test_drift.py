"""What `penstock fleet drift` finds on a fleet whose gateways answer."""

from datetime import UTC, datetime

import pytest

from orchestrator.service.drift import DriftService, behind_of
from policies.model.change import Outcome, Quarantine
from policies.model.errors import Refused, Unavailable
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


@pytest.mark.sweep
async def test_a_gateway_that_a_promotion_did_not_reach_is_named_with_the_command_that_brings_it_along(
    recorded: Recorded,
) -> None:
    drift, ledger = DriftService(recorded.service), recorded.ledger
    assert (await recorded.upgrade(("gw-1",), ("gw-2", "gw-3"))).outcome is Outcome.PROMOTED
    [left] = (await drift.drift(recorded.world.fleet)).differences
    along = "penstock plan edge --to 1.3.0"
    without = f"edge-2 promoted 1.3.0 without it. Bring it along: {along}"
    sentence = f"release: its known-good is 1.1.6; it serves 1.1.6; {without}"
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


@pytest.mark.sweep
async def test_the_known_good_of_a_gateway_and_the_release_that_it_serves_are_two_facts(
    recorded: Recorded,
) -> None:
    drift, fleet, ledger = DriftService(recorded.service), recorded.world.fleet, recorded.ledger
    assert (await recorded.upgrade(("gw-1",), ("gw-2", "gw-3"))).outcome is Outcome.PROMOTED
    recorded.world.gateways["gw-4"].serve(NEW)
    release, runs = (one.sentence for one in (await drift.drift(fleet)).differences)
    assert release.startswith("release: its known-good is 1.1.6; it serves 1.3.0; edge-2 promoted 1.3.0 ")
    assert runs == "what runs: it runs a release that is not its known-good 1.1.6"
    recorded.world.gateways["gw-4"].fail("observe", Unavailable("its agent is away"), times=10_000)
    [release] = [one.sentence for one in (await drift.drift(fleet)).differences]
    assert release.startswith("release: its known-good is 1.1.6; what it serves is not known; edge-2 ")
    behind = behind_of(ledger, fleet)
    assert behind is not None
    assert behind.gateways == {"gw-4": "its known-good is 1.1.6; what it serves is not known"}
