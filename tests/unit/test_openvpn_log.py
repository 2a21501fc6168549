"""What OpenVPN's log says about logins, in the words of a real one (2.6.14)."""

import pytest
from hypothesis import given, strategies

from activities.drivers.daemon.openvpn.daemon import OpenVpn
from activities.drivers.daemon.openvpn.log import LONGEST, MOST_OPEN, LoginLog
from policies.attempts import Attempt, FirstAttempts, LoginOutcome

FLOW = "10.77.0.11:40432"
BEGINS = f"2026-11-26 12:16:44 {FLOW} TLS: Initial packet from [AF_INET]{FLOW}, sid=df827ef5 ae8d16ee"
VERIFIED = f"2026-11-26 12:16:44 {FLOW} VERIFY OK: depth=0, CN=alice"
CONNECTED = f"2026-11-26 12:16:44 {FLOW} [alice] Peer Connection Initiated with [AF_INET]{FLOW}"
GIVEN = f"2026-11-26 12:16:44 alice/{FLOW} MULTI: primary virtual IP for alice/{FLOW}: 10.90.0.2"
FAILED = f"2026-11-26 12:16:45 {FLOW} TLS Error: TLS handshake failed"
NOT_OURS = (
    f"2026-11-26 12:16:45 {FLOW} VERIFY ERROR: depth=0, error=unable to get local issuer certificate: "
    "CN=eve, serial=7"
)
LATE = (
    f"2026-11-26 12:17:45 {FLOW} TLS Error: TLS key negotiation failed to occur within 60 seconds "
    "(check your network connectivity)"
)
UNREADABLE = f"2026-11-26 12:16:45 {FLOW} TLS_ERROR: BIO read tls_read_plaintext error"
ENDED = f"2026-11-26 12:16:45 {FLOW} SIGUSR1[soft,tls-error] received, client-instance restarting"


def attempts(*lines: str, log: LoginLog | None = None, timed: bool = True) -> list[Attempt]:
    log = log or LoginLog()
    found = list[Attempt]()
    for number, line in enumerate(lines):
        found += log.read(line, 100.0 + number / 10, timed=timed)
    return found


def test_a_login_counts_when_its_client_got_an_address_and_takes_until_it_was_accepted() -> None:
    (attempt,) = attempts(BEGINS, VERIFIED, CONNECTED, GIVEN)
    assert (attempt.key, attempt.outcome) == ("user alice", LoginOutcome.OK)
    assert attempt.seconds is not None
    assert abs(attempt.seconds - 0.2) < 1e-6


def test_a_server_of_2_6_tells_logins_with_verb_3_but_not_how_long_they_took() -> None:
    (attempt,) = attempts(VERIFIED, CONNECTED, GIVEN)
    assert (attempt.key, attempt.outcome, attempt.seconds) == ("user alice", LoginOutcome.OK, None)
    (refused,) = attempts(NOT_OURS, FAILED, ENDED)
    assert (refused.key, refused.outcome) == ("source 10.77.0.11", LoginOutcome.AUTH_FAIL)


def test_a_server_of_2_6_with_verb_4_tells_how_long_a_login_took() -> None:
    stamp = "2026-11-26 16:56:47 us=277685 "
    begins = f"{stamp}{FLOW} Re-using SSL/TLS context"
    (attempt,) = attempts(begins, VERIFIED.replace("2026-11-26 12:16:44 ", stamp), CONNECTED, GIVEN)
    assert attempt.seconds is not None
    assert abs(attempt.seconds - 0.2) < 1e-6


OUTSIDE = (
    f"2026-11-26 12:16:44 alice/{FLOW} MULTI ERROR: primary virtual IP for alice/{FLOW} (10.8.0.50) violates "
    "tunnel network/netmask constraint (10.90.0.0/255.255.255.0)"
)


def test_a_login_that_is_given_an_address_outside_of_the_pool_is_a_failed_one() -> None:
    """Reader of the third round, 2: OpenVPN lets it in, and nothing goes through its tunnel."""
    log = LoginLog()
    (attempt,) = attempts(BEGINS, VERIFIED, CONNECTED, OUTSIDE, GIVEN, log=log)
    assert (attempt.key, attempt.outcome, attempt.seconds) == ("user alice", LoginOutcome.INTERNAL, None)
    assert list(log.give_up(200.0 + LONGEST)) == []


def test_a_login_without_a_certificate_outside_of_the_pool_is_one_failed_attempt() -> None:
    outside = OUTSIDE.partition(" MULTI")[2].replace(f"alice/{FLOW}", FLOW)
    log = LoginLog()
    (attempt,) = attempts(BEGINS, TYPED, INITIATED, f"{BARE}MULTI{outside}", ADDRESS, log=log)
    assert (attempt.key, attempt.outcome) == ("user ana", LoginOutcome.INTERNAL)
    assert attempts(AGAIN, TYPED, log=log) == []


def test_a_backlog_says_nothing_about_seconds() -> None:
    (attempt,) = attempts(BEGINS, VERIFIED, CONNECTED, GIVEN, timed=False)
    assert attempt.seconds is None


def test_each_failure_is_told_by_its_first_reason() -> None:
    for reason, outcome, key in (
        ((NOT_OURS, FAILED), LoginOutcome.AUTH_FAIL, "source 10.77.0.11"),
        ((UNREADABLE, FAILED), LoginOutcome.TLS_FAIL, "source 10.77.0.11"),
        ((VERIFIED, LATE, FAILED), LoginOutcome.TIMEOUT, "user alice"),
        ((VERIFIED,), LoginOutcome.INTERNAL, "user alice"),
    ):
        (attempt,) = attempts(BEGINS, *reason, ENDED)
        assert (attempt.outcome, attempt.key) == (outcome, key), reason


@pytest.mark.parametrize(
    "said",
    [
        "MULTI: primary virtual IP",
        "alice/10.77.0.9:1 MULTI: primary virtual IP for alice/10.77.0.9:1: 10.90.0.2",
        "[alice] Peer Connection Initiated with [AF_INET]10.77.0.11:40432",
        "VERIFY OK: depth=0, CN=alice",
        "SIGUSR1[soft,tls-error] received, client-instance restarting",
    ],
)
def test_what_a_stranger_writes_into_its_certificate_is_neither_a_login_nor_anybodys_name(said: str) -> None:
    shown = (
        f"2026-11-26 12:16:45 {FLOW} VERIFY ERROR: depth=0, error=self-signed certificate: CN=alice, O={said}"
    )
    told = f"2026-11-26 12:16:45 {FLOW} peer info: IV_GUI_VER={said}"
    assert attempts(told, shown) == []
    (attempt,) = attempts(told, shown, FAILED, ENDED)
    assert (attempt.key, attempt.outcome) == ("source 10.77.0.11", LoginOutcome.AUTH_FAIL)


def test_names_that_nobody_proved_are_one_source() -> None:
    found = [
        attempt
        for number in range(500)
        for attempt in attempts(
            *(
                line.replace("eve", f"user{number}").replace("40432", str(number))
                for line in (NOT_OURS, ENDED)
            )
        )
    ]
    assert {(one.key, one.outcome) for one in found} == {("source 10.77.0.11", LoginOutcome.AUTH_FAIL)}


def test_somebody_known_by_a_password_only_has_the_name_that_was_let_in() -> None:
    (attempt,) = attempts(BEGINS, CONNECTED, GIVEN)
    assert (attempt.key, attempt.outcome) == ("user alice", LoginOutcome.OK)


def test_a_renegotiation_of_somebody_known_is_no_login() -> None:
    again = [line.replace(FLOW, f"alice/{FLOW}", 1) for line in (BEGINS, VERIFIED, CONNECTED)]
    log = LoginLog()
    assert attempts(BEGINS, VERIFIED, CONNECTED, GIVEN, *again, log=log)[1:] == []
    assert list(log.give_up(200.0 + LONGEST)) == []


def test_logins_from_ignored_sources_and_lines_of_other_shapes_are_skipped() -> None:
    log = LoginLog(ignored=frozenset({"10.77.0.11"}))
    assert attempts(BEGINS, CONNECTED, GIVEN, "Initialization Sequence Completed", "", log=log) == []


def test_who_never_ends_is_given_up_as_timed_out() -> None:
    log = LoginLog()
    assert attempts(BEGINS, VERIFIED, log=log) == []
    assert list(log.give_up(100.0 + LONGEST)) == []
    (attempt,) = log.give_up(101.0 + LONGEST)
    assert attempt.outcome is LoginOutcome.TIMEOUT


def test_a_first_packet_from_an_invented_address_is_no_attempt() -> None:
    log, found = LoginLog(), list[Attempt]()
    for number in range(30):
        begins, late, failed, ended = (
            line.replace("10.77.0.11", f"198.51.100.{number}") for line in (BEGINS, LATE, FAILED, ENDED)
        )
        found += attempts(begins, log=log) if number % 2 else attempts(begins, late, failed, ended, log=log)
    assert found + list(log.give_up(101.0 + LONGEST)) == []


def test_a_login_is_seen_behind_any_number_of_invented_first_packets() -> None:
    log = LoginLog()
    for number in range(MOST_OPEN + 10):
        flow = f"198.51.{number // 250}.{number % 250}:4000"
        assert attempts(BEGINS.replace(FLOW, flow), log=log) == []
    (attempt,) = attempts(BEGINS, VERIFIED, CONNECTED, GIVEN, log=log)
    assert (attempt.key, attempt.outcome) == ("user alice", LoginOutcome.OK)
    assert attempt.seconds is not None


def test_the_daemons_version_is_known_once_it_has_said_it() -> None:
    log = LoginLog()
    attempts("2026-11-26 12:16:43 OpenVPN 2.6.14 x86_64-pc-linux-gnu [SSL (OpenSSL)] [LZO]", log=log)
    assert log.version == "2.6.14"


STAMPS = (
    "",
    "2026-11-26 12:16:45 ",
    "2026-11-26 16:56:47 us=277685 ",
    "2026-11-26T12:16:45+00:00 gw-1 openvpn[71]: ",
)
NAMES = strategies.text(
    strategies.characters(exclude_characters=",/", exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1
).filter(lambda name: name == name.rstrip())
"""Names as lines show them: a space at a line's end is not told from one at the end of its name."""


@pytest.mark.parametrize("name", ["John Smith", "Anna Maria Smith", "J. O'Neill (sales)", "a/b c"])
def test_a_name_of_several_words_is_a_user(name: str) -> None:
    lines = [line.replace("alice", name) for line in (BEGINS, VERIFIED, CONNECTED, GIVEN)]
    (attempt,) = attempts(*lines)
    assert (attempt.key, attempt.outcome) == (f"user {name}", LoginOutcome.OK)


@given(NAMES, strategies.sampled_from(STAMPS))
def test_whoever_is_named_in_the_log_is_known_by_the_whole_name(name: str, stamp: str) -> None:
    for said in (
        f"{stamp}{name}/{FLOW} MULTI: Learn: 10.90.0.2 -> {name}/{FLOW}",
        f"{stamp}{FLOW} VERIFY ERROR: depth=0, error=self-signed: O=x, CN={name}, O=y/1.2.3.4:5 z",
        f"{stamp}{FLOW} VERIFY OK: depth=0, CN={name}",
        f"{stamp}[fd77::2]:4000 [{name}] Peer Connection Initiated with [AF_INET6][fd77::2]:4000",
        f"{stamp}{FLOW} TLS: Username/Password authentication failed for username '{name}'",
    ):
        assert name in OpenVpn().names_in(f"one\n{said}\nanother"), said


# --- clients without certificates -----------------------------------------------------------

BARE = f"2026-11-28 22:35:28 us=203290 {FLOW} "
TYPED = f"{BARE}TLS: Username/Password authentication succeeded for username 'ana' "
INITIATED = f"{BARE}[] Peer Connection Initiated with [AF_INET]{FLOW}"
ADDRESS = f"{BARE}MULTI: primary virtual IP for {FLOW}: 10.9.0.2"
WRONG = f"{BARE}TLS Auth Error: Auth Username/Password verification failed for peer"
LEAVES = f"{BARE}SIGTERM[soft,remote-exit] received, client-instance exiting"
AGAIN = f"{BARE}TLS: soft reset sec=3412/3412 bytes=9/-1 pkts=9/0"


def test_a_login_without_a_certificate_is_one_attempt_of_the_user_who_typed_the_name() -> None:
    """Case 20: such a client has no common name, and its lines begin with its address for ever."""
    log = LoginLog()
    (attempt,) = attempts(BEGINS, TYPED, INITIATED, ADDRESS, log=log)
    assert (attempt.key, attempt.outcome) == ("user ana", LoginOutcome.OK)
    assert attempt.seconds is not None
    assert list(log.give_up(200.0 + LONGEST)) == []


@pytest.mark.parametrize("name", ["ana", "o'hara", "maier, anna", "x' [CN SET]", "a/10.0.0.1:1 b"])
@pytest.mark.parametrize("how", ["succeeded", "deferred"])
@pytest.mark.parametrize("end", [" ", " [CN SET]"])
def test_a_typed_name_is_the_user_whatever_characters_it_has(name: str, how: str, end: str) -> None:
    """Case 20: also where a plugin answers later."""
    typed = f"{BARE}TLS: Username/Password authentication {how} for username '{name}'{end}"
    (attempt,) = attempts(BEGINS, typed, INITIATED, ADDRESS)
    assert attempt.key == f"user {name}"


def test_a_name_counts_only_once_its_password_is_right() -> None:
    """Case 20: a client that guesses fails as its address, whatever name it types."""
    deferred = TYPED.replace("succeeded", "deferred")
    for said in ((WRONG,), (deferred, f"{BARE}SENT CONTROL [UNDEF]: 'AUTH_FAILED' (status=1)")):
        (attempt,) = attempts(BEGINS, *said, INITIATED, LEAVES)
        assert (attempt.key, attempt.outcome) == ("source 10.77.0.11", LoginOutcome.AUTH_FAIL)


def test_new_keys_of_a_session_without_a_certificate_are_no_login() -> None:
    """Case 20: an hour later the same lines come again, from a session that lives."""
    log = LoginLog()
    attempts(TYPED, INITIATED, ADDRESS, log=log)
    assert attempts(AGAIN, TYPED, log=log) == []
    assert attempts(TYPED, log=log) == []
    moved = "10.77.0.99:7"
    floated = f"{BARE}peer 0 (UNDEF) floated from {FLOW} to [AF_INET]{moved}"
    assert attempts(floated, TYPED.replace(FLOW, moved), LEAVES.replace(FLOW, moved), log=log) == []
    assert attempts(TYPED, INITIATED, ADDRESS, log=log) != [], "it has left, and is back"
    assert list(log.give_up(200.0 + LONGEST)) == []


def test_new_keys_of_a_session_that_began_before_the_log_was_read_are_no_login() -> None:
    """Case 20: an exporter that begins in the middle of a log counts no living session as a failure."""
    log = LoginLog()
    assert attempts(AGAIN, TYPED, log=log) == []
    assert list(log.give_up(200.0 + LONGEST)) == []


def test_sessions_without_a_certificate_end_with_their_instance() -> None:
    """Case 20: after a crash of the daemon the same address logs in, and that counts."""
    log = LoginLog()
    attempts(TYPED, INITIATED, ADDRESS, "2026-11-28 22:40:00 OpenVPN 2.6.14 x86_64-pc-linux-gnu", log=log)
    assert [one.key for one in attempts(TYPED, INITIATED, ADDRESS, log=log)] == ["user ana"]


def test_a_client_without_certificate_and_name_is_its_address() -> None:
    """Case 20: `auth-user-pass-optional` lets in clients that type nothing."""
    (attempt,) = attempts(BEGINS, INITIATED, ADDRESS)
    assert (attempt.key, attempt.outcome) == ("source 10.77.0.11", LoginOutcome.OK)


# --- names ---------------------------------------------------------------------------------


@pytest.mark.parametrize("subject", ["O=Firm, CN={}", "CN={}", "C=US, CN={}, emailAddress=a@b.example"])
def test_users_of_one_surname_are_two_users(subject: str) -> None:
    """Case 21: names as "surname, given name"."""
    found = []
    for name, port in (("Maier, Anna", 401), ("Maier, Bert", 402)):
        end = f"192.0.2.1:{port}"
        found += attempts(
            f"{end} TLS: Initial packet from [AF_INET]{end}, sid=aa bb",
            f"{end} VERIFY OK: depth=0, {subject.format(name)}",
            f"{end} [{name}] Peer Connection Initiated with [AF_INET]{end}",
            f"{name}/{end} MULTI: primary virtual IP for {name}/{end}: 10.9.0.1",
        )
    assert [one.key for one in found] == ["user Maier, Anna", "user Maier, Bert"]


def test_a_name_that_looks_like_two_attributes_is_the_whole_one_in_brackets() -> None:
    """Case 21: the subject alone does not say where such a name ends."""
    name = "Maier, O=Firm"
    proven, accepted = VERIFIED.replace("alice", name), CONNECTED.replace("alice", name)
    (attempt,) = attempts(proven, accepted, GIVEN.replace("alice", name))
    assert attempt.key == f"user {name}"


def test_a_log_shows_no_part_of_a_name_with_a_comma() -> None:
    """Case 21: a snapshot replaces the names that are found, each as a whole."""
    said = f"2026-11-26 12:16:45 {FLOW} VERIFY ERROR: depth=0, error=old: O=Firm, CN=Maier, Anna, serial=7"
    assert OpenVpn().names_in(said) == {"Maier, Anna"}


# --- one certificate for all users, and directories ------------------------------------------


def of_a_shared_certificate(
    user: str, port: int, *, let_in: bool = True, names_user: bool = True
) -> list[str]:
    """Return the lines of a user who shows the certificate that all users have, and types a name."""
    end = f"192.0.2.{port % 250 + 1}:{port}"
    verified = f"{end} VERIFY OK: depth=0, CN=client"
    if not let_in:
        return [
            verified,
            f"{end} TLS Auth Error: Auth Username/Password verification failed for peer",
            f"{end} [client] Peer Connection Initiated with [AF_INET]{end}",
            f"{end} SENT CONTROL [client]: 'AUTH_FAILED' (status=1)",
            f"{end} SIGTERM[soft,delayed-exit] received, client-instance exiting",
        ]
    name, mark = (user, "[CN SET]") if names_user else ("client", "")
    return [
        verified,
        f"{end} TLS: Username/Password authentication succeeded for username '{user}' {mark}",
        f"{end} [{name}] Peer Connection Initiated with [AF_INET]{end}",
        f"{name}/{end} MULTI: primary virtual IP for {name}/{end}: 10.9.0.2",
    ]


@pytest.mark.parametrize("names_user", [True, False], ids=["username-as-common-name", "duplicate-cn"])
def test_users_who_share_a_certificate_and_type_their_names_are_so_many_users(*, names_user: bool) -> None:
    lines = [
        line
        for number in range(50)
        for line in of_a_shared_certificate(f"user{number}", 4000 + number, names_user=names_user)
    ]
    found = attempts(*lines)
    assert len({one.key for one in found}) == 50
    assert {one.outcome for one in found} == {LoginOutcome.OK}


@pytest.mark.parametrize("names_user", [True, False], ids=["username-as-common-name", "duplicate-cn"])
def test_one_good_login_with_a_shared_certificate_hides_no_refused_ones(*, names_user: bool) -> None:
    lines = of_a_shared_certificate("ana", 4000, names_user=names_user)
    for number in range(1, 50):
        lines += of_a_shared_certificate("", 4000 + number, let_in=False)
    first = FirstAttempts()
    counted = [one.outcome for one in attempts(*lines) if first.counts(one)]
    assert counted == [LoginOutcome.OK, *[LoginOutcome.AUTH_FAIL] * 49]


def test_logins_with_a_shared_certificate_that_end_before_a_name_are_their_addresses() -> None:
    lines = of_a_shared_certificate("ana", 4000)
    for number in range(1, 50):
        end = f"192.0.2.{number + 1}:4000"
        lines += [VERIFIED.replace("alice", "client").replace(FLOW, end), LATE.replace(FLOW, end)]
        lines.append(ENDED.replace(FLOW, end))
    first = FirstAttempts()
    counted = [one.outcome for one in attempts(*lines) if first.counts(one)]
    assert counted == [LoginOutcome.OK, *[LoginOutcome.TIMEOUT] * 49]


def test_a_user_with_one_name_in_certificate_and_login_is_called_by_it_once() -> None:
    (attempt,) = attempts(BEGINS, VERIFIED, TYPED.replace("ana", "alice"), CONNECTED, GIVEN)
    assert attempt.key == "user alice"


@pytest.mark.parametrize("subject", ["DC=com, DC=corp, CN=Users, CN={}", "DC=corp, CN=Users, CN={}, O=Firm"])
def test_users_of_a_directory_are_so_many_users(subject: str) -> None:
    """AD CS writes the user's place in the directory, and OpenVPN takes the last common name of it."""
    found = []
    for number in range(50):
        proven = VERIFIED.replace("CN=alice", subject.format(f"user{number}"))
        found += attempts(proven, LATE, ENDED)
    assert {one.key for one in found} == {f"user user{number}" for number in range(50)}
    said = NOT_OURS.replace("CN=eve", subject.format("ana"))
    assert "ana" in OpenVpn().names_in(said)


# --- tokens --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "refusal",
    [
        ("TLS: Username/auth-token authentication failed for username 'ana'", "AUTH_FAILED"),
        (
            "TLS Auth Error: Auth Username/Password verification failed for peer",
            "AUTH_FAILED,SESSION: expired",
        ),
    ],
)
def test_a_login_whose_token_is_refused_is_no_attempt_and_the_one_with_the_password_is(
    refusal: tuple[str, str],
) -> None:
    """A user who comes over from an instance with another key of tokens, in the words of OpenVPN 2.6.14."""
    said, sent = refusal
    old, new = "192.0.2.1:47168", "192.0.2.1:35377"
    log = LoginLog()
    found = attempts(
        f"{old} {said}",
        f"{old} SENT CONTROL [UNDEF]: '{sent}' (status=1)",
        f"{old} SENT CONTROL [UNDEF]: '{sent}' (status=1)",
        f"{old} Peer Connection Initiated with [AF_INET]{old}",
        *(line.replace(FLOW, new) for line in (TYPED, INITIATED, ADDRESS)),
        f"{old} SIGTERM[soft,delayed-exit] received, client-instance exiting",
        log=log,
    )
    assert [(one.key, one.outcome) for one in found] == [("user ana", LoginOutcome.OK)]
    refused = (f"{old} {said}", f"{old} SENT CONTROL [UNDEF]: '{sent}' (status=1)", WRONG, LEAVES)
    assert [one.outcome for one in attempts(*refused, log=log)] == [LoginOutcome.AUTH_FAIL]


# --- OpenVPN 2.4 ---------------------------------------------------------------------------


@pytest.mark.parametrize("stamp", ["Mon Apr 27 13:00:20 2020 us=790264 ", "Mon Apr  6 13:00:20 2020 "])
def test_a_login_in_the_log_of_a_2_4_counts(stamp: str) -> None:
    """Case 22: it writes its times as ctime(3) does."""
    log = LoginLog()
    said = (line.removeprefix("2026-11-26 12:16:44 ") for line in (BEGINS, VERIFIED, CONNECTED, GIVEN))
    version = f"{stamp}OpenVPN 2.4.9 x86_64-redhat-linux-gnu [SSL (OpenSSL)]"
    (attempt,) = attempts(version, *(f"{stamp}{line}" for line in said), log=log)
    assert (attempt.key, attempt.outcome, log.version) == ("user alice", LoginOutcome.OK, "2.4.9")
    assert attempt.seconds is not None
    assert OpenVpn().names_in(f"{stamp}bob/{FLOW} MULTI: bad source address") == {"bob"}
