"""Which of a change's verdicts decided how it ended, and which gate decided that."""

from collections.abc import Sequence

from policies.model.verdict import Action, Decision, GateReading, VerdictRow


def decisive_of(verdicts: Sequence[VerdictRow]) -> VerdictRow | None:
    """Return the verdict that turned the change round, else its last one."""
    harmful = (row for row in verdicts if row.decision.action is Action.ROLL_BACK)
    return next(harmful, verdicts[-1] if verdicts else None)


def gate_of(decision: Decision) -> GateReading | None:
    """Return the reading from which the decision has its verdict and the beginning of its reason."""
    mine = (reading for reading in decision.readings if reading.verdict is decision.verdict)
    return next((reading for reading in mine if decision.reason.startswith(reading.reason)), None)
