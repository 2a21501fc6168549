"""How the command line spells what the API offers."""

from collections.abc import Iterable, Mapping
from typing import Any

Offer = Mapping[str, Any]
REASON = " --reason TEXT"

_SPELLED = {
    "status": "status {fleet}",
    "doctor": "doctor{path}",
    "watch": "watch {fleet}",
    "history": "history {fleet}",
    "plan": "plan {fleet} --to {release}",
    "start": "upgrade start {fleet} --to {release}{strategy}{plan}" + REASON,
    "reload": "credentials reload {fleet}{plan}" + REASON,
    "configure": "config start {fleet}{plan}" + REASON,
    "install": "fleet install {fleet} --to {release}",
    "examine": "fleet adopt {fleet} --dry-run",
    "hold": "hold {fleet}" + REASON,
    "resume": "resume {fleet}{hold_of}" + REASON,
    "promote": "promote {fleet}" + REASON,
    "abort": "abort {fleet}" + REASON,
    "roll_back": "rollback {fleet}{to}{settings}{force}" + REASON,
    "hand_back": "fleet hand-back {fleet} {gateway}" + REASON,
    "approve": "approve {fleet}{plan}" + REASON,
    "reject": "reject {fleet}" + REASON,
    "quarantine": "gateway quarantine {fleet} {gateway}" + REASON,
    "return": "gateway return {fleet} {gateway}" + REASON,
    "rebuild": "ledger rebuild {fleet}" + REASON,
    "sessions": "sessions {fleet}",
    "drains": "drains {fleet}",
    "extend": "drain extend {fleet} --by TIME" + REASON,
    "end": "drain end {fleet}" + REASON,
    "windows": "window next {fleet}",
    "unpin": "unpin {fleet}{to}" + REASON,
    "releases": "release list",
    "snapshots": "snapshot list {fleet}",
    "list_tokens": "token list",
    "create_token": "token create NAME",
    "whoami": "whoami",
    "login": "login",
}


EFFECTS = {
    "hold": "Nobody else is moved until somebody resumes it. Gateways that switch just now are finished, and "
    "harm is still looked for.",
    "resume": "The hold is lifted, and the next verdict decides.",
    "promote": "Your vote to go on without proof. It takes two people, neither of them who asked for the "
    "change.",
    "abort": "What was started is stopped again. Sessions that it has moved by then go back to known-good.",
    "roll_back": "New sessions of every gateway that was touched go back to known-good within seconds. Live "
    "sessions stay where they are until they end.",
    "approve": "Your yes to the rollback that waits for a second person.",
    "reject": "Your no to the rollback that waits for a second person: it is given up.",
    "quarantine": "Changes and rollbacks go on without this gateway. It is named until it is returned.",
    "return": "This gateway takes part in changes again, once it is on its known-good. It is brought there.",
}
"""What an order does, for whoever is about to give it."""

SETTINGS_BACK = (
    "Running instances get again the settings that they had before. No session is touched, and every gateway "
    "keeps its release."
)
"""What a rollback of settings does."""


def spelled(offer: Offer) -> str:
    """Return the command that does what is offered, with what to know of it in brackets."""
    said = {name: value for name, value in offer.items() if value}
    strategy = said.get("strategy", "canary")
    command = _SPELLED[offer["verb"]].format(
        fleet=said.get("fleet", "FLEET"),
        gateway=said.get("gateway", "GATEWAY"),
        release=said.get("release", "RELEASE"),
        to=f" --to {said['release']}" if "release" in said else "",
        strategy=f" --strategy {strategy}" if strategy != "canary" else "",
        path=f" {said['fleet']} {said['gateway']}" if {"fleet", "gateway"} <= said.keys() else "",
        plan=f" --plan {said['plan'][7:19]}" if "plan" in said else "",
        hold_of=f" --hold-of {said['hold_of']}" if "hold_of" in said else "",
        force=" --force" if "force" in said else "",
        settings=" --settings" if "settings" in said else "",
    )
    return f"penstock {command}" + (f" ({said['note']})" if "note" in said else "")


def all_spelled(offers: Iterable[Offer]) -> str:
    """Return all of them in a line."""
    return " | ".join(spelled(offer) for offer in offers)
