"""What a fleet's status says: whom it needs, the sentences of its change, and who is missing from it.

The terminal and the page show the same lines in the same order; each makes them safe to show in its own way.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.words.desired import pin_line
from orchestrator.words.offers import all_spelled, spelled
from orchestrator.words.text import printable
from orchestrator.words.times import moment

Json = Mapping[str, Any]
Line = tuple[str, str]
"""A label, and what is said under it."""

SHOWN = 10
"""Of each kind so many are named; of ten thousand nobody reads them all at the worst moment."""

NEEDS_YOU = "Needs you"


def fleet_notices(status: Json) -> list[Line]:
    """Return what is wrong with a fleet, and what it is pinned against."""
    concern = [(NEEDS_YOU, status["concern"])] if status["concern"] else []
    pin = [("Pinned", f"against {pin_line(status['pin'])}")] if status.get("pin") else []
    return [*concern, *pin]


def change_notices(change: Json) -> list[Line]:
    """Return what a change needs somebody for."""
    urgent = [(NEEDS_YOU, change["needs_you"])] if change["needs_you"] else []
    return urgent + ([("Override", change["banner"])] if change.get("banner") else [])


def told_lines(change: Json) -> list[Line]:
    """Return the sentences of a change, as it tells them."""
    return [(name.capitalize(), change[name]) for name in ("what", "users", "why", "next")]


def left_out_lines(change: Json) -> list[Line]:
    """Return the gateways that a change goes on without, each with why."""
    aside = change["aside"]
    where = f"penstock status {change['fleet']} -o json"
    return [("Left out", line) for line in _named("", "were left out", aside, len(aside), where)]


def glance_notices(glance: Json) -> list[Line]:
    """Return what a fleet that is one of many needs somebody for."""
    concern = [(NEEDS_YOU, glance["concern"])] if glance["concern"] else []
    return concern + (change_notices(glance["change"]) if glance["change"] else [])


def is_quiet(glance: Json) -> bool:
    """Return whether a fleet that is one of many needs nobody, and nothing goes on in it.

    One of which nobody has heard anything lately may well need somebody.
    """
    change = glance["change"]
    is_over = change is None or change["phase"] == "ended"
    return is_over and bool(glance["heard"]) and not glance_notices(glance)


def missing_lines(status: Json) -> list[Line]:
    """Return the gateways that are silent, that somebody left out, or whose drain waits for somebody."""
    fleet, standing = status["fleet"], status["standing"]
    silent, quarantined, drains = (standing[name] for name in ("silent", "quarantined", "held_drains"))
    return [
        (NEEDS_YOU, line)
        for lines in (
            _named("Silent", "are silent", silent, standing["silent_count"], _command("sessions", fleet)),
            _named(
                "Quarantined",
                "are quarantined",
                quarantined,
                len(quarantined),
                f"penstock status {fleet} -o json",
            ),
            _named("Drain of", "drains wait", drains, len(drains), _command("drains", fleet)),
        )
        for line in lines
    ]


def on_line(standing: Json) -> str:
    """Return what a fleet is on, of which nobody has looked at a gateway lately: that it is not known."""
    if standing["versions"]:
        return printable(f"on {', '.join(standing['versions'])}")
    return "on nothing that was seen yet" if standing["heard"] else "on a release that is not known"


def taking_line(standing: Json) -> str:
    """Return how many gateways take users, and of how many that is not known."""
    taking, gateways = standing["taking"], standing["gateways"]
    unknown = gateways - standing["heard"]
    if not standing["heard"] and not taking:
        last = moment(standing["looked_at"])
        looked = f"last looked at {last}" if last else "nobody has looked yet"
        return f"how many of {gateways} gateways take users is not known, {looked}"
    said = f"{taking} of {gateways} gateways take users"
    return f"{said}, {unknown} not known" if unknown > 0 else said


def standing_line(status: Json) -> str:
    """Return what a fleet is on that has no change to tell of, and what begins one."""
    standing = status["standing"]
    return printable(
        f"{status['fleet']} {on_line(standing)}, {taking_line(standing)}. No change yet. "
        f"Next: {all_spelled(status['offers'])}"
    )


def _named(word: str, are: str, found: Mapping[str, str], count: int, where: str) -> Iterator[str]:
    """Yield the first of those that were found, each with why; then how many more there are, and where."""
    shown = sorted(found.items())[:SHOWN]
    for name, why in shown:
        yield f"{word} {name}: {why}".lstrip()
    if count > len(shown):
        yield f"{count - len(shown)} more {are}; all of them: {where}"


def _command(verb: str, fleet: str) -> str:
    return spelled({"verb": verb, "fleet": fleet})
