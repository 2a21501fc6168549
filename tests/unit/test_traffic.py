"""Traffic: sessions on each release, and when those on the old one will have ended, if anybody can say."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from policies.traffic import FEWEST_SAMPLES, FURTHEST, ended_at, on_release, per_minute

START = 1_700_000_000.0


def falling(sessions: float, a_minute: float, samples: int = 10) -> list[tuple[float, float]]:
    return [(START + 15 * number, sessions - a_minute * number / 4) for number in range(samples)]


@given(st.floats(10, 10_000), st.floats(0.5, 50))
def test_an_instance_that_empties_steadily_is_empty_when_its_last_session_will_have_ended(
    sessions: float, a_minute: float
) -> None:
    samples = falling(sessions, min(a_minute, sessions / 5))
    found = ended_at(samples)
    assert found is not None or sessions / min(a_minute, sessions / 5) > FURTHEST / timedelta(minutes=1)
    if found is not None:
        left = timedelta(minutes=samples[-1][1] / min(a_minute, sessions / 5))
        foretold = found - datetime.fromtimestamp(samples[-1][0], UTC)
        assert abs(foretold - left) < timedelta(seconds=5)


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=FEWEST_SAMPLES - 1))
def test_of_a_few_samples_nobody_says_where_they_lead(values: list[float]) -> None:
    samples = [(START + 15 * number, value) for number, value in enumerate(values)]
    assert per_minute(samples) is None
    assert ended_at(samples) is None


@given(st.floats(0, 1000), st.floats(0, 20))
def test_what_does_not_fall_never_ends(sessions: float, a_minute: float) -> None:
    assert ended_at([(at, sessions + (at - START) * a_minute / 60) for at, _ in falling(sessions, 0)]) is None


def test_samples_of_one_moment_have_no_slope() -> None:
    assert per_minute([(START, 3.0)] * 10) is None


def test_the_newer_release_is_not_said_to_end_though_its_sessions_fall() -> None:
    samples = falling(100, 10)
    assert on_release("1.4.0", samples, newer=True).ended_at is None
    assert on_release("1.3.0", samples, newer=False).ended_at is not None
