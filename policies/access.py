"""Decide who may do what on which fleet.

The safe direction (hold, go back to known-good, give a gateway up) takes one person and nobody's
approval. What weakens a safeguard takes two, and being an administrator exempts nobody.
"""

from enum import StrEnum
from itertools import chain

from policies.model.command import CommandKind
from policies.model.people import Caller, Role


class Action(StrEnum):
    """What may be done, as a refusal says it."""

    READ = "look at"
    READ_AUDIT = "read the audit record of"
    READ_SNAPSHOTS = "read snapshots of"
    PLAN = "plan upgrades of"
    START = "start upgrades of"
    STEER = "hold, resume, abort or promote changes of"
    GO_BACK = "roll back"
    ANSWER = "approve or reject for"
    DRAIN = "extend or end drains of"
    QUARANTINE = "leave out or take in gateways of"
    RELEASES = "add or withdraw releases for"
    DRILL = "rehearse on"
    ADMINISTER = "administer"


_LOOKS = frozenset({Action.READ})
_OPERATES = _LOOKS | {
    Action.PLAN,
    Action.START,
    Action.STEER,
    Action.GO_BACK,
    Action.DRAIN,
    Action.QUARANTINE,
    Action.RELEASES,
    Action.DRILL,
}

ALLOWED: dict[Role, frozenset[Action]] = {
    Role.VIEWER: _LOOKS,
    Role.AUDITOR: _LOOKS | {Action.READ_AUDIT, Action.READ_SNAPSHOTS},
    Role.OPERATOR: _OPERATES | {Action.READ_SNAPSHOTS},
    Role.APPROVER: _LOOKS | {Action.ANSWER, Action.STEER, Action.GO_BACK},
    Role.ADMIN: _LOOKS | {Action.ADMINISTER, Action.READ_AUDIT},
    Role.CI: _LOOKS | {Action.PLAN, Action.START, Action.RELEASES},
}
"""What each role may do; a person of several roles may do all of theirs."""

OF_PEOPLE = frozenset({Action.ANSWER, Action.ADMINISTER})
"""What no machine does, whatever its token was given."""


def action_of(kind: CommandKind) -> Action:
    """Return what somebody has to be allowed to give this command."""
    match kind:
        case CommandKind.ROLL_BACK:
            return Action.GO_BACK
        case CommandKind.APPROVE | CommandKind.REJECT:
            return Action.ANSWER
        case CommandKind.QUARANTINE:
            return Action.QUARANTINE
        case CommandKind.HOLD | CommandKind.RESUME | CommandKind.PROMOTE | CommandKind.ABORT:
            return Action.STEER


def is_known_to(caller: Caller, fleet: str) -> bool:
    """Return whether the caller may know that there is such a fleet: it has a role there."""
    return bool(caller.roles(fleet))


def may(caller: Caller, action: Action, fleet: str) -> bool:
    """Return whether the caller may do this on the fleet."""
    if caller.machine and action in OF_PEOPLE:
        return False
    return action in set(chain.from_iterable(ALLOWED[role] for role in caller.roles(fleet)))


def refusal_of(caller: Caller, action: Action, fleet: str) -> str | None:
    """Return why the caller may not do this, and who may; None when it may."""
    if may(caller, action, fleet):
        return None
    if caller.machine and action in OF_PEOPLE:
        return f"{caller.person} is a machine; only people {action.value} {fleet}"
    wanted = " or ".join(role for role in Role if action in ALLOWED[role])
    has = ", ".join(sorted(caller.roles(fleet))) or "no role there"
    return f"{caller.person} may not {action.value} {fleet}: that takes {wanted}, and they are {has}"
