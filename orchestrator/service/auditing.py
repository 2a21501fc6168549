"""The audit record, as auditors read and check it."""

import asyncio
import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from orchestrator.service.acting import Acting
from orchestrator.service.background import RECORD
from orchestrator.service.checkpoints import Checkpoint, Checkpoints, Verified
from orchestrator.service.fleets import Fleets
from orchestrator.store.ledger import Ledger
from policies.access import Action, may, may_there
from policies.model.audit import AuditEntry
from policies.model.people import EVERY_FLEET, Caller

T = TypeVar("T")


@dataclass(frozen=True)
class AuditService:
    """What auditors ask of the record; each of them sees the fleets that they audit."""

    ledger: Ledger
    checkpoints: Checkpoints
    fleets: Fleets
    acts: Acting

    async def entries(self, caller: Caller, after: int, limit: int) -> tuple[AuditEntry, ...]:
        """Return entries of the fleets that the caller audits; all of them where that is every fleet.

        Raises:
            NotAllowed: The caller audits no fleet.
        """
        fleets = await self._fleets_of(caller)
        read = partial(self.ledger.audit_entries, after, fleets=fleets, limit=limit)
        return await asyncio.to_thread(read)

    async def newest_entries(self, caller: Caller, before: int | None, limit: int) -> tuple[AuditEntry, ...]:
        """Return the newest of them that are older than the entry of that number, the newest first.

        Raises:
            NotAllowed: The caller audits no fleet.
        """
        fleets = await self._fleets_of(caller)
        read = partial(self.ledger.newest_audit_entries, before, fleets=fleets, limit=limit)
        return await asyncio.to_thread(read)

    async def _fleets_of(self, caller: Caller) -> Collection[str] | None:
        """Return the fleets that the caller audits, None for all there are.

        Raises:
            NotAllowed: It is none.
        """
        fleets = None if _audits_everything(caller) else await self._audited_by(caller)
        if fleets is not None and not fleets:
            sentence = f"{caller.person} audits no fleet: that takes auditor or admin"
            raise await self.acts.refuse(caller, None, sentence)
        return fleets

    async def state(self, caller: Caller) -> tuple[str, Checkpoint | None]:
        """Return the public key of the checkpoints and the newest of them."""
        await self._must_audit_everything(caller)
        return self.checkpoints.public_key, await asyncio.to_thread(self.checkpoints.newest)

    async def verify(self, caller: Caller) -> Verified:
        """Check the whole record and every checkpoint that is kept here."""
        await self._must_audit_everything(caller)
        abandoned = threading.Event()
        verify = partial(self.checkpoints.verify, abandoned.is_set)
        return await RECORD.run(verify, caller.person, abandon=abandoned.set)

    async def export(self, caller: Caller) -> Iterator[Mapping[str, Any]]:
        """Return the whole record, the oldest entry first; who has it is written down, once an hour."""
        await self._must_audit_everything(caller)
        key = f"audit exported/{caller.person}/{datetime.now(UTC):%Y-%m-%dT%H}"
        write = partial(self.ledger.audit, caller.person, caller.via.value, "audit exported", "audit", {})
        await asyncio.to_thread(write, key)
        return self.ledger.each_audit_row()

    async def _audited_by(self, caller: Caller) -> tuple[str, ...]:
        known = await asyncio.to_thread(self.fleets.names, caller)
        return tuple(name for name in known if may(caller, Action.READ_AUDIT, name))

    async def _must_audit_everything(self, caller: Caller) -> None:
        if not _audits_everything(caller):
            sentence = f"{caller.person} does not audit every fleet: that takes auditor or admin on '*'"
            raise await self.acts.refuse(caller, None, sentence)


def _audits_everything(caller: Caller) -> bool:
    return may_there(caller, Action.READ_AUDIT, EVERY_FLEET)
