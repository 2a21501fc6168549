"""Recurring upgrades: asks what is due in which fleet, and starts it as a machine would."""

import asyncio
import logging
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

from orchestrator.service.due import caller_for
from orchestrator.service.service import Service
from policies.model.errors import PenstockError, Unavailable
from policies.model.fleet import Fleet
from policies.model.plan import Strategy

RESTED_SECONDS = 600.0
"""How long a start that was refused is not asked for again: each is an entry of the record."""

_log = logging.getLogger(__name__)


@dataclass
class RecurringUpgrades:
    """Asks and starts by the service alone, with the approvals, windows and refusals of everybody."""

    service: Service
    refused: dict[str, float] = field(default_factory=dict)
    """When a start of that key was refused, in seconds by a clock that nobody sets."""
    said: dict[str, str] = field(default_factory=dict)
    """What the last look found, so that the log has it once."""

    async def start_due(self) -> dict[str, str]:
        """Start what is due; return what was done or why nothing was, by fleet.

        One fleet whose files or gateways are wrong keeps no other from its upgrade.
        """
        fleets = (await asyncio.to_thread(self.service.desired.files.all)).values()
        found = {}
        for fleet in fleets:
            if fleet.recurring is None:
                continue
            try:
                found[fleet.name] = await self._start(fleet)
                if found[fleet.name] != self.said.get(fleet.name):
                    _log.info("recurring upgrades of %s: %s", fleet.name, found[fleet.name])
            except PenstockError as error:
                found[fleet.name] = str(error)
                _log.warning("no recurring upgrade of %s: %s", fleet.name, error)
        self.said = found
        return found

    async def _start(self, fleet: Fleet) -> str:
        at = datetime.now(UTC)
        turn = await asyncio.to_thread(self.service.due.of, fleet, at)
        if turn.release is None or turn.key is None or fleet.recurring is None:
            return turn.sentence
        rested = self.refused.get(turn.key)
        if rested is not None and time.monotonic() - rested < RESTED_SECONDS:
            return "it was refused a moment ago, and is asked for again in this opening"
        try:
            name = await self.service.start(
                caller_for(fleet.name),
                fleet.name,
                turn.release.digest,
                Strategy(fleet.recurring.strategy),
                fleet.recurring.reason,
                key=turn.key,
            )
        except Unavailable:
            raise  # it may have begun all the same, which its key says
        except PenstockError:
            now = time.monotonic()
            recent = {key: at for key, at in self.refused.items() if now - at < RESTED_SECONDS}
            self.refused = {**recent, turn.key: now}
            raise
        return f"{turn.sentence}: {name or 'it is stored'}"
