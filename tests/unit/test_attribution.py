"""Whose flow it is: the words of nginx 1.22 and of OpenVPN 2.6.14, and what both tell together."""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from hypothesis import given as whatever
from hypothesis import strategies as st

from activities.drivers.daemon.openvpn.flows import held_in
from activities.drivers.steering.nginx_log import carried_in
from policies.attribution import Carried, End, Held, attributed

AT = datetime(2026, 11, 26, 20, 43, 27, tzinfo=UTC)
PROXY, ALICE = ip_address("10.77.0.16"), End(ip_address("203.0.113.7"), 51382)
SOURCE, LATER = End(PROXY, 34035), End(PROXY, 36020)


def stamp(seconds: float = 0) -> str:
    return f"{(AT + timedelta(seconds=seconds)).astimezone():%Y/%m/%d %H:%M:%S}"


def begins(number: int, client: str, source: str, seconds: float = 0, worker: int = 12374) -> list[str]:
    head = f"{stamp(seconds)} [info] {worker}#{worker}: *{number} udp"
    return [
        f"{head} client {client} connected to 0.0.0.0:1194",
        f"{head} proxy {source} connected to 10.77.0.1:1194",
    ]


def openvpn(what: str, seconds: float = 0) -> str:
    return f"{AT + timedelta(seconds=seconds):%Y-%m-%d %H:%M:%S} us=277685 {what}"


def given(source: str = "10.77.0.16:34035", seconds: float = 0) -> str:
    return openvpn(f"alice/{source} MULTI: primary virtual IP for alice/{source}: 10.90.0.2", seconds)


def held(seconds: float = 0, source: End = SOURCE, *, until: float | None = None) -> Held:
    ended = None if until is None else AT + timedelta(seconds=until)
    return Held("a", "alice", source, "10.90.0.2", AT + timedelta(seconds=seconds), ended)


def test_a_flow_is_known_from_its_first_packet_on() -> None:
    assert carried_in(begins(1, "203.0.113.7:51382", "10.77.0.16:34035")) == [Carried(ALICE, SOURCE, AT)]


def test_lines_that_came_by_syslog_say_the_same() -> None:
    lines = [
        f"Nov 26 20:43:27 proxy nginx: {one}" for one in begins(1, "203.0.113.7:51382", "10.77.0.16:34035")
    ]
    assert carried_in(lines) == [Carried(ALICE, SOURCE, AT)]


def test_the_access_log_has_the_end_of_a_flow_and_so_has_the_error_log() -> None:
    begun = begins(1, "203.0.113.7:51382", "10.77.0.16:34035")
    at = AT + timedelta(seconds=9)
    access = f"{at.timestamp():.3f} 12374 1 UDP 203.0.113.7 51382 10.77.0.1:1194 9.003 200"
    error = f"{stamp(9)} [info] 12374#12374: *1 udp timed out, packets from/to client:3/3"
    for ends in (access, error):
        assert carried_in([*begun, ends]) == [Carried(ALICE, SOURCE, AT, at)]
    assert carried_in([access]) == []


def test_an_nginx_that_was_started_anew_gives_its_numbers_again_to_others() -> None:
    lines = [
        *begins(1, "203.0.113.7:51382", "10.77.0.16:34035"),
        *begins(1, "203.0.113.8:40000", "10.77.0.16:36020", 60),
    ]
    assert [str(one.client) for one in carried_in(lines)] == ["203.0.113.7:51382", "203.0.113.8:40000"]


def test_a_session_lives_from_its_address_until_its_client_leaves() -> None:
    leaves = openvpn("alice/10.77.0.16:34035 SIGTERM[soft,remote-exit] received, client-instance exiting", 9)
    assert list(held_in("a", [given()])) == [held()]
    assert list(held_in("a", [given(), leaves])) == [held(until=9)]


def test_a_session_that_goes_on_from_elsewhere_is_the_same_users() -> None:
    floated = openvpn(
        "peer 0 (alice) floated from 10.77.0.16:34035 to [AF_INET]10.77.0.16:36020 (via 10.77.0.1%br0)", 5
    )
    assert list(held_in("a", [given(), floated])) == [held(until=5), held(5, LATER)]


@whatever(
    st.one_of(
        st.sampled_from(
            [
                "peer 1 (x) floated from 1.1.1.1:1 to 2.2.2.2:2",
                "peer 1 (x) floated from 10.77.0.16:34035 to 9.9.9.9:9999999",
                "eve/10.77.0.16:34035 SIGTERM[soft,remote-exit] received, client-instance exiting",
                "eve/10.77.0.16:34036 MULTI: primary virtual IP for eve/10.77.0.16:34036: 10.90.0.9",
            ]
        ),
        st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1),
    )
)
def test_what_somebody_calls_itself_before_it_is_let_in_says_nothing_of_any_session(name: str) -> None:
    typed = [
        openvpn(f"203.0.113.9:4000 {what}")
        for what in (
            f"TLS: Username/Password authentication failed for username '{name}'",
            f"VERIFY ERROR: depth=0, error=self-signed certificate: CN={name}",
            f"peer info: UV_NAME={name}",
        )
    ]
    assert list(held_in("a", [given(), *typed])) == [held()]


def test_a_float_of_somebody_with_a_hostile_name_is_that_of_its_own_places() -> None:
    name = "x) floated from 1.1.1.1:1 to 2.2.2.2:2"
    floated = openvpn(f"peer 0 ({name}) floated from 10.77.0.16:34035 to [AF_INET]10.77.0.16:36020", 5)
    assert list(held_in("a", [given(), floated])) == [held(until=5), held(5, LATER)]


@whatever(
    st.text(st.characters(exclude_characters="/", exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1)
)
def test_a_session_is_that_of_the_whole_name(name: str) -> None:
    end = "10.77.0.16:34035"
    line = openvpn(f"{name}/{end} MULTI: primary virtual IP for {name}/{end}: 10.90.0.2")
    assert [one.user for one in held_in("a", [line])] == [name]


def test_a_flow_whose_ends_cannot_be_read_hides_no_other() -> None:
    head = f"{stamp()} [info] 12374#12374: *7"
    hostile = [
        f"{head} client unix: connected to 0.0.0.0:1194",
        f"{head} proxy unix: connected to 10.77.0.1:1",
    ]
    lines = [*hostile, *begins(1, "203.0.113.7:51382", "10.77.0.16:34035")]
    assert carried_in(lines) == [Carried(ALICE, SOURCE, AT)]


def test_nobody_outlives_the_instance() -> None:
    anew = openvpn("OpenVPN 2.6.14 x86_64-pc-linux-gnu [SSL (OpenSSL)]", 30)
    assert list(held_in("a", [given(), anew])) == [held(until=30)]


def test_a_port_that_a_proxy_gives_again_is_its_new_users_then() -> None:
    other = End(ip_address("203.0.113.8"), 40000)
    flows = [
        Carried(ALICE, SOURCE, AT, AT + timedelta(seconds=60)),
        Carried(other, SOURCE, AT + timedelta(seconds=600)),
    ]
    found = attributed([held(), held(601)], flows, {PROXY})
    assert [one.client for one in found] == [ALICE, other]


def test_who_came_through_no_proxy_is_known_and_who_came_through_one_without_a_record_is_not() -> None:
    direct = held(source=ALICE)
    assert [one.client for one in attributed([direct, held()], [], {PROXY})] == [ALICE, None]


def test_a_session_without_a_certificate_is_that_of_the_name_that_was_typed() -> None:
    """Case 19: its lines have no name before the address, from the login to the end."""
    end = "10.77.0.16:34035"
    lines = [
        openvpn(f"{end} TLS: Username/Password authentication succeeded for username 'alice' "),
        openvpn(f"{end} MULTI: primary virtual IP for {end}: 10.90.0.2"),
        openvpn(f"peer 0 (UNDEF) floated from {end} to [AF_INET]10.77.0.16:36020", 5),
        openvpn("10.77.0.16:36020 SIGTERM[soft,remote-exit] received, client-instance exiting", 9),
    ]
    assert list(held_in("a", lines)) == [held(until=5), held(5, LATER, until=9)]


def test_the_sessions_of_an_openvpn_2_4_are_in_its_log() -> None:
    """Case 22: it writes its times as ctime(3) does."""
    line = f"{AT:%a %b %d %H:%M:%S %Y} us=277685 {given().partition(' us=277685 ')[2]}"
    assert list(held_in("a", [line])) == [held()]
