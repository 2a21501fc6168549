"""Whom a change touched, as far as that was counted, and for how long old sessions may still end."""

from collections.abc import Sequence
from datetime import datetime

from policies.model.change import MOVES_NOBODY, ChangeRecord, ChangeResult
from policies.model.instance import GatewayState, InstanceState
from policies.model.plan_part import PlanHeader
from policies.model.verdict import Decision, GateReading, GateVerdict, VerdictRow
from policies.reporting.deciding import decisive_of, gate_of
from policies.reporting.report import AuditLine, Users


def users_of(
    record: ChangeRecord,
    header: PlanHeader | None,
    result: ChangeResult | None,
    verdicts: Sequence[VerdictRow],
    now: datetime,
    *,
    planned: int | None,
    losses: tuple[AuditLine, ...],
    final: bool,
) -> Users:
    """Return whom the change touched; `final` is as in the report, other arguments as in the answer."""
    decisive = decisive_of(verdicts)
    gate = gate_of(decisive.decision) if decisive is not None else None
    return Users(
        gateways=result.touched if result is not None and result.touched else record.moved,
        planned=planned,
        losses=losses,
        failed=any(_has_failed(row.decision) for row in verdicts),
        until=None if final else _sessions_until(record, header, now),
        **_bad_of(gate),
    )


def may_drain(state: GatewayState | None, looked_at: datetime | None, ended: datetime) -> bool:
    """Return whether old sessions may still end on a gateway of a change that has ended.

    They may where an instance runs beside the one that takes users, and where nobody knows: a gateway that
    is silent, or was not looked at since, has not finished.
    """
    if state is None or looked_at is None or looked_at <= ended:
        return True
    taking = {state.steering.serving, state.steering.trial}
    return any(one.state is InstanceState.RUNNING and one.slot not in taking for one in state.instances)


def _has_failed(decision: Decision) -> bool:
    """Whether a daemon or a whole host went down by itself, and nobody counted who was on it."""
    return bool(decision.failed or decision.rebooted) or decision.verdict is GateVerdict.HARD


def _sessions_until(record: ChangeRecord, header: PlanHeader | None, now: datetime) -> datetime | None:
    """Return how long old sessions may last at most after the change, None once that is over."""
    if header is None or record.kind in MOVES_NOBODY:
        return None
    until = (record.ended or now) + header.limits.drain_deadline
    return until if until > now else None


def _bad_of(gate: GateReading | None) -> dict[str, object]:
    if gate is None or "canary_bad" not in gate.numbers:
        return {}
    bad, total = (round(gate.numbers[name]) for name in ("canary_bad", "canary_total"))
    return {"gate": gate.gate, "bad": bad, "total": total}
