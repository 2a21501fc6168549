"""Exposure: what release tests measured, within their limits, and what follows."""

import pytest
from pydantic import ValidationError

from policies.exposure import exposure, findings_of
from policies.model.mirror import MirrorTest
from policies.model.release_tests import (
    OF_MIRROR,
    OF_NAMES,
    UNDER_LOAD,
    Asked,
    Finding,
    LoadTest,
    Measurement,
    Method,
    NameTests,
    Outcome,
    ReleaseTests,
)

NAMED = ReleaseTests(
    names=NameTests(inside={"intranet.example.com": ()}, outside=("www.example.org",)),
    profiles={"today": ()},
)
LOADED = ReleaseTests(load=LoadTest(gateway="gw-1"))
MIRRORED = ReleaseTests(mirror=MirrorTest())
GOOD = {test: 2.0 if test is Asked.LOGIN else 0.0 for test in Asked if test not in {*UNDER_LOAD, *OF_MIRROR}}
UNLOADED = tuple(GOOD)


def measured(**other: float | None) -> list[Measurement]:
    values = {test: other.get(test.name.lower(), usual) for test, usual in GOOD.items()}
    return [Measurement(test=test, measured=value, said="seen") for test, value in values.items()]


def outcome_of(
    tests: ReleaseTests, found: list[Measurement], test: Asked, method: Method = Method.TRIED
) -> Outcome:
    return next(one.outcome for one in findings_of(tests, found, method) if one.test == test)


def test_an_instance_that_passes_everything_may_be_exposed() -> None:
    found = exposure(findings_of(NAMED, measured(), Method.TRIED))
    assert (found.outcome, found.sentence) == (Outcome.PASSED, f"passed {len(UNLOADED)} tests")


@pytest.mark.parametrize("test", [test for test in UNLOADED if test is not Asked.LOGIN])
def test_one_above_its_limit_forbids_exposure_and_says_which(test: Asked) -> None:
    found = exposure(findings_of(NAMED, measured(**{test.name.lower(): 1.0}), Method.TRIED))
    assert found.outcome is Outcome.FAILED
    assert found.sentence == f"{test} (1, at most 0): seen"


def test_one_of_two_logins_is_not_enough() -> None:
    assert outcome_of(ReleaseTests(), measured(login=1.0), Asked.LOGIN) is Outcome.FAILED


@pytest.mark.parametrize("test", UNLOADED)
def test_a_test_that_could_not_be_made_is_neither_a_pass_nor_a_failure(test: Asked) -> None:
    for found in (
        measured(**{test.name.lower(): None}),
        [one for one in measured() if one.test != test],
    ):
        assert exposure(findings_of(NAMED, found, Method.TRIED)).outcome is Outcome.UNKNOWN


def test_a_failure_outweighs_what_is_unknown() -> None:
    found = measured(wrong_password=1.0, cleartext=None)
    assert exposure(findings_of(NAMED, found, Method.TRIED)).outcome is Outcome.FAILED


def test_without_any_test_nothing_is_proven() -> None:
    assert exposure(()).outcome is Outcome.UNKNOWN


def test_what_is_skipped_is_not_asked() -> None:
    tests = NAMED.model_copy(update={"skip": (Asked.ROUTES,)})
    findings = findings_of(tests, measured(routes=3.0), Method.TRIED)
    assert Asked.ROUTES not in [one.test for one in findings]
    assert exposure(findings).outcome is Outcome.PASSED


def test_pings_may_be_lost_as_far_as_the_file_allows() -> None:
    lossy = ReleaseTests(pings_lost=0.1)
    assert outcome_of(lossy, measured(pings_lost=0.1), Asked.PINGS_LOST) is Outcome.PASSED
    assert outcome_of(lossy, measured(pings_lost=0.2), Asked.PINGS_LOST) is Outcome.FAILED
    assert outcome_of(ReleaseTests(), measured(pings_lost=0.1), Asked.PINGS_LOST) is Outcome.FAILED


@pytest.mark.parametrize(
    ("test", "new", "old", "outcome"),
    [
        (Asked.THROUGHPUT, 80.0, 100.0, Outcome.PASSED),
        (Asked.THROUGHPUT, 60.0, 100.0, Outcome.FAILED),
        (Asked.THROUGHPUT, 500.0, None, Outcome.UNKNOWN),
        (Asked.THROUGHPUT, None, 100.0, Outcome.UNKNOWN),
        (Asked.THROUGHPUT, 70.0, 0.0, Outcome.UNKNOWN),
        (Asked.THROUGHPUT, 0.0, 0.0, Outcome.UNKNOWN),
        (Asked.CPU, 0.014, 0.01, Outcome.PASSED),
        (Asked.CPU, 0.016, 0.01, Outcome.FAILED),
        (Asked.HANDSHAKES, 80.0, 100.0, Outcome.PASSED),
        (Asked.HANDSHAKES, 40.0, 100.0, Outcome.FAILED),
        (Asked.RESUMED, 0.0, 0.0, Outcome.PASSED),
        (Asked.RESUMED, 0.0, 90.0, Outcome.FAILED),
        (Asked.LOAD_SESSIONS, 0.0, None, Outcome.PASSED),
        (Asked.LOAD_SESSIONS, 1.0, None, Outcome.FAILED),
    ],
)
def test_a_load_is_compared_with_the_old_instance(
    test: Asked, new: float | None, old: float | None, outcome: Outcome
) -> None:
    found = [Measurement(test=test, measured=new, control=old, said="seen")]
    assert outcome_of(LOADED, found, test, Method.LOADED) is outcome


@pytest.mark.parametrize(
    ("test", "new", "old", "outcome"),
    [
        (Asked.MIRROR_REFUSED, 0.0, None, Outcome.PASSED),
        (Asked.MIRROR_REFUSED, 0.05, None, Outcome.PASSED),
        (Asked.MIRROR_REFUSED, 0.06, None, Outcome.FAILED),
        (Asked.MIRROR_REFUSED, None, None, Outcome.UNKNOWN),
        (Asked.MIRROR_SECONDS, 0.4, 0.2, Outcome.PASSED),
        (Asked.MIRROR_SECONDS, 0.41, 0.2, Outcome.FAILED),
        (Asked.MIRROR_SECONDS, 0.1, None, Outcome.UNKNOWN),
        (Asked.MIRROR_SECONDS, None, 0.2, Outcome.UNKNOWN),
    ],
)
def test_mirrored_logins_are_judged_beside_the_old_instance(
    test: Asked, new: float | None, old: float | None, outcome: Outcome
) -> None:
    found = [Measurement(test=test, measured=new, control=old, said="seen")]
    assert outcome_of(MIRRORED, found, test, Method.MIRRORED) is outcome


def test_a_load_and_the_other_tests_are_asked_apart() -> None:
    assert {one.test for one in findings_of(LOADED, [], Method.LOADED)} == {*UNDER_LOAD}
    assert {one.test for one in findings_of(MIRRORED, [], Method.MIRRORED)} == {*OF_MIRROR}
    assert not {one.test for one in findings_of(LOADED, [], Method.TRIED)} & {*UNDER_LOAD}


def test_a_finding_says_what_was_measured_and_within_which_limit() -> None:
    found = [Measurement(test=Asked.THROUGHPUT, measured=60.0, control=100.0, said="60 and 100 Mbit/s")]
    one = next(one for one in findings_of(LOADED, found, Method.LOADED) if one.test == Asked.THROUGHPUT)
    assert one == Finding(
        test="throughput",
        outcome=Outcome.FAILED,
        measured=60.0,
        control=100.0,
        limit="at least 0.7 of the old instance's",
        said="60 and 100 Mbit/s",
    )


@pytest.mark.parametrize("wrong", [{"sessions": 0}, {"sessions": 51}, {"within": "11s"}, {"cpu": 0.5}])
def test_a_load_beyond_its_bounds_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        LoadTest.model_validate({"gateway": "gw-1", **wrong})


def test_whoever_skips_every_test_is_told_instead_of_waiting_for_none() -> None:
    with pytest.raises(ValidationError, match="skip leaves no test without load"):
        ReleaseTests(skip=UNLOADED)
    with pytest.raises(ValidationError, match="skip leaves no test under load"):
        ReleaseTests(skip=UNDER_LOAD, load=LoadTest(gateway="gw-1"))
    with pytest.raises(ValidationError, match="skip leaves no test of a mirror"):
        ReleaseTests(skip=OF_MIRROR, mirror=MirrorTest())
    assert ReleaseTests(skip=(*UNLOADED[1:], *UNDER_LOAD)).load is None


def test_names_are_asked_for_only_where_the_file_has_some() -> None:
    for names, asked in (
        ({}, set()),
        ({"inside": {"intranet.example.com": ["10.0.0.80"]}}, {Asked.NAMES_INSIDE}),
        ({"outside": ["www.example.org"]}, {Asked.NAMES_OUTSIDE}),
    ):
        tests = ReleaseTests.model_validate({"names": names} if names else {})
        assert {*tests.asked(Method.TRIED)} & {*OF_NAMES} == asked


def test_profiles_are_tried_only_where_the_file_has_some() -> None:
    assert Asked.PROFILES not in ReleaseTests().asked(Method.TRIED)
    tests = ReleaseTests.model_validate({"profiles": {"laptops": []}})
    assert Asked.PROFILES in tests.asked(Method.TRIED)
    assert outcome_of(tests, [Measurement(test="profiles", measured=1, said="-")], Asked.PROFILES) is (
        Outcome.FAILED
    )


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({}, "has no name; write some below inside or outside"),
        ({"inside": {"a.example.com": []}, "outside": ["a.example.com"]}, "both inside and outside"),
        ({"inside": {"intranet": []}}, "should match pattern"),
        ({"outside": ["WWW.example.org"]}, "should match pattern"),
        ({"outside": ["*.example.org"]}, "should match pattern"),
        ({"outside": ["a.example.org; reboot"]}, "should match pattern"),
        ({"inside": {"a.example.com": ["b.example.com"]}}, "not a valid IPv4 address"),
        ({"inside": {f"a{number}.example.com": [] for number in range(17)}}, "at most 16"),
        ({"insde": {"a.example.com": []}}, "Extra inputs are not permitted"),
    ],
)
def test_names_that_nobody_can_mean_are_refused(names: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ReleaseTests.model_validate({"names": names})


def test_a_fleet_without_names_is_written_as_before_there_were_any() -> None:
    assert "names" not in ReleaseTests().model_dump()
