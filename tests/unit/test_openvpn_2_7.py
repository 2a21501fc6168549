"""OpenVPN 2.7, which writes a protocol before each client's address: what a real 2.7.6 said.

Recorded from servers by `udp`, `tcp-server`, `udp6` and `tcp6-server`, with clients of 2.6.14 and 2.7.6.
"""

from datetime import timedelta
from ipaddress import ip_address

import pytest

from activities.drivers.daemon.openvpn.daemon import OpenVpn
from activities.drivers.daemon.openvpn.flows import held_in
from activities.drivers.daemon.openvpn.log import LoginLog
from activities.drivers.daemon.openvpn.sessions import clients_in
from policies.attempts import Attempt, LoginOutcome
from policies.attribution import End

HEADER = (
    "HEADER\tCLIENT_LIST\tCommon Name\tReal Address\tVirtual Address\tVirtual IPv6 Address\tBytes Received\t"
    "Bytes Sent\tConnected Since\tConnected Since (time_t)\tUsername\tClient ID\tPeer ID\tData Channel Cipher"
)
TITLE = "TITLE\tOpenVPN 2.7.6 [git:unknown/unknown] Linux [SSL (OpenSSL)] [EPOLL] [MH/PKTINFO] [AEAD] [DCO]"
LAST = (
    "HEADER\tROUTING_TABLE\tVirtual Address\tCommon Name\tReal Address\tLast Ref\tLast Ref (time_t)",
    "ROUTING_TABLE\t10.8.0.2\tbob\tudp4:10.77.0.11:41433\t2026-12-01 09:19:42\t1796116782",
    "GLOBAL_STATS\tMax bcast/mcast queue length\t1",
    "GLOBAL_STATS\tdco_enabled\t0",
)

LOG = """\
2026-12-01 09:19:42 us=732201 OpenVPN 2.7.6 [git:unknown/unknown] Linux [SSL (OpenSSL)] [EPOLL] [AEAD] [DCO]
2026-12-01 09:19:42 us=882584 MULTI: multi_create_instance called
2026-12-01 09:19:42 us=882640 udp4:10.77.0.11:41433 Re-using SSL/TLS context
2026-12-01 09:19:42 us=919238 udp4:10.77.0.11:41433 VERIFY OK: depth=0, CN=bob
2026-12-01 09:19:42 us=919627 udp4:10.77.0.11:41433 peer info: IV_VER=2.6.14
2026-12-01 09:19:42 us=925358 udp4:10.77.0.11:41433 [bob] Peer Connection Initiated with [AF_INET]10.77.0.11:41433
2026-12-01 09:19:42 us=925395 bob/udp4:10.77.0.11:41433 MULTI_sva: pool returned IPv4=10.8.0.2, IPv6=fd08::2
2026-12-01 09:19:42 us=925711 bob/udp4:10.77.0.11:41433 MULTI: primary virtual IP for bob/udp4:10.77.0.11:41433: 10.8.0.2
2026-12-01 09:20:13 us=157710 udp4:10.77.0.11:54019 VERIFY ERROR: depth=0, error=self-signed certificate: CN=eve, serial=480
2026-12-01 09:20:13 us=157793 udp4:10.77.0.11:54019 TLS_ERROR: BIO read tls_read_plaintext error
2026-12-01 09:20:13 us=157812 udp4:10.77.0.11:54019 TLS Error: TLS handshake failed
2026-12-01 09:20:13 us=157912 udp4:10.77.0.11:54019 SIGUSR1[soft,tls-error] received, client-instance restarting
2026-12-01 09:20:37 us=522789 bob/udp4:10.77.0.11:41433 SIGTERM[soft,delayed-exit] received, client-instance exiting
"""  # noqa: E501 - lines of a log
TCP6 = """\
2026-12-01 09:20:49 us=333296 TCP connection established with [AF_INET6]fd77::11:52792
2026-12-01 09:20:49 us=333400 tcp6-server:[fd77::11]:52792 MULTI: multi_create_instance called
2026-12-01 09:20:49 us=333413 tcp6-server:[fd77::11]:52792 Re-using SSL/TLS context
2026-12-01 09:20:49 us=370238 tcp6-server:[fd77::11]:52792 VERIFY OK: depth=0, CN=dave
2026-12-01 09:20:49 us=375358 tcp6-server:[fd77::11]:52792 [dave] Peer Connection Initiated with [AF_INET6]fd77::11:52792
2026-12-01 09:20:49 us=375711 dave/tcp6-server:[fd77::11]:52792 MULTI: primary virtual IP for dave/tcp6-server:[fd77::11]:52792: 10.9.0.3
"""  # noqa: E501
MOVES = """\
2026-12-01 09:20:49 us=333833 dave/udp6:[fd77::11]:52187 MULTI: primary virtual IP for dave/udp6:[fd77::11]:52187: 10.8.0.2
2026-12-01 09:20:49 us=365529 bob/udp6:10.77.0.11:47044 MULTI: primary virtual IP for bob/udp6:10.77.0.11:47044: 10.8.0.3
2026-12-01 09:20:53 us=529447 peer 0 (dave) floated from udp6:[AF_INET6][fd77::11]:52187 to udp6:[AF_INET6][fd77::12]:52187
2026-12-01 09:20:53 us=647802 peer 1 (bob) floated from udp6:[AF_INET6]10.77.0.11:47044 to udp6:[AF_INET6]10.77.0.12:47044
2026-12-01 09:20:58 us=790000 udp6:[fd77::12]:39780 VERIFY OK: depth=0, CN=dave
2026-12-01 09:20:58 us=810000 udp6:[fd77::12]:39780 [dave] Peer Connection Initiated with [AF_INET6]fd77::12:39780
2026-12-01 09:20:58 us=821542 MULTI: new connection by client 'dave' will cause previous active sessions by this client to be dropped.  Remember to use the --duplicate-cn option if you want multiple clients using the same certificate or username to concurrently connect.
2026-12-01 09:20:58 us=821728 MULTI: primary virtual IP for dave/udp6:[fd77::12]:39780: 10.8.0.2
"""  # noqa: E501


def client(real: str) -> str:
    return (
        f"CLIENT_LIST\tbob\t{real}\t10.8.0.2\tfd08::2\t3800\t3821\t2026-12-01 09:19:42\t1796116782\t"
        "UNDEF\t0\t0\tAES-256-GCM"
    )


def attempts(text: str) -> list[Attempt]:
    log = LoginLog()
    return [one for number, line in enumerate(text.splitlines()) for one in log.read(line, number / 10)]


@pytest.mark.parametrize(
    ("real", "address", "port"),
    [
        ("udp4:10.77.0.11:41433", "10.77.0.11", 41433),
        ("tcp4-server:10.77.0.11:34464", "10.77.0.11", 34464),
        ("udp6:[fd77::11]:52187", "fd77::11", 52187),
        ("udp6:10.77.0.11:47044", "10.77.0.11", 47044),
        ("tcp6-server:[fd77::11]:52792", "fd77::11", 52792),
        ("tcp6-server:10.77.0.11:54516", "10.77.0.11", 54516),
    ],
)
def test_a_clients_address_is_read_without_the_protocol_before_it(real: str, address: str, port: int) -> None:
    (row,) = clients_in([TITLE, HEADER, client(real), *LAST])
    assert (row.name, row.vpn_address) == ("bob", "10.8.0.2")
    assert (row.address, row.port) == (ip_address(address), port)


def test_logins_are_counted_with_their_users_seconds_and_outcomes() -> None:
    good, refused = attempts(LOG)
    assert (good.key, good.outcome) == ("user bob", LoginOutcome.OK)
    assert good.seconds == pytest.approx(0.3)
    assert (refused.key, refused.outcome) == ("source 10.77.0.11", LoginOutcome.AUTH_FAIL)
    (tcp,) = attempts(TCP6)
    assert (tcp.key, tcp.source) == ("user dave", "fd77::11")
    assert tcp.seconds == pytest.approx(0.3)


def test_its_own_version_is_known() -> None:
    log = LoginLog()
    assert list(log.read(LOG.splitlines()[0], 0.0)) == []
    assert log.version == "2.7.6"


def test_a_session_that_moves_or_is_dropped_for_a_new_one_of_its_user_is_followed() -> None:
    found = [(one.user, one.source, one.ended is None) for one in held_in("a", MOVES.splitlines())]
    assert found == [
        ("dave", End(ip_address("fd77::11"), 52187), False),
        ("bob", End(ip_address("10.77.0.11"), 47044), False),
        ("dave", End(ip_address("fd77::12"), 52187), False),
        ("bob", End(ip_address("10.77.0.12"), 47044), True),
        ("dave", End(ip_address("fd77::12"), 39780), True),
    ]


def test_a_session_ends_when_its_client_leaves() -> None:
    (one,) = held_in("a", LOG.splitlines())
    assert one.ended is not None
    assert one.ended - one.began == timedelta(seconds=55)


def test_names_are_found_where_they_are_hidden_in_snapshots() -> None:
    assert OpenVpn().names_in(LOG + TCP6 + MOVES) == {"bob", "dave", "eve"}


@pytest.mark.parametrize("name", ["udp4:", "udp4:10.77.0.9:1", "tcp6-server:x", "a/udp4:b"])
def test_a_users_name_that_reads_like_a_protocol_is_still_the_users(name: str) -> None:
    text = LOG.replace("[bob]", f"[{name}]").replace("CN=bob", f"CN={name}").replace("bob/", f"{name}/")
    assert attempts(text)[0].key == f"user {name}"
