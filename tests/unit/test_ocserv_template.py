"""A template of ocserv's configuration leaves to penstock what differs from slot to slot."""

from pathlib import Path

import pytest

from activities.drivers.daemon.ocserv.template import require_template
from activities.drivers.daemon.template import credentials_in
from policies.model.errors import BadInput
from tests.fakes.trees import SMALL_TEMPLATE

LAB = Path(__file__).parents[2] / "deploy/lab/ocserv.conf.template"


def refusal(text: str) -> str:
    with pytest.raises(BadInput) as refused:
        require_template(text, "vpn.template")
    return str(refused.value)


def test_the_templates_of_the_lab_and_of_tests_are_whole() -> None:
    for text in (LAB.read_text(), SMALL_TEMPLATE, SMALL_TEMPLATE.replace("$port", "${port}")):
        require_template(text, "vpn.template")


def test_every_setting_that_is_missing_is_named_with_the_line_that_mends_it() -> None:
    said = refusal("auth = pam\n# device = $device\nlog-level = 2\n")
    assert said.startswith("vpn.template is no template of ocserv's configuration: tcp-port is missing")
    for line in SMALL_TEMPLATE.splitlines()[:-1]:
        assert f"write `{line}`" in said


@pytest.mark.parametrize(
    ("line", "instead", "named"),
    [
        ("tcp-port = $port", "tcp-port = 443", "tcp-port says `443`, write `tcp-port = $port`"),
        ("device = $device", "device = vpns", "device says `vpns`"),
        ("$credential_key", "/etc/ssl/server.key", "server-key says `/etc/ssl/server.key`"),
        ("$run/occtl.sock", "$run/other.sock", "occtl-socket-file says `$run/other.sock`"),
        ("log-level = 2", "log-level = $level", "line 8: $level is none of $config, $device,"),
        ("log-level = 2", 'banner = "costs 5 $"', "line 8: a $ begins no placeholder, write $$"),
    ],
)
def test_what_is_wrong_is_quoted_with_its_line(line: str, instead: str, named: str) -> None:
    said = refusal(SMALL_TEMPLATE.replace(line, instead))
    assert named in said
    assert ";" not in said, "one thing is wrong"


def test_the_credentials_of_a_template_are_known_without_those_of_its_comments() -> None:
    assert credentials_in(LAB.read_text()) == {"users", "certificate", "key"}
    text = "# $credential_old\nauth = x[$credential_a,${credential_b_2}]\n$$credential_no\n"
    assert credentials_in(text) == {"a", "b_2"}


def test_a_key_may_stay_in_a_device() -> None:
    require_template(
        SMALL_TEMPLATE.replace("$credential_key", "pkcs11:token=vpn;object=server"), "vpn.template"
    )


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ("tcp-port = 443", "line 10: tcp-port says `443`, write `tcp-port = $port`"),
        (
            "ipv4-network = 10.200.0.0",
            "line 10: ipv4-network says `10.200.0.0`, write `ipv4-network = $pool4`",
        ),
        ("ipv4-network = $pool4/8", "line 10: ipv4-network says `$pool4/8`"),
        ("ipv4-netmask = 255.255.0.0", "line 10: ipv4-netmask says `255.255.0.0`"),
        ("server-key = /etc/ssl/gw.key", "line 10: server-key says `/etc/ssl/gw.key`"),
        ("device:vpns", "line 10: device says `vpns`"),
        ("socket-file = /run/s", "line 10: socket-file says `/run/s`"),
        ("udp-port = 443", "udp-port says `443`, write `udp-port = $port`"),
        ("ipv6-network = fd00::/64", "ipv6-network says `fd00::/64`, write `ipv6-network = $pool6`"),
        (
            "ipv6-network = $pool6\nipv6-prefix = 48",
            "line 11: ipv6-prefix is not for a template, leave it out",
        ),
        ("[vhost:a.example]\nipv4-network = 10.9.0.0/16", "line 11: ipv4-network says `10.9.0.0/16`"),
        ("use-occtl = true\nuse-occtl = false", "use-occtl says `false`, write `use-occtl = true`"),
        ("no value", "line 10 is no `key = value`"),
        ("route = 10.0.0.0/8\x0btcp-port = 1", "line 10: it has a character that shows nothing"),
    ],
)
def test_a_second_line_of_what_is_ours_is_refused_with_its_number(lines: str, named: str) -> None:
    """Case 14: ocserv takes the last line, so an instance would have another port or pool than its slot."""
    text = SMALL_TEMPLATE.rstrip("\n") + "\nkeepalive = 300\n" + lines + "\n"
    assert named in refusal(text)


def test_what_needs_no_second_line_is_taken() -> None:
    """Case 14: UDP may be left out by ocserv's own 0, and comments of both kinds have any placeholders."""
    more = "udp-port = 0\n; tcp-port = 1 costs 5 $\nipv6-network = $pool6\nroute = 10.0.0.0/8 # all\n"
    require_template("\ufeff" + SMALL_TEMPLATE.replace("\n", "\r\n") + more, "vpn.template")
    assert credentials_in(
        "; $credential_old\n# $secret_old\nserver-key = $credential_key\nx = $secret_a\n"
    ) == {
        "key",
        "a",
    }


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (
            'auth = "plain[passwd=/etc/ocserv/ocpasswd]"',
            "auth names /etc/ocserv/ocpasswd, write `$credential_users",
        ),
        ("enable-auth = plain[/etc/ocpasswd]", "enable-auth names /etc/ocpasswd"),
        ("auth = plain[passwd=$credential_users,otp=/etc/otp]", "auth names /etc/otp"),
        ("key-pin = 1234", "key-pin says `...`, write `key-pin = $secret_pin`"),
        ("pin-file = /etc/pin", "pin-file says `/etc/pin`, write `pin-file = $credential_pin`"),
        (
            "camouflage_secret = letmein",
            "camouflage_secret says `...`, write `camouflage_secret = $secret_cam",
        ),
    ],
)
def test_a_secret_in_a_template_is_refused_and_not_quoted(line: str, named: str) -> None:
    """Cases 16 and 18: a release is read by many."""
    said = refusal(f"{SMALL_TEMPLATE}\n{line}\n")
    assert named in said
    assert "1234" not in said
    assert "letmein" not in said


def test_a_limit_of_clients_that_no_plan_knows_is_refused() -> None:
    """R11, a fresh reader's F3: users beyond it find no room where the plan counts some."""
    said = refusal(f"{SMALL_TEMPLATE}max-clients = 128\n")
    assert "max-clients is 128, and a gateway's users are counted by its pool and its capacity" in said
    assert "write `max-clients = 0`" in said
    require_template(f"{SMALL_TEMPLATE}max-clients = 0\n", "vpn.template")
