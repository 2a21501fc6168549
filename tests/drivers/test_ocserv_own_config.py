"""ocserv.conf as people have it: what is read from it, and what no slot can take over."""

from contextlib import suppress
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities.drivers.daemon.ocserv.own_config import read_own_config
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
dns = 192.168.1.1
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


@given(st.text(max_size=400))
def test_whatever_a_file_says_it_is_read_or_refused_in_one_sentence(text: str) -> None:
    for content in (text, PLAIN + text):
        with suppress(BadInput):
            assert read_own_config(content).pool4.num_addresses > 1
