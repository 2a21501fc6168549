"""Refusals: which command makes no sense to a change now, and what does."""

from policies.model.change import RELOADS, ChangeKind, ChangeOrder, label_without_release
from policies.model.command import Command, CommandKind
from policies.model.offer import Offer, Refusal, Verb
from policies.model.way_back import Confirmation
from policies.status.told import Told, listed, subject_of
from policies.votes import Votes, ballot_of


def refusal_of(  # noqa: PLR0911 - a rule a case
    order: ChangeOrder, told: Told, command: Command, *, waits: bool
) -> Refusal | None:
    """Return why the command makes no sense now, and what does; None when it does.

    `waits` is whether a gateway of the command is waited for.
    """
    name = told.name or order.fleet
    back = _offer(Verb.ROLL_BACK, order)
    if told.result is not None:
        return _refused(f"{name} has ended ({told.result.outcome.replace('_', ' ')})", back)
    match command.kind:
        case CommandKind.ROLL_BACK:
            return _refusal_of_rollback(order, told)
        case CommandKind.ABORT if order.kind in RELOADS:
            return None
        case CommandKind.APPROVE | CommandKind.REJECT:
            return _refusal_of_answer(order, told, command)
        case CommandKind.QUARANTINE if waits:
            return None
        case CommandKind.QUARANTINE:
            first = listed(told.not_back, told.more_not_back)
            waited_for = f"waited for: {first}" if told.not_back else "nobody is"
            return _refused(
                f"{subject_of(command.gateways)} not waited for; {waited_for}", _offer(Verb.STATUS, order)
            )
        case _ if told.waits_until is not None:
            answers = _offer(Verb.APPROVE, order), _offer(Verb.REJECT, order)
            does = _refusal_of_rollback(order, told) is None
            return _refused("a rollback waits for a second person", *answers, *([back] if does else []))
        case _:
            return _refusal_by_phase(order, told) or _refusal_while_it_goes_on(order, told, command)


def nothing_without_a_name(change: str, confirm: Confirmation) -> str:
    """Return why a rollback without a name changes nothing while one by name waits for a second operator."""
    nothing = "a rollback without a name has nothing to take back"
    serves = f": {confirm.stays}" if confirm.stays else ""
    return f"{change} waits for a second operator, and {nothing}{serves}"


def _refusal_of_rollback(order: ChangeOrder, told: Told) -> Refusal | None:
    """Return why a rollback does not end one that waits, which is the only one with something to do."""
    goes = told.goes_back or told.ends_unchanged
    if goes or order.confirm is None or order.confirm.known_good is not None:
        return None
    sentence = nothing_without_a_name(told.name or order.fleet, order.confirm)
    return _refused(sentence, _offer(Verb.APPROVE, order), _offer(Verb.REJECT, order))


def _refusal_by_phase(order: ChangeOrder, told: Told) -> Refusal | None:
    """Return why neither a hold nor a promotion nor an abort makes sense where the change is."""
    name = told.name or order.fleet
    if told.goes_back or order.kind is ChangeKind.GO_BACK:
        sentence = f"{name} is rolling back; nothing else can be ordered until it has"
        return _refused(sentence, _offer(Verb.WATCH, order))
    if order.kind in RELOADS:
        what = f"a reload of {label_without_release(order.kind)}"
        sentence = f"{name} is {what}: it moves no session and cannot be held or promoted"
        return _refused(sentence, _offer(Verb.ABORT, order))
    if order.kind is not ChangeKind.UPGRADE:
        sentence = f"{name} is {_kind_of(order)}: it moves no session and cannot be held or promoted"
        return _refused(sentence, _offer(Verb.WATCH, order))
    if told.promoting:
        return _refused(f"{name} is being promoted", _offer(Verb.ROLL_BACK, order))
    return None


def _kind_of(order: ChangeOrder) -> str:
    return "an adoption" if order.kind is ChangeKind.ADOPT else "an installation"


def _refusal_while_it_goes_on(order: ChangeOrder, told: Told, command: Command) -> Refusal | None:
    status = _offer(Verb.STATUS, order)
    match command.kind:
        case CommandKind.ABORT if told.moved:
            return _refused("sessions have moved already", _offer(Verb.ROLL_BACK, order))
        case CommandKind.PROMOTE if told.holds:
            return _refused(
                f"held by {listed(told.holds)}; resume it first, then promote", _lift(order, told)
            )
        case CommandKind.RESUME if told.holds and (command.hold_of or command.person) not in told.holds:
            return _refused(f"held by {listed(told.holds)}; a hold is lifted by its name", _lift(order, told))
        case CommandKind.PROMOTE:
            why = _why_no_vote(order, told, command)
            return _refused(why, status) if why is not None else None
        case _:
            return None


def _why_no_vote(order: ChangeOrder, told: Told, command: Command) -> str | None:
    """Return why a vote does not count: its person may not vote, or was shown something else."""
    if (decision := told.decision) is None:
        return "there is no verdict on this wave yet that anybody could vote on"
    if command.approves not in {None, ballot_of(decision)}:
        now = f"something else speaks against the wave now than was shown: {decision.reason}"
        return f"{now}; read it and vote again"
    if voted := told.votes.keys() & {*command.known_as}:
        return f"{command.person} has voted as {min(voted)}, and one person has one vote"
    refusals = map(Votes(order.requesters).refusal_of, (command.person, *command.known_as))
    return next(filter(None, refusals), None)


def _lift(order: ChangeOrder, told: Told) -> Offer:
    return Offer(verb=Verb.RESUME, fleet=order.fleet, hold_of=told.first_hold)


def _refusal_of_answer(order: ChangeOrder, told: Told, command: Command) -> Refusal | None:
    status = _offer(Verb.STATUS, order)
    if order.confirm is None or told.waits_until is None:
        return _refused(f"nothing waits for an answer in {order.fleet} any more", status)
    if command.kind is CommandKind.REJECT:
        return None
    if asked := {command.person, *command.known_as} & {*order.requesters}:
        sentence = f"{min(asked)} asked for this rollback; somebody else has to approve it"
        return _refused(sentence, _offer(Verb.ROLL_BACK, order))
    if command.approves != order.confirm.change:
        sentence = "the approval names another change than the one that waits; look at it and approve it anew"
        return _refused(sentence, status)
    return None


def _offer(verb: Verb, order: ChangeOrder) -> Offer:
    return Offer(verb=verb, fleet=order.fleet)


def _refused(sentence: str, *offers: Offer) -> Refusal:
    return Refusal(sentence=sentence, next=offers)
