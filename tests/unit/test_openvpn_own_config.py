"""What somebody's own OpenVPN configuration says of what must not be shared, and what would be lost."""

import pytest

from activities.drivers.daemon.openvpn.own_config import pools_of, read_own_config, transport_of
from policies.model.errors import BadInput

PLAIN = """\
port 1195
proto udp
dev tun
ca ca.crt
cert server.crt
key server.key
dh none
server 10.8.0.0 255.255.255.0
server-ipv6 fd08::/64
keepalive 10 120
push "route 10.99.0.0 255.255.255.0"
user nobody
management /run/openvpn-server/management.sock unix
<tls-crypt>
plugin of nobody
</tls-crypt>
"""


def test_a_plain_one_loses_nothing() -> None:
    own = read_own_config(PLAIN)
    assert (own.port, own.device, str(own.pool4), str(own.pool6)) == (1195, "tun", "10.8.0.0/24", "fd08::/64")
    assert (own.control, own.answers, own.user) == ("/run/openvpn-server/management.sock", True, "nobody")
    assert own.left_behind == ()


def test_a_key_of_tokens_is_a_credential_of_the_template() -> None:
    assert read_own_config(f"{PLAIN}auth-gen-token-secret token.key\n").left_behind == ()


def test_one_that_says_no_port_has_openvpns_own() -> None:
    assert read_own_config(PLAIN.replace("port 1195\n", "")).port == 1194


@pytest.mark.parametrize(
    ("line", "control"),
    [
        ("", None),
        ("management 127.0.0.1 7505", "127.0.0.1:7505"),
        ("management localhost 7505", "127.0.0.1:7505"),
    ],
)
def test_how_it_is_asked(line: str, control: str | None) -> None:
    own = read_own_config(PLAIN.replace("management /run/openvpn-server/management.sock unix", line))
    assert (own.control, own.answers) == (control, control is not None)


@pytest.mark.parametrize(
    "line",
    [
        "plugin /usr/lib/openvpn/openvpn-plugin-auth-pam.so login",
        "client-connect up.sh",
        "client-config-dir ccd",
        "ifconfig-pool-persist ipp.txt",
        "local 192.0.2.1",
        "port-share 127.0.0.1 443",
        "tmp-dir /var/tmp/openvpn",
        "askpass pass.txt",
        "replay-persist replay",
        "management-client-auth",
    ],
)
def test_what_leads_to_something_of_this_host_is_named_with_its_line(line: str) -> None:
    """Relative files and what answers logins too: a fresh reader's F19 and F20."""
    (lost,) = read_own_config(PLAIN + line + "\n").left_behind
    assert (lost.number, lost.key) == (17, line.partition(" ")[0])


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ("dev tun", "dev tap", "line 3: dev is tap: only devices of type tun"),
        ("dev tun", "dev tun-of-users", "longer than the 8"),
        ("port 1195", "port vpn", "line 1: port is vpn"),
        ("server 10.8.0.0 255.255.255.0", "mode server", "no `server NETWORK NETMASK`"),
        ("server 10.8.0.0 255.255.255.0", "server 10.8.0.0 255.0.255.0", "line 8: server: "),
        ("dh none", "config more.conf", "line 7: config brings lines"),
        (
            "/management.sock unix",
            "/management.sock unix /etc/openvpn/password",
            "without a file of a password",
        ),
        (
            "management /run/openvpn-server/management.sock unix",
            "management 192.0.2.1 7505",
            "is none that is asked",
        ),
    ],
)
def test_what_cannot_be_adopted_is_told_by_its_line(before: str, after: str, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        read_own_config(PLAIN.replace(before, after, 1))


@pytest.mark.parametrize(
    "lines",
    [
        "ifconfig-ipv6 fd90:77::1/64 fd90:77::2\nifconfig-ipv6-pool fd90:77::1000/64",
        "ifconfig-ipv6 fd90:77::1/64 fd90:77::2\nifconfig-ipv6-pool fd90:77::1000/80",
        "ifconfig-ipv6-pool fd90:77::1000/112\nifconfig-ipv6 fd90:77::1/64 fd90:77::2",
        "ifconfig-ipv6 fd90:77::1/64 fd90:77::2",
    ],
)
def test_an_ipv6_pool_that_is_spelt_out_is_the_daemons_pool(lines: str) -> None:
    """Reader of the third round, 5: no slot beside it may have the same, and nobody saw it."""
    text = PLAIN.replace("server-ipv6 fd08::/64", lines)
    own = read_own_config(text)
    assert str(own.pool6) == "fd90:77::/64"
    assert [str(pool) for pool in pools_of(text)] == ["10.8.0.0/24", "fd90:77::/64"]
    assert own.left_behind == ()


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (
            "ifconfig-ipv6 fd90:77::1/64 fd90:77::2\nifconfig-ipv6-pool fd90:78::1000/64",
            "line 9: ifconfig-ipv6 fd90:77::/64 is not within fd90:78::/64 of ifconfig-ipv6-pool; write",
        ),
        ("ifconfig-ipv6-pool vpn6", "line 9: ifconfig-ipv6-pool: "),
    ],
)
def test_ipv6_pools_that_are_not_one_are_told_by_their_line(lines: str, why: str) -> None:
    with pytest.raises(BadInput) as refused:
        read_own_config(PLAIN.replace("server-ipv6 fd08::/64", lines))
    assert why in str(refused.value)


def test_an_ipv4_pool_that_is_spelt_out_is_not_adopted() -> None:
    """Beside `server`, it is within that network: OpenVPN lets no other address through."""
    spelt = "mode server\nifconfig 10.8.0.1 255.255.255.0\nifconfig-pool 10.8.0.2 10.8.0.254 255.255.255.0"
    with pytest.raises(BadInput, match="no `server NETWORK NETMASK`"):
        read_own_config(PLAIN.replace("server 10.8.0.0 255.255.255.0", spelt))
    beside = "server 10.8.0.0 255.255.255.0 nopool\nifconfig-pool 10.8.0.128 10.8.0.254"
    assert str(read_own_config(PLAIN.replace("server 10.8.0.0 255.255.255.0", beside)).pool4) == "10.8.0.0/24"


def test_comments_begin_wherever_a_word_could() -> None:
    """Case 24: nearly every tutorial has them behind its options."""
    text = (
        "port 1194 # users\nproto udp ; transport\ndev tun # device\nserver 10.8.0.0 255.255.255.0 # pool\n"
        "management /run/a.sock unix;no\nmanagement /run/b#b.sock unix\n"
    )
    own = read_own_config(text)
    assert (own.port, own.device, str(own.pool4)) == (1194, "tun", "10.8.0.0/24")
    assert own.control == "/run/b#b.sock"


def test_words_end_at_white_space_of_any_kind_and_quotes_keep_it() -> None:
    """Case 25: tabs, both quotes, backslashes, carriage returns, a byte order mark."""
    text = (
        "\ufeffport\t1195\r\n--proto\tudp\r\n\tdev  'tun'\r\nserver\t10.8.0.0\t\"255.255.255.0\"\r\n"
        'management "/run/a b.sock" unix\r\nmanagement /run/a\\ c.sock unix\r\n'
    )
    own = read_own_config(text)
    assert (own.port, own.device, str(own.pool4)) == (1195, "tun", "10.8.0.0/24")
    assert own.control == "/run/a c.sock"


def test_of_an_option_that_stands_twice_the_last_line_counts() -> None:
    """Case 07's kind: `port` and `lport` are one setting."""
    own = read_own_config(f"lport 1\n{PLAIN}port 2\nserver 10.9.0.0 255.255.0.0\nsetenv opt dev tun9\n")
    assert (own.port, str(own.pool4), own.device) == (2, "10.9.0.0/16", "tun9")
    assert [str(pool) for pool in pools_of(f"{PLAIN}server 10.9.0.0 255.255.0.0\n")] == [
        "10.9.0.0/16",
        "fd08::/64",
    ]
    assert transport_of(f"{PLAIN}proto tcp-server # now\n") == "tcp"
