"""A gateway that metrics name is reported with the sign on itself, all the way to the end of its change."""

from policies.model.change import Outcome
from policies.model.verdict import Action, Decision, GateVerdict
from tests.workflows.recorded import soon
from tests.workflows.world import World, result_of

OWN = "restarted: it shows the sign for 0 s, and the control does not"
PROOF = "logins: 98 of 98 were accepted"


async def test_a_gateway_that_metrics_name_is_left_out_with_its_own_reason(world: World) -> None:
    """It was left out with the sentence that proved the other gateways healthy."""
    world.judge.says(
        Decision(
            action=Action.CONTINUE,
            verdict=GateVerdict.HEALTHY,
            reason=PROOF,
            failed=("gw-1",),
            own={"gw-1": OWN},
        )
    )
    result = await soon(result_of(await world.start(("gw-1", "gw-2"))))
    assert result.outcome is Outcome.ROLLED_BACK
    assert OWN in result.reason
    assert PROOF not in result.reason
