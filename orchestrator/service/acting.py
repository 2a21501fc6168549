"""Acting: what somebody asks for is done once for each key, and is in the audit record before it is done."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from orchestrator.service.caller_refusals import INSTALLATION, CallerRefusals
from orchestrator.service.patience import Patience, authorised
from orchestrator.store import requests
from orchestrator.store.later import LateEntries
from orchestrator.store.ledger import Ledger
from policies.model.audit import LateEntry
from policies.model.errors import Conflict, NotAllowed, OtherContent, PenstockError, Unavailable
from policies.model.people import Caller
from policies.model.request import Answer

T = TypeVar("T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Acting:
    """Does what is asked for, in the name of whoever asks.

    What goes in the safe direction waits for no ledger: it is done, and its entries are kept in a file until
    the ledger takes them.
    """

    ledger: Ledger
    late: LateEntries
    safe_ledger: Ledger
    """The same ledger by connections of its own, which only the safe direction uses."""
    refusals: CallerRefusals
    patience: Patience = field(default_factory=Patience)

    async def once(
        self,
        caller: Caller,
        key: str,
        content: bytes,
        work: Callable[[], Awaitable[Answer]],
        *,
        safe: bool,
        alone: bool = False,
    ) -> Answer:
        """Do the work once for each key of the caller; a repeat gets the first one's answer.

        What was refused or has failed may be tried again under its key, by which every effect is known. What
        is `safe` waits for no equal request either, unless it is `alone`: the engine carries it out once.

        Raises:
            OtherContent: The key was given to another request.
            Conflict: The same request is still being carried out.
        """
        known = None
        try:
            begin = partial(self._book(safe=safe).begin_request, caller.person, key, content)
            known = await self._ask(begin, safe=safe)
        except OtherContent as refused:
            await self.refusals.noted(caller, None, INSTALLATION, {"why": str(refused)})
            raise
        except Conflict:
            if alone or not safe:
                raise
        except Unavailable:
            if not safe:
                raise
        if known is not None:
            return known
        kept = asyncio.create_task(self._keep(caller, key))
        try:
            done = await work()
        except BaseException:
            await self._afterwards(
                partial(self._book(safe=safe).forget_request, caller.person, key), safe=safe
            )
            raise
        finally:
            kept.cancel()
        await self._afterwards(
            partial(self._book(safe=safe).finish_request, caller.person, key, done), safe=safe
        )
        return done

    async def audited(
        self,
        caller: Caller,
        action: str,
        fleet: str | None,
        body: object,
        work: Callable[[], Awaitable[T]],
        *,
        about: str | None = None,
        safe: bool = False,
    ) -> T:
        """Write down who asks for what, do it, and write down why it was refused or failed on the way.

        Args:
            caller: Who asks.
            action: What for.
            fleet: Whose entry it is; None for what concerns the whole installation.
            body: What was said with it.
            work: What is done.
            about: What it is done to, when that is not the fleet as a whole.
            safe: Whether it is done even where the ledger cannot take the entry now.
        """
        subject = about or fleet or INSTALLATION
        await self._write(caller, action, fleet, subject, {"asked": body}, safe=safe)
        try:
            return await work()
        except Exception as error:
            # Only what is refused has surely had no effect; a peer that went away may have taken it.
            refused = isinstance(error, PenstockError) and not isinstance(error, Unavailable)
            how, why = "refused" if refused else "failed", {"why": f"{action}: {error}"}
            await self._write(caller, how, fleet, subject, why, safe=safe)
            raise

    async def refuse(self, caller: Caller, fleet: str | None, sentence: str) -> NotAllowed:
        """Write down that the caller may not do something; return the refusal, to be raised."""
        await self.refusals.noted(caller, fleet, fleet or INSTALLATION, {"why": sentence})
        return NotAllowed(sentence)

    async def _write(
        self,
        caller: Caller,
        action: str,
        fleet: str | None,
        subject: str,
        body: Mapping[str, object],
        *,
        safe: bool,
    ) -> None:
        """Have an entry in the record; where nothing waits for the ledger, in a file until it answers."""
        entry = LateEntry(
            key=f"entry/{secrets.token_hex(12)}" if safe else None,
            at=datetime.now(UTC),
            person=caller.person,
            via=caller.via,
            action=action,
            subject=subject,
            body={**body, "from": caller.address},
            fleet=fleet,
            known_by=caller.known_by,
        )
        try:
            await self._ask(partial(self._book(safe=safe).enter, entry), safe=safe)
        except Unavailable as silent:
            if not safe:
                raise
            _log.warning("%s of %s goes on without the ledger: %s", action, subject, silent)
            try:
                await authorised(partial(self.late.keep, entry))
            except Unavailable as full:  # the engine's own history names who ordered what, too
                _log.error("an audit entry of %s is nowhere: %s", caller.person, full)

    async def _afterwards(self, work: Callable[[], None], *, safe: bool) -> None:
        try:
            await self._ask(work, safe=safe)
        except Unavailable:
            if not safe:
                raise

    def _book(self, *, safe: bool) -> Ledger:
        return self.safe_ledger if safe else self.ledger

    async def _ask(self, work: Callable[[], T], *, safe: bool) -> T:
        return await (self.patience.ask(work) if safe else asyncio.to_thread(work))

    async def _keep(self, caller: Caller, key: str) -> None:
        """Have the ledger know that the request is still being carried out, for as long as it is."""
        while True:
            await asyncio.sleep(requests.ABANDONED.total_seconds() / 4)
            with suppress(Unavailable):
                await asyncio.to_thread(self.ledger.keep_request, caller.person, key)
