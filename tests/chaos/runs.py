"""Runs: a real rollout with real users, struck once at a chosen line of its history, then judged by facts."""

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio.client import Client

from activities.files import load
from deploy.lab.faults import Fault, Faults
from deploy.lab.lab import FLEET, Lab, Shape
from orchestrator.service.changes import ChangeService
from policies.model.errors import Conflict, PenstockError
from policies.model.fleet import Limits
from policies.model.gates import GatePolicy
from policies.model.plan import Plan, ReleaseRef, Strategy
from policies.model.value import digest_of
from policies.model.verdict import Window
from tests.chaos.cases import Case, Direction, Run
from tests.chaos.endings import Ending
from tests.chaos.facts import Host
from tests.chaos.striking import Striking
from tests.chaos.watching import CHANGE, WAY_BACK, Watch, moment_of, taken_up_by
from workflows.identities import change_of

GATES = Path(__file__).with_name("gates.yaml")
DRAINS_SEEN_WITHIN = 5.0
ENDS_WITHIN = 120.0
"""Seconds after which a run that has not ended is unsafe."""
KEPT = timedelta(seconds=3)
"""How long blue is kept where its end belongs to the run; else as long as fleets have it by themselves."""
STEPS: dict[Strategy, dict[str, Any]] = {
    Strategy.CANARY: {"steps": ("100%",)},
    Strategy.ROLLING: {"steps": ("2", "100%")},
    Strategy.BLUE_GREEN: {"shares": (10, 50, 100)},
}
"""With three gateways: one and then two, two and then one, or all at once with growing shares of users."""


def shape(**more: object) -> Shape:
    """Return the shape of a lab for chaos: three gateways, busy logins, drains that outlast it."""
    limits = Limits(holdout="0", switching=3, lease=timedelta(seconds=20), drain_deadline=timedelta(hours=8))
    values = {"gateways": 3, "sites": 6, "prefix": "psc-", "folder": "lab-chaos", "gates": GATES}
    return Shape(**{**values, "logins_per_second": 3.0, "limits": limits, **more})  # type: ignore[arg-type]


class Chaos:
    """Makes runs on one lab, one after the other; the fleet goes to and fro between two releases."""

    def __init__(self, lab: Lab, client: Client) -> None:
        self.lab = lab
        self.client = client
        self.service = ChangeService(client, lab.installation.ledger)
        self._gates = load(lab.installation.settings.gates, GatePolicy)
        self._trust = digest_of(lab.installation.settings.trust.read_bytes())
        self.hosts = {gateway.name: Host(lab, gateway.name) for gateway in lab.fleet.gateways}
        self.faults = Faults(lab)
        self.here = lab.older

    async def open(self) -> None:
        """Offer the releases between which the fleet goes."""
        self.other, self._faulty = await asyncio.to_thread(self.lab.offers.equals)
        for release in (self.other, self._faulty):
            await self.lab.add(release)

    async def run(self, case: Case) -> Run:
        """Make the run and judge it; whatever happened, the lab is whole again afterwards."""
        run, began = Run(case), time.monotonic()
        ending = await Ending.to_come(self.lab, self.hosts)
        release = self._faulty if case.direction is Direction.JUDGED_BACK else self.other
        try:
            async with asyncio.timeout(ENDS_WITHIN):
                await self._make(run, release, ending)
        except TimeoutError:
            run.unsafe.append(f"it has not ended after {ENDS_WITHIN:.0f} s")
        except PenstockError as error:
            run.unsafe.append(f"{error.code}: {error}")
        self.faults.tidy()
        await ending.judge(run, release if case.direction is Direction.FORWARDS else self.here)
        if all([(await host.serves()).is_on(release) for host in self.hosts.values()]):
            self.here, self.other = release, self.here
        run.took = time.monotonic() - began
        return run

    # --- making ------------------------------------------------------------------

    async def _make(self, run: Run, release: ReleaseRef, ending: Ending) -> None:
        case, taken = run.case, run.case.direction is Direction.TAKEN_BACK
        blue_goes = case.strategy is Strategy.BLUE_GREEN and case.direction is Direction.FORWARDS
        kept = KEPT if blue_goes else self.lab.fleet.limits.kept
        plan = await self.plan(release, case.strategy, kept=kept)
        striking = Striking(run, self.faults, self.service, plan.waves[0].gateways[0])
        watch = Watch(self.client, striking.hear, WAY_BACK if taken else CHANGE)
        try:
            run.rollout = await self.start(plan) or ""
            if taken:
                await self._take_back(run, watch)
            else:
                await watch.follow(change_of(FLEET), await self._newest())
            if blue_goes:
                await self._see_blue(run, watch, ending)
            await self._see_drains(run, striking, watch)
            run.outcome = (await self.service.result(FLEET)).outcome
            if striking.refused:
                run.unsafe.append(f"the order to go back was refused: {striking.refused}")
        finally:
            await striking.settle()
            await watch.stop()
            run.seen = watch.seen
            run.resumed = _resumed(run, striking.successor, watch)

    async def _take_back(self, run: Run, watch: Watch) -> None:
        """Let the rollout be promoted, say that it is taken back, and follow the change that does so."""
        before = await self._newest()
        await self.client.get_workflow_handle(change_of(FLEET)).result()
        asking = asyncio.create_task(self.service.roll_back(self.lab.fleet, "chaos", "wants it back"))
        while not asking.done() and await self._newest() == before:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await watch.follow(change_of(FLEET), await self._newest())
        receipt = await asking
        run.taken_back_by = (await self.service.result(FLEET)).rollout
        if not receipt.accepted:
            run.unsafe.append(f"the order to go back was refused: {receipt.sentence}")

    async def _newest(self) -> str | None:
        """Return the run of the fleet's newest change."""
        return (await self.client.get_workflow_handle(change_of(FLEET)).describe()).run_id

    async def _see_blue(self, run: Run, watch: Watch, ending: Ending) -> None:
        """See blue kept and gone; a drain that was struck has its own clocks, and is not waited for."""
        begun = min((seen.at for seen in watch.seen if seen.boundary.step == "child Drain"), default=None)
        if begun is not None:
            boundary = run.case.boundary
            await ending.see_blue(run, begun + KEPT, gone=boundary is None or boundary.role != "drain")

    async def _see_drains(self, run: Run, striking: Striking, watch: Watch) -> None:
        """Drains go on when a change has ended; what is waited for of them is seen soon."""
        await _shortly(lambda: not striking.waits and not striking.sees_all)
        await striking.settle()
        await _shortly(lambda: not run.struck or _resumed(run, striking.successor, watch) is not None)

    async def plan(
        self, release: ReleaseRef, strategy: Strategy, window: Window | None = None, **limits: object
    ) -> Plan:
        """Return the plan of an upgrade, with another window or other limits than the lab's."""
        changed = self.lab.fleet.limits.model_copy(update={**STEPS[strategy], **limits})
        fleet = self.lab.fleet.model_copy(update={"limits": changed})
        gates = self._gates.model_copy(update={"window": window}) if window else self._gates
        return await self.service.plan(fleet, release, strategy, gates, self._trust)

    async def start(self, plan: Plan) -> str | None:
        """Start it and return its name; the reconcile ring may have the fleet's lock for a moment."""
        while True:
            try:
                return await self.service.start(
                    plan, self.lab.installation.releases.repository, "chaos", "a run"
                )
            except Conflict:
                await asyncio.sleep(0.2)


async def _shortly(is_so: Callable[[], bool]) -> None:
    """Wait for something that drains bring soon, if at all."""
    deadline = time.monotonic() + DRAINS_SEEN_WITHIN
    while not is_so() and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.1)


def _resumed(run: Run, successor: str, watch: Watch) -> float | None:
    """Return the seconds from the fault to the first task that the part which came back took up."""
    if run.struck is None or not successor:
        return None
    events = [event for history in watch.histories.values() for event in history]
    if run.case.fault is not Fault.ENGINE_KILLED:
        events = [event for event in events if taken_up_by(event).endswith(successor)]
    after = [(moment_of(event) - run.struck).total_seconds() for event in events]
    return min((seconds for seconds in after if seconds > 0), default=None)
