"""Awaited: the one thing that a change waits for now, as sentences, offers and notices tell it."""

from enum import StrEnum

from policies.model.change import PENSTOCK_WATCH, Phase
from policies.model.fleet import Automation
from policies.model.plan_part import PlanHeader
from policies.model.report import ByTime
from policies.model.verdict import HARM, Action, Decision, GateVerdict
from policies.status.told import Told

STANDING_STILL = frozenset({Action.HOLD, Action.HOLD_FOR_HUMAN, Action.PROMOTE, Action.ROLL_BACK})
"""Decisions after which a wave is still, be it for the moment in which it ends by itself."""


def speaks_against(decision: Decision | None) -> bool:
    """Return whether a wave does not go on by this decision: harm, or nothing by which it can be judged."""
    return decision is not None and decision.action in STANDING_STILL - {Action.PROMOTE}


def finds_harm(decision: Decision) -> bool:
    """Return whether a watch over gateways whose wave has passed has found harm, rolled back or not.

    Only a hard sign rolls back there. Harm that is measured is a hold, and operators decide about it.
    """
    return decision.action is Action.ROLL_BACK or decision.verdict in HARM


def gives_no_verdict(decision: Decision) -> bool:
    """Return whether a watch over gateways whose wave has passed holds without usable evidence."""
    if decision.verdict is GateVerdict.CONFLICTING:
        return decision.action in {Action.HOLD, Action.HOLD_FOR_HUMAN}
    return decision.verdict is GateVerdict.METRICS_UNAVAILABLE


def rolls_back_by_itself(decision: Decision, automation: Automation) -> bool:
    """Return whether penstock rolls back after this decision; a hard sign does that in every fleet."""
    acts = automation is Automation.ACT or decision.verdict is GateVerdict.HARD
    return acts and decision.action is Action.ROLL_BACK


def asks_about_harm(decision: Decision | None, automation: Automation) -> bool:
    """Return whether harm was found and the fleet asks operators: no further gateway switches meanwhile."""
    if decision is None or decision.action is not Action.ROLL_BACK:
        return False
    return automation is Automation.ASK and not rolls_back_by_itself(decision, automation)


def stands_still(decision: Decision | None, header: PlanHeader | None, by_time: ByTime | None) -> bool:
    """Return whether a wave that no operator holds waits for one after this decision.

    A wave with proof passes by itself, one that goes on by time does not wait, and proven harm goes back by
    itself where the fleet does not ask.
    """
    if decision is None or by_time is not None or not speaks_against(decision):
        return False
    return not rolls_back_by_itself(decision, automation_of(header))


def automation_of(header: PlanHeader | None) -> Automation:
    """Return how much the fleet does by itself; a change without a plan acts."""
    return header.limits.automation if header is not None else Automation.ACT


class Awaited(StrEnum):
    """What a change waits for; whoever tells of it has a case for each, or mypy names the place."""

    GATEWAYS = "gateways"
    """That gateways are back, each of which is still tried."""
    SECOND_PERSON = "second_person"
    """The yes of somebody else to a rollback that leads to another release than known-good."""
    HARM = "harm"
    """That an operator decides about harm: of waves that have passed, or of its wave where the fleet asks."""
    RESUME = "resume"
    """That whoever holds it lets it go on."""
    WINDOW = "window"
    """That its next wave may start."""
    TESTS = "tests"
    """Tests of the release that cannot be made yet."""
    SWITCH = "switch"
    """That hosts switch their gateways, which they refuse."""
    DECISION = "decision"
    """Proof, or a person who decides without."""
    STOP = "stop"
    """Nothing: it goes on against its verdict, since the fleet only observes, unless an operator stops it."""
    CAPACITY = "capacity"
    """Gateways that are to be switched: that they answer, or that there is room for their users."""


def awaited(told: Told, header: PlanHeader | None) -> Awaited | None:  # noqa: PLR0911 - a thing a line
    """Return what the change waits for, the one that somebody has to know first; None while it goes on.

    One that goes back waits for nobody but its gateways, and one that is being promoted for nothing: no
    hold, window or test keeps them, whatever was told before.
    """
    if told.result is not None:
        return None
    if told.waits_for_gateways:
        return Awaited.GATEWAYS
    if told.waits_until is not None:
        return Awaited.SECOND_PERSON
    if told.goes_back or told.promoting:
        return None
    if _asks_about_harm(told, header):
        return Awaited.HARM
    if told.holds:
        return Awaited.RESUME
    if told.window is not None:
        return Awaited.WINDOW
    if told.untested or told.refused:
        return Awaited.TESTS if told.untested else Awaited.SWITCH
    if goes_on_against_its_verdict(told):
        return Awaited.STOP
    return Awaited.DECISION if asked_for(told, header) is not None else _awaited_in(told)


def _asks_about_harm(told: Told, header: PlanHeader | None) -> bool:
    """Return whether harm waits for an operator; a wave that was passed before a window closed is decided."""
    if PENSTOCK_WATCH in told.holds:
        return True
    goes_on = told.window is not None or goes_on_against_its_verdict(told)
    return not goes_on and proposes_to_go_back(told, header)


def goes_on_against_its_verdict(told: Told) -> bool:
    """Return whether time alone takes the change on though a verdict speaks against it."""
    return bool(told.shown_harm) or (told.by_time is not None and speaks_against(told.decision))


def _awaited_in(told: Told) -> Awaited | None:
    """Return what the phase alone says that it waits for."""
    match told.phase:
        case Phase.HELD:
            return Awaited.DECISION
        case Phase.SWITCHING:
            return Awaited.CAPACITY if told.short or told.silent else None
        case (
            Phase.STARTING
            | Phase.WAITING
            | Phase.OBSERVING
            | Phase.PROMOTING
            | Phase.ROLLING_BACK
            | Phase.ENDED
        ):
            return None


def asked_for(told: Told, header: PlanHeader | None) -> Decision | None:
    """Return the newest decision where it asks a person to go on without proof, or to go back after harm."""
    decision = told.decision
    if decision is None:
        return None
    if decision.action is Action.HOLD_FOR_HUMAN:
        return decision
    return decision if proposes_to_go_back(told, header) else None


def proposes_to_go_back(told: Told, header: PlanHeader | None) -> bool:
    """Return whether harm was found that waits for a person: the fleet does not go back by itself."""
    decision = told.decision
    found = decision is not None and decision.action is Action.ROLL_BACK
    return found and stands_still(decision, header, told.by_time)
