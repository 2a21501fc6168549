"""What a fleet's status says: whom it needs, the sentences of its change, and who is missing from it.

The terminal and the page show the same lines in the same order; each makes them safe to show in its own way.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from orchestrator.words.desired import every_release, pin_line
from orchestrator.words.offers import all_spelled, spelled
from orchestrator.words.text import printable
from orchestrator.words.times import moment
from policies.planning.naming import named
from policies.runbooks import runbook_of

Json = Mapping[str, Any]
Line = tuple[str, str]
"""A label, and what is said under it."""

FEW = 2
"""Gateways that have a line each; more of them make one line, so that a screen holds what matters."""
LONG = 20
"""Characters of a reason that a screen shows once."""

NEEDS_YOU = "Needs you"
RUNBOOK = "Runbook"

ENGINE = "engine"
NO_CHANGE = "no change begins or goes on. Users keep their sessions; start the {part}"
NO_ENGINE = "no change begins, and no rollback. Users keep their sessions; start the engine"
"""What is so without the engine, on every surface."""


def installation_notices(faults: Mapping[str, str | None], *, but_engine: bool) -> list[Line]:
    """Return which parts do not answer; a page whose fleets have that concern names the engine there."""
    found = {part: fault for part, fault in faults.items() if fault and not (but_engine and part == ENGINE)}
    return [
        line
        for part, fault in sorted(found.items())
        for line in _concern_notices(
            f"the {part} {fault}: {NO_ENGINE if part == ENGINE else NO_CHANGE.format(part=part)}"
        )
    ]


def fleet_notices(status: Json) -> list[Line]:
    """Return what is wrong with a fleet, and what it is pinned against."""
    concern = [*_concern_notices(status["concern"]), *_fault_notices(status.get("fault"))]
    pin = status.get("pin")
    if pin and status["change"] is not None:
        pin = {**pin, "why": shown_once(pin["why"], status["change"])}
    rooms = [
        (NEEDS_YOU, _with_runbook(f"no order by chat is received: {why}", runbook_of("room_silent")))
        for why in status.get("silent_rooms", ())
    ]
    every = [("Pinned", f"against {every_release(status)}")] if status.get("unconfirmed") else []
    return [*concern, *rooms, *every, *([("Pinned", f"against {pin_line(pin)}")] if pin else [])]


def names_engine(shown: str | None) -> bool:
    """Return whether a concern that is shown is about the engine."""
    return NO_ENGINE in (shown or "")


def shown_once(said: str, change: Json) -> str:
    """Return the text without the reason that the sentences of the change have already."""
    why = change["why"]
    return said.replace(why, "see Why") if len(why) >= LONG else said


def change_notices(change: Json) -> list[Line]:
    """Return what a change needs somebody for."""
    override = [("Override", change["banner"])] if change.get("banner") else []
    if not change["needs_you"]:
        return override
    return [(NEEDS_YOU, _with_runbook(change["needs_you"], change["runbook"])), *override]


def recurring_lines(status: Json) -> list[Line]:
    """Return what begins by itself in a fleet next, or what keeps it, where it asks for that."""
    return [("Recurring", status["recurring"])] if status.get("recurring") else []


def stored_lines(status: Json) -> list[Line]:
    """Return the commands that the engine has stored for the change, and no worker has carried out yet."""
    unbegun = [status["unbegun"]] if status.get("unbegun") else []
    return [("Stored", stored_line(one)) for one in (*unbegun, *status.get("stored", ()))]


def before_line(change: Json) -> str:
    """Return what the newest change with a name was, where an order after it has not begun."""
    return f"Before it: {change['rollout']} to {change['version']}: {change['what']}"


def stored_line(one: Json) -> str:
    """Return an order or a command that no worker has carried out, with the operator and the reason."""
    if one["kind"] is None:
        why = one["unopened"]
        return f"not yet carried out: an order of {moment(one['at'])}, which cannot be opened here: {why}"
    kind = one["kind"].replace("_", " ")
    return f"not yet carried out: {kind} by {one['person']} at {moment(one['at'])}: {one['reason']}"


def told_lines(change: Json) -> list[Line]:
    """Return the sentences of a change, as it tells them."""
    return [(name.capitalize(), change[name]) for name in ("what", "users", "why", "next")]


def left_out_lines(change: Json, besides: Collection[str] = ()) -> list[Line]:
    """Return the gateways that a change goes on without, with why, but those that are named `besides`."""
    aside = {name: why for name, why in change["aside"].items() if name not in besides}
    where = f"penstock status {change['fleet']} -o json"
    count = len(aside) + change.get("more_aside", 0)
    return [("Left out", line) for line in _folded("", "gateways were left out", aside, count, where)]


def glance_notices(glance: Json) -> list[Line]:
    """Return what a fleet that is one of many needs somebody for."""
    concern = _concern_notices(glance["concern"])
    of_change = change_notices(glance["change"]) if glance["change"] else []
    counted = (
        ("silent", glance["silent"], "gateway does not answer", "gateways do not answer"),
        ("quarantined", glance["quarantined"], "gateway is quarantined", "gateways are quarantined"),
        ("ejected", glance["ejected"], "gateway is ejected", "gateways are ejected"),
        ("drain_held", glance["held_drains"], "drain waits for an operator", "drains wait for an operator"),
        (
            "not_taken_back",
            glance["not_taken_back"],
            "gateway failed alone and is not taken back",
            "gateways failed alone and are not taken back",
        ),
    )
    missing = [
        (NEEDS_YOU, _with_runbook(f"{count} {one if count == 1 else many}", runbook_of(word)))
        for word, count, one, many in counted
        if count
    ]
    older = [(NEEDS_YOU, _with_runbook(line, runbook_of("older"))) for line in _ahead(glance.get("ahead"))]
    harm = [(NEEDS_YOU, _with_runbook(line, runbook_of("harm"))) for line in _to_decide(glance.get("harm"))]
    return [*concern, *_fault_notices(glance.get("fault")), *harm, *older, *of_change, *missing]


def shared_notices(glances: Sequence[Json]) -> tuple[list[Line], list[Json]]:
    """Return what several fleets need an operator for alike, and all fleets without that."""
    counted = Counter(glance["concern"] for glance in glances if glance["concern"])
    shared = {concern for concern, count in counted.items() if count > 1}
    rows = [{**one, "concern": None} if one["concern"] in shared else one for one in glances]
    return [line for concern in sorted(shared) for line in _concern_notices(concern)], rows


def is_quiet(glance: Json) -> bool:
    """Return whether a fleet that is one of many needs nobody, and nothing goes on in it.

    One of which nobody has heard anything lately may well need somebody.
    """
    change = glance["change"]
    is_over = change is None or change["phase"] == "ended"
    return is_over and bool(glance["heard"]) and not glance_notices(glance)


def missing_lines(status: Json) -> list[Line]:
    """Return the gateways that are silent, left out or not taken back, or whose drain waits for somebody.

    Each gateway is named once: one that a rollback waits for is in the line of its change already.
    """
    fleet, standing, change = status["fleet"], status["standing"], status["change"]
    silent, drains = standing["silent"], standing["held_drains"]
    waited_for = _waited_for(change)
    ejected = {name: why for name, why in standing["ejected"].items() if name not in waited_for}
    quarantined = standing["quarantined"]
    named = {*quarantined, *ejected, *waited_for}
    failed = {name: why for name, why in standing["not_taken_back"].items() if name not in named}
    named |= failed.keys()
    alone = {name: why for name, why in silent.items() if name not in named}
    unnamed = standing["silent_count"] - (len(silent) - len(alone))
    found = (
        ("harm", iter(_to_decide(standing.get("harm")))),
        ("older", iter(_ahead(standing.get("ahead")))),
        ("silent", _folded("Silent", "gateways are silent", alone, unnamed, _command("sessions", fleet))),
        (
            "quarantined",
            _left_out(quarantined, silent, "Quarantined", "gateways are quarantined", fleet),
        ),
        ("ejected", _left_out(ejected, silent, "Ejected", "gateways are ejected", fleet)),
        ("drain_held", _folded("Drain of", "drains wait", drains, len(drains), _command("drains", fleet))),
        (
            "not_taken_back",
            _folded(
                "",
                "gateways failed alone and are not taken back",
                failed,
                len(failed),
                f"penstock status {fleet} -o json",
            ),
        ),
    )
    return [
        (NEEDS_YOU, _with_runbook(line, runbook_of(word)) if first else line)
        for word, lines in found
        for first, line in _and_whether_first(lines)
    ]


def needs_operator(status: Json) -> bool:
    """Return whether any line that the screens show of a fleet needs an operator."""
    change = status["change"]
    lines = (*fleet_notices(status), *missing_lines(status), *(change_notices(change) if change else ()))
    return any(label == NEEDS_YOU for label, _ in lines)


def named_missing(status: Json) -> frozenset[str]:
    """Return the gateways that the lines of a fleet name: its change does not name them again.

    A page of a change alone has no lines of its fleet.
    """
    standing = status.get("standing")
    if standing is None:
        return frozenset()
    left_out = (*standing["quarantined"], *standing["ejected"])
    alone = (*standing["silent"], *left_out, *standing["not_taken_back"])
    return frozenset({*alone, *_waited_for(status["change"])})


def _ahead(ahead: Json | None) -> list[str]:
    """Return that gateways know of changes which the ledger lacks, with what helps; nothing where none do."""
    return [f"{ahead['sentence']}: {all_spelled(ahead['next'])}"] if ahead else []


def _to_decide(harm: Sequence[Json] | None) -> list[str]:
    """Return a line for each promotion after which harm waits for a decision, with the answers."""
    return [f"{one['sentence']}: {all_spelled(one['next'])}" for one in harm or ()]


def _waited_for(change: Json | None) -> Sequence[str]:
    return change["waits_for"] if change is not None and change["needs_you"] else ()


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
    if left := standing.get("departed"):
        said += f", and {left} that {'is' if left == 1 else 'are'} not in the fleet's file any more"
    return f"{said}, {unknown} not known" if unknown > 0 else said


def as_of(standing: Json) -> str:
    """Return when the gateways that count were checked, the oldest of them; empty where none counts."""
    return f", as of {moment(standing['as_of'])}" if standing.get("as_of") else ""


def now_line(status: Json) -> str:
    """Return which release a fleet is on and as of when, whatever its newest change is doing or did."""
    standing = status["standing"]
    return printable(f"{status['fleet']} {on_line(standing)}, {taking_line(standing)}{as_of(standing)}.")


def idle_line(status: Json) -> str | None:
    """Return that no change is under way, how the last one ended and what the fleet is on; None with one."""
    change = status["change"]
    if status.get("unbegun") or (change is not None and change["phase"] != "ended"):
        return None
    last = f"; the last, {change['rollout']}, has ended: {change['what']}" if change is not None else ""
    return printable(f"No change of {status['fleet']} is under way{last}. {now_line(status)}")


def standing_line(status: Json) -> str:
    """Return what a fleet is on that has no change to tell of, and what begins one."""
    standing = status["standing"]
    return printable(
        f"{status['fleet']} {on_line(standing)}, {taking_line(standing)}{as_of(standing)}. No change yet. "
        f"Next: {all_spelled(status['offers'])}"
    )


def _concern_notices(concern: str | None) -> list[Line]:
    return [(NEEDS_YOU, _with_runbook(concern, runbook_of("stuck")))] if concern else []


def _fault_notices(fault: str | None) -> list[Line]:
    """Return what is wrong with the file of a fleet, and what is shown instead."""
    shown = "This is the fleet as it was last planned: no change begins until the file is mended"
    return [(NEEDS_YOU, f"{fault}. {shown}")] if fault else []


def _with_runbook(sentence: str, page: str | None) -> str:
    if page is None:
        return sentence
    return f"{sentence}{'' if sentence.endswith(('.', '?', '!')) else '.'} {RUNBOOK}: {page}"


def _and_whether_first(lines: Iterator[str]) -> Iterator[tuple[bool, str]]:
    """Yield each line, and whether it is the first of its kind: one that names the page is enough."""
    return ((number == 0, line) for number, line in enumerate(lines))


def _left_out(
    found: Mapping[str, str], silent: Collection[str], word: str, are: str, fleet: str
) -> Iterator[str]:
    """Yield lines of gateways that take no part in changes; a silent one has no other line."""
    out = {name: f"{why}; it does not answer" if name in silent else why for name, why in found.items()}
    return _folded(word, are, out, len(out), f"penstock status {fleet} -o json")


def _folded(word: str, are: str, found: Mapping[str, str], count: int, where: str) -> Iterator[str]:
    """Yield a line for each of a few; many make one line, with the reason of all, or that of the first."""
    shown = sorted(found.items())
    if count <= FEW and len(shown) == count:
        yield from (f"{word} {name}: {why}".lstrip() for name, why in shown)
    elif shown:
        first, why = shown[0]
        if len(set(found.values())) == 1 and len(shown) == count:
            names = named([name for name, _ in shown])
            yield f"{word} {names}: {why}; all of them: {where}".lstrip()
        else:
            yield f"{count} {are}, the first {first}: {why}; all of them: {where}"


def _command(verb: str, fleet: str) -> str:
    return spelled({"verb": verb, "fleet": fleet})
