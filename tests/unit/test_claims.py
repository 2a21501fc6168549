"""A claim of break-glass that a host denies is not looked into in each minute of a wave."""

from datetime import UTC, datetime, timedelta

from policies.claims import MOST_CLAIMS, is_due, looked_into

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
LEFT, DENIED = {"gw-1": "an operator steered it"}, {"gw-1": ""}


def test_a_claim_that_was_denied_is_never_looked_into_again() -> None:
    claims = looked_into({}, {"gw-1": 7}, DENIED, NOON)
    assert not is_due(claims, "gw-1", 7, NOON + timedelta(days=30))


def test_another_claim_of_the_gateway_is_looked_into_after_a_minute() -> None:
    claims = looked_into({}, {"gw-1": 7}, DENIED, NOON)
    assert [is_due(claims, "gw-1", 8, NOON + after) for after in (MINUTE / 2, MINUTE)] == [False, True]


def test_a_gateway_that_claims_another_epoch_in_each_minute_is_asked_sixteen_times_in_a_month() -> None:
    claims, looks = looked_into({}, {}, {}, NOON), 0
    for minute in range(30 * 24 * 60):
        at = NOON + minute * MINUTE
        if is_due(claims, "gw-1", minute, at):
            looks += 1
            claims = looked_into(claims, {"gw-1": minute}, DENIED, at)
    assert looks == 16


def test_a_claim_of_a_gateway_that_was_silent_when_its_change_asked_is_looked_into_again() -> None:
    claims = looked_into({}, {"gw-1": 7}, {}, NOON)
    assert is_due(claims, "gw-1", 7, NOON + MINUTE)


def test_claims_of_other_gateways_are_looked_into_at_once() -> None:
    claims = looked_into({}, {"gw-1": 7}, DENIED, NOON)
    assert is_due(claims, "gw-2", 7, NOON)


def test_a_gateway_that_is_left_to_its_operator_is_not_remembered() -> None:
    claims = looked_into({}, {"gw-1": 7}, {}, NOON)
    assert looked_into(claims, {"gw-1": 7}, LEFT, NOON + MINUTE) == {}


def test_a_change_remembers_the_claims_of_few_gateways_and_looks_into_no_more() -> None:
    """Each of them makes its history longer."""
    many = {f"gw-{number}": 7 for number in range(2 * MOST_CLAIMS)}
    claims = looked_into({}, many, dict.fromkeys(many, ""), NOON)
    assert len(claims) == MOST_CLAIMS
    later = NOON + timedelta(days=1)
    assert sum(is_due(claims, name, 8, later) for name in many) == MOST_CLAIMS
