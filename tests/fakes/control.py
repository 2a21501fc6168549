"""The control plane in memory: a judge that says what tests want, a ledger, and an admission."""

import asyncio
import shutil
import time
import weakref
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import mkdtemp

from sqlalchemy import Engine
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.admission import Admission, AdmitOrder
from activities.normality import NormalityOrder
from activities.observation import ObservationSlice
from activities.watching import WatchSlice
from activities.windows import WindowQuery
from orchestrator.store.database import open_database
from orchestrator.store.ledger import Ledger
from policies.history import is_to_be_watched
from policies.judge.offline.advisory import Advice
from policies.model.audit import AuditHead
from policies.model.change import ChangeEnding, ChangeKind, ChangeOpening, KnownGoodBatch, Outcome
from policies.model.fleet import Fleet
from policies.model.plan import ReleaseRef
from policies.model.verdict import Action, Decision, GateVerdict
from policies.model.windows import WindowAnswer
from tests.fakes.ledgers import new_ledger

HEALTHY = Decision(action=Action.PROMOTE, verdict=GateVerdict.HEALTHY, reason="all gates are proven healthy")
UNDECIDED = Decision(action=Action.CONTINUE, verdict=GateVerdict.NOT_ENOUGH_DATA, reason="7 logins so far")
UNHEALTHY = Decision(action=Action.ROLL_BACK, verdict=GateVerdict.UNHEALTHY, reason="9 of 10 logins fail")
MEASURED = Decision(action=Action.HOLD_FOR_HUMAN, verdict=GateVerdict.UNHEALTHY, reason="9 of 10 logins fail")
"""What the judge says of the same harm after a wave has passed: there only hard signs roll back."""
CRASHING = Decision(action=Action.ROLL_BACK, verdict=GateVerdict.HARD, reason="the daemon restarted 3 times")
BLIND = Decision(action=Action.HOLD, verdict=GateVerdict.METRICS_UNAVAILABLE, reason="no sample for 60 s")
TORN = Decision(action=Action.EXTEND, verdict=GateVerdict.CONFLICTING, reason="logins say yes, pings say no")
QUIET = Decision(
    action=Action.HOLD_FOR_HUMAN, verdict=GateVerdict.HEALTHY, reason="nothing speaks against it"
)
"""What a bake says: no harm, and nothing that anybody waits for."""
PASSED = -1
"""The number under which a test scripts what is said of waves that have passed, beside the next one."""

AT_CAP = Decision(action=Action.HOLD_FOR_HUMAN, verdict=GateVerdict.NOT_ENOUGH_DATA, reason="12 logins")


SOON_ASKED = timedelta(milliseconds=200)
OPEN = WindowAnswer(fits=True, is_open=True, sentence="open", again=SOON_ASKED)
CLOSED = WindowAnswer(
    fits=False,
    is_open=False,
    sentence="closed: next opening Tue 2026-11-24 02:00 Europe/Berlin (01:00Z), in 9 h 12 m",
    until=datetime(2026, 11, 24, 1, tzinfo=UTC),
    opens="Tue 2026-11-24 02:00 Europe/Berlin (01:00Z)",
    again=SOON_ASKED,
)
FROZEN = CLOSED.model_copy(update={"freeze": "black-friday", "sentence": "closed by the freeze black-friday"})


class FakeJudge:
    """Says the decisions of a script, wave by wave, the last one for ever.

    A decision that changes nothing takes `pace` to come, as a slice of a window does.
    """

    def __init__(self, pace: float = 0.2) -> None:
        self.pace = pace
        self.book: Ledger | None = None
        """Where a bake looks up whether anything is to be watched any more, as a real one does."""
        self.advice: tuple[Advice, ...] = ()
        """What history says of this hour."""
        self.forgetful = False
        self.fails = ""
        """Why every slice fails from now on, as where the ledger is away; empty while none does."""
        self.hangs = False
        """Whether slices take for ever from now on, with a heartbeat."""
        self.refused_slices = 0
        """How many slices that begin a window fail."""
        self.script: dict[int, list[Decision]] = {}
        self.orders: list[WatchSlice] = []
        """What waves asked, oldest first."""
        self.bakes: list[WatchSlice] = []
        """What was asked after promotions, while the next change may already be under way."""

        self.after: dict[str, Decision] = _Gentle()
        """What is said of single changes after their promotion, in place of what the script says."""
        self.passed: list[WatchSlice] = []
        """What was asked of waves that had passed, beside the next wave."""

    def says(self, *decisions: Decision, wave: int = 1) -> None:
        """Have these said of that wave, the last one for ever; of those that have passed as of PASSED."""
        for decision in decisions if wave in {0, PASSED} else ():
            _require_gentle(decision)
        self.script[wave] = list(decisions)

    def remember(self, state: str) -> str:
        """Return the evidence after one more slice."""
        return f"{state}."

    @activity.defn(name="ask_whether_normal")
    async def ask_whether_normal(self, order: NormalityOrder) -> tuple[Advice, ...]:
        if self.forgetful:
            raise ApplicationError("no answer", type="MetricsUnavailable", non_retryable=True)
        return self.advice

    @activity.defn(name="watch_wave")
    async def watch_wave(self, order: WatchSlice) -> ObservationSlice:
        while self.hangs:
            activity.heartbeat()
            await asyncio.sleep(self.pace)
        if self.fails:
            raise RuntimeError(self.fails)
        if self._is_over(order):
            return _slice(order.state, QUIET, over=True)
        wave = PASSED if order.passed else order.wave
        (self.orders if order.wave else self.passed if order.passed else self.bakes).append(order)
        if order.restart and self.refused_slices:
            self.refused_slices -= 1
            raise ApplicationError("no answer", type="MetricsUnavailable", non_retryable=True)
        # The bake after promotion and waves that have passed are quiet unless a test has a script for them.
        said = self.script.get(wave, [HEALTHY if order.wave else QUIET])
        decision = said.pop(0) if len(said) > 1 else said[0]
        if not wave:
            decision = self.after.get(order.change, decision)
        if decision.action is Action.PROMOTE and not order.complete:
            decision = UNDECIDED
        if decision.action in {Action.CONTINUE, Action.EXTEND}:
            activity.heartbeat()
            await asyncio.sleep(self.pace)
        return _slice(self.remember(order.state), decision)

    def _is_over(self, order: WatchSlice) -> bool:
        if self.book is None or order.wave or order.passed:
            return False
        change = self.book.change(order.change)
        return not is_to_be_watched(change, self.book.moves(change.fleet))


class _Gentle(dict[str, Decision]):
    """Decisions of watches over gateways whose wave has passed, by change."""

    def __setitem__(self, change: str, decision: Decision) -> None:
        _require_gentle(decision)
        super().__setitem__(change, decision)


def _require_gentle(decision: Decision) -> None:
    """Refuse what no judge says of gateways whose wave has passed (`GatePolicy.baking`)."""
    if decision.action is Action.PROMOTE:
        raise ValueError("nothing is promoted by a watch over gateways whose wave has passed")
    if decision.action is Action.ROLL_BACK and decision.verdict is not GateVerdict.HARD:
        raise ValueError("after its wave has passed only a hard sign rolls a release back; say MEASURED")


def _slice(state: str, decision: Decision, *, over: bool = False) -> ObservationSlice:
    nothing = timedelta(0)
    return ObservationSlice(
        state=state, decision=decision, observed=nothing, wall=nothing, ticks=1, over=over
    )


class FakeWindows:
    """Answers what a test says to who asks whether a wave may start; without a word everything may."""

    def __init__(self) -> None:
        self.asked: list[WindowQuery] = []
        self.answer = OPEN

    @activity.defn(name="ask_window")
    async def ask_window(self, query: WindowQuery) -> WindowAnswer:
        self.asked.append(query)
        return self.answer


class FakeAdmission:
    """Admits every release but those a test names."""

    def __init__(self) -> None:
        self.refused: dict[str, str] = {}
        self.pause = 0.0
        """Seconds that it takes."""

    @activity.defn(name="admit_release")
    async def admit_release(self, order: AdmitOrder) -> Admission:
        until = time.monotonic() + self.pause
        while time.monotonic() < until:
            activity.heartbeat()
            await asyncio.sleep(0.2)
        if order.release.digest in self.refused:
            raise ApplicationError(
                self.refused[order.release.digest], type="SignatureInvalid", non_retryable=True
            )
        return Admission(release=order.release, signers=("a", "b"), reason="two people signed")


class ObservedLedger(Ledger):
    """The real ledger on a file of its own, which also remembers what it was told, for tests to look at."""

    def __init__(self, url: str | None = None) -> None:
        folder = mkdtemp(prefix="penstock-ledger-")
        self.url = url or new_ledger(Path(folder) / "ledger.db")
        """Where another process finds the same ledger."""
        super().__init__(open_database(self.url))
        self.forget = weakref.finalize(self, _remove, self._engine, folder)
        self.closed: list[ChangeEnding] = []
        self.decisions: list[Decision] = []
        self.snapshots: dict[str, str] = {}
        self.events: dict[str, tuple[str, str, object]] = {}
        self.slow: dict[str, float] = {}
        """Seconds that it takes to write down these actions."""
        self.answers_after: dict[str, float] = {}
        """Seconds after which it answers that these actions are written."""

    def begin(self, fleet: str, release: ReleaseRef, gateways: Iterable[str]) -> None:
        """Begin as a fleet that was installed long ago."""
        opening = ChangeOpening(
            key=f"first of {fleet}",
            fleet=fleet,
            kind=ChangeKind.INSTALL,
            requested_by="a test",
            reason="it begins",
            release=release.version,
        )
        name = self.open_change(opening)
        releases = dict.fromkeys(gateways, release)
        self.record_known_good_batch(KnownGoodBatch(fleet=fleet, change=name, releases=releases))
        super().close_change(ChangeEnding(change=name, outcome=Outcome.PROMOTED, sentence="installed"))

    def close_change(self, ending: ChangeEnding) -> None:
        super().close_change(ending)
        self.closed.append(ending)

    def record_verdict(self, rollout: str, wave: int, decision: Decision, at: datetime) -> None:
        super().record_verdict(rollout, wave, decision, at)
        self.decisions.append(decision)

    def audit(
        self,
        person: str,
        via: str,
        action: str,
        subject: str,
        body: object,
        key: str | None = None,
        *,
        fleet: str | None = None,
    ) -> AuditHead:
        time.sleep(self.slow.get(action, 0.0))
        self.events.setdefault(key or str(len(self.events)), (action, subject, body))
        head = super().audit(person, via, action, subject, body, key, fleet=fleet)
        time.sleep(self.answers_after.get(action, 0.0))
        return head

    def record_snapshot(self, rollout: str, gateway: str, digest: str) -> None:
        super().record_snapshot(rollout, gateway, digest)
        self.snapshots[gateway] = digest


class FakeFleets:
    """Fleets by name, as files would describe them."""

    def __init__(self, *fleets: Fleet) -> None:
        self.known = {fleet.name: fleet for fleet in fleets}

    def fleet(self, name: str) -> Fleet:
        return self.known[name]

    def place_of(self, name: str) -> Path:
        return Path(f"{name}.yaml")


def _remove(engine: Engine, folder: str) -> None:
    engine.dispose()
    shutil.rmtree(folder, ignore_errors=True)  # its parent may be gone at the end of the process


class FakeOpenWindow:
    """A patch window that a test opens, for an hour from whenever it is asked."""

    def __init__(self) -> None:
        self.is_open = False

    def open_until(self, fleet: Fleet, gateway: str, at: datetime) -> datetime | None:
        return at + timedelta(hours=1) if self.is_open else None


class FakeArchive:
    """Kept snapshots as a dictionary."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def add(self, digest: str, offset: int, piece: bytes, size: int) -> int:
        self.kept[digest] = self.kept.get(digest, b"")[:offset] + piece
        return len(self.kept[digest])
