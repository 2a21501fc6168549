"""Decide who may do what on which fleet.

The safe direction (hold, go back to known-good, give a gateway up) takes one person and nobody's
approval. What weakens a safeguard takes two, and being an administrator exempts nobody.
"""

from enum import StrEnum

from policies.model.command import CommandKind
from policies.model.offer import Offer, Verb
from policies.model.people import EVERY_FLEET, Caller, Grants, Role, roles_of


class Action(StrEnum):
    """What may be done, as a refusal says it."""

    READ = "look at"
    READ_AUDIT = "read the audit record of"
    READ_SNAPSHOTS = "read snapshots of"
    PLAN = "plan upgrades of"
    START = "start upgrades of"
    STOP = "hold or abort changes of"
    RESUME = "resume changes of"
    PROMOTE = "promote changes of"
    GO_BACK = "roll back"
    ANSWER = "approve or reject for"
    DRAIN = "extend or end drains of"
    RELOAD = "reload credentials of"
    QUARANTINE = "leave out or take in gateways of"
    ADD_RELEASES = "add releases for"
    WITHDRAW_RELEASES = "withdraw releases of"
    DRILL = "rehearse on"
    ENROL = "enrol gateways of"
    REVOKE = "revoke certificates of"
    FOLLOW_UP = "write down what follows from changes of"
    ADMINISTER = "administer"
    UNPIN = "release pins of"
    CHAT = "hand on what is said in chats of"
    HAND_ON = "hand on notices of"
    FREEZE = "freeze"


_LOOKS = frozenset({Action.READ})
_OPERATES = _LOOKS | {
    Action.PLAN,
    Action.START,
    Action.STOP,
    Action.RESUME,
    Action.PROMOTE,
    Action.GO_BACK,
    Action.DRAIN,
    Action.RELOAD,
    Action.QUARANTINE,
    Action.REVOKE,
    Action.ADD_RELEASES,
    Action.WITHDRAW_RELEASES,
    Action.DRILL,
    Action.FOLLOW_UP,
    Action.UNPIN,
    Action.FREEZE,
}

ALLOWED: dict[Role, frozenset[Action]] = {
    Role.VIEWER: _LOOKS,
    Role.AUDITOR: _LOOKS | {Action.READ_AUDIT, Action.READ_SNAPSHOTS},
    Role.OPERATOR: _OPERATES | {Action.READ_SNAPSHOTS},
    Role.APPROVER: _LOOKS
    | {
        Action.ANSWER,
        Action.STOP,
        Action.PROMOTE,
        Action.GO_BACK,
        Action.FOLLOW_UP,
        Action.UNPIN,
    },
    Role.ADMIN: _LOOKS | {Action.ADMINISTER, Action.ENROL, Action.REVOKE, Action.READ_AUDIT, Action.FREEZE},
    Role.CI: _LOOKS | {Action.PLAN, Action.START, Action.RELOAD, Action.ADD_RELEASES},
    Role.CHAT: frozenset({Action.CHAT, Action.HAND_ON}),
}
"""What each role may do; a person of several roles may do all of theirs."""

OF_MACHINES = frozenset({Action.CHAT, Action.HAND_ON})
"""What no person does: a process of penstock, with a token that may do only this."""

OF_PEOPLE = frozenset({Action.ANSWER, Action.ENROL, Action.ADMINISTER, Action.UNPIN})
"""What no machine does, whatever its token was given."""


SAFE_DIRECTION = frozenset({CommandKind.HOLD, CommandKind.ABORT, CommandKind.ROLL_BACK})
"""Commands that nothing may keep anybody from who may give them."""


def action_of(kind: CommandKind) -> Action:
    """Return what somebody has to be allowed to give this command."""
    match kind:
        case CommandKind.ROLL_BACK:
            return Action.GO_BACK
        case CommandKind.APPROVE | CommandKind.REJECT:
            return Action.ANSWER
        case CommandKind.QUARANTINE:
            return Action.QUARANTINE
        case CommandKind.HOLD | CommandKind.ABORT:
            return Action.STOP
        case CommandKind.RESUME:
            return Action.RESUME
        case CommandKind.PROMOTE:
            return Action.PROMOTE


OF_VERBS = {
    Verb.PLAN: Action.PLAN,
    Verb.START: Action.START,
    Verb.INSTALL: Action.START,
    Verb.RELOAD: Action.RELOAD,
    Verb.CONFIGURE: Action.START,
    Verb.EXAMINE: Action.START,
    Verb.HOLD: Action.STOP,
    Verb.ABORT: Action.STOP,
    Verb.RESUME: Action.RESUME,
    Verb.PROMOTE: Action.PROMOTE,
    Verb.ROLL_BACK: Action.GO_BACK,
    Verb.HAND_BACK: Action.START,
    Verb.APPROVE: Action.ANSWER,
    Verb.REJECT: Action.ANSWER,
    Verb.QUARANTINE: Action.QUARANTINE,
    Verb.RETURN: Action.QUARANTINE,
    Verb.REBUILD: Action.ADMINISTER,
    Verb.EXTEND: Action.DRAIN,
    Verb.END: Action.DRAIN,
    Verb.UNPIN: Action.UNPIN,
}
"""What somebody has to be allowed to take an offer; whatever else is offered, everybody may ask."""


NEEDS_FILE = frozenset(
    {
        Verb.PLAN,
        Verb.START,
        Verb.INSTALL,
        Verb.RELOAD,
        Verb.CONFIGURE,
        Verb.EXAMINE,
        Verb.HAND_BACK,
        Verb.REBUILD,
        Verb.UNPIN,
    }
)
"""What is refused while the file of the fleet is wrong: it begins something by that file."""


def open_to(caller: Caller, offer: Offer, fleet: str) -> bool:
    """Return whether the caller may do what is offered; their own hold everybody lifts who may hold."""
    action = OF_VERBS.get(offer.verb)
    if offer.verb is Verb.RESUME and offer.hold_of == caller.person:
        action = Action.STOP
    return action is None or may(caller, action, fleet)


def is_known_to(caller: Caller, fleet: str) -> bool:
    """Return whether the caller may know that there is such a fleet: it has a role there.

    Who only hands on what others say knows of none.
    """
    return bool(caller.roles(fleet) - {Role.CHAT})


def may(caller: Caller, action: Action, fleet: str) -> bool:
    """Return whether the caller may do this on the fleet."""
    if action in (OF_PEOPLE if caller.machine else OF_MACHINES):
        return False
    return allows(caller.grants, action, fleet)


def may_there(caller: Caller, action: Action, fleet: str) -> bool:
    """Return whether the caller may do this on the fleet; on `*`, on every one, those of later too."""
    if fleet != EVERY_FLEET:
        return may(caller, action, fleet)
    everywhere = {EVERY_FLEET: caller.grants.get(EVERY_FLEET, frozenset())}
    return may(caller.model_copy(update={"grants": everywhere}), action, EVERY_FLEET)


def allows(grants: Grants, action: Action, fleet: str) -> bool:
    """Return whether these roles let a person do this on the fleet."""
    return any(action in ALLOWED[role] for role in roles_of(grants, fleet))


def refusal_of(caller: Caller, action: Action, fleet: str) -> str | None:
    """Return why the caller may not do this, and who may; None when it may."""
    if may(caller, action, fleet):
        return None
    if caller.machine and action in OF_PEOPLE:
        return f"{caller.person} is a machine; only people {action.value} {fleet}"
    if not caller.machine and action in OF_MACHINES:
        only = "only a machine's token with the role chat may"
        return f"{caller.person} may not {action.value} {fleet}: {only}"
    wanted = " or ".join(role for role in Role if action in ALLOWED[role])
    has = ", ".join(sorted(caller.roles(fleet))) or "no role there"
    return f"{caller.person} may not {action.value} {fleet}: that takes {wanted}, and they are {has}"
