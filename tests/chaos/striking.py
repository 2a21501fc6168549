"""Striking: waits for a line of a change's history, has the accident there, and mends it."""

import asyncio
import secrets
from datetime import UTC, datetime

from temporalio.service import RPCError

from deploy.lab.faults import Fault, Faults
from deploy.lab.lab import FLEET
from deploy.lab.processes import Process
from orchestrator.service.changes import ChangeService
from policies.model.command import Command, CommandKind
from policies.model.errors import Conflict
from tests.chaos.cases import Run
from tests.chaos.watching import UNDER_WAY, Seen

MENDED_AFTER = 0.3
"""Seconds until a supervisor has noticed that a process is gone."""
FROZEN_FOR = 5.0
AGAIN = 0.2
LOOK_EVERY = 0.03


class Striking:
    """Waits for the boundary, strikes there and mends; gives the order to go back where the case has one.

    What is no gateway's step strikes the canary's agent.
    """

    def __init__(self, run: Run, faults: Faults, service: ChangeService, canary: str) -> None:
        self._run = run
        self._case = run.case
        self._faults = faults
        self._service = service
        self._canary = canary
        self._waits = {case for case in (run.case.boundary, run.case.turn) if case is not None}
        self._work: list[asyncio.Task[None]] = []
        self.successor = ""
        self.refused = ""

    @property
    def sees_all(self) -> bool:
        """Say whether the run is there to see every boundary."""
        return self._case.boundary is None

    @property
    def waits(self) -> bool:
        """Say whether a boundary is still to come."""
        return bool(self._waits)

    def hear(self, seen: Seen) -> None:
        """Take note of a boundary; each is met at most once. The fault comes first, the order after it."""
        for met in sorted(self._waits & seen.meets):
            self._waits.discard(met)
            delay = self._case.half_way if met.moment == UNDER_WAY else 0.0
            if met == self._case.boundary and self._case.fault is not None:
                self._work.append(asyncio.create_task(self._strike(self._case.fault, seen.gateway, delay)))
            if met == self._case.turn:
                self._work.append(asyncio.create_task(self._ask_back(delay)))

    async def settle(self) -> None:
        """Wait until everything is mended again and every order given."""
        await asyncio.gather(*self._work)

    async def _strike(self, fault: Fault, gateway: str | None, delay: float) -> None:
        hit = gateway or self._canary
        await asyncio.sleep(delay)
        self._run.struck = datetime.now(UTC)
        self._faults.strike(fault, hit)
        await asyncio.sleep(MENDED_AFTER)
        mended = self._faults.mend(fault, hit)
        self.successor = f":{mended.pid}"
        if fault is not Fault.ENGINE_KILLED:
            await self._until_ready(mended)
        if fault is Fault.WORKER_FROZEN:
            await asyncio.sleep(FROZEN_FOR)
            self._faults.thaw()

    async def _until_ready(self, mended: Process) -> None:
        """Wait until the new process says that it takes work: what it needs to load is no fault of ours."""
        size = mended.log.stat().st_size
        while b"ready:" not in mended.log.read_bytes()[size:] and mended.pid is not None:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_EVERY)
        self._run.ready = (datetime.now(UTC) - (self._run.struck or datetime.now(UTC))).total_seconds()

    async def _ask_back(self, delay: float) -> None:
        """Give the order until somebody has taken it, as a person would."""
        order = Command(
            id=secrets.token_hex(8), kind=CommandKind.ROLL_BACK, person="chaos", reason="wants it back"
        )
        await asyncio.sleep(delay)
        while True:
            try:
                await self._service.command(FLEET, order)
            except RPCError:
                await asyncio.sleep(AGAIN)
            except Conflict as refusal:
                self.refused = str(refusal)
                return
            else:
                return
