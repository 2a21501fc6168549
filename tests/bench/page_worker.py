"""The worker beside the page: real workflows and ledger steps, and a change whose admission never ends.

`python -m tests.bench.page_worker ADDRESS LEDGER COUNT`. The change stands still in its first step, so that
whatever the worker does while people look, it does for those who look.
"""

import asyncio
import sys

from temporalio import activity

from activities.admission import Admission, AdmitOrder
from activities.liveness import heartbeating
from orchestrator.processes.leaving import leave
from tests.bench.fleet_worker import ScriptedJudge, run


class NeverAdmitting(ScriptedJudge):
    """A judge whose admission lasts as long as the worker."""

    @activity.defn(name="admit_release")
    async def admit_release(self, order: AdmitOrder) -> Admission:
        """Wait until the worker is told to stop."""
        async with heartbeating():
            await asyncio.Event().wait()
        return Admission(release=order.release, signers=("simulated",), reason="simulated")


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], sys.argv[2], int(sys.argv[3]), NeverAdmitting(0, 0.0)))
    leave(0)
