"""Gates of kind `tickets`: what a network operations centre has open about a changed gateway."""

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import Field

from policies.judge.gates.kind import GateState, Kind, Response, Setup
from policies.judge.look import Look
from policies.judge.reading import TICKETS
from policies.judge.tick import Finding, Sign, Tick
from policies.model.value import Name
from policies.model.verdict import GateReading, GateVerdict

FLEET = ""
"""The instance of a ticket that is about the whole fleet."""


class Tickets(Kind):
    """Open tickets of these severities, about a changed gateway or the fleet; they only ever hold."""

    kind: Literal["tickets"]
    """Of tickets that came to the API."""
    severities: Annotated[tuple[Name, ...], Field(min_length=1, max_length=20)]
    """An open ticket of one of these holds; of others nothing is asked."""
    action: Literal[Response.HOLD] = Response.HOLD

    def blind(self, look: Look) -> str:
        """Return why tickets cannot be read now; those that could not be read are not none."""
        return look.unread((TICKETS,))

    def find(self, look: Look) -> Finding:
        """Return the changed gateways with such a ticket, and the fleet's own."""
        changed = look.cohorts.changed
        signs: dict[str, Sign] = {}
        for ticket in sorted(look.reading.tickets, key=lambda one: one.opened):
            if ticket.severity in self.severities and (
                ticket.instance in changed or ticket.instance == FLEET
            ):
                sign = Sign(since=ticket.opened, until=look.reading.at, name=ticket.sentence)
                signs.setdefault(ticket.instance, sign)
        return Finding(signs=signs)

    def judge(self, setup: Setup, state: GateState, tick: Tick) -> tuple[GateState, GateReading]:
        """Return what holds; no ticket is no proof of anything, and nothing is ever promoted for it."""
        signs = tick.signs.get(self.id, {})
        found = sorted((sign.since, instance) for instance, sign in signs.items())
        found = [(at, name) for at, name in found if name == FLEET or name in setup.cohorts.changed]
        numbers = {"canary": float(len(found))}
        if not found:
            return state, self.reading(GateVerdict.HEALTHY, "no such ticket is open", numbers)
        since, first = found[0]
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        opened = f"{datetime.fromtimestamp(since, UTC):%Y-%m-%d %H:%M} UTC"
        reason = f"{signs[first].name}, open since {opened}{more}"
        reading = self.reading(GateVerdict.UNHEALTHY, reason, numbers)
        return state, reading.model_copy(update={"instances": tuple(name for _, name in found if name)})
