"""How what can be done is said in a chat."""

from policies.chat.grammar import CALLED
from policies.model.offer import Offer, Verb

_SPELLED = {
    Verb.STATUS: "status {fleet}",
    Verb.WATCH: "status {fleet}",
    Verb.HISTORY: "history {fleet}",
    Verb.SESSIONS: "sessions {fleet}",
    Verb.DRAINS: "drains {fleet}",
    Verb.HOLD: "hold {fleet}",
    Verb.RESUME: "resume {fleet}{hold_of}",
    Verb.ABORT: "abort {fleet}",
    Verb.ROLL_BACK: "rollback {fleet}",
    Verb.APPROVE: "approve {fleet}",
    Verb.REJECT: "reject {fleet}",
}


def spelled(offer: Offer) -> str | None:
    """Return what is to be said; None for what takes the command line or the page.

    A rollback to a release that somebody names is one of those: a chat goes back to known-good alone.
    """
    said = _SPELLED.get(offer.verb)
    is_named = offer.release is not None or offer.settings
    if said is None or offer.fleet is None or offer.force or (offer.verb is Verb.ROLL_BACK and is_named):
        return None
    hold_of = f" --hold-of {offer.hold_of}" if offer.hold_of else ""
    return f"{CALLED} {said.format(fleet=offer.fleet, hold_of=hold_of)}"
