"""ocserv.conf as people have it: what is read from it, and what no slot can take over."""

from contextlib import suppress
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.drivers.daemon.ocserv.own_config import pools_of, read_own_config
from policies.model.errors import BadInput

PLAIN = """\
# written by hand
auth = "plain[passwd=/etc/ocserv/passwd]"
tcp-port = 443
udp-port = 443
device = vpns
ipv4-network = 192.168.1.0
ipv4-netmask = 255.255.255.128
use-occtl = true
occtl-socket-file = /run/own.socket
route = 10.0.0.0/8
dns = 10.0.0.53
"""


def test_what_must_not_be_shared_is_read_and_a_plain_configuration_loses_nothing() -> None:
    own = read_own_config(PLAIN)
    assert (own.port, own.device, own.control, own.answers) == (443, "vpns", "/run/own.socket", True)
    assert (own.pool4, own.pool6) == (ip_network("192.168.1.0/25"), None)
    assert own.left_behind == ()


@pytest.mark.parametrize(
    ("line", "key", "why"),
    [
        ("connect-script = /usr/bin/up", "connect-script", "/usr/bin/up is a file of this host"),
        ("config-per-user = /etc/ocserv/users/", "config-per-user", "is a file of this host"),
        ("enable-auth = pam", "enable-auth", "pam asks something of this host"),
        ("acct = radius[config=/etc/radius.conf]", "acct", "radius asks something of this host"),
        ("listen-proxy-proto = true", "listen-proxy-proto", "nothing that would speak the proxy protocol"),
        ("some-new-key = true", "some-new-key", "a template is not known to take it over"),
        ("[vhost:www.example.com]\nauth = pam", "[vhost:www.example.com]", "a section"),
    ],
)
def test_a_line_that_no_slot_can_take_over_is_named_with_its_number(line: str, key: str, why: str) -> None:
    [lost] = read_own_config(f"{PLAIN}{line}\n").left_behind
    assert (lost.number, lost.key) == (12, key)
    assert why in lost.reason


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("tcp-port = 443", "tcp-port = https", "line 3: tcp-port is https"),
        ("tcp-port = 443", "tcp-port = 70000", "line 3: tcp-port is 70000"),
        ("tcp-port = 443\n", "", "it has no tcp-port"),
        ("device = vpns", "device = averylongone", "line 5: averylongone is longer"),
        ("192.168.1.0\n", "somewhere\n", "line 6: ipv4-network"),
        ("255.255.255.128", "255.255.255.255", "line 6: 192.168.1.0/32 has no addresses"),
        ("use-occtl = true", "use-occtl", "line 8 is no `key = value`"),
    ],
)
def test_a_configuration_that_says_too_little_is_refused_by_its_line(
    before: str, after: str, said: str
) -> None:
    with pytest.raises(BadInput, match=said):
        read_own_config(PLAIN.replace(before, after))


def test_one_whose_daemon_nobody_may_ask_says_so() -> None:
    assert not read_own_config(PLAIN.replace("use-occtl = true", "use-occtl = false")).answers
    assert not read_own_config(PLAIN.replace("use-occtl = true\n", "")).answers


def test_of_a_key_that_stands_twice_the_last_line_counts() -> None:
    """Case 07: an entry point appends lines, and the sample's own are still above."""
    text = PLAIN + "# appended\ntcp-port = 5443\nipv4-network = 10.2.0.0/16\ndevice = vpnz\nuse-occtl = no\n"
    own = read_own_config(text)
    assert (own.port, own.device, own.answers, str(own.pool4)) == (5443, "vpnz", False, "10.2.0.0/16")
    assert [str(pool) for pool in pools_of(text)] == ["10.2.0.0/16"]


def test_lines_of_a_section_are_none_of_the_gateways_own() -> None:
    """Case 07's kind: a virtual host below has a pool of its own."""
    own = read_own_config(f"{PLAIN}[vhost:www.example.com]\nipv4-network = 10.2.0.0/16\ntcp-port = 4443\n")
    assert (own.port, str(own.pool4)) == (443, "192.168.1.0/25")


@pytest.mark.parametrize(
    "comment",
    [
        "; radius later",
        "  # radius later",
        "\t; tcp-port = 1",
        "tcp-port = 443 # users",
        "tcp-port = 443 ; users",
    ],
)
def test_comments_are_those_of_ocserv(comment: str) -> None:
    """Case 08: `;` begins a comment line; behind a value only ` #` does, and a number ends before `;`."""
    own = read_own_config(PLAIN + comment + "\n")
    assert (own.port, own.left_behind) == (443, ())


def test_quotes_colons_tabs_and_a_byte_order_mark_are_read_as_ocserv_does() -> None:
    """Case 08's kind: what editors of other systems write."""
    text = PLAIN.replace("tcp-port = 443", 'tcp-port:"443"').replace("device = vpns", 'device\t=\t"vpns"')
    own = read_own_config("\ufeff" + text.replace("\n", "\r\n"))
    assert (own.port, own.device, own.control) == (443, "vpns", "/run/own.socket")


def test_an_indented_line_goes_on_with_the_key_before_it() -> None:
    """Case 08's kind: ocserv takes it for one more value, whatever it looks like."""
    with pytest.raises(BadInput, match=r"line 4: tcp-port is udp-port = 443, which is no port"):
        read_own_config(PLAIN.replace("udp-port", "  udp-port"))


@pytest.mark.parametrize(
    ("lines", "pool"),
    [
        ("ipv6-network = fd00:1::\nipv6-prefix = 64", "fd00:1::/64"),
        ("ipv6-prefix = 64\nipv6-network = fd00:1::", "fd00:1::/64"),
        ("ipv6-network = fd00:1::/64\nipv6-prefix = 112", "fd00:1::/112"),
        ("ipv6-prefix = 112\nipv6-network = fd00:1::/64", "fd00:1::/64"),
    ],
)
def test_the_length_of_the_ipv6_pool_may_have_a_line_of_its_own(lines: str, pool: str) -> None:
    """Case 10: the syntax of 0.8 to 0.11, which 1.x takes too."""
    own = read_own_config(f"{PLAIN}{lines}\n")
    assert str(own.pool6) == pool
    assert own.left_behind == ()


def test_an_ipv6_pool_without_a_length_is_refused_as_ocserv_does() -> None:
    """Case 10: it is no pool of one address."""
    with pytest.raises(
        BadInput, match=r"line 12: ipv6-network has no length; write `ipv6-network = fd00:1::/LE"
    ):
        read_own_config(f"{PLAIN}ipv6-network = fd00:1::\n")


@pytest.mark.parametrize(
    "auth",
    [
        '"plain[/etc/ocserv/ocpasswd]"',
        "plain[./ocpasswd]",
        "plain[ passwd = /etc/ocpasswd ]",
        "PLAIN[passwd=/a]",
    ],
)
def test_a_list_of_users_is_one_however_it_is_written(auth: str) -> None:
    """Case 11: `plain[/path]` is the format of 0.8, which 1.1.6 still reads."""
    assert read_own_config(PLAIN.replace('"plain[passwd=/etc/ocserv/passwd]"', auth)).left_behind == ()


@pytest.mark.parametrize("auth", ["plain[passwd=/a,otp=/b]", "pam", "radius[/etc/radcli.conf]"])
def test_what_asks_more_than_a_list_of_users_stays_behind(auth: str) -> None:
    """Case 11: the other way round."""
    [lost] = read_own_config(PLAIN.replace('"plain[passwd=/etc/ocserv/passwd]"', auth)).left_behind
    assert lost.key == "auth"


@given(st.text(max_size=400))
def test_whatever_a_file_says_it_is_read_or_refused_in_one_sentence(text: str) -> None:
    for content in (text, PLAIN + text):
        with suppress(BadInput):
            assert read_own_config(content).pool4.num_addresses > 1


@pytest.mark.parametrize(
    "line",
    [
        "cookie-validity = 300",
        "listen-host-is-dyndns = true",
        "resolve-hostnames = false",
        "session-control = true",
    ],
)
def test_what_a_template_may_say_word_for_word_is_not_left_behind(line: str) -> None:
    """R11, a fresh reader's F18."""
    assert read_own_config(f"{PLAIN}{line}\n").left_behind == ()


def test_logging_in_by_certificate_asks_nothing_of_a_host() -> None:
    """R11, a fresh reader's F18."""
    said = PLAIN.replace('"plain[passwd=/etc/ocserv/passwd]"', '"certificate"')
    assert read_own_config(said).left_behind == ()
