"""What people said while a change went on, as sentences: who complains where, and which tickets are open."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from orchestrator.words.text import printable
from orchestrator.words.times import moment

Json = Mapping[str, Any]
Line = tuple[str, str]

NAMED = 3
"""Gateways, and tickets, that a line names."""
NOT_KNOWN = "what people say is not known now: the ledger does not answer"


def signal_lines(signals: Json | None) -> list[Line]:
    """Return what people say, in a line beside the judge's numbers; nothing where nobody says anything."""
    if signals is None:
        return [("People", NOT_KNOWN)]
    if not signals:
        return []  # of a penstock that took none
    said = [part for part in (complaints_line(signals), tickets_line(signals)) if part]
    return [("People", "; ".join(said))] if said else []


def complaints_line(signals: Json) -> str:
    """Return how many users complain on what was changed, and on what was not; empty where nobody does."""
    if not signals["complaining"]:
        return ""
    parts = [_of(signals, stand) for stand in ("changed", "back", "unchanged")]
    more = ", and more than were counted" if signals["cut"] else ""
    first, *others = [part for part in parts if part]
    return ", ".join([first, *others]) + more


def _of(signals: Json, stand: str) -> str:
    users, gateways = signals["users"].get(stand, 0), signals["gateways"].get(stand, 0)
    names = [one["gateway"] for one in signals["complaining"] if one["stand"] == stand]
    said = _users(users) if stand == "changed" else f"{users}"
    if not users:
        return f"{said} on {gateways} {stand}" if gateways else ""
    count = signals["named"].get(stand, len(names))
    where = ", ".join(names) if count <= NAMED and len(names) == count else f"{count} gateways"
    return f"{said} on {where} ({stand})"


def _users(count: int) -> str:
    return "1 user complains" if count == 1 else f"{count} users complain"


def tickets_line(signals: Json) -> str:
    """Return the tickets that are open, the newest first; empty where none is."""
    rows = [one for one in signals["tickets"] if one["ticket"]["closed"] is None][:NAMED]
    said = [
        f"ticket {one['ticket']['id']} ({ticket_about(one)}) since {_at(one['ticket']['opened'])}"
        for one in rows
    ]
    if signals["open_tickets"] > len(rows):
        said.append(f"{signals['open_tickets'] - len(rows)} more tickets")
    return printable(", ".join(said))


def ticket_about(row: Json) -> str:
    """Return how urgent a ticket is and what it is about, with what that was when it was opened."""
    ticket = row["ticket"]
    about = f"{ticket['gateway']}, {row['stand']}" if ticket["gateway"] else "the whole fleet"
    return f"{ticket['severity']}, {about}"


def signal_rows(signals: Json | None) -> list[tuple[str, str]]:
    """Return what was said in turn, each with when in ISO 8601: complaints, tickets opened and closed."""
    rows = list[tuple[str, str]]()
    if not signals:
        return rows
    for one in signals["complaining"]:
        wave = f" in wave {one['wave']}" if one["wave"] and one["stand"] != "unchanged" else ""
        said = f"first of {_users(one['users'])} about {one['gateway']} ({one['stand']}{wave})"
        rows.append((one["since"], said))
    for row in signals["tickets"]:
        ticket = row["ticket"]
        link = f" {ticket['link']}" if ticket["link"] else ""
        said = f"ticket {ticket['id']} ({ticket_about(row)}) opened: {ticket['text']}{link}"
        rows.append((_iso(ticket["opened"]), said))
        if ticket["closed"] is not None:
            rows.append((_iso(ticket["closed"]), f"ticket {ticket['id']} closed"))
    return [
        (at, printable(said)) for at, said in sorted(rows, key=lambda one: datetime.fromisoformat(one[0]))
    ]


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _at(seconds: float) -> str:
    return moment(_iso(seconds))
