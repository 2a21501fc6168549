"""Hand-overs as sentences: who has a fleet, and who is asked to take it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from orchestrator.words.text import printable
from orchestrator.words.times import moment

Json = Mapping[str, Any]


def duty_lines(duty: Json | None) -> list[tuple[str, str]]:
    """Return who has the fleet and who is asked to take it; nothing where nobody ever handed it over."""
    if duty is None:
        return []
    lines = []
    if duty["person"] is not None:
        lines.append(("On duty", printable(f"{duty['person']} since {moment(duty['since'])}")))
    if (asked := duty["asked"]) is not None:
        said = (
            f"{asked['giver']} asks {asked['taker']} to take over since {moment(asked['began'])}; "
            f"{asked['taker']} has not accepted, and is not on duty"
        )
        lines.append(("Hand-over", printable(said)))
    return lines


def handover_line(one: Json) -> str:
    """Return one hand-over, and how long it took to be answered."""
    said = f"{one['giver']} to {one['taker']}"
    if one["end"] is None:
        said += ", not answered yet"
    else:
        took = datetime.fromisoformat(one["ended"]) - datetime.fromisoformat(one["began"])
        said += f", {one['end']} after {took.total_seconds():.0f} s"
    return printable(f"{said}: {one['note']}" if one["note"] else said)
