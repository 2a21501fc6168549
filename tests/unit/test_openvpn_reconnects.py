"""OpenVPN's log when a user comes back before the gateway notices that the connection broke.

Measured with 2.6.14: a client is killed by SIGKILL, and one with the same certificate comes four seconds
later. Once OpenVPN has dropped the previous session, lines have no prefix of a client until the next packet.
"""

import pytest

from activities.drivers.daemon.openvpn.flows import held_in
from activities.drivers.daemon.openvpn.log import LoginLog
from policies.attempts import Attempt, FirstAttempts, LoginOutcome

DAY = "2026-11-29"
FIRST = """\
22:11:31 198.51.100.7:34209 VERIFY OK: depth=0, CN=ana
22:11:31 198.51.100.7:34209 [ana] Peer Connection Initiated with [AF_INET]198.51.100.7:34209
22:11:31 ana/198.51.100.7:34209 MULTI_sva: pool returned IPv4=10.66.0.2, IPv6=(Not enabled)
22:11:31 ana/198.51.100.7:34209 MULTI: Learn: 10.66.0.2 -> ana/198.51.100.7:34209
22:11:31 ana/198.51.100.7:34209 MULTI: primary virtual IP for ana/198.51.100.7:34209: 10.66.0.2
"""
AGAIN = """\
23:11:35 203.0.113.9:33601 VERIFY OK: depth=0, CN=ana
23:11:35 203.0.113.9:33601 [ana] Peer Connection Initiated with [AF_INET]203.0.113.9:33601
23:11:35 MULTI: new connection by client 'ana' will cause previous active sessions by this client to be \
dropped.  Remember to use the --duplicate-cn option if you want multiple clients using the same certificate \
or username to concurrently connect.
23:11:35 MULTI_sva: pool returned IPv4=10.66.0.2, IPv6=(Not enabled)
23:11:35 MULTI: Learn: 10.66.0.2 -> ana/203.0.113.9:33601
23:11:35 MULTI: primary virtual IP for ana/203.0.113.9:33601: 10.66.0.2
23:11:35 SENT CONTROL [ana]: 'PUSH_REPLY,route-gateway 10.66.0.1,topology subnet' (status=1)
23:11:36 ana/203.0.113.9:33601 Data Channel: cipher 'AES-256-GCM', peer-id: 0
"""


def lines(text: str) -> list[str]:
    return [f"{DAY} {line}" for line in text.splitlines()]


def attempts(text: str, at: float = 0.0) -> list[Attempt]:
    log = LoginLog()
    found = [one for line in lines(text) for one in log.read(line, at)]
    return [*found, *log.give_up(at + 200)]


def test_a_user_who_comes_back_before_the_old_session_is_noticed_to_be_dead_has_logged_in() -> None:
    """It was given up after two minutes as a timeout: a bad first attempt for each such reconnect."""
    assert [(one.key, one.outcome) for one in attempts(FIRST + AGAIN)] == [
        ("user ana", LoginOutcome.OK),
        ("user ana", LoginOutcome.OK),
    ]


def test_a_user_who_comes_back_and_gets_an_address_outside_of_the_pool_has_not_logged_in() -> None:
    outside = (
        "23:11:35 MULTI ERROR: primary virtual IP for ana/203.0.113.9:33601 (10.8.0.50) violates tunnel "
        "network/netmask constraint (10.66.0.0/255.255.255.0)\n"
    )
    given = "23:11:35 MULTI: primary virtual IP for"
    text = FIRST + AGAIN.replace(given, outside + given)
    assert [one.outcome for one in attempts(text)] == [LoginOutcome.OK, LoginOutcome.INTERNAL]


def test_a_name_that_reads_like_such_a_line_ends_the_login_of_no_other_user() -> None:
    """A user chooses what stands behind the name in `peer info`, when keys are made anew."""
    begun = "".join(AGAIN.splitlines(keepends=True)[:2])
    forged = (
        "23:11:36 MULTI: primary virtual IP for ana/192.0.2.1:7 peer info: U=/203.0.113.9:33601: 10.66.0.2\n"
    )
    assert [one.outcome for one in attempts(FIRST + begun + forged)] == [
        LoginOutcome.OK,
        LoginOutcome.TIMEOUT,
    ]
    assert len(list(held_in("a", lines(FIRST + begun + forged)))) == 1


def test_packets_are_those_of_the_new_session_of_a_user_who_came_back_from_elsewhere() -> None:
    """The new session was missing, and the dropped one held the address for ever."""
    held = sorted(held_in("a", lines(FIRST + AGAIN)), key=lambda one: one.began)
    assert [(one.user, str(one.source), one.ended is None) for one in held] == [
        ("ana", "198.51.100.7:34209", False),
        ("ana", "203.0.113.9:33601", True),
    ]
    assert held[0].ended == held[1].began


def test_a_user_who_comes_back_ends_no_session_of_another_user() -> None:
    other = FIRST.replace("ana", "bob").replace("34209", "40000").replace("10.66.0.2", "10.66.0.3")
    held = {one.user: one.ended for one in held_in("a", lines(other + AGAIN))}
    assert held == {"ana": None, "bob": None}


CHALLENGE = """\
22:10:32 198.51.100.7:56386 VERIFY OK: depth=0, CN=ana
22:10:32 198.51.100.7:56386 TLS Auth Error: Auth Username/Password verification failed for peer
22:10:32 198.51.100.7:56386 SENT CONTROL [ana]: 'AUTH_FAILED,CRV1:R,E:st8:YW5h:Enter the code' (status=1)
22:10:37 198.51.100.7:56386 SIGTERM[soft,delayed-exit] received, client-instance exiting
"""
GOOD = """\
22:10:45 198.51.100.7:45142 VERIFY OK: depth=0, CN=ana
22:10:45 198.51.100.7:45142 TLS: Username/Password authentication succeeded for username 'ana'
22:10:45 198.51.100.7:45142 [ana] Peer Connection Initiated with [AF_INET]198.51.100.7:45142
22:10:45 ana/198.51.100.7:45142 MULTI: primary virtual IP for ana/198.51.100.7:45142: 10.66.0.2
"""
WRONG = """\
22:10:45 198.51.100.7:45142 VERIFY OK: depth=0, CN=ana
22:10:45 198.51.100.7:45142 TLS Auth Error: Auth Username/Password verification failed for peer
22:10:45 198.51.100.7:45142 SENT CONTROL [ana]: 'AUTH_FAILED' (status=1)
22:10:50 198.51.100.7:45142 SIGTERM[soft,delayed-exit] received, client-instance exiting
"""


@pytest.mark.parametrize(("answer", "outcome"), [(GOOD, LoginOutcome.OK), (WRONG, LoginOutcome.AUTH_FAIL)])
def test_a_user_whom_openvpn_asks_for_a_second_factor_counts_by_the_answer(
    answer: str, outcome: LoginOutcome
) -> None:
    """OpenVPN asks by AUTH_FAILED,CRV1 (management-notes.txt): each user's first attempt was a failure."""
    first = FirstAttempts()
    counted = [one for one in attempts(CHALLENGE + answer) if first.counts(one)]
    assert [one.outcome for one in counted] == [outcome]


@pytest.mark.parametrize("asked", [CHALLENGE, "".join(CHALLENGE.splitlines(keepends=True)[:3])])
def test_a_second_factor_that_a_user_does_not_give_is_no_attempt(asked: str) -> None:
    """Neither where the gateway ends the session nor where its end is not in the log."""
    assert attempts(asked) == []


def test_a_refusal_that_follows_a_question_on_the_same_connection_counts() -> None:
    """A client of one port answers before OpenVPN has let go of the session that asked."""
    asked = "".join(CHALLENGE.splitlines(keepends=True)[:3])
    text = asked + WRONG.replace("45142", "56386")
    assert [one.outcome for one in attempts(text)] == [LoginOutcome.AUTH_FAIL]
