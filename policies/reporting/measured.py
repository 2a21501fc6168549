"""What gates measured over a change, from samples or else from verdicts, and which of it a report shows."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from policies.model.sample import BAD, Sample
from policies.model.verdict import VerdictRow
from policies.reporting.series import series_of, thinned

FROM_VERDICTS = "from the verdicts in the ledger"
FROM_SAMPLES = "from the samples in the ledger"

MOST_SAMPLES = 100
"""Samples of a gate over time."""
MOST_CURVES = 8
"""Gates whose samples are shown: of others the last reading is."""


class Measured(NamedTuple):
    """What gates measured over time, the oldest first, and where that is from."""

    samples: tuple[Sample, ...]
    source: str


def measured_of(samples: Sequence[Sample], verdicts: Sequence[VerdictRow]) -> Measured:
    """Return what gates measured; of a change without samples, what they had measured at each decision."""
    if samples:
        return Measured(tuple(samples), FROM_SAMPLES)
    return Measured(tuple(one for row in verdicts for one in _samples_of(row)), FROM_VERDICTS)


def _samples_of(row: VerdictRow) -> Iterator[Sample]:
    """Yield what each gate with numbers had measured at a decision."""
    for reading in row.decision.readings:
        if reading.numbers:
            yield Sample(
                at=row.at, wave=row.wave, gate=reading.gate, verdict=reading.verdict, numbers=reading.numbers
            )


def shown_of(samples: Sequence[Sample], verdicts: Sequence[VerdictRow]) -> tuple[Sample, ...]:
    """Return of each gate at most so many samples, its extremes and those of decisions among them.

    Only of so many gates, those first that said something bad.
    """
    decided = [{"at": row.at.isoformat(), "action": row.decision.action.value} for row in verdicts]
    bad = {one.gate for row in verdicts for one in row.decision.readings if one.verdict in BAD}
    gates = sorted(dict.fromkeys(one.gate for one in samples), key=lambda gate: gate not in bad)[:MOST_CURVES]
    shown = list[Sample]()
    for gate in gates:
        mine = [one for one in samples if one.gate == gate]
        series = series_of((one.model_dump(mode="json") for one in mine), decided, gate)
        moments = {point.at for point in thinned(series.points, series.marks, MOST_SAMPLES)}
        shown += [one for one in mine if one.at.timestamp() in moments]
    return tuple(shown)
