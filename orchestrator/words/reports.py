"""Reports in words: what a change came to, in a line and in its parts, from what the API answers."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from orchestrator.words.text import printable

Json = Mapping[str, Any]

NOT_KNOWN = "not known"
OPEN = "open"


def report_line(report: Json) -> str:
    """Return a report in a line: who was cut, what the gate counted, and the seconds until all were safe."""
    said = [losses_line(report)]
    if report["split"] is not None:
        if (bad := bad_line(report)) is not None:
            said.append(bad)
        said += [f"fault to {name} {_seconds(report, 'fault', step)}" for step, name in _ENDS.items()]
    return printable(", ".join(said))


_ENDS = {"decision": "decision", "all safe": "safe"}


def losses_line(report: Json) -> str:
    """Return how many users were cut, as far as the record says; a daemon that failed may have cut some."""
    losses = report["users"]["losses"]
    if losses:
        return f"users cut, in {len(losses)} entries of the record"
    if report["users"]["failed"]:
        return "users cut not known"
    return "0 users cut" if report["final"] else "0 users cut so far"


def losses_sentence(report: Json) -> str:
    """Return the same with what it rests on."""
    if report["users"]["losses"]:
        return f"{losses_line(report)}:"
    if report["users"]["failed"]:
        return "not known: a daemon failed by itself, and nobody counted who was on it"
    nobody = "no session that penstock or a person ended, and none that was seen lost with its process"
    until = report["users"]["until"]
    if report["final"]:
        return nobody
    if until is None:
        return f"{nobody}, so far: old sessions may still end; ask for the report again later"
    return f"{nobody}, so far: old sessions may last until {utc(until)}; ask for the report again then"


def while_line(report: Json) -> str:
    """Return during what the report was made that may still change it; empty for the last word."""
    if report["final"]:
        return ""
    return "while old sessions may still end" if report["record"]["outcome"] else "while the change goes on"


def bad_line(report: Json) -> str | None:
    """Return how many events were bad when it was decided; None where no gate counted any."""
    users = report["users"]
    if users["bad"] is None:
        return None
    return f"{users['bad']} of {users['total']} bad ({users['gate']})"


def planned_line(report: Json) -> str:
    """Return how many users were on the gateways that change, when it was planned."""
    planned = report["users"]["planned"]
    return NOT_KNOWN if planned is None else f"{planned} sessions when it was planned"


def step_rows(report: Json) -> list[tuple[str, str, str, str]]:
    """Return each step from fault to safe: its name, when it was, how long after the last, its source."""
    rows, last = list[tuple[str, str, str, str]](), None
    for step in report["split"]["steps"]:
        at = datetime.fromisoformat(step["at"]) if step["at"] else None
        after = f"{(at - last).total_seconds():.1f} s" if at is not None and last is not None else ""
        last = at or last
        rows.append((step["moment"], utc(step["at"]) if at else NOT_KNOWN, after, step["source"]))
    return rows


def whole_line(report: Json) -> str:
    """Return how long it took from the fault to safety."""
    return f"From fault to safe: {_seconds(report, 'fault', 'all safe')}."


def _seconds(report: Json, begin: str, end: str) -> str:
    at = {step["moment"]: step["at"] for step in report["split"]["steps"]}
    if at.get(begin) is None or at.get(end) is None:
        return NOT_KNOWN
    took = datetime.fromisoformat(at[end]) - datetime.fromisoformat(at[begin])
    return f"{took.total_seconds():.0f} s"


def utc(at: str) -> str:
    """Return a time in UTC, as a report says it that is read in other places and other years."""
    return f"{datetime.fromisoformat(at).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def follow_up_line(one: Json, today: str) -> str:
    """Return a follow-up: what, who, until when, and whether that is over (`today` in ISO 8601)."""
    if one["done_at"] is not None:
        state = f"done by {one['done_by']}, {utc(one['done_at'])}"
    elif one["due"] < today:
        state = "OVERDUE"
    else:
        state = OPEN
    return printable(
        f"{one['change']} {one['number']}: {one['text']} ({one['owner']}, {one['due']}, {state})"
    )
