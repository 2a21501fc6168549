"""Which certificates are worth nothing any more, as the ledger said when it was last read."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from orchestrator.enrolment.names import Certified
from orchestrator.store.certificates import Admitted
from policies.model.errors import PenstockError, Unavailable

EVERY = timedelta(seconds=15)
"""How often a relay reads them: a revocation is effective within a minute, even if one reading fails."""

MOST_CONFIRMED = 10_000
"""Certificates remembered as revoked, each of them looked up once more when it was first refused."""

READER = ThreadPoolExecutor(1, thread_name_prefix="revocations")
"""Where they are read: hosts that enrol, and wait for the ledger's writers, keep no thread from it."""

Admissions = Mapping[tuple[str, str], Admitted]
"""By fleet and gateway: which certificates are good, for each gateway with any that is not."""

_log = logging.getLogger(__name__)


class Revocations:
    """What a relay knows of revoked certificates."""

    def __init__(self, read: Callable[[], Admissions], clock: Callable[[], float] = time.monotonic) -> None:
        """Know nothing yet; `read` asks the ledger and may block."""
        self._read = read
        self._clock = clock
        self._known: Admissions | None = None
        self._confirmed: set[str] = set()
        self._silent_since: float | None = None
        self._reading = asyncio.Lock()
        self._begun = self._ended = 0
        self._went_well = False

    async def refresh(self) -> bool:
        """Read them again; return whether that went well. What was known stays known where it does not.

        Those who ask while others wait for the same share one reading, which begins after each of them asked.
        """
        asked = self._begun
        async with self._reading:
            if self._ended <= asked:
                self._begun += 1
                self._went_well = await self._read_now()
                self._ended = self._begun
            return self._went_well

    async def _read_now(self) -> bool:
        try:
            self._known = await asyncio.get_running_loop().run_in_executor(READER, self._read)
        except Exception as error:  # noqa: BLE001 - whatever it is, a relay that stops reading lets thieves in
            self._complain(error)
            return False
        if self._silent_since is not None:
            _log.warning("revocations are read again")
            self._silent_since = None
        return True

    async def refuses(self, caller: Certified) -> bool:
        """Return whether the certificate was revoked.

        Raises:
            Unavailable: They could never be read, so nobody knows.
        """
        if self._known is None:
            raise Unavailable(
                "this relay has never read which certificates are revoked; it lets nobody in yet"
            )
        if not self._is_revoked(caller):
            return False
        if caller.serial in self._confirmed or self._silent_since is not None:
            return True
        if await self.refresh() and self._is_revoked(caller):  # its host may have been enrolled anew since
            if len(self._confirmed) >= MOST_CONFIRMED:
                self._confirmed.clear()
            self._confirmed.add(caller.serial)
        return self._is_revoked(caller)

    async def keep(self, told: Callable[[], None]) -> None:
        """Read them now and then until cancelled; `told` is called after each reading that went well."""
        while True:
            if await self.refresh():
                told()
            await asyncio.sleep(EVERY.total_seconds())

    def knows_revoked(self, caller: Certified) -> bool:
        """Return whether the certificate was revoked when they were last read."""
        return self._is_revoked(caller)

    def _is_revoked(self, caller: Certified) -> bool:
        admitted = (self._known or {}).get((caller.fleet, caller.gateway))
        return admitted is not None and not admitted.admits(caller.serial, caller.begins)

    def _complain(self, error: Exception) -> None:
        now = self._clock()
        if self._silent_since is None:
            self._silent_since = now
        known = "nobody is let in" if self._known is None else "what was known before is still refused"
        why = str(error) if isinstance(error, PenstockError) else f"{type(error).__name__}: {error}"
        _log.warning("revocations cannot be read since %.0f s (%s); %s", now - self._silent_since, why, known)
