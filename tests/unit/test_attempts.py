from hypothesis import given
from hypothesis import strategies as st

from policies.attempts import (
    BUCKET_SECONDS,
    Attempt,
    FirstAttempts,
    LoginOutcome,
    RememberedKeys,
    Sources,
    key_of,
)

HOUR = 3600


def attempt(key: str, ended: float, outcome: LoginOutcome = LoginOutcome.AUTH_FAIL) -> Attempt:
    return Attempt(key=key, outcome=outcome, ended=ended)


def test_a_client_retrying_for_an_hour_counts_once_in_ten_minutes() -> None:
    first = FirstAttempts()
    counted = [ended for ended in range(0, HOUR, 5) if first.counts(attempt("user a", ended))]
    assert counted == [0, 600, 1200, 1800, 2400, 3000]


def test_the_first_outcome_counts_for_somebody_who_mistypes_and_then_succeeds() -> None:
    first = FirstAttempts()
    assert first.counts(attempt("user a", 10, LoginOutcome.AUTH_FAIL))
    assert not first.counts(attempt("user a", 20, LoginOutcome.OK))


def test_two_users_behind_one_address_both_count_and_one_network_of_ipv6_counts_once() -> None:
    assert key_of("a", "192.0.2.1") != key_of("b", "192.0.2.1")
    assert key_of(None, "2001:db8::1") == key_of(None, "2001:db8::ffff:2")
    assert key_of(None, "2001:db8::1") != key_of(None, "2001:db8:0:1::1")
    assert key_of(None, "192.0.2.1") != key_of(None, "192.0.2.2")


def test_a_user_named_like_an_address_is_not_that_address() -> None:
    assert key_of("192.0.2.1", "192.0.2.9") != key_of(None, "192.0.2.1")


def test_memory_is_bounded_and_what_does_not_fit_does_not_count() -> None:
    first = FirstAttempts(most=3)
    assert [first.counts(attempt(f"user {n}", 0)) for n in range(5)] == [True, True, True, False, False]
    assert len(first.seen.keys) == 3
    assert first.counts(attempt("user 4", BUCKET_SECONDS))


def test_a_restart_forgets_nothing_of_the_bucket_it_happens_in() -> None:
    before = FirstAttempts()
    before.counts(attempt("user a", 10))
    after = FirstAttempts(RememberedKeys.model_validate_json(before.seen.model_dump_json()))
    assert not after.counts(attempt("user a", 20))
    assert after.counts(attempt("user a", BUCKET_SECONDS))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 2 * HOUR)), max_size=60))
def test_no_key_counts_more_often_than_buckets_were_reached(
    events: list[tuple[str, float]],
) -> None:
    first, newest = FirstAttempts(), list[float]()
    counted = dict.fromkeys("abc", 0)
    for key, ended in events:
        newest.append(max([*newest, ended // BUCKET_SECONDS]))
        counted[key] += first.counts(attempt(key, ended))
    assert max(counted.values()) <= len(set(newest))


OFFICE = "192.0.2.1"


def of_office(user: str | None, ended: float) -> Attempt:
    outcome = LoginOutcome.OK if user else LoginOutcome.TLS_FAIL
    return Attempt(key=key_of(user, OFFICE), source=OFFICE, outcome=outcome, ended=ended)


def test_an_office_behind_one_address_that_a_release_refuses_is_as_many_failures_as_it_has_users() -> None:
    """D3: a TLS handshake that fails names nobody."""
    sources = Sources()
    old, new = FirstAttempts(sources=sources), FirstAttempts(sources=sources)
    for number in range(200):
        old.counts(of_office(f"user-{number}", number))
    for ten_minutes in (1, 2):  # who is refused for longer is no fewer
        begins = ten_minutes * BUCKET_SECONDS
        counted = [new.counts(of_office(None, begins + second)) for second in range(300)]
        assert counted.count(True) == 200


def test_one_client_of_an_office_that_fails_while_others_get_in_counts_once() -> None:
    """D3."""
    first = FirstAttempts()
    for number in range(200):
        first.counts(of_office(f"user-{number}", number))
    begins = BUCKET_SECONDS
    assert first.counts(of_office(None, begins))
    assert first.counts(of_office("user-7", begins + 1))
    assert not any(first.counts(of_office(None, begins + second)) for second in range(2, 500, 5))


def test_a_client_of_a_home_that_retries_a_handshake_counts_once_in_ten_minutes() -> None:
    """D3."""
    first = FirstAttempts()
    first.counts(of_office("user-1", 0))
    counted = [first.counts(of_office(None, second)) for second in range(BUCKET_SECONDS, 3000, 5)]
    assert counted.count(True) == 4


def test_users_of_sources_that_do_not_fit_are_not_remembered() -> None:
    """D3."""
    first = FirstAttempts(sources=Sources(most=3))
    for number in range(5):
        first.counts(of_office(f"user-{number}", number))
    counted = [first.counts(of_office(None, BUCKET_SECONDS + second)) for second in range(9)]
    assert counted.count(True) == 3
