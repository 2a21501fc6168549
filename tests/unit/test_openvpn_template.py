"""What a template of OpenVPN's configuration must leave to penstock."""

from pathlib import Path

import pytest

from activities.drivers.daemon.openvpn.template import options_of, require_template
from activities.drivers.daemon.template import credentials_in
from policies.model.errors import BadInput

LAB = (Path(__file__).parents[2] / "deploy/lab/openvpn.conf.template").read_text()


def test_the_labs_own_template_leaves_everything_to_penstock() -> None:
    require_template(LAB, "openvpn.conf.template")
    assert credentials_in(LAB) == {"authority", "certificate", "key"}


@pytest.mark.parametrize(
    ("line", "instead", "said"),
    [
        ("port $port", "port 1194", "port says `1194`, write `port $port`"),
        ("dev $device", "", "dev is missing, write `dev $device`"),
        ("server $pool4 $netmask4", "server $pool4 255.255.255.0", "server says `$pool4 255.255.255.0`"),
        (
            "management $run/management.sock unix",
            "management 127.0.0.1 7505",
            "management says `127.0.0.1 7505`, write `management $run/management.sock unix`",
        ),
        ("key $credential_key", "key /etc/openvpn/server.key", "key says `/etc/openvpn/server.key`"),
        ("verb 4", "log-append /var/log/openvpn.log", "log-append is not for a template, leave it out"),
        ("proto udp", "proto tcp-server", "explicit-exit-notify is for UDP, leave it out over TCP"),
        ("proto udp", "proto tcp6", "explicit-exit-notify is for UDP"),
        ("verb 4", "verb $verbosity", "$verbosity is none of"),
        ("verb 4", "verb 4$", "a $ begins no placeholder, write $$ for a dollar"),
    ],
)
def test_what_is_not_left_to_penstock_is_named_with_the_line_that_mends_it(
    line: str, instead: str, said: str
) -> None:
    assert line in LAB
    with pytest.raises(BadInput) as refused:
        require_template(LAB.replace(line, instead), "corp.template")
    assert str(refused.value).startswith("corp.template is no template of OpenVPN's configuration: ")
    assert said in str(refused.value)


def test_comments_and_inline_files_are_no_options() -> None:
    text = (
        '; port 1\n# dev tun9\n--port 2\n<tls-crypt>\nport 3\n</tls-crypt>\npush "route 10.0.0.0 255.0.0.0"\n'
    )
    assert list(options_of(text)) == [("port", "2"), ("push", '"route 10.0.0.0 255.0.0.0"')]
