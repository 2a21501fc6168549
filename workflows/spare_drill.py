"""A drill on a spare gateway: the engine's clock wakes it, and a policy decides whether anything happens.

`way-open` changes nothing: the gateway is asked what serves there, is logged in to as its users would, and is
asked again. It rehearses that orders reach it, that a login works, and that steering can be read back.
"""

from datetime import datetime

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

from activities.drill_turns import DrillTurn, DrillTurnActivities
from activities.instances import InstanceActivities, SlotOrder
from policies.drills import SPARE
from policies.model.drill import DrillReport, DrillStep
from policies.model.fleet import GatewayRef
from policies.model.instance import GatewayState
from policies.model.operation import Operation
from policies.model.value import Name, Value, sentence
from workflows import control, steps
from workflows.answers import answer_of
from workflows.failures import sentence_of


class SpareDrillOrder(Value):
    """Of which fleet."""

    fleet: Name


@workflow.defn(name="SpareDrill")
class SpareDrill:
    """Runs by the clock; nothing happens unless a drill is due, a window open, and nobody on the gateway."""

    @workflow.run
    async def run(self, order: SpareDrillOrder) -> str:
        """Return what was rehearsed, or why nothing was."""
        turn = await control.ask(DrillTurnActivities.ask_drill_turn, order.fleet)
        if turn.gateway is None:
            return turn.sentence
        began, seen, failure = workflow.now(), list[DrillStep](), None
        try:
            state = await answer_of(turn.gateway, InstanceActivities.observe_gateway, steps.ASK)
            if has_users(state):
                return f"{turn.gateway.name} has users, or nobody knows: {turn.drill} is not rehearsed there"
            seen.append(_step("the gateway answers", began))
            failure = await self._log_in_and_read_back(turn.gateway, state, seen, began)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            failure = sentence_of(error)
        report = _report(turn, began, seen, failure)
        await control.record(DrillTurnActivities.record_spare_drill, report)
        return f"{turn.sentence}: {report.outcome}"

    @staticmethod
    async def _log_in_and_read_back(
        gateway: GatewayRef, before: GatewayState, seen: list[DrillStep], began: datetime
    ) -> str | None:
        """Add what was seen; return why the way is not open, None when it is."""
        slot = before.steering.serving
        release = before.instance(slot).release if slot is not None else None
        if slot is None or release is None:
            return f"{gateway.name} serves nothing"
        operation = Operation(rollout="drill", epoch=0, gateway=gateway.name, step="probe", digest=release)
        order = SlotOrder(operation=operation, slot=slot)
        probe = await answer_of(gateway, InstanceActivities.probe_instance, steps.CHANGE, order)
        if not probe.passed:
            return f"{gateway.name} fails its probe at {probe.stage}: {probe.reason}"
        seen.append(_step("a login and pings pass", began))
        after = await answer_of(gateway, InstanceActivities.observe_gateway, steps.ASK)
        if after.steering.serving != slot:
            return f"{gateway.name} gives new sessions to {after.steering.serving} and no more to {slot}"
        seen.append(_step("steering is read back", began))
        return None


def has_users(state: GatewayState) -> bool:
    """Return whether anybody is on the gateway, or it is not known that nobody is."""
    return any(one.sessions is None or one.sessions > 0 for one in state.instances if one.pid is not None)


def _step(what: str, began: datetime) -> DrillStep:
    return DrillStep(what=what, seconds=round((workflow.now() - began).total_seconds(), 1))


def _report(turn: DrillTurn, began: datetime, seen: list[DrillStep], failure: str | None) -> DrillReport:
    name = str(turn.drill)
    return DrillReport(
        name=name,
        place=str(turn.place),
        began=began,
        budget=SPARE[name].budget.total_seconds(),
        steps=tuple(seen),
        failure=sentence(failure) if failure is not None else None,
    )
