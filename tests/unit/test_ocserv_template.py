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
