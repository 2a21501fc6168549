"""The control plane in memory: a judge that says what tests want, a ledger, and an admission."""

import asyncio
import shutil
import weakref
from collections import defaultdict
from datetime import datetime, timedelta
from tempfile import mkdtemp

from sqlalchemy import Engine
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.normality import NormalityOrder
from activities.observation import ObservationOrder, ObservationSlice
from activities.releases import Admission, AdmitOrder
from policies.judge.offline.advisory import Advice
from policies.words.plan import ReleaseRef
from policies.words.change import ChangeOrder, ChangeResult
from policies.words.verdict import Action, Decision, GateVerdict

HEALTHY = Decision(action=Action.PROMOTE, verdict=GateVerdict.HEALTHY, reason="all gates are proven healthy")
UNDECIDED = Decision(action=Action.CONTINUE, verdict=GateVerdict.NOT_ENOUGH_DATA, reason="7 logins so far")
UNHEALTHY = Decision(action=Action.ROLL_BACK, verdict=GateVerdict.UNHEALTHY, reason="9 of 10 logins fail")
CRASHING = Decision(action=Action.ROLL_BACK, verdict=GateVerdict.HARD, reason="the daemon restarted 3 times")
BLIND = Decision(action=Action.HOLD, verdict=GateVerdict.METRICS_UNAVAILABLE, reason="no sample for 60 s")
TORN = Decision(action=Action.EXTEND, verdict=GateVerdict.CONFLICTING, reason="logins say yes, pings say no")
AT_CAP = Decision(action=Action.HOLD_FOR_HUMAN, verdict=GateVerdict.NOT_ENOUGH_DATA, reason="12 logins")


class FakeJudge:
    """Says the decisions of a script, wave by wave, the last one for ever.

    A decision that changes nothing takes `pace` to come, as a slice of a window does.
    """

    def __init__(self, pace: float = 0.05) -> None:
        self.pace = pace
        self.advice: tuple[Advice, ...] = ()
        """What history says of this hour."""
        self.forgetful = False
        self.script: dict[int, list[Decision]] = {}
        self.orders: list[ObservationOrder] = []
        """What waves asked, oldest first."""
        self.bakes: list[ObservationOrder] = []
        """What was asked after promotions, while the next change may already be under way."""

    def says(self, *decisions: Decision, wave: int = 1) -> None:
        """Have these said of that wave, the last one for ever."""
        self.script[wave] = list(decisions)

    @activity.defn(name="ask_whether_normal")
    async def ask_whether_normal(self, order: NormalityOrder) -> tuple[Advice, ...]:
        if self.forgetful:
            raise ApplicationError("no answer", type="MetricsUnavailable", non_retryable=True)
        return self.advice

    @activity.defn(name="observe_slice")
    async def observe_slice(self, order: ObservationOrder) -> ObservationSlice:
        (self.orders if order.wave else self.bakes).append(order)
        said = self.script.get(order.wave, [HEALTHY])
        # Wave 0 is the bake after promotion: it is over at once unless a test has a script for it.
        wall = timedelta(0) if order.wave else order.window.cap
        decision = said.pop(0) if len(said) > 1 else said[0]
        if decision.action in {Action.CONTINUE, Action.EXTEND}:
            activity.heartbeat()
            await asyncio.sleep(self.pace)
        return ObservationSlice(
            state=f"{order.state}.", decision=decision, observed=timedelta(0), wall=wall, ticks=1
        )


class FakeAdmission:
    """Admits every release but those a test names."""

    def __init__(self) -> None:
        self.refused: dict[str, str] = {}

    @activity.defn(name="admit_release")
    async def admit_release(self, order: AdmitOrder) -> Admission:
        if order.release.digest in self.refused:
            raise ApplicationError(
                self.refused[order.release.digest], type="SignatureInvalid", non_retryable=True
            )
        return Admission(release=order.release, signers=("a", "b"), reason="two people signed")


class FakeBook(Rollouts, Plans, GatewayResults, Quarantines):
    """Real books on a file of their own, but for what rollouts write: that is in dictionaries to look at."""

    def __init__(self) -> None:
        folder = mkdtemp(prefix="penstock-book-")
        super().__init__(open_database(f"sqlite:///{folder}/ledger.db"))
        self.forget = weakref.finalize(self, _remove, self._engine, folder)
        self.opened: dict[str, str] = {}
        self.closed: list[ChangeResult] = []
        self.verdicts: list[Decision] = []
        self.good: dict[str, dict[str, ReleaseRef]] = defaultdict(dict)
        self.snapshots: dict[str, str] = {}
        self.events: dict[str, tuple[str, str, object]] = {}

    def open_rollout(self, order: ChangeOrder) -> None:
        self.opened[order.rollout] = order.plan.fleet.name

    def close_rollout(self, result: ChangeResult) -> None:
        self.closed.append(result)

    def open_rollouts(self, fleet: str) -> tuple[str, ...]:
        ended = {result.rollout for result in self.closed}
        return tuple(name for name, of in self.opened.items() if of == fleet and name not in ended)

    def record_verdict(self, rollout: str, wave: int, decision: Decision, at: datetime) -> None:
        self.verdicts.append(decision)

    def known_good(self, fleet: str) -> dict[str, ReleaseRef]:
        return {**self.good[fleet], **super().known_good(fleet)}

    def record_known_good(self, fleet: str, gateway: str, reference: ReleaseRef, rollout: str) -> None:
        self.good[fleet][gateway] = reference

    def audit(
        self, person: str, via: str, action: str, subject: str, body: object, key: str | None = None
    ) -> None:
        self.events.setdefault(key or str(len(self.events)), (action, subject, body))

    def record_snapshot(self, rollout: str, gateway: str, digest: str) -> None:
        self.snapshots[gateway] = digest


def _remove(engine: Engine, folder: str) -> None:
    engine.dispose()
    shutil.rmtree(folder)


class FakeArchive:
    """Kept snapshots as a dictionary."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def add(self, digest: str, offset: int, piece: bytes, size: int) -> bool:
        self.kept[digest] = self.kept.get(digest, b"")[:offset] + piece
        return len(self.kept[digest]) == size
