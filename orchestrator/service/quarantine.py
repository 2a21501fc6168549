"""What a caller may ask of quarantine: leave a gateway out of changes by name, and take it in again."""

import asyncio
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime

from orchestrator.service.changes import ChangeService
from policies.drift import strays
from policies.model.change import Quarantine
from policies.model.command import Command, CommandKind
from policies.model.errors import BadInput, Conflict, Refused
from policies.model.fleet import Fleet
from policies.model.offer import Offer, Verb


@dataclass(frozen=True)
class QuarantineService:
    """Which gateways of an installation are left out."""

    service: ChangeService

    async def leave_out(self, fleet: Fleet, gateway: str, person: str, reason: str) -> str:
        """Leave the gateway out until it is returned; return the sentence that says so.

        A change under way that waits for it to come back goes on without it. One that does not is not
        changed by this, except that it counts on no capacity of a gateway that is left out.

        Raises:
            BadInput: The fleet has no such gateway.
        """
        _refuse_unknown(fleet, gateway)
        entry = Quarantine(
            fleet=fleet.name, gateway=gateway, reason=reason, person=person, since=datetime.now(UTC)
        )
        # Its row comes before the command, in the person's name: what penstock has left out by itself it
        # also takes in again.
        under_way = await self.service.is_under_way(fleet.name)
        waited_for = under_way and gateway in (await self.service.status(fleet.name)).waits_for
        new = await asyncio.to_thread(self.service.ledger.set_quarantine, entry)
        if waited_for:
            command = Command(
                id=f"quarantine-{secrets.token_hex(6)}",
                kind=CommandKind.QUARANTINE,
                person=person,
                reason=reason,
                gateway=gateway,
            )
            return (await self.service.command(fleet.name, command)).sentence
        if not new:
            return f"{gateway} is left out already."
        begins = "the next changes, and of the capacity this one counts on," if under_way else "changes"
        return f"{gateway} is left out of {begins} until somebody returns it."

    async def take_in(self, fleet: Fleet, gateway: str, person: str, reason: str) -> str:
        """Let the gateway take part again, once it is seen on its known-good; return the sentence.

        Raises:
            BadInput: The fleet has no such gateway.
            Conflict: It is not left out.
            Refused: It is silent, or not on its known-good; the sentence says which and how.
        """
        _refuse_unknown(fleet, gateway)
        ledger = self.service.ledger
        left_out = await asyncio.to_thread(ledger.quarantined, fleet.name)
        if gateway not in {one.gateway for one in left_out}:
            raise Conflict(f"{gateway} is not in quarantine; nothing to do")
        survey = await self.service.surveys.of(fleet, gateway)
        if gateway not in survey.states:
            why = survey.silent.get(gateway, "its agent did not answer")
            raise Refused(f"{gateway} stays in quarantine, it is silent: {why}")
        known_good = await asyncio.to_thread(ledger.known_good, fleet.name)
        astray = strays({gateway: survey.states[gateway]}, known_good).get(gateway)
        if astray is not None:
            raise Refused(f"{gateway} stays in quarantine: it {astray}")
        await asyncio.to_thread(ledger.clear_quarantine, fleet.name, gateway, person, reason)
        return f"{gateway} was seen on its known-good and takes part in changes again."


def _refuse_unknown(fleet: Fleet, gateway: str) -> None:
    if gateway not in {known.name for known in fleet.gateways}:
        seen = Offer(verb=Verb.SESSIONS, fleet=fleet.name)
        raise BadInput(f"{fleet.name} has no gateway {gateway}", seen)
