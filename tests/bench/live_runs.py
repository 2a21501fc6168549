"""The runs of one lab: a rollout, a bad day in its first wave, and what the judge made of it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from activities.files import load
from deploy.lab.bad_days import BadDays
from deploy.lab.lab import GATES, Lab
from deploy.lab.rehearsal import Rehearsal, Trial, verdict_at
from policies.model.change import Phase
from policies.model.gates import Blindness, GatePolicy
from policies.model.status import ChangeStatus
from policies.model.verdict import Action, Decision, GateVerdict, Window

ROUND = 3
"""Runs of one kind before it is the next one's turn."""
SEEN = 3.0
"""After these seconds the metrics show a new instance. One that ends before is missed by nobody but the
lease, which its agent cannot confirm any more: the judge holds, and the kernel sends its users back."""
SETTLED = 8.0
"""After these seconds a new instance has answered everything that it is asked."""
FORGOTTEN = 0.35
"""Part of the people that the list of the release with the drop lacks."""
DECISIVE = frozenset({Action.ROLL_BACK, Action.HOLD, Action.HOLD_FOR_HUMAN, Action.PROMOTE})
LONG = Window(
    minimum=timedelta(seconds=40),
    nominal=timedelta(seconds=40),
    extension=timedelta(seconds=20),
    cap=timedelta(seconds=120),
)
"""Longer than any of these faults takes to be seen, so that no health is proven before."""
SHORT = Window(
    minimum=timedelta(seconds=10),
    nominal=timedelta(seconds=15),
    extension=timedelta(seconds=5),
    cap=timedelta(seconds=18),
)
"""After its cap a person is asked."""
ENDLESS = Window(minimum=timedelta(hours=2), nominal=timedelta(hours=2), cap=timedelta(hours=3))

Fault = Callable[[BadDays, "Trial"], AbstractAsyncContextManager[None]]


@dataclass(frozen=True)
class Kind:
    """A kind of bad day: what is done, and which decisions are right."""

    fault: Fault
    right: frozenset[tuple[Action, GateVerdict]]
    gate: str = ""
    """What the reason must name."""
    window: Window = LONG
    faulty: bool = False
    """Whether it is in the release itself, so that it begins with the trial."""
    metrics: bool = False
    before: Callable[[BadDays], AbstractAsyncContextManager[None]] | None = None


@dataclass(frozen=True)
class Run:
    """One run and how it ended; seconds are of the wall clock, from the fault."""

    kind: str
    right: bool
    action: str
    verdict: str
    reason: str
    seconds: float | None
    back_to_work: float | None = None
    """Seconds from the end of a fault of the metrics until the judge goes on."""
    sessions_lost: int = 0
    numbers: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return it as the bench's JSON has it."""
        return asdict(self)


@asynccontextmanager
async def _nothing(*_: object) -> AsyncIterator[None]:
    yield


_HOLDS_BLIND = frozenset({(Action.HOLD, GateVerdict.METRICS_UNAVAILABLE)})
_ASKS = frozenset({(Action.HOLD_FOR_HUMAN, GateVerdict.NOT_ENOUGH_DATA)})
_PROVEN = frozenset({(Action.ROLL_BACK, GateVerdict.UNHEALTHY)})

KINDS: dict[str, Kind] = {
    "drop": Kind(_nothing, _PROVEN, "connect-success", faulty=True),
    "slow-handshakes": Kind(
        lambda days, trial: days.slow_logins(trial.pid),
        _PROVEN | {(Action.ROLL_BACK, GateVerdict.HARD)},  # the probe's handshake is slow as well
    ),
    "crash": Kind(
        lambda days, trial: days.crash(trial.pid),
        frozenset({(Action.ROLL_BACK, GateVerdict.HARD)}),
    ),
    "descriptor-leak": Kind(
        lambda days, trial: days.leak(trial.gateway, trial.slot),
        frozenset({(Action.HOLD, GateVerdict.UNHEALTHY), (Action.ROLL_BACK, GateVerdict.HARD)}),
        "descriptor-",
    ),
    "shared-outage": Kind(lambda days, _: days.shared_outage(), _ASKS, "connect-success", SHORT),
    "prometheus-killed": Kind(lambda days, _: days.prometheus_killed(), _HOLDS_BLIND, metrics=True),
    "prometheus-frozen": Kind(lambda days, _: days.prometheus_frozen(), _HOLDS_BLIND, metrics=True),
    "prometheus-dripping": Kind(lambda days, _: days.prometheus_dripping(), _HOLDS_BLIND, metrics=True),
    "prometheus-restarted": Kind(lambda days, _: days.prometheus_restarted(), _HOLDS_BLIND, metrics=True),
    "no-traffic": Kind(
        _nothing, _ASKS, "connect-success", SHORT, faulty=True, before=lambda days: days.nobody_logs_in()
    ),
}


async def spend(
    lab: Lab, days: BadDays, kinds: list[str], runs: int, minutes: float, tell: Callable[[Run], None]
) -> None:
    """Play every kind so many times, in rounds of all kinds, and tell of each run when it is over.

    After the minutes no further round begins. Days without any login come last: those who then
    log in again are people whom the gateways have counted already.
    """
    if "slow-handshakes" in kinds:  # slow is what was not normal before
        await asyncio.sleep(load(GATES, GatePolicy).baseline.total_seconds())
    chosen = {name: kind for name, kind in KINDS.items() if name in kinds}
    blinding = [name for name, kind in chosen.items() if kind.metrics]
    alone = [name for name, kind in chosen.items() if not kind.metrics and not kind.before]
    done, deadline = 0, time.monotonic() + 60 * minutes
    while done < runs and (not done or time.monotonic() < deadline):
        part = min(ROUND, runs - done)
        for name in alone:
            await _all_alone(lab, days, name, part, tell)
        if blinding:
            await _one_after_the_other(lab, days, blinding, part, tell)
        done += part
    for name, kind in chosen.items():
        if kind.before:
            async with kind.before(days):
                await _all_alone(lab, days, name, done, tell)


async def _all_alone(lab: Lab, days: BadDays, name: str, runs: int, tell: Callable[[Run], None]) -> None:
    """A rollout for each run."""
    kind, rehearsal = KINDS[name], Rehearsal(lab)
    rehearsal.judge_by(kind.window)
    release = lab.newer
    if name == "drop":
        days.forget_people(FORGOTTEN)
        release = lab.faulty
    for _ in range(runs):
        lost = lab.figures()["lost"]
        trial = await rehearsal.on_trial(release, name)
        if not kind.faulty:
            await asyncio.sleep(SEEN)
        began = trial.since if kind.faulty else datetime.now(UTC)
        async with kind.fault(days, trial):
            status = await rehearsal.until(_decided_since(began))
        run = _run(name, status, began, lost=lab.figures()["lost"] - lost)
        await rehearsal.end()
        tell(run)


async def _one_after_the_other(
    lab: Lab, days: BadDays, names: list[str], runs: int, tell: Callable[[Run], None]
) -> None:
    """All faults of the metrics in one long watch of a healthy release."""
    rehearsal = Rehearsal(lab)
    rehearsal.judge_by(ENDLESS, Blindness(grace=timedelta(seconds=2), cap=timedelta(minutes=5)))
    trial = await rehearsal.on_trial(lab.newer, "metrics")
    await asyncio.sleep(SETTLED)
    for _ in range(runs):
        for name in names:
            await rehearsal.until(_is_undecided)
            began = datetime.now(UTC)
            async with KINDS[name].fault(days, trial):
                status = await rehearsal.until(_decided_since(began))
            healed = datetime.now(UTC)
            run = _run(name, status, began)
            again = await rehearsal.until(_goes_on_since(began))
            tell(_gone_on(run, again, began, healed))
            if again.phase is Phase.ENDED:
                return
    await rehearsal.end()


def _is_undecided(status: ChangeStatus) -> bool:
    return status.decision is None or status.decision.action is Action.CONTINUE


def _decided_since(began: datetime) -> Callable[[ChangeStatus], bool]:
    def decided(status: ChangeStatus) -> bool:
        decision = status.decision
        return decision is not None and decision.action in DECISIVE and verdict_at(status) > began

    return decided


def _goes_on_since(began: datetime) -> Callable[[ChangeStatus], bool]:
    def goes_on(status: ChangeStatus) -> bool:
        decision = status.decision
        return decision is not None and decision.action is Action.CONTINUE and verdict_at(status) > began

    return goes_on


def _run(name: str, status: ChangeStatus, began: datetime, *, lost: int = 0) -> Run:
    kind, decision = KINDS[name], status.decision
    if decision is None or not _decided_since(began)(status):
        return Run(name, right=False, action="none", verdict="none", reason=status.why, seconds=None)
    return Run(
        name,
        right=(decision.action, decision.verdict) in kind.right and kind.gate in decision.reason,
        action=decision.action,
        verdict=decision.verdict,
        reason=decision.reason,
        seconds=round((verdict_at(status) - began).total_seconds(), 2),
        sessions_lost=lost,
        numbers=_numbers(decision),
    )


def _gone_on(run: Run, status: ChangeStatus, began: datetime, healed: datetime) -> Run:
    """Return the run with what came after the fault: the judge must go on, and have done nothing."""
    if not _goes_on_since(began)(status):
        why = f"{run.reason}; and then it did not go on: {status.why}"
        return Run(**(asdict(run) | {"right": False, "reason": why}))
    after = round((verdict_at(status) - healed).total_seconds(), 2)
    return Run(**(asdict(run) | {"back_to_work": after}))


def _numbers(decision: Decision) -> dict[str, float]:
    """Return the numbers of the gate that decided."""
    return next((r.numbers for r in decision.readings if r.gate in decision.reason), {})
