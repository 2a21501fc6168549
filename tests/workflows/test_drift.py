"""What `penstock fleet drift` finds on a fleet whose gateways answer."""

from orchestrator.service.drift import DriftService
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
