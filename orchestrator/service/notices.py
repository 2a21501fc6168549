"""Notices, as everybody may ask for them: what was sent, what waits, and what the chat has not had yet."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from orchestrator.service.acting import Acting
from orchestrator.service.fleets import Fleets
from orchestrator.store.ledger import Ledger
from orchestrator.store.notices import SinkHealth
from policies.access import Action, may
from policies.model.notice import Delivery, NoticeRow
from policies.model.people import Caller


@dataclass(frozen=True)
class NoticeService:
    """Shows and hands over notices; of fleets where the caller has no role nobody hears."""

    ledger: Ledger
    fleets: Fleets
    acts: Acting

    async def rows(self, caller: Caller, limit: int, *, open_only: bool = False) -> tuple[NoticeRow, ...]:
        """Return what was sent and what waits of the fleets that the caller may look at, the newest first."""
        fleets = await self._of(caller, Action.READ)
        return await asyncio.to_thread(self.ledger.notice_rows, fleets, limit, open_only=open_only)

    async def sinks(self) -> Mapping[str, SinkHealth]:
        """Return how every sink takes what it is told."""
        return await asyncio.to_thread(self.ledger.sink_health)

    async def outbox(self, caller: Caller, sink: str, limit: int) -> tuple[Delivery, ...]:
        """Return what this sink has not had yet, the oldest first.

        Raises:
            NotAllowed: The caller is no machine whose token lets it pass notices on.
        """
        fleets = await self._passed_on(caller)
        return await asyncio.to_thread(self.ledger.outbox, sink, limit, fleets)

    async def delivered(self, caller: Caller, sink: str, keys: Collection[str]) -> int:
        """Write down that this sink has these; return how many it had not before.

        Raises:
            NotAllowed: The caller is no machine whose token lets it pass notices on.
        """
        fleets = await self._passed_on(caller)

        def done() -> int:
            return self.ledger.notices_delivered(sink, keys, fleets=fleets)

        return await asyncio.to_thread(done)

    async def acknowledge(self, caller: Caller, key: str) -> NoticeRow:
        """Write down that the caller has it, so that nobody else is woken.

        Raises:
            Unknown: There is no such notice, as far as the caller may know.
            NotAllowed: The caller may not stop changes of its fleet.
        """
        found = await asyncio.to_thread(self.ledger.notice, key)
        await asyncio.to_thread(self.fleets.require, caller, Action.STOP, found.fleet)
        return await asyncio.to_thread(self.ledger.acknowledge_notice, key, caller.person, caller.via)

    async def _of(self, caller: Caller, action: Action) -> tuple[str, ...]:
        known = await asyncio.to_thread(self.fleets.names, caller)
        return tuple(name for name in known if may(caller, action, name))

    async def _passed_on(self, caller: Caller) -> tuple[str, ...]:
        fleets = await self._of(caller, Action.HAND_ON) if caller.machine else ()
        if not fleets:
            sentence = (
                f"{caller.person} may not hand notices on: that takes a machine's token with the role chat"
            )
            raise await self.acts.refuse(caller, None, sentence)
        return fleets
