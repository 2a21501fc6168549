"""The bake: gates go on after promotion for as long as the old release is kept on disk.

What compares does so with the gateways not changed, if any are left, else with the fleet's own
baseline and the gates' guards. Nothing is promoted again; a rollback is one decision away, and
everything that is no hard sign asks a person.
"""

from datetime import timedelta

from policies.model.gates import GatePolicy
from policies.model.verdict import Action, Decision, GateVerdict, Window


def baking_policy(policy: GatePolicy, kept: timedelta) -> GatePolicy:
    """Return the policy that watches promoted gateways for the kept time."""
    gates = tuple(gate.gentle() for gate in policy.gates)
    cap = max(kept, policy.window.minimum)
    window = policy.window.model_copy(
        update={"minimum": cap, "nominal": cap, "extension": timedelta(0), "cap": cap}
    )
    return policy.model_copy(update={"gates": gates, "window": window})


def bake_is_over(decision: Decision, wall: timedelta, window: Window) -> bool:
    """Whether the bake is over in peace: the kept time has passed and nothing speaks against it."""
    quiet = decision.verdict in {GateVerdict.HEALTHY, GateVerdict.NOT_ENOUGH_DATA}
    return wall >= window.cap and quiet and decision.action is not Action.ROLL_BACK
