"""Hand-overs: who asks whom to take a fleet, who has taken it, and how long that took."""

import asyncio
from dataclasses import dataclass
from functools import partial

from orchestrator.service.acting import Acting
from orchestrator.service.fleets import Fleets
from orchestrator.store.ledger import Ledger
from policies.access import Action
from policies.model.errors import BadInput
from policies.model.handover import Handover, HandoverEnd
from policies.model.people import Caller


@dataclass(frozen=True)
class HandoverService:
    """Has people hand fleets over; nobody is on duty who has not said so."""

    ledger: Ledger
    fleets: Fleets
    acts: Acting

    async def begin(
        self, caller: Caller, fleet: str, taker: str, note: str, key: str | None = None
    ) -> Handover:
        """Ask somebody to take the fleet; until they accept, nobody else has it than before.

        Raises:
            NotAllowed: The caller is a machine, or does not look after the fleet.
            BadInput: They would hand it over to themselves.
        """
        await self._require_person(caller, fleet)
        if taker == caller.person:
            raise BadInput(f"{taker} cannot hand {fleet} over to {taker}; name who is to take it")

        async def begin() -> Handover:
            newest = await asyncio.to_thread(self.ledger.last_change, fleet)
            change = newest.name if newest is not None else None
            ask = partial(self.ledger.begin_handover, fleet, caller.person, taker, note, change)
            return await asyncio.to_thread(ask, caller.request(key))

        asked = {"to": taker, "note": note}
        return await self.acts.audited(caller, "hand-over asked for", fleet, asked, begin)

    async def end(self, caller: Caller, fleet: str, end: HandoverEnd) -> Handover:
        """Accept or decline what the caller is asked to take, or withdraw what they have asked.

        Raises:
            NotAllowed: The caller is a machine, or does not look after the fleet.
            Conflict: There is none, or it is somebody else's to say.
        """
        await self._require_person(caller, fleet)

        async def say() -> Handover:
            return await asyncio.to_thread(self.ledger.end_handover, fleet, caller.person, end)

        return await self.acts.audited(caller, f"hand-over to be {end.value}", fleet, {}, say)

    async def listed(self, caller: Caller, fleet: str, limit: int) -> tuple[Handover, ...]:
        """Return the fleet's hand-overs, the newest first."""
        await asyncio.to_thread(self.fleets.for_action, caller, Action.READ, fleet)
        return await asyncio.to_thread(self.ledger.handovers, fleet, limit)

    async def _require_person(self, caller: Caller, fleet: str) -> None:
        await asyncio.to_thread(self.fleets.for_action, caller, Action.FOLLOW_UP, fleet)
        if caller.machine:
            sentence = f"{caller.person} is a machine: people hand fleets over to people"
            raise await self.acts.refuse(caller, fleet, sentence)
