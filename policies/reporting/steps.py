"""When a change that went back took each step from the fault to safety, as its record says."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from policies.model.change import ChangeRecord, ChangeResult, Outcome
from policies.model.sample import BAD, Sample
from policies.model.status import Event
from policies.model.verdict import Action, VerdictRow
from policies.reporting.deciding import decisive_of, gate_of
from policies.reporting.measured import Measured
from policies.reporting.split import Moment, Step, TimeSplit, split
from policies.status.landmarks import is_gateway_back, is_turn

CLOSE = timedelta(seconds=60)
"""How near a good sample must lie before a bad one, so that the fault is known to begin with the bad one."""


def split_of(
    record: ChangeRecord,
    verdicts: Sequence[VerdictRow],
    measured: Measured,
    events: Sequence[Event],
    result: ChangeResult | None,
) -> TimeSplit | None:
    """Return how the time until everybody was safe is split; None where nothing went back."""
    turn = next((event for event in events if is_turn(event)), None)
    took = result.steered_back_after if result is not None else None
    if turn is None and took is None:
        return None
    back = [event.at for event in events if is_gateway_back(event)]
    return split(
        [
            *_found(verdicts, measured),
            _decided(turn),
            _first_back(turn, back),
            _all_safe(record, turn, back, took),
        ]
    )


def _found(verdicts: Sequence[VerdictRow], measured: Measured) -> tuple[Step, Step]:
    """Return when the fault began and when enough was seen of it."""
    decisive = decisive_of(verdicts)
    gate = gate_of(decisive.decision) if decisive is not None else None
    if decisive is None or gate is None or decisive.decision.action is not Action.ROLL_BACK:
        nobody = "not known: no gate decided to go back"
        return Step(moment=Moment.FAULT, source=nobody), Step(moment=Moment.EVIDENCE, source=nobody)
    mine = [one for one in measured.samples if one.gate == gate.gate and one.wave == decisive.wave]
    return (
        fault_of(mine, decisive.at, measured.source),
        evidence_of(mine, decisive.at, measured.source),
    )


def _decided(turn: Event | None) -> Step:
    if turn is None:
        return Step(moment=Moment.DECISION, source="not known: no event says when it turned round")
    return Step(moment=Moment.DECISION, at=turn.at, source="event of the change")


def _first_back(turn: Event | None, back: Sequence[datetime]) -> Step:
    if not back or turn is None:
        why = "not known: no event names a single gateway, as in fleets of more than 50"
        return Step(moment=Moment.FIRST_BACK, source=why)
    return Step(moment=Moment.FIRST_BACK, at=min(back), source="event of that gateway")


def _all_safe(
    record: ChangeRecord, turn: Event | None, back: Sequence[datetime], took: timedelta | None
) -> Step:
    if record.outcome not in {Outcome.ROLLED_BACK, Outcome.ABORTED}:
        return Step(moment=Moment.SAFE, source="not known: not every gateway is back")
    if turn is not None and took is not None:
        return Step(moment=Moment.SAFE, at=turn.at + took, source="the decision and what the way back took")
    if not back:
        return Step(moment=Moment.SAFE, source="not known: nothing says when the last gateway was back")
    return Step(moment=Moment.SAFE, at=max(back), source="event of the last gateway")


def fault_of(samples: Sequence[Sample], until: datetime, source: str) -> Step:
    """Return when the changed gateways began to look worse, without a break until the decision.

    Args:
        samples: What the gate that decided had measured in the wave of the decision.
        until: When it decided.
        source: Where the samples are from.
    """
    before = sorted((one for one in samples if one.at <= until), key=lambda one: one.at)
    first: Sample | None = None
    good: Sample | None = None
    for sample in reversed(before):
        if not sample.is_bad:
            good = sample
            break
        first = sample
    if first is None:
        return Step(moment=Moment.FAULT, source="not known: no sample before the decision looks worse")
    if good is None:
        return Step(
            moment=Moment.FAULT, source="not known: the first sample that there is looks worse already"
        )
    if first.at - good.at > CLOSE:
        between = f"between {good.at:%H:%M:%S} and {first.at:%H:%M:%S} UTC, when nothing was written down"
        return Step(moment=Moment.FAULT, source=f"not known: {between}")
    return Step(
        moment=Moment.FAULT, at=first.at, source=f"first sample of {first.gate} that is worse, {source}"
    )


def evidence_of(samples: Sequence[Sample], until: datetime, source: str) -> Step:
    """Return when the gate that decided first said that something is wrong, and went on saying so."""
    first: Sample | None = None
    for sample in sorted((one for one in samples if one.at <= until), key=lambda one: one.at, reverse=True):
        if sample.verdict not in BAD:
            break
        first = sample
    if first is None:
        return Step(moment=Moment.EVIDENCE, source="not known: no sample of the gate that decided was kept")
    return Step(
        moment=Moment.EVIDENCE, at=first.at, source=f"{first.gate} says {first.verdict.value}, {source}"
    )
