"""When certificates are renewed: in time, and never a whole fleet at once."""

from collections import Counter
from datetime import UTC, datetime, timedelta

from policies.renewal import again, due

BEGIN = datetime(2030, 1, 1, tzinfo=UTC)
FLEET = [f"gw-{number}" for number in range(10_000)]


def moments(life: timedelta) -> list[datetime]:
    """Return when each gateway asks, of a fleet whose certificates were all made at once."""
    return [due(BEGIN, BEGIN + life, BEGIN, BEGIN + life, name) for name in FLEET]


def test_each_gateway_asks_between_two_thirds_and_three_quarters_of_its_life() -> None:
    life = timedelta(days=90)
    found = moments(life)
    assert BEGIN + life * 2 / 3 <= min(found) < max(found) <= BEGIN + life * 3 / 4


def test_of_ten_thousand_gateways_few_ask_in_the_same_second_or_hour() -> None:
    found = moments(timedelta(days=90))
    assert max(Counter(f"{one:%d %H %M %S}" for one in found).values()) <= 4
    assert max(Counter(f"{one:%d %H}" for one in found).values()) <= 90
    a_day = moments(timedelta(days=1))
    assert max(Counter(f"{one:%H %M %S}" for one in a_day).values()) <= 10


def test_gateways_that_failed_together_part_and_all_ask_less_and_less_often() -> None:
    for failures in (1, 3, 10, 1000):
        waits = {again(failures, name) for name in FLEET[:100]}
        assert len(waits) > 90
        assert max(waits) <= timedelta(hours=12)
    assert again(1, "gw-1") >= timedelta(minutes=5)
    assert again(2, "gw-1") == 2 * again(1, "gw-1")


def test_a_clock_that_is_weeks_ahead_does_not_ask_for_one_certificate_after_the_other() -> None:
    came = BEGIN + timedelta(days=80)
    asked = due(BEGIN, BEGIN + timedelta(days=90), came, came, "gw-1")
    assert asked - came == timedelta(days=15)
