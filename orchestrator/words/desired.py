"""What applying a description or an upgrade would do, and what keeps it from being done."""

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.words.text import printable
from orchestrator.words.times import moment
from policies.model.rollback_progress import RollbackProgress, how_left

SHOWN = 20
"""Differences that are shown; machines get more of them."""

Json = Mapping[str, Any]


def pin_line(pin: Json) -> str:
    """Return which release files and machines do not start on a fleet again, since when, and why."""
    why = f"{pin['version']}: {pin['change']} {went_back(pin)}: {pin['why']}"
    return printable(f"{why}; files, schedules and machines do not start it again, an operator still can")


def every_release(found: Json) -> str:
    """Return why a fleet is pinned against every release: its ledger was restored or rebuilt."""
    return printable(f"every release: {found['unconfirmed']}")


def went_back(pin: Json) -> str:
    """Return how the release of a pin was left again, and when."""
    return how_left(pin["by"], RollbackProgress(pin["rollback"]), moment(pin["at"]))


def description_lines(described: Json) -> list[str]:
    """Return how a fleet's description differs from the one that is so, and what applying it takes."""
    if described["same"]:
        return []
    lines = [f"Description  {described['place']} would be replaced"]
    if described["edited"]:
        number = described["last"]["number"]
        lines.append(f"  EDITED      it was edited by hand since revision {number} was applied")
    lines += [f"  {one}" for one in _shown(described["differences"])]
    if not described["differences"]:
        lines.append("  it says the same in other words")
    lines += [f"  WEAKER      {one}" for one in described["weaker"]]
    if described["weaker"]:
        people = ", ".join(described["approved"]["people"]) or "nobody else yet"
        lines.append(f"  Two administrators apply it, since it makes a safeguard weaker; {people} did")
    if described["refusal"]:
        lines.append(f"  NOT YOURS   {described['refusal']}")
    return [printable(line) for line in lines]


def joiner_lines(joiners: Json) -> list[str]:
    """Return which gateways have no release yet, and which one they would get."""
    if not joiners["count"]:
        return []
    more = joiners["count"] - len(joiners["gateways"][:SHOWN])
    names = ", ".join(joiners["gateways"][:SHOWN]) + (f" and {more} more" if more else "")
    lines = [f"Joiners      {names}: no release so far"]
    if joiners["change"]:
        lines.append(f"  {joiners['change']} is bringing up gateways")
    elif joiners["release"] is None:
        lines.append(
            "  the fleet is not on one release that they could get: penstock fleet install names one"
        )
    else:
        lines.append(f"  they would be brought up on {joiners['release']['version']}, as all others are")
    return [printable(line) for line in lines]


def wish_lines(wish: Json) -> list[str]:
    """Return how far the fleet is from the release that an upgrade asks for."""
    return [printable(f"Upgrade      {line}") for line in (_wish_line(wish), *_refused(wish))]


def _refused(wish: Json) -> list[str]:
    return [f"NOT YOURS   {wish['refusal']}"] if wish["refusal"] and wish["state"] == "wanted" else []


def _wish_line(wish: Json) -> str:
    version = wish["version"]
    on = ", ".join(f"{name} on {count}" for name, count in wish["on"].items())
    match wish["state"]:
        case "reached":
            return f"the fleet's known-good is {version}"
        case "under_way":
            return f"{wish['change']} is under way to {version}"
        case "busy":
            return (
                f"{wish['change']} is under way, which leads elsewhere; {version} can be applied afterwards"
            )
        case "pinned":
            return f"PINNED against {pin_line(wish['pin']) if wish['pin'] else every_release(wish)}"
        case "empty":
            return f"no gateway has a release yet; penstock fleet install --to {version} begins it"
        case _:
            return f"to {version}; gateways have {on}"


def drift_lines(comparison: Json) -> list[str]:
    """Return what is not as it should be whatever is applied, by what gateways said last."""
    drift, strangers = comparison["drift"], comparison["strangers"]
    lines = list[str]()
    if drift is not None and drift["differences"]:
        rows = [f"{one['gateway']}: {one['sentence']}" for one in drift["differences"]]
        lines += [f"Drift        {drift['count']} things differ, as gateways said last"]
        lines += [f"  {row}" for row in _shown(rows)]
    if strangers:
        lines.append(f"Strangers    not in the description: {', '.join(_shown(strangers))}")
    if drift is not None and drift["silent"]:
        names = ", ".join(_shown(drift["silent"]))
        lines.append(f"Unseen       not heard of lately, so not compared: {names}")
    return [printable(line) for line in lines]


def is_different(comparison: Json) -> bool:
    """Return whether anything is not as the files say, or not as it should be."""
    described, wish, drift = comparison["description"], comparison["upgrade"], comparison["drift"]
    return bool(
        (described is not None and not described["same"])
        or (wish is not None and wish["state"] not in {"reached", "under_way"})
        or comparison["joiners"]["count"]
        or comparison["strangers"]
        or (drift is not None and drift["differences"])
    )


def is_unseen(comparison: Json) -> bool:
    """Return whether gateways were not heard of lately, so that nobody can say that nothing differs."""
    return bool(comparison["drift"] is not None and comparison["drift"]["silent"])


def _shown(lines: Sequence[str]) -> list[str]:
    more = len(lines) - SHOWN
    return [*lines[:SHOWN], f"and {more} more"] if more > 0 else list(lines)
