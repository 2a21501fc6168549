"""How the command line spells what the service offers."""

from collections.abc import Iterable

from policies.model.offer import Offer, Verb

REASON = " --reason TEXT"

_SPELLED = {
    Verb.STATUS: "status {fleet}",
    Verb.WATCH: "watch {fleet}",
    Verb.HISTORY: "history {fleet}",
    Verb.PLAN: "plan {fleet} --to {release}",
    Verb.START: "upgrade start {fleet} --to {release}" + REASON,
    Verb.INSTALL: "fleet install {fleet} --to {release}",
    Verb.HOLD: "hold {fleet}" + REASON,
    Verb.RESUME: "resume {fleet}{hold_of}" + REASON,
    Verb.PROMOTE: "promote {fleet}" + REASON,
    Verb.ABORT: "abort {fleet}" + REASON,
    Verb.ROLL_BACK: "rollback {fleet}{to}{force}" + REASON,
    Verb.APPROVE: "approve {fleet}" + REASON,
    Verb.REJECT: "reject {fleet}" + REASON,
    Verb.QUARANTINE: "gateway quarantine {fleet} {gateway}" + REASON,
    Verb.RETURN: "gateway return {fleet} {gateway}" + REASON,
    Verb.SESSIONS: "sessions {fleet}",
    Verb.DRAINS: "drains {fleet}",
    Verb.EXTEND: "drain extend {fleet} --by TIME" + REASON,
    Verb.END: "drain end {fleet}" + REASON,
    Verb.RELEASES: "release list",
    Verb.SNAPSHOTS: "snapshot list",
    Verb.TOKENS: "token list",
    Verb.CREDENTIAL: "token create NAME",
    Verb.WHOAMI: "whoami",
}


def spelled(offer: Offer) -> str:
    """Return the command that does what is offered, with what to know of it in brackets."""
    command = _SPELLED[offer.verb].format(
        fleet=offer.fleet or "FLEET",
        gateway=offer.gateway or "GATEWAY",
        release=offer.release or "RELEASE",
        to=f" --to {offer.release}" if offer.release else "",
        hold_of=f" --hold-of {offer.hold_of}" if offer.hold_of else "",
        force=" --force" if offer.force else "",
    )
    return f"penstock {command}" + (f" ({offer.note})" if offer.note else "")


def all_spelled(offers: Iterable[Offer]) -> str:
    """Return all of them in a line."""
    return " | ".join(spelled(offer) for offer in offers)
