"""The worker that is measured: the real workflows and ledger steps; admission and the judge are scripted."""

import asyncio
import resource
import sys
from datetime import timedelta

from temporalio import activity
from temporalio.worker import Worker

from activities.admission import Admission, AdmitOrder
from activities.drill_turns import DrillTurnActivities
from activities.drivers.signature.host_lines import first_fault
from activities.facts import FactActivities
from activities.host_record import CollectingActivities
from activities.ledger import LedgerActivities
from activities.liveness import heartbeating
from activities.normality import NormalityOrder
from activities.observation import ObservationSlice
from activities.plans import PlanActivities
from activities.snapshots import ArchiveActivities
from activities.watching import WatchSlice
from activities.windows import WindowActivities
from orchestrator.engine.client import connect
from orchestrator.processes.leaving import leave
from orchestrator.processes.process import make_worker, run_until_told
from orchestrator.processes.worker import WORKFLOWS, control_activities, record_activities
from orchestrator.store.ledger import Ledger
from policies.judge.offline.advisory import Advice
from policies.model.fleet import Fleet
from policies.model.verdict import Action, Decision, GateVerdict
from tests.bench.simulated_agents import STEPS, fleet
from tests.fakes.control import FakeArchive, FakeFleets
from workflows.steps import CONTROL_QUEUE

NOTHING = timedelta(0)
LONGEST_SLICE = 30.0
"""Seconds; a slice that takes longer than 90 is given up."""

SHORT_WATCH = 5.0
LAST_WAVE = len(STEPS)


class ScriptedJudge:
    """Proves every wave healthy once it is complete, or finds harm in one of them.

    It watches the last wave for `patience` seconds, and the others for a few.
    """

    def __init__(self, harm_in_wave: int, patience: float) -> None:
        self._harm_in_wave = harm_in_wave
        self._patience = patience

    @activity.defn(name="ask_whether_normal")
    async def ask_whether_normal(self, order: NormalityOrder) -> tuple[Advice, ...]:
        """Say nothing of the hour."""
        return ()

    @activity.defn(name="admit_release")
    async def admit_release(self, order: AdmitOrder) -> Admission:
        """Admit the release: what is measured begins after it."""
        return Admission(release=order.release, signers=("simulated",), reason="simulated")

    @activity.defn(name="watch_wave")
    async def watch_wave(self, order: WatchSlice) -> ObservationSlice:
        """Wait for the whole wave, then as long as was asked, and say what the script says."""
        action, verdict = Action.CONTINUE, GateVerdict.NOT_ENOUGH_DATA
        watched = float(order.state or 0) if order.complete else 0.0
        patience = self._patience if order.wave == LAST_WAVE else min(self._patience, SHORT_WATCH)
        pause = min(LONGEST_SLICE, patience - watched) if order.complete else 1.0
        async with heartbeating():
            await asyncio.sleep(pause)
        if order.complete and order.wave and watched + pause >= patience:
            harm = order.wave == self._harm_in_wave
            action = Action.ROLL_BACK if harm else Action.PROMOTE
            verdict = GateVerdict.UNHEALTHY if harm else GateVerdict.HEALTHY
        decision = Decision(action=action, verdict=verdict, reason="simulated")
        return ObservationSlice(
            state=str(watched + pause), decision=decision, observed=NOTHING, wall=NOTHING, ticks=1
        )


async def run(address: str, ledger: str, count: int, judge: ScriptedJudge) -> None:
    """Run with this judge until told to stop, then print what it cost."""
    client = await connect(address, "default")
    book = Ledger.open(ledger)
    # As it is read from a file: what is made of values in the process is half as large again.
    fleets = FakeFleets(Fleet.model_validate_json(fleet(count).model_dump_json()))
    windows = WindowActivities(book, fleets)
    worker: Worker = make_worker(
        client,
        CONTROL_QUEUE,
        workflows=WORKFLOWS,
        activities=control_activities(
            judge.admit_release,
            judge.watch_wave,
            judge.ask_whether_normal,
            windows.ask_window,
            record_activities(
                LedgerActivities(book),
                PlanActivities(book),
                FactActivities(book, fleets),
                CollectingActivities(book, first_fault),
                ArchiveActivities(FakeArchive(), book),
                DrillTurnActivities(book, fleets, windows),
            ),
        ),
    )
    await run_until_told(worker)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(f"cpu {used.ru_utime + used.ru_stime:.2f} rss {used.ru_maxrss // 1024}", flush=True)


if __name__ == "__main__":
    scripted = ScriptedJudge(int(sys.argv[4]), float(sys.argv[5]))
    asyncio.run(run(sys.argv[1], sys.argv[2], int(sys.argv[3]), scripted))
    leave(0)
