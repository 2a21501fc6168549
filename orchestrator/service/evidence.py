"""Evidence of changes, as pages draw it: the newest of what gates measured and decided."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from orchestrator.store.ledger import Ledger
from policies.model.change import ChangeRecord
from policies.model.sample import Sample
from policies.model.verdict import VerdictRow

KEPT_VERDICTS = 1000
"""Decisions of a change that a view is drawn of, the newest."""

KEPT_SAMPLES = 20_000
"""What gates measured, one by one: a dozen gates in a window of an hour with a tick each five seconds."""

PAGE = 100
"""Decisions that are read at once: one that names thousands of gateways takes a megabyte."""


@dataclass(frozen=True)
class Evidence:
    """Reads the evidence of one change. All of it blocks for the ledger: call it in a bounded pool."""

    ledger: Ledger
    change: ChangeRecord

    def margins(self) -> dict[str, float]:
        """Return how much worse than control each gate of the change allows, as its plan says."""
        planned = self.ledger.planned(self.change.plan) if self.change.plan is not None else None
        return dict(planned.margins) if planned is not None else {}

    def verdicts(self, after: int = 0) -> Iterator[tuple[int, VerdictRow]]:
        """Yield what was decided after so many decisions, each with its number; of many the newest."""
        count = self.ledger.count_verdicts(self.change.name)
        after = max(after, count - KEPT_VERDICTS)
        while after < count and (rows := self.ledger.verdicts(self.change.name, PAGE, after)):
            yield from enumerate(rows, after + 1)
            after += len(rows)

    def samples(self, after: datetime | None = None) -> tuple[Sample, ...]:
        """Return what the gates measured after that moment, the oldest first; of many the newest."""
        return self.ledger.samples(self.change.name, after, KEPT_SAMPLES)
