"""The control plane in memory: a judge that says what tests want, a ledger, and an admission."""

from collections import defaultdict
from datetime import datetime, timedelta

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.observation import ObservationOrder, ObservationSlice
from activities.releases import Admission, AdmitOrder
from policies.words.plan import ReleaseRef
from policies.words.rollout import RolloutOrder, RolloutResult
from policies.words.verdict import Action, Decision, GateVerdict

HEALTHY = Decision(action=Action.PROMOTE, verdict=GateVerdict.HEALTHY, reason="all gates are proven healthy")
UNDECIDED = Decision(action=Action.CONTINUE, verdict=GateVerdict.NOT_ENOUGH_DATA, reason="7 logins so far")
UNHEALTHY = Decision(action=Action.ROLL_BACK, verdict=GateVerdict.UNHEALTHY, reason="9 of 10 logins fail")
BLIND = Decision(action=Action.HOLD, verdict=GateVerdict.METRICS_UNAVAILABLE, reason="no sample for 60 s")
AT_CAP = Decision(action=Action.HOLD_FOR_HUMAN, verdict=GateVerdict.NOT_ENOUGH_DATA, reason="12 logins")


class FakeJudge:
    """Says the decisions of a script, wave by wave, the last one for ever."""

    def __init__(self) -> None:
        self.script: dict[int, list[Decision]] = {}
        self.orders: list[ObservationOrder] = []

    @activity.defn(name="observe_slice")
    async def observe_slice(self, order: ObservationOrder) -> ObservationSlice:
        self.orders.append(order)
        said = self.script.get(order.wave, [HEALTHY])
        decision = said.pop(0) if len(said) > 1 else said[0]
        return ObservationSlice(
            state=f"{order.state}.", decision=decision, observed=timedelta(0), wall=timedelta(0), ticks=1
        )


class FakeAdmission:
    """Admits every release but those a test names."""

    def __init__(self) -> None:
        self.refused: dict[str, str] = {}

    @activity.defn(name="admit_release")
    async def admit_release(self, order: AdmitOrder) -> Admission:
        if order.release.digest in self.refused:
            raise ApplicationError(self.refused[order.release.digest], type="SignatureInvalid", non_retryable=True)
        return Admission(release=order.release, signers=("a", "b"), reason="two people signed")


class FakeBook:
    """The ledger as dictionaries."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.closed: list[RolloutResult] = []
        self.verdicts: list[Decision] = []
        self.good: dict[str, dict[str, ReleaseRef]] = defaultdict(dict)

    def open_rollout(self, order: RolloutOrder) -> None:
        self.opened.append(order.rollout)

    def close_rollout(self, result: RolloutResult) -> None:
        self.closed.append(result)

    def record_verdict(self, rollout: str, wave: int, decision: Decision, at: datetime) -> None:
        self.verdicts.append(decision)

    def known_good(self, fleet: str) -> dict[str, ReleaseRef]:
        return dict(self.good[fleet])

    def record_known_good(self, fleet: str, gateway: str, reference: ReleaseRef, rollout: str) -> None:
        self.good[fleet][gateway] = reference
