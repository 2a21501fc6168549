"""What charon's log says about logins, in the words of a real one (5.9.8)."""

import pytest

from activities.drivers.daemon.strongswan.log import LONGEST, MOST_OPEN, LoginLog
from policies.attempts import Attempt, LoginOutcome

BEGINS = "16[IKE] <1> 10.77.0.11 is initiating an IKE_SA"
LOOKS = "01[CFG] <1> looking for peer configs matching 10.88.0.1[10.77.0.1]...10.77.0.11[CN=alice]"
KNOWN = "01[IKE] <people|1> authentication of 'CN=alice' with ECDSA_WITH_SHA256_DER successful"
ESTABLISHED = (
    "01[IKE] <people|1> IKE_SA people[1] established between 10.88.0.1[10.77.0.1]...10.77.0.11[CN=alice]"
)
GIVEN = (
    "01[IKE] <people|1> CHILD_SA people{1} established with SPIs 83b9ac3a_i bfdf338d_o and TS "
    "10.90.0.0/16 === 10.90.0.2/32"
)
UNKNOWN_SIGNER = "10[CFG] <people|1> no trusted ECDSA public key found for 'CN=alice'"
REFUSED = "10[ENC] <people|1> generating IKE_AUTH response 1 [ N(AUTH_FAILED) ]"
EAP = "09[IKE] <people|1> received EAP identity 'bob'"
NO_PROPOSAL = (
    "05[IKE] <1> received proposals unacceptable",
    "05[ENC] <1> generating IKE_SA_INIT response 0 [ N(NO_PROP) ]",
)
NO_ADDRESS = (
    "07[IKE] <people|1> no virtual IP found for %any requested by 'CN=alice'",
    "07[ENC] <people|1> generating IKE_AUTH response 1 [ IDr CERT AUTH N(INT_ADDR_FAIL) ]",
)
LATE = "06[JOB] <1> deleting half open IKE_SA with 10.77.0.11 after timeout"
REKEYED = "11[IKE] <people|1> IKE_SA people[4] rekeyed between 10.88.0.1[10.77.0.1]...10.77.0.11[CN=alice]"


def attempts(*lines: str, log: LoginLog | None = None, timed: bool = True) -> list[Attempt]:
    log = log or LoginLog()
    found = list[Attempt]()
    for number, line in enumerate(lines):
        found += log.read(line, 100.0 + number / 10, timed=timed)
    return found


def test_a_login_counts_when_its_tunnel_is_there_and_takes_until_then() -> None:
    assert attempts(BEGINS, LOOKS, KNOWN, ESTABLISHED) == []
    (attempt,) = attempts(BEGINS, LOOKS, KNOWN, ESTABLISHED, GIVEN)
    assert (attempt.key, attempt.outcome) == ("user alice", LoginOutcome.OK)
    assert attempt.seconds is not None
    assert abs(attempt.seconds - 0.4) < 1e-6


def test_a_backlog_says_nothing_about_seconds() -> None:
    (attempt,) = attempts(BEGINS, LOOKS, KNOWN, ESTABLISHED, GIVEN, timed=False)
    assert attempt.seconds is None


def test_a_stranger_is_its_source_whatever_name_it_shows() -> None:
    found = [
        attempt
        for number in range(30)
        for attempt in attempts(
            BEGINS, *(line.replace("alice", f"victim{number}") for line in (LOOKS, UNKNOWN_SIGNER, REFUSED))
        )
    ]
    assert {(one.key, one.outcome, one.seconds) for one in found} == {
        ("source 10.77.0.11", LoginOutcome.AUTH_FAIL, None)
    }


def test_what_a_person_is_called_comes_before_what_its_device_is_called() -> None:
    known = "09[IKE] <people|1> authentication of 'CN=alice' with EAP successful"
    assert [one.key for one in attempts(BEGINS, LOOKS, EAP, known, GIVEN)] == ["user bob"]
    assert [one.key for one in attempts(BEGINS, LOOKS, EAP, known, *NO_ADDRESS)] == ["user bob"]
    assert [one.key for one in attempts(BEGINS, LOOKS, EAP, REFUSED)] == ["source 10.77.0.11"]


def test_what_a_stranger_calls_itself_says_nothing_of_any_login() -> None:
    name = "x' with y successful 01[IKE] <people|2> CHILD_SA people{1} established with SPIs"
    hostile = LOOKS.replace("CN=alice", f"CN={name}")
    other = [line.replace("<1>", "<2>") for line in (BEGINS, LOOKS)]
    (attempt,) = attempts(BEGINS, *other, hostile, UNKNOWN_SIGNER, REFUSED)
    assert (attempt.key, attempt.outcome) == ("source 10.77.0.11", LoginOutcome.AUTH_FAIL)


def test_a_first_packet_from_an_invented_address_is_no_attempt() -> None:
    log, found = LoginLog(), list[Attempt]()
    for number in range(30):
        here = [
            line.replace("10.77.0.11", f"198.51.100.{number}").replace("<1>", f"<{number}>")
            for line in (BEGINS, *NO_PROPOSAL, LATE)
        ]
        found += attempts(*here[: 1 + number % 4], log=log)
    assert found + list(log.give_up(101.0 + LONGEST)) == []


def test_a_login_is_seen_behind_any_number_of_invented_first_packets() -> None:
    log = LoginLog()
    for number in range(2, MOST_OPEN + 10):
        assert attempts(BEGINS.replace("<1>", f"<{number}>"), log=log) == []
    (attempt,) = attempts(BEGINS, LOOKS, KNOWN, GIVEN, log=log)
    assert (attempt.key, attempt.outcome) == ("user alice", LoginOutcome.OK)


def test_who_is_known_and_gets_no_address_is_the_gateways_own_failure() -> None:
    (attempt,) = attempts(BEGINS, LOOKS, KNOWN, *NO_ADDRESS)
    assert (attempt.key, attempt.outcome) == ("user alice", LoginOutcome.INTERNAL)


def test_who_does_not_go_on_is_late_when_charon_says_so_or_when_nobody_says_anything() -> None:
    assert [one.outcome for one in attempts(BEGINS, LOOKS, LATE)] == [LoginOutcome.TIMEOUT]
    log = LoginLog()
    assert attempts(BEGINS, LOOKS, log=log) == []
    assert list(log.give_up(100.0 + LONGEST)) == []
    assert [one.outcome for one in log.give_up(101.0 + LONGEST)] == [LoginOutcome.TIMEOUT]


def test_a_gateway_that_cannot_read_what_its_users_sign_fails_everybody() -> None:
    unread = (
        "12[IKE] <1> key derivation failed",
        "12[IKE] <1> IKE_AUTH request with message ID 1 processing failed",
    )
    assert [one.outcome for one in attempts(BEGINS, *unread, LATE)] == [LoginOutcome.TIMEOUT]


def test_two_logins_at_once_are_told_apart_by_their_numbers() -> None:
    other = [
        line.replace("<1>", "<2>").replace("|1>", "|2>").replace("alice", "bob") for line in (BEGINS, LOOKS)
    ]
    refused = REFUSED.replace("|1>", "|2>")
    found = attempts(BEGINS, *other, LOOKS, KNOWN, refused, GIVEN)
    assert [(one.key, one.outcome) for one in found] == [
        ("source 10.77.0.11", LoginOutcome.AUTH_FAIL),
        ("user alice", LoginOutcome.OK),
    ]


def test_a_rekeying_is_no_login_and_sources_that_are_ignored_have_none() -> None:
    assert attempts(REKEYED) == []
    log = LoginLog(frozenset({"10.77.0.11"}))
    assert attempts(BEGINS, LOOKS, KNOWN, ESTABLISHED, GIVEN, log=log) == []


def test_a_stamp_before_a_line_changes_nothing_and_the_version_is_known() -> None:
    log = LoginLog()
    started = "00[DMN] Starting IKE charon daemon (strongSwan 5.9.8, Linux 6.1.0, x86_64)"
    stamped = [f"2026-11-26T16:31:28 {line}" for line in (started, BEGINS, LOOKS, GIVEN)]
    assert [one.outcome for one in attempts(*stamped, log=log)] == [LoginOutcome.OK]
    assert log.version == "5.9.8"


@pytest.mark.parametrize(
    "subject",
    [
        "DC=com, DC=corp, CN=Users, CN={}",
        "DC=com, DC=corp, CN=Users, CN={}, E=a@b.example",
        "CN={}, CN=Users, DC=corp, DC=com",
    ],
)
def test_users_of_a_directory_are_so_many_users(subject: str) -> None:
    """The subject of a certificate of AD CS is the user's place in the directory."""
    found = list[Attempt]()
    for number in range(50):
        name = subject.format(f"user{number}")
        found += attempts(*(line.replace("CN=alice", name) for line in (BEGINS, LOOKS, KNOWN, GIVEN)))
    assert {one.key for one in found} == {f"user user{number}" for number in range(50)}


REFUSED_BY_EAP = (
    "16[IKE] <people|1> EAP method EAP_MD5 failed for peer bob",
    "16[ENC] <people|1> generating IKE_AUTH response 3 [ EAP/FAIL ]",
)


def test_a_login_that_eap_refuses_is_a_failure_at_once() -> None:
    """After `EAP/FAIL`, charon 5.9.8 destroys the IKE_SA and logs nothing more of it."""
    log = LoginLog()
    (attempt,) = attempts(BEGINS, LOOKS, EAP, *REFUSED_BY_EAP, log=log)
    assert (attempt.key, attempt.outcome) == ("source 10.77.0.11", LoginOutcome.AUTH_FAIL)
    assert list(log.give_up(200.0 + LONGEST)) == []


def test_a_name_behind_a_certificate_that_all_users_share_counts_once_eap_has_proven_it() -> None:
    """A connection may have two rounds: a certificate, and then EAP (RFC 4739)."""
    (attempt,) = attempts(BEGINS, LOOKS, KNOWN, EAP, *REFUSED_BY_EAP)
    assert (attempt.key, attempt.outcome) == ("source 10.77.0.11", LoginOutcome.AUTH_FAIL)
