"""What `./run bench night` takes for a way back: logins that known-good took, and never their absence."""

import pytest

from tests.bench.bench_night import WayBack, way_back

SENT = 100.0


def logins(*said: tuple[float, str]) -> list[dict[str, object]]:
    return [{"at": at, "outcome": outcome} for at, outcome in said]


@pytest.mark.parametrize(
    "said",
    [
        (),
        ((100.1, "refused"),),
        ((100.1, "refused"), (100.4, "accepted"), (100.7, "accepted")),
        ((100.1, "accepted"), (100.4, "accepted"), (100.7, "accepted"), (101.0, "refused")),
    ],
)
def test_without_logins_that_known_good_took_at_the_end_nothing_is_measured(
    said: tuple[tuple[float, str], ...],
) -> None:
    assert way_back(logins(*said), SENT) is None


def test_it_lasts_until_the_last_login_that_the_canary_refused() -> None:
    said = (
        (100.5, "refused"),
        (101.5, "failed"),
        (102.0, "accepted"),
        (102.5, "accepted"),
        (103.0, "accepted"),
    )
    assert way_back(logins(*said), SENT) == WayBack(seconds=1.5, taken=2.0)


def test_where_the_canary_refused_none_it_lasts_until_known_good_took_one() -> None:
    said = ((101.0, "accepted"), (101.5, "accepted"), (102.0, "accepted"))
    assert way_back(logins(*said), SENT) == WayBack(seconds=1.0, taken=1.0)
