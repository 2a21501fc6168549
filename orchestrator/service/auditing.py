"""The audit record, as auditors read and check it."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from orchestrator.service.acting import Acting
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
    slow: Executor
    """Where the whole record is read, which takes seconds."""

    async def entries(self, caller: Caller, after: int, limit: int) -> tuple[AuditEntry, ...]:
        """Return entries of the fleets that the caller audits; all of them where that is every fleet.

        Raises:
            NotAllowed: The caller audits no fleet.
        """
        fleets = None if _audits_everything(caller) else await self._audited_by(caller)
        if fleets is not None and not fleets:
            sentence = f"{caller.person} audits no fleet: that takes auditor or admin"
            raise await self.acts.refuse(caller, None, sentence)
        read = partial(self.ledger.audit_entries, after, fleets=fleets, limit=limit)
        return await asyncio.to_thread(read)

    async def state(self, caller: Caller) -> tuple[str, Checkpoint | None]:
        """Return the public key of the checkpoints and the newest of them."""
        await self._must_audit_everything(caller)
        return self.checkpoints.public_key, await asyncio.to_thread(self.checkpoints.newest)

    async def verify(self, caller: Caller) -> Verified:
        """Check the whole record and every checkpoint that is kept here."""
        await self._must_audit_everything(caller)
        return await self._slowly(self.checkpoints.verify)

    async def export(self, caller: Caller) -> Iterator[Mapping[str, Any]]:
        """Return the whole record, the oldest entry first; who has it is written down."""
        await self._must_audit_everything(caller)
        write = partial(self.ledger.audit, caller.person, caller.via.value, "audit exported", "audit", {})
        await asyncio.to_thread(write)
        return self.ledger.each_audit_row()

    async def _audited_by(self, caller: Caller) -> tuple[str, ...]:
        known = await asyncio.to_thread(self.fleets.names, caller)
        return tuple(name for name in known if may(caller, Action.READ_AUDIT, name))

    async def _must_audit_everything(self, caller: Caller) -> None:
        if not _audits_everything(caller):
            sentence = f"{caller.person} does not audit every fleet: that takes auditor or admin on '*'"
            raise await self.acts.refuse(caller, None, sentence)

    async def _slowly(self, work: Callable[[], T]) -> T:
        """Do it in a thread that no other question waits for, one after the other."""
        return await asyncio.get_running_loop().run_in_executor(self.slow, work)


def _audits_everything(caller: Caller) -> bool:
    return may_there(caller, Action.READ_AUDIT, EVERY_FLEET)
