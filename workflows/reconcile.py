"""Reconcile: finds changes that nobody looks after and gateways that are not on their known-good.

It compares facts with facts: what gateways do now with what the ledger calls their known-good.
The fleet's lock is the proof that somebody looks after it. A large fleet is looked at in turns,
so that looking costs the engine no more than ten steps a second.
"""

from collections.abc import Collection

from temporalio import workflow

from activities.facts import FactActivities, Strays
from activities.ledger import ByHandEntry, EventEntry, LedgerActivities
from policies.model.change import ChangeKind, ChangeOrder
from policies.model.value import Name, Value
from policies.notices.entries import STEERED_BY_HAND
from workflows import control
from workflows.bake import bake_again
from workflows.change import Change, ChangeRun
from workflows.children import left_behind, tell
from workflows.identities import change_of
from workflows.survey import PAGES_A_LOOK, Survey, SurveyOrder

_MISSED = {
    ChangeKind.RELOAD: "the last reload of credentials",
    ChangeKind.CONFIGURE: "the last change of settings",
}


class ReconcileOrder(Value):
    """Which fleet is looked after."""

    fleet: Name


class ReconcileResult(Value):
    """What was found, and whether somebody was already looking after it."""

    strays: dict[str, str] = {}
    open_changes: tuple[str, ...] = ()
    sentence: str


@workflow.defn(name="Reconcile")
class Reconcile:
    """Runs every minute; does nothing unless a change was left alone."""

    @workflow.run
    async def run(self, order: ReconcileOrder) -> ReconcileResult:
        """Start the way back of gateways that are not on known-good while no change is under way.

        Gateways that were changed since an older copy of the ledger was made are left as they are: what it
        calls their known-good is not. A person says what is so.
        """
        whose_turn = SurveyOrder(fleet=order.fleet, pages=PAGES_A_LOOK)
        found, firsts = await self._look(whose_turn, "survey")
        if found.strays or found.open_changes:
            # A change may have ended between the first answer of a gateway and the last word of the ledger.
            same = SurveyOrder(fleet=order.fleet, firsts=firsts)
            found, _ = await self._look(same, "survey-again")
        if found.by_hand:
            found = await self._leave_alone(order.fleet, found)
        for change, claimed in found.taken_off.items():
            await tell(change_of(order.fleet), "taken_off", change, claimed)
        if not found.strays and (found.is_awaited or not found.open_changes):
            await bake_again(order.fleet)
            return ReconcileResult(sentence=await self._ask_again(order.fleet, found) or _at_rest(found))
        sentence = await self._end(order.fleet, found)
        return ReconcileResult(strays=found.strays, open_changes=found.open_changes, sentence=sentence)

    @staticmethod
    async def _look(order: SurveyOrder, child: str) -> tuple[Strays, tuple[int, ...]]:
        """Return what is found, and which pages were asked for it."""
        firsts = await workflow.execute_child_workflow(
            Survey.run, order, id=f"{workflow.info().workflow_id}/{child}"
        )
        return await control.ask(FactActivities.find_strays, order.fleet), firsts

    @staticmethod
    async def _leave_alone(fleet: str, found: Strays) -> Strays:
        """Quarantine gateways that operators steered off their known-good on their hosts, and page.

        A gateway that goes to and fro is paged about once in some hours.

        Returns:
            The same without those that operators have quarantined or returned since they were seen.
        """
        entry = ByHandEntry(fleet=fleet, reasons=found.by_hand, seen=found.seen)
        left = await control.ask(LedgerActivities.leave_to_operators, entry)
        unpaged = {name: why for name, why in found.unpaged.items() if name in left}
        found = found.model_copy(update={"by_hand": {name: found.by_hand[name] for name in left}})
        if not unpaged:
            return found
        event = EventEntry(
            action=STEERED_BY_HAND,
            fleet=fleet,
            subject=f"{fleet}/several",
            sentence=f"{_left_alone(unpaged)}; {min(unpaged)}: {unpaged[min(unpaged)]}",
            key=f"{workflow.info().run_id} {STEERED_BY_HAND}",
        )
        await control.ask(LedgerActivities.record_event, event)
        return found

    @staticmethod
    async def _ask_again(fleet: str, found: Strays) -> str:
        """Repeat what gateways missed, credentials first: removed users are let in there.

        A change under way is asked to let it in. Return the sentence for it, empty where nothing was missed.
        """
        asked = ""
        for kind, gateways in ((ChangeKind.RELOAD, found.missed), (ChangeKind.CONFIGURE, found.unset)):
            if not gateways:
                continue
            names = ", ".join(gateways)
            reason = f"missed {_MISSED[kind]}: {names}"
            order = ChangeOrder(fleet=fleet, kind=kind, key=str(workflow.uuid4()), reason=reason)
            if await left_behind(Change.run, ChangeRun(order=order), change_of(fleet)):
                return f"repeating {_MISSED[kind]} on {names}, which missed it"
            await Reconcile._offer(found, order)
            asked = "a change is under way, and lets this in if it only waits"
        return asked

    @staticmethod
    async def _offer(found: Strays, order: ChangeOrder) -> None:
        """Ask the change under way to let this in, but for a wave: it lets nothing in, and may last for days.

        Its history cannot be cut meanwhile, and is not to grow with each minute.
        """
        if not found.lets_nothing_in:
            await tell(change_of(order.fleet), "let_in", order)

    @staticmethod
    async def _end(fleet: str, left: Strays) -> str:
        strays = left.strays
        found = "; ".join(f"{name} {why}" for name, why in sorted(strays.items()))
        order = ChangeOrder(
            fleet=fleet,
            kind=ChangeKind.GO_BACK,
            source=left.source,
            bakes_on=True,
            key=str(workflow.uuid4()),
            reason=f"nobody looks after this change any more: {found or 'only the ledger is behind'}",
        )
        if not await left_behind(Change.run, ChangeRun(order=order), change_of(fleet)):
            if left.untouched:
                await Reconcile._offer(left, order.model_copy(update={"drifted": left.untouched}))
            await bake_again(fleet)
            return await Reconcile._ask_again(fleet, left) or "a change is under way and looks after them"
        return f"bringing back: {', '.join(sorted(strays)) or 'nobody; only the ledger was behind'}"


def _at_rest(found: Strays) -> str:
    """Return the sentence where nothing is to be done."""
    if found.by_hand:
        return _left_alone(found.by_hand)
    if found.resting:
        named = "; ".join(f"{name} {why}" for name, why in found.resting.items())
        more = f"; and {found.more_resting} more" if found.more_resting else ""
        return f"brought back later: {named}{more}"
    return found.ahead or "every gateway is on its known-good"


def _left_alone(by_hand: Collection[Name]) -> str:
    return f"left alone, since operators steered them on their hosts: {', '.join(sorted(by_hand))}"
