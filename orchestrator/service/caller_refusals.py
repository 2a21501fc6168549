"""Refusals of known callers: in the audit record, and out of the way of every hold and rollback.

One thread writes them, for which no request waits long. The record is kept for ever, so that each caller has
a bounded number of entries an hour; what is refused besides is counted, and written in sum.
"""

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from contextlib import suppress
from datetime import UTC, datetime

from orchestrator.crowd import crowd_of
from orchestrator.refusals import Counted, Tallies
from orchestrator.store.later import LateEntries
from orchestrator.store.trail import Trail
from policies.model.audit import LateEntry
from policies.model.errors import Unavailable
from policies.model.people import Caller

MOST_ENTRIES = 20
"""Entries of one caller in an hour; what is refused besides has one entry together."""

MOST_WAITING = 100
"""Entries that wait for the ledger; more are only counted until it answers."""

WAITED_SECONDS = 1.0
"""How long a refused request waits for its entry."""

INSTALLATION = "installation"
"""What an entry is about that is about no fleet."""

_log = logging.getLogger(__name__)


class CallerRefusals:
    """Writes down what known callers of one process may not do."""

    def __init__(self, trail: Trail, late: LateEntries, clock: Callable[[], float] = time.monotonic) -> None:
        """Write into this record, and into `late` while it does not answer; `clock` counts seconds."""
        self._trail = trail
        self._late = late
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="refusals")
        self._turn = threading.Lock()
        self._waiting = 0
        self._written: dict[str, set[tuple[object, ...]]] = {}
        self._more = Tallies(trail, clock)

    def note(self, caller: Caller, fleet: str | None, subject: str, body: Mapping[str, object]) -> None:
        """Write down that something was refused, and why; wait a moment for it, unless others wait already.

        Args:
            caller: Who may not do it.
            fleet: Whose entry it is; None for what concerns the whole installation.
            subject: What it is about.
            body: `why`, and what else the entry says.
        """
        if (entered := self._begun(caller, fleet, subject, body)) is not None:
            with suppress(Late):
                entered.result(WAITED_SECONDS)

    async def noted(
        self, caller: Caller, fleet: str | None, subject: str, body: Mapping[str, object]
    ) -> None:
        """Do as `note`, and wait in no thread."""
        if (entered := self._begun(caller, fleet, subject, body)) is not None:
            await asyncio.wait([asyncio.wrap_future(entered)], timeout=WAITED_SECONDS)

    def write(self) -> int:
        """Write in sum what had no entry in the hour that is over; return how many entries.

        Raises:
            Unavailable: The ledger does not answer; what is due is written in an hour.
        """
        if not self._more.is_new_hour():
            return 0
        with self._turn:
            self._written.clear()
        return self._more.write([*self._more.pending])

    def _begun(
        self, caller: Caller, fleet: str | None, subject: str, body: Mapping[str, object]
    ) -> "Future[None] | None":
        """Have it written; return what ends then, None where nothing is written or others wait already."""
        with self._turn:
            theirs = self._written.setdefault(caller.person, set())
            key = (fleet, subject, body.get("why"), crowd_of(caller.address))
            if key in theirs or len(theirs) >= MOST_ENTRIES or self._waiting >= MOST_WAITING:
                counted = Counted(caller.person, caller.via, "refused", INSTALLATION)
                self._more.add(counted, str(body.get("why", "")))
                return None
            theirs.add(key)
            alone, self._waiting = not self._waiting, self._waiting + 1
        entry = LateEntry(
            key=f"entry/{secrets.token_hex(12)}",
            at=datetime.now(UTC),
            person=caller.person,
            via=caller.via,
            action="refused",
            subject=subject,
            body={**body, "from": caller.address},
            fleet=fleet,
        )
        entered = self._writer.submit(self._enter, entry)
        return entered if alone else None

    def _enter(self, entry: LateEntry) -> None:
        try:
            self._trail.enter(entry)
        except Unavailable as silent:
            _log.warning("a refusal of %s waits for the ledger: %s", entry.person, silent)
            try:
                self._late.keep(entry)
            except Unavailable as full:
                _log.error("an audit entry of %s is nowhere: %s", entry.person, full)
        finally:
            with self._turn:
                self._waiting -= 1
