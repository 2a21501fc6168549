"""Decisions: what the gates of a change decided, and by which rules; from the ledger alone."""

from datetime import datetime

from pydantic import Field

from orchestrator.service.telling import told_of
from orchestrator.store.ledger import Ledger
from policies.model.change import ChangeRecord
from policies.model.errors import Unknown
from policies.model.gates import Budget, Gate
from policies.model.value import Value
from policies.model.verdict import Action, Decision, GateVerdict, Window
from policies.runbooks import runbook_of
from policies.status.awaited import speaks_against

BAKE = 0
"""The wave of decisions that were made after the last one was promoted."""


class DecisionRow(Value):
    """One decision of a change in short; its number counts from the first."""

    number: int
    wave: int
    at: datetime
    action: Action
    verdict: GateVerdict
    reason: str


class Rules(Value):
    """What was asked, and how much of being wrong was allowed."""

    gates: tuple[Gate, ...]
    budget: Budget
    window: Window


class DecisionView(Value):
    """One decision of a change, with the rules that made it as far as its plan says them.

    `rules` are None where the change has no plan with gates in the ledger.
    """

    change: str
    number: int
    wave: int
    at: datetime
    decision: Decision
    rules: Rules | None = None
    runbook: str | None = Field(
        default=None, description="the page for it, None where it lets the wave go on"
    )


def decisions_of(ledger: Ledger, change: str, after: int, limit: int) -> tuple[DecisionRow, ...]:
    """Return a page of a change's decisions, the oldest first."""
    return tuple(
        DecisionRow(
            number=number,
            wave=row.wave,
            at=row.at,
            action=row.decision.action,
            verdict=row.decision.verdict,
            reason=row.decision.reason,
        )
        for number, row in enumerate(ledger.verdicts(change, limit, after), after + 1)
    )


def decision_of(ledger: Ledger, change: ChangeRecord, number: int) -> DecisionView:
    """Return the decision of that number; Unknown when the change has none."""
    found = ledger.verdicts(change.name, 1, number - 1) if number > 0 else ()
    if not found:
        raise Unknown(f"{change.name} has no decision {number}: penstock explain {change.name} --decisions")
    return DecisionView(
        change=change.name,
        number=number,
        wave=found[0].wave,
        at=found[0].at,
        decision=found[0].decision,
        rules=_rules_of(ledger, change, found[0].wave),
        runbook=_runbook_of(ledger, change, found[0].decision),
    )


def _runbook_of(ledger: Ledger, change: ChangeRecord, decision: Decision) -> str | None:
    """Return the page for one decision; that of harm depends on whether its change went back."""
    page = runbook_of(decision.verdict) if speaks_against(decision) else None
    return told_of(ledger, change).runbook or page if decision.action is Action.ROLL_BACK else page


def _rules_of(ledger: Ledger, change: ChangeRecord, wave: int) -> Rules | None:
    if change.plan is None:
        return None
    try:
        plan = ledger.plan(change.plan)
    except (Unknown, ValueError):  # a plan that leads to no release has no gates
        return None
    gates, window = plan.gates, plan.window
    if wave == BAKE:
        gates = gates.baking(plan.fleet.limits.kept)
        window = gates.window
    return Rules(gates=gates.gates, budget=gates.budget, window=window)
