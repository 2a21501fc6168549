"""A mirror: which shadow logins follow from recorded ones, and what they say of a release."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from policies.exposure import exposure, findings_of
from policies.mirror import schedule, shown
from policies.model.mirror import (
    FEWEST,
    MINUTE,
    Beside,
    ClientKind,
    Mirror,
    MirrorTest,
    RecordedLogin,
    ShadowLogin,
    Tried,
)
from policies.model.release_tests import Finding, Measurement, Method, Outcome, ReleaseTests

NOW = 1_764_000_000.0
HOUR = 3600.0
TESTS = ReleaseTests(mirror=MirrorTest())

logins = st.lists(
    st.builds(
        RecordedLogin,
        at=st.floats(NOW - 2 * HOUR, NOW + 60),
        family=st.sampled_from([4, 6]),
        client=st.sampled_from(ClientKind),
    ),
    max_size=300,
)
bursts = st.lists(st.tuples(st.floats(NOW - HOUR, NOW), st.integers(1, 60)), max_size=8).map(
    lambda found: [
        RecordedLogin(at=min(NOW, at + number / 50)) for at, many in found for number in range(many)
    ]
)
mirrors = st.tuples(st.integers(1, 600), st.integers(1, 120), st.integers(1, 120)).map(
    lambda one: Mirror(seconds=one[0], at_least=min(one[1:]), at_most=max(one[1:]))
)
transports = st.dictionaries(st.sampled_from(["tls", "dtls", ""]), st.integers(0, 50))


def made(recorded: list[RecordedLogin], mirror: Mirror, **tunnels: int) -> tuple[ShadowLogin, ...]:
    return schedule(recorded, mirror, NOW, tunnels).logins


def within(logins: tuple[ShadowLogin, ...], seconds: float) -> int:
    """The most logins in any stretch of so many seconds."""
    times = [one.after for one in logins]
    return max((sum(at <= one < at + seconds for one in times) for at in times), default=0)


@given(st.one_of(logins, bursts), mirrors, transports)
def test_a_mirror_is_bounded_in_time_and_in_every_minute_whatever_was_recorded(
    recorded: list[RecordedLogin], mirror: Mirror, tunnels: dict[str, int]
) -> None:
    found = schedule(recorded, mirror, NOW, tunnels).logins
    times = [one.after for one in found]
    assert times == sorted(times)
    assert all(0 <= at < mirror.seconds for at in times)
    assert within(found, MINUTE) <= mirror.at_most
    assert len(found) >= min(round(mirror.at_least * mirror.seconds / MINUTE), mirror.at_most)


@given(logins, mirrors, transports)
def test_a_mirror_is_the_same_for_the_same_record_in_any_order(
    recorded: list[RecordedLogin], mirror: Mirror, tunnels: dict[str, int]
) -> None:
    there, back = (schedule(one, mirror, NOW, tunnels) for one in (recorded, recorded[::-1]))
    assert [one.after for one in there.logins] == [one.after for one in back.logins]
    assert there.said == back.said


@given(st.lists(st.floats(0, 119.0), min_size=10, max_size=40), st.floats(0, HOUR - 130))
def test_the_busiest_stretch_is_played_at_its_own_pace_burst_by_burst(
    times: list[float], earlier: float
) -> None:
    began = round(NOW - HOUR + earlier)
    recorded = [RecordedLogin(at=began + at) for at in times]
    gaps = [at - min(times) for at in sorted(times)]
    found = made(recorded, Mirror(seconds=120, at_least=5, at_most=120))
    assert [one.after for one in found] == pytest.approx(gaps, abs=1e-3)


@given(st.integers(1, 100), st.integers(1, 20))
def test_a_burst_that_is_too_large_stays_a_burst(times_too_large: int, at_most: int) -> None:
    burst = [RecordedLogin(at=NOW - 100 + number / 1000) for number in range(at_most * times_too_large)]
    found = made(burst, Mirror(seconds=120, at_least=1, at_most=at_most))
    at_once = [one for one in found if one.after < at_most * times_too_large / 1000]
    assert len(at_once) == at_most


@given(logins, mirrors)
def test_kinds_of_address_and_client_are_those_that_were_recorded(
    recorded: list[RecordedLogin], mirror: Mirror
) -> None:
    last_hour = [one for one in recorded if NOW - HOUR <= one.at <= NOW]
    known = {(one.family, one.client) for one in last_hour} or {(4, ClientKind.OTHER)}
    assert {(one.family, one.client) for one in made(recorded, mirror)} <= known


def test_a_quiet_hour_is_played_faster_and_what_is_still_missing_is_added_evenly_and_told() -> None:
    mirror = Mirror(seconds=120, at_least=5, at_most=60)
    every_five_minutes = [RecordedLogin(at=NOW - HOUR + 1 + 300 * number) for number in range(12)]
    fast = schedule(every_five_minutes, mirror, NOW, {})
    assert (len(fast.logins), fast.said) == (10, "10 of 12 logins of the last hour 23 times as fast")
    few = schedule(every_five_minutes[:4], mirror, NOW, {})
    assert (len(few.logins), few.said) == (
        10,
        "4 of 4 logins of the last hour 30 times as fast, 6 added to be as many as asked for",
    )
    none = schedule([], mirror, NOW, {})
    assert (len(none.logins), none.said) == (
        10,
        "no login in the last hour, 10 added to be as many as asked for",
    )
    gaps = [after.after - before.after for before, after in zip(none.logins, none.logins[1:], strict=False)]
    assert gaps == pytest.approx([12.0] * 9)


def test_what_is_left_out_is_told() -> None:
    busy = [RecordedLogin(at=NOW - 100 + number / 10) for number in range(90)]
    found = schedule(busy, Mirror(seconds=120, at_least=5, at_most=30), NOW, {})
    assert (len(found.logins), found.said) == (
        30,
        "30 of 90 logins of the last hour at their own pace, 60 left out",
    )


def test_as_many_have_udp_as_of_the_present_tunnels() -> None:
    mirror = Mirror(seconds=60, at_least=20, at_most=60)
    assert [one.udp for one in made([], mirror)] == [True] * 20
    assert sum(one.udp for one in made([], mirror, dtls=3, tls=1)) == 15
    assert [one.udp for one in made([], mirror, tls=9)] == [False] * 20


def test_nothing_that_is_taken_from_users_has_room_for_who_they_are() -> None:
    """Fields are numbers of an enumerated kind: a name, an address or a secret fits into none of them."""
    assert {*RecordedLogin.model_fields} == {"at", "family", "client"}
    assert {*ShadowLogin.model_fields} == {"after", "family", "client", "udp"}
    for field, text in (("at", "alice"), ("family", "198.51.100.7"), ("client", "alice"), ("user", "alice")):
        said: dict[str, Any] = {"at": NOW, field: text}
        with pytest.raises(ValidationError):
            RecordedLogin.model_validate(said)


# --- what it shows ------------------------------------------------------------------------


def tried(seconds: float | None, said: str = "port 4432: login refused") -> Tried:
    return Tried(let_in=seconds is not None, seconds=seconds, said="" if seconds is not None else said)


def pairs(new: list[float | None], old: list[float | None]) -> list[Beside]:
    return [Beside(new=tried(one), old=tried(other)) for one, other in zip(new, old, strict=True)]


def verdict(found: list[Beside], planned: int | None = None) -> tuple[Outcome, str]:
    measured = shown(found, planned if planned is not None else len(found))
    judged = exposure(findings_of(TESTS, measured, Method.MIRRORED))
    return judged.outcome, judged.sentence


def test_a_release_that_lets_everybody_in_as_fast_as_the_old_one_passes() -> None:
    assert verdict(pairs([0.21] * 20, [0.2] * 20)) == (Outcome.PASSED, "passed 2 tests")


def test_a_release_that_refuses_some_is_found_and_says_what_a_client_heard() -> None:
    outcome, said = verdict(pairs([None, *[0.2] * 9], [0.2] * 10))
    assert outcome is Outcome.FAILED
    assert said == (
        "mirror-refused (0.1, at most 0.05): 9 and 10 of 10 shadow logins let in, new and old: port 4432: "
        "login refused"
    )


def test_a_release_of_which_half_the_logins_are_slow_is_found_beside_the_old_one() -> None:
    outcome, said = verdict(pairs([0.9] * 20, [0.2] * 20))
    assert outcome is Outcome.FAILED
    assert said.startswith(
        "mirror-seconds (0.9 beside 0.2, at most 2 of the old instance's): half within 0.900"
    )


def test_a_host_that_is_slow_for_both_is_no_fault_of_the_release() -> None:
    assert verdict(pairs([2.0] * 20, [1.9] * 20))[0] is Outcome.PASSED


def test_an_outage_of_both_is_neither_a_failure_nor_a_pass() -> None:
    outcome, said = verdict(pairs([None] * 20, [None] * 20))
    assert outcome is Outcome.UNKNOWN
    assert "0 and 0 of 20 shadow logins let in, new and old" in said
    assert "too few to compare: port 4432: login refused" in said


def test_what_befell_the_old_instance_as_often_is_chance() -> None:
    new: list[float | None] = [None, None, *[0.2] * 18]
    assert verdict(pairs(new, [*[0.2] * 18, None, None]))[0] is Outcome.PASSED
    assert verdict(pairs(new, [0.2] * 20))[0] is Outcome.FAILED


@pytest.mark.parametrize("made_of", [0, 1, FEWEST - 1])
def test_too_few_logins_are_no_pass(made_of: int) -> None:
    assert verdict(pairs([0.2] * made_of, [0.2] * made_of))[0] is Outcome.UNKNOWN


def test_a_mirror_of_which_most_could_not_be_made_is_no_pass() -> None:
    unmade = [Beside(new=None, old=tried(0.2))] * 30
    assert verdict([*pairs([0.2] * 20, [0.2] * 20), *unmade])[0] is Outcome.UNKNOWN


outcomes = st.one_of(st.none(), st.floats(0.01, 15))


@given(st.lists(st.tuples(outcomes, outcomes), max_size=60))
def test_losing_a_login_of_the_old_instance_never_turns_into_a_pass(
    found: list[tuple[float | None, float | None]],
) -> None:
    before = verdict(pairs(*([one for one, _ in found], [one for _, one in found])))[0]
    blind = verdict(pairs([one for one, _ in found], [None] * len(found)))[0]
    assert blind is Outcome.UNKNOWN
    assert before in {*Outcome}


@given(st.lists(st.tuples(outcomes, outcomes), min_size=1, max_size=60))
def test_whatever_is_let_in_where_the_old_instance_lets_in_is_never_blamed_for_refusing(
    found: list[tuple[float | None, float | None]],
) -> None:
    better = [(new if new is not None else (0.2 if old is not None else None), old) for new, old in found]
    measured: list[Measurement] = [*shown(pairs([a for a, _ in better], [b for _, b in better]), len(better))]
    findings: tuple[Finding, ...] = findings_of(TESTS, measured, Method.MIRRORED)
    assert findings[0].outcome is not Outcome.FAILED


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"at_least": 20, "at_most": 10}, "at_most is 10, and at_least is 20; swap them"),
        ({"within": "30s"}, "5 logins a minute within 0:00:30 are 2.5, and fewer than 5 show nothing"),
        ({"at_most": 121}, "less than or equal to 120"),
        ({"within": "11m"}, "less than or equal to 10 minutes"),
        ({"user": "alice"}, "Extra inputs are not permitted"),
    ],
)
def test_a_mirror_that_nobody_can_mean_is_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        MirrorTest.model_validate(wrong)


def test_a_host_is_asked_for_what_the_file_says() -> None:
    asked = MirrorTest(within=timedelta(minutes=3), at_least=2, at_most=9).mirror
    assert asked == Mirror(seconds=180, at_least=2, at_most=9)
