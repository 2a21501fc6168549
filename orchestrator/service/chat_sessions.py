"""Sessions that a change has on its release, as a chat tells them: by what gateways said of themselves.

No metrics are asked: going back is told while those are away, too.
"""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from orchestrator.service.standing import looked_at_within
from orchestrator.service.surveys import SurveyService
from orchestrator.store.ledger import Ledger
from policies.chat.sessions import Left, left_on
from policies.model.change import ChangeRecord
from policies.model.errors import PenstockError
from policies.model.fleet import Fleet
from policies.model.plan_part import MOST_MEMBERS, PlanHeader

LOOKED_WITHIN_SECONDS = 3.0
"""How long an order waits for what gateways say now; then what they said before counts."""

AGAIN_SECONDS = 10.0
"""How often what gateways said is read while a card waits for the last session."""


@dataclass(frozen=True)
class ChatSessions:
    """Counts what is left on the release of a change."""

    ledger: Ledger
    surveys: SurveyService
    _read: dict[str, tuple[float, Left | None]] = field(default_factory=dict, init=False, repr=False)
    """By change: when what gateways said was read, and what it was; of those whose cards wait."""

    async def now(self, fleet: Fleet, change: ChangeRecord) -> tuple[Left | None, timedelta]:
        """Return how many there are now, as far as gateways answer in time, and how long a drain waits.

        Nobody is counted (None) where the change brought no release.
        """
        header = await asyncio.to_thread(self.header, change)
        if header is None or header.release is None or header.strategy is None:
            return None, fleet.limits.drain_deadline
        if len(fleet.gateways) <= MOST_MEMBERS:
            with suppress(PenstockError, TimeoutError):  # what was said before counts
                async with asyncio.timeout(LOOKED_WITHIN_SECONDS):
                    await self.surveys.of(fleet)
        left = await asyncio.to_thread(self._left, fleet, header, None)
        return left, header.limits.drain_deadline

    def lately(self, fleet: Fleet, header: PlanHeader | None) -> Left | None:
        """Return how many there were when gateways were last looked at."""
        return self._left(fleet, header, None) if header is not None else None

    def since(self, fleet: Fleet, change: ChangeRecord, header: PlanHeader | None) -> Left | None:
        """Return how many there are by what gateways said after the change's end, read once in a while."""
        read, left = self._read.get(change.name, (0.0, None))
        if time.monotonic() - read > AGAIN_SECONDS:
            left = self._left(fleet, header, change.ended) if header is not None else None
            self._read[change.name] = (time.monotonic(), left)
        return left

    def forget(self, change: str) -> None:
        """Read no more for this change."""
        self._read.pop(change, None)

    def header(self, change: ChangeRecord) -> PlanHeader | None:
        """Return the change's plan, None where it has none."""
        return self.ledger.plan_header(change.plan) if change.plan is not None else None

    def _left(self, fleet: Fleet, header: PlanHeader, since: datetime | None) -> Left | None:
        if header.release is None or header.strategy is None:  # no session is to leave a release
            return None
        said = self.ledger.each_state(fleet.name, looked_at_within(len(fleet.gateways)))
        names = [one.name for one in fleet.gateways]
        return left_on(header.release.digest, header.release.version, names, said, since)
