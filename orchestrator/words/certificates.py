"""Certificates of agents in words: how each stands, and what mends it, from what the API answers."""

from collections.abc import Mapping
from typing import Any

from orchestrator.words.reports import utc
from orchestrator.words.text import printable

Json = Mapping[str, Any]

LONGEST = 120
"""Characters of a reason or a name in a line; the audit record has all of them."""

STATES = {
    "ended": "ended",
    "ending": "about to end",
    "late": "renewed late",
    "stray": "not in the fleet's file",
    "revoked": "revoked",
    "unknown": "not known",
    "good": "good",
}
"""What each state is called, in the order in which they need somebody."""


def certificates_line(found: Json) -> str:
    """Return how many of a fleet's gateways are in which state."""
    counted = [
        f"{found['counts'][state]} {name}" for state, name in STATES.items() if found["counts"].get(state)
    ]
    return (
        f"{found['fleet']}: {', '.join(counted) or 'no gateway'}, as the ledger knew at {utc(found['at'])}."
    )


def certificate_line(one: Json) -> str:
    """Return how the certificate of one gateway stands, what was revoked, and which token is open."""
    said = [_STANDS[one["state"]].format(ends=utc(one["expires"]) if one["expires"] else "")]
    if one["revocation"] is not None:
        before = "" if one["state"] == "revoked" else "what it had before was "
        said.append(f"{before}revoked {_by(one['revocation'], 'at')}: {_short(one['revocation']['reason'])}")
    if not one["described"] and one["state"] != "stray":
        said.append("the fleet's file has no such gateway")
    if one["token"] is not None:
        said.append(
            f"a token to enrol it, made by {_short(one['token']['person'])}, is open until "
            f"{utc(one['token']['expires'])}"
        )
    return printable("; ".join(part for part in said if part))


_STANDS = {
    "ended": "ended {ends}, and its agent is let in no more",
    "ending": "ends {ends}: less than a tenth of its life is left, and it was not renewed",
    "late": "ends {ends}: less than a quarter of its life is left, and it was to be renewed at a third",
    "stray": "good until {ends}, and the fleet's file has no such gateway",
    "revoked": "",
    "unknown": (
        "no certificate was issued to it, as far as the ledger remembers; of an authority of your own "
        "the ledger knows none"
    ),
    "good": "issued, and good until {ends}",
}


def mended_by(fleet: str, one: Json) -> str | None:
    """Return the command that mends it; None where there is nothing to mend."""
    if one["state"] in {"ending", "late"}:
        return "penstock agent renew --config FILE"
    if one["state"] == "stray":
        return f"penstock gateway revoke {fleet} {one['gateway']} --reason TEXT"
    if one["state"] in {"ended", "revoked", "unknown"} and one["described"]:
        return f"penstock gateway enrol {fleet} {one['gateway']}"
    return None


def _by(revocation: Json, at: str) -> str:
    return f"{utc(revocation[at])} by {_short(revocation['person'])}"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
