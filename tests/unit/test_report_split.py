"""The time from a fault to safety: no step comes before another, and the unknown stays unknown."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as some

from policies.model.sample import Sample
from policies.model.verdict import GateVerdict
from policies.reporting.split import Moment, Step, split
from policies.reporting.steps import CLOSE, evidence_of, fault_of

AT = datetime(2026, 11, 24, 1, 2, tzinfo=UTC)
moments = some.none() | some.integers(-100_000, 100_000).map(lambda seconds: AT + timedelta(seconds=seconds))


def sample(seconds: int, bad: int, verdict: GateVerdict = GateVerdict.NOT_ENOUGH_DATA) -> Sample:
    numbers = {"canary_bad": bad, "canary_total": 150.0, "control_bad": 19.0, "control_total": 1350.0}
    return Sample(at=AT + timedelta(seconds=seconds), wave=1, gate="logins", verdict=verdict, numbers=numbers)


@given(some.tuples(moments, moments, moments, moments, moments))
def test_whatever_clocks_say_no_known_step_comes_before_another_and_nothing_is_guessed(
    said: tuple[datetime | None, ...],
) -> None:
    steps = [Step(moment=name, at=at, source="said") for name, at in zip(Moment, said, strict=True)]
    found = split(reversed(steps))
    assert [step.moment for step in found.steps] == [*Moment]
    known = [step.at for step in found.steps if step.at is not None]
    assert known == sorted(known)
    assert next((at for at in said if at is not None), None) == (known[0] if known else None)
    for step, given_at in zip(found.steps, said, strict=True):
        assert step.at in {None, given_at}
        assert step.at == given_at or "by its own clock" in step.source


def test_a_fault_begins_with_the_first_bad_sample_after_the_last_good_one() -> None:
    samples = [sample(0, 9), sample(15, 0), sample(30, 5), sample(45, 9), sample(60, 11)]
    assert fault_of(samples, AT + timedelta(seconds=60), "kept").at == AT + timedelta(seconds=30)


def test_a_fault_that_was_there_from_the_first_sample_on_is_not_known() -> None:
    found = fault_of([sample(0, 9), sample(15, 9)], AT + timedelta(seconds=15), "kept")
    assert found.at is None
    assert "the first sample" in found.source


def test_a_fault_between_samples_that_lie_far_apart_is_not_known_but_between_which() -> None:
    far = int(CLOSE.total_seconds()) + 1
    found = fault_of([sample(0, 0), sample(far, 9)], AT + timedelta(seconds=far), "kept")
    assert found.at is None
    assert "between 01:02:00 and 01:03:01 UTC" in found.source


def test_nothing_measured_is_not_known() -> None:
    assert fault_of([], AT, "kept").at is None
    assert evidence_of([], AT, "kept").at is None


def test_a_share_that_is_no_worse_than_controls_is_no_fault() -> None:
    assert not sample(0, 2).is_bad
    assert sample(0, 3).is_bad


def test_evidence_was_enough_when_the_gate_first_went_on_saying_so() -> None:
    bad = GateVerdict.UNHEALTHY
    samples = [sample(0, 9, bad), sample(15, 9), sample(30, 9, bad), sample(45, 9, bad)]
    assert evidence_of(samples, AT + timedelta(seconds=45), "kept").at == AT + timedelta(seconds=30)
