"""Drills: who rehearsed which failure, what was seen, and how it stands with each."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime

from orchestrator.service.acting import Acting
from orchestrator.store.ledger import Ledger
from policies import drills
from policies.access import Action, may
from policies.model.drill import DrillReport, DrillRow, DrillRun
from policies.model.people import Caller

MOST_DRAWN = 60
"""Runs of a drill that are drawn and listed with it."""


@dataclass(frozen=True)
class DrillService:
    """Keeps what was seen in drills, for everybody who looks after a fleet."""

    ledger: Ledger
    acts: Acting

    async def record(self, caller: Caller, report: DrillReport) -> DrillRun:
        """Keep what the caller saw; what it came to follows from the numbers.

        Raises:
            NotAllowed: The caller operates no fleet.
            Unknown: There is no such drill.
            Conflict: It has another budget here, a clock is wrong, or something else was recorded of
                this run.
        """
        if not any(may(caller, Action.DRILL, fleet) for fleet in caller.grants):
            sentence = f"{caller.person} may not record drills: that takes operator of a fleet"
            raise await self.acts.refuse(caller, None, sentence)

        async def record() -> DrillRun:
            drills.require_genuine(report, datetime.now(UTC))
            return await asyncio.to_thread(self.ledger.record_drill, report, caller.person)

        asked = report.model_dump(mode="json")
        return await self.acts.audited(caller, "drill to be recorded", None, asked, record, about=report.name)

    async def standings(self, caller: Caller) -> tuple[DrillRow, ...]:
        """Return how it stands with each drill, what needs somebody first."""
        await self._require_reader(caller)
        return drills.rows(await asyncio.to_thread(self.ledger.drill_pasts, MOST_DRAWN))

    async def runs(self, caller: Caller, name: str | None, limit: int) -> tuple[DrillRun, ...]:
        """Return what was rehearsed, one drill or all of them, the newest first."""
        await self._require_reader(caller)
        return await asyncio.to_thread(self.ledger.drill_runs, name, limit)

    async def _require_reader(self, caller: Caller) -> None:
        if not any(may(caller, Action.READ, fleet) for fleet in caller.grants):
            sentence = f"{caller.person} may look at no fleet, and so at no drills: that takes viewer of one"
            raise await self.acts.refuse(caller, None, sentence)
