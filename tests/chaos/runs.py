"""Runs: a real rollout with real users, struck once at a chosen line of its history, then judged by facts."""

import asyncio
import time
from collections import Counter
from datetime import timedelta
from pathlib import Path

from temporalio.client import Client

from deploy.lab.faults import Fault, Faults
from deploy.lab.lab import FLEET, Lab, Shape
from orchestrator.files import load
from orchestrator.service import Service
from policies.model.change import Outcome
from policies.model.errors import Conflict, PenstockError
from policies.model.fleet import Limits
from policies.model.gates import GatePolicy
from policies.model.plan import Plan, ReleaseRef, Strategy
from policies.model.value import digest_of
from policies.model.verdict import Window
from tests.chaos.cases import Case, Direction, Run
from tests.chaos.facts import Host, Serves, effects
from tests.chaos.striking import Striking
from tests.chaos.watching import Watch, moment_of, taken_up_by
from workflows.identities import change_of

GATES = Path(__file__).with_name("gates.yaml")
DRAINS_SEEN_WITHIN = 5.0
ENDS_WITHIN = 120.0
"""Seconds after which a run that has not ended is unsafe."""
STEPS = {Strategy.CANARY: ("100%",), Strategy.ROLLING: ("2", "100%")}
"""With three gateways: one and then two, or two and then one."""


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
        self.service = Service(client, lab.session.ledger)
        self._gates = load(lab.session.settings.gates, GatePolicy)
        self._trust = digest_of(lab.session.settings.trust.read_bytes())
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
        lost = self._losses()
        before = {name: await host.serves() for name, host in self.hosts.items()}
        starts = {name: host.starts() for name, host in self.hosts.items()}
        release = self._faulty if case.direction is Direction.JUDGED_BACK else self.other
        try:
            async with asyncio.timeout(ENDS_WITHIN):
                await self._make(run, release)
        except TimeoutError:
            run.unsafe.append(f"it has not ended after {ENDS_WITHIN:.0f} s")
        except PenstockError as error:
            run.unsafe.append(f"{error.code}: {error}")
        self.faults.tidy()
        await self._judge(run, release, before, starts)
        run.lost = [
            f"{name}: {words}"
            for name, (count, words) in self._losses().items()
            for _ in range(count - lost[name][0])
        ]
        run.took = time.monotonic() - began
        return run

    # --- making ------------------------------------------------------------------

    async def _make(self, run: Run, release: ReleaseRef) -> None:
        plan = await self.plan(release, run.case.strategy)
        striking = Striking(run, self.faults, self.service, plan.waves[0].gateways[0])
        watch = Watch(self.client, striking.hear)
        try:
            run.rollout = await self.start(plan)
            change = await self.client.get_workflow_handle(change_of(FLEET)).describe()
            await watch.follow(change.id, change.run_id)
            await self._see_drains(striking)
            run.outcome = (await self.service.result(FLEET)).outcome
            if striking.refused:
                run.unsafe.append(f"the order to go back was refused: {striking.refused}")
        finally:
            await striking.settle()
            await watch.stop()
            run.seen = watch.seen
            run.resumed = _resumed(run, striking.successor, watch)

    async def _see_drains(self, striking: Striking) -> None:
        """Drains go on when a change has ended; those that wait for one of their lines see it soon."""
        deadline = time.monotonic() + DRAINS_SEEN_WITHIN
        while (striking.waits or striking.sees_all) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        await striking.settle()

    async def plan(
        self, release: ReleaseRef, strategy: Strategy, window: Window | None = None, **limits: object
    ) -> Plan:
        """Return the plan of an upgrade, with another window or other limits than the lab's."""
        changed = self.lab.fleet.limits.model_copy(update={"steps": STEPS[strategy], **limits})
        fleet = self.lab.fleet.model_copy(update={"limits": changed})
        gates = self._gates.model_copy(update={"window": window}) if window else self._gates
        return await self.service.plan(fleet, release, strategy, gates, self._trust)

    async def start(self, plan: Plan) -> str:
        """Start it and return its name; the reconcile ring may have the fleet's lock for a moment."""
        while True:
            try:
                return await self.service.start(plan, self.lab.session.settings.source, "chaos", "a run")
            except Conflict:
                await asyncio.sleep(0.2)

    # --- judging -----------------------------------------------------------------

    async def _judge(
        self, run: Run, release: ReleaseRef, before: dict[str, Serves], starts: dict[str, Counter[str]]
    ) -> None:
        back = run.case.direction is not Direction.FORWARDS
        wanted = self.here if back else release
        expected = {Outcome.ROLLED_BACK, Outcome.ABORTED} if back else {Outcome.PROMOTED}
        if run.outcome not in expected:
            run.unsafe.append(f"it ended {run.outcome or 'nowhere'}")
        for name, host in self.hosts.items():
            now = await host.serves()
            if not now.is_on(wanted):
                run.unsafe.append(f"{name} is not on {wanted.version}: {now}")
            done = effects(host, run.rollout, before[name], starts[name])
            run.doubled += [f"{name}: {what}" for what in done.doubled(back=back)]
        await self._judge_ledger(run, wanted)
        if all([(await host.serves()).is_on(release) for host in self.hosts.values()]):
            self.here, self.other = release, self.here

    async def _judge_ledger(self, run: Run, wanted: ReleaseRef) -> None:
        known_good = await asyncio.to_thread(self.lab.session.ledger.known_good, FLEET)
        wrong = sorted(name for name, release in known_good.items() if release.digest != wanted.digest)
        if wrong:
            run.unsafe.append(f"the ledger has another known-good for {', '.join(wrong)}")
        rows = [row for row in self.lab.session.ledger.history(FLEET) if row.name == run.rollout]
        if [row.outcome for row in rows] != [run.outcome]:
            run.unsafe.append(f"the ledger says {[row.outcome for row in rows]}")

    def _losses(self) -> dict[str, tuple[int, str]]:
        """Return how many sessions each user has lost so far, and their client's last words."""
        users = self.lab.users.view()["users"]
        return {user["name"]: (user["lost"], user["last_line"]) for user in users}


def _resumed(run: Run, successor: str, watch: Watch) -> float | None:
    """Return the seconds from the fault to the first task that the part which came back took up."""
    if run.struck is None or not successor:
        return None
    events = [event for history in watch.histories.values() for event in history]
    if run.case.fault is not Fault.ENGINE_KILLED:
        events = [event for event in events if taken_up_by(event).endswith(successor)]
    after = [(moment_of(event) - run.struck).total_seconds() for event in events]
    return min((seconds for seconds in after if seconds > 0), default=None)
