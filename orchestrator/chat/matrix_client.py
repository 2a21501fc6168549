"""Matrix client: that of matrix-nio, which is shown no event that it cannot read.

It reads all that was said at once, and one event of a stranger's server that it cannot read would keep
everything from being heard that was said beside it, again and again.
"""

import logging
from typing import Any

from aiohttp import ClientResponse
from nio import AsyncClient, Event

BESIDE = ("state", "timeline")
"""Where a room's events are."""

_log = logging.getLogger(__name__)


class ReadingClient(AsyncClient):  # type: ignore[misc]  # nio has no types
    """Leaves out what it cannot read, before it is read."""

    async def parse_body(self, transport_response: ClientResponse) -> dict[Any, Any]:
        """Return an answer without events that cannot be read."""
        found = await super().parse_body(transport_response)
        rooms = found.get("rooms") if isinstance(found, dict) else None
        joined = rooms.get("join") if isinstance(rooms, dict) else None
        for room, told in joined.items() if isinstance(joined, dict) else ():
            for where in BESIDE:
                _leave_out(room, told.get(where) if isinstance(told, dict) else None, "events")
        _leave_out("a room", found, "chunk")
        return dict(found) if isinstance(found, dict) else {}


def _leave_out(room: str, part: object, key: str) -> None:
    """Take out of a list of events what cannot be read."""
    events = part.get(key) if isinstance(part, dict) else None
    if isinstance(part, dict) and isinstance(events, list):
        part[key] = [event for event in events if _is_readable(room, event)]


def _is_readable(room: str, event: object) -> bool:
    try:
        Event.parse_event(event)  # whatever a homeserver lets through
    except Exception:  # noqa: BLE001 - a stranger chose what is in it
        _log.warning("an event in %s cannot be read and is left out", room[:255])
        return False
    return True
