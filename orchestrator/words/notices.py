"""How notices on their way are told to people."""

from collections.abc import Mapping
from typing import Any

from orchestrator.words.times import moment

Said = Mapping[str, Any]


def row_state(row: Said) -> str:
    """Return how one notice stands with one sink."""
    if row["given_up"]:
        return f"given up: {row['error']}"
    if row["folded_into"]:
        return "told with others"
    if row["delivered"]:
        who = f", {row['acknowledged_by']} has it" if row["acknowledged_by"] else ""
        return f"sent{who}"
    if row["error"]:
        return f"tried {row['tries']} times: {row['error']}"
    return f"waits until {moment(row['due'])}" if row["due"] else "waits"


def sink_line(sink: Said) -> str:
    """Return how one sink takes what it is told."""
    said = (
        f"{sink['sink']}: {sink['waiting']} wait, {sink['failing']} failed, {sink['given_up']} were given up"
    )
    return f"{said}: {sink['error']}" if sink["error"] else said
