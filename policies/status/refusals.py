"""Refusals: which command makes no sense to a change now, and what does."""

from policies.model.change import ChangeKind, ChangeOrder
from policies.model.command import Command, CommandKind
from policies.status.told import Told, listed
from policies.votes import Votes


def refusal_of(order: ChangeOrder, told: Told, command: Command) -> str | None:  # noqa: PLR0911 - a rule a case
    """Return why the command makes no sense now, and what does; None when it does."""
    fleet, name = order.fleet, told.name or order.fleet
    if told.result is not None:
        return (
            f"{name} has ended ({told.result.outcome.replace('_', ' ')}); "
            f"to go back now: penstock rollback {fleet} --reason TEXT"
        )
    match command.kind:
        case CommandKind.ROLL_BACK if order.bakes_on:
            # Only the return of single gateways does not take the others back, too; it is over soon.
            alone = ", ".join(order.alone) or "gateways that strayed"
            return f"{alone} return alone, within a minute; then: penstock rollback {fleet} --reason TEXT"
        case CommandKind.ROLL_BACK:
            return None
        case CommandKind.APPROVE | CommandKind.REJECT:
            return _refusal_of_answer(order, told, command)
        case CommandKind.QUARANTINE if command.gateway in told.not_back:
            return None
        case CommandKind.QUARANTINE:
            waited_for = f"waited for: {listed(told.not_back)}" if told.not_back else "nobody is"
            return f"{command.gateway} is not waited for; {waited_for}"
        case _ if told.waits_until is not None:
            return f"a rollback waits for a second person: approve | reject | penstock rollback {fleet}"
        case _:
            return _refusal_by_phase(order, told) or _refusal_while_it_goes_on(order, told, command)


def _refusal_by_phase(order: ChangeOrder, told: Told) -> str | None:
    """Return why neither a hold nor a promotion nor an abort makes sense where the change is."""
    name = told.name or order.fleet
    if told.goes_back or order.kind is ChangeKind.GO_BACK:
        return f"{name} is rolling back; nothing else can be ordered until it has"
    if order.kind is not ChangeKind.UPGRADE:
        return f"{name} is an installation: it moves no session and cannot be held or promoted"
    if told.promoting:
        return f"{name} is being promoted; to go back: penstock rollback {order.fleet} --reason TEXT"
    return None


def _refusal_while_it_goes_on(order: ChangeOrder, told: Told, command: Command) -> str | None:
    match command.kind:
        case CommandKind.ABORT if told.moved:
            return f"sessions have moved already; use: penstock rollback {order.fleet} --reason TEXT"
        case CommandKind.PROMOTE if told.holds:
            return f"held by {listed(told.holds)}; resume it first, then promote"
        case CommandKind.PROMOTE if told.decision is None:
            return "there is no verdict on this wave yet that anybody could vote on"
        case CommandKind.PROMOTE:
            return Votes(order.requested_by).refusal_of(command.person)
        case CommandKind.RESUME if told.holds and (command.hold_of or command.person) not in told.holds:
            lift = f"penstock resume {order.fleet} --hold-of {min(told.holds)} --reason TEXT"
            return f"held by {listed(told.holds)}; to lift that hold by name: {lift}"
        case _:
            return None


def _refusal_of_answer(order: ChangeOrder, told: Told, command: Command) -> str | None:
    if order.confirm is None or told.waits_until is None:
        return f"nothing waits for an answer in {order.fleet} any more"
    if command.kind is CommandKind.REJECT:
        return None
    if command.person == order.requested_by:
        return f"{command.person} asked for this rollback; somebody else has to approve it"
    if command.approves != order.confirm.change:
        return "the approval names another change than the one that waits; look at it and approve it anew"
    return None
