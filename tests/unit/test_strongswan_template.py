"""What a template of charon's configuration must leave to penstock."""

from pathlib import Path

import pytest

from activities.drivers.daemon.strongswan.template import options_of, require_template
from activities.drivers.daemon.template import credentials_in
from policies.model.errors import BadInput

LAB = (Path(__file__).parents[2] / "deploy/lab/strongswan.conf.template").read_text()


def test_the_labs_own_template_leaves_everything_to_penstock() -> None:
    require_template(LAB, "strongswan.conf.template")
    assert credentials_in(LAB) == {"authority", "authority_legacy", "certificate", "key"}


@pytest.mark.parametrize(
    ("line", "instead", "said"),
    [
        (
            "socket = unix://$run/charon.vici",
            "socket = unix:///run/charon.vici",
            "charon.plugins.vici.socket says `unix:///run/charon.vici`, write `unix://$run/charon.vici`",
        ),
        ("ike_name = yes", "", "charon.filelog.stderr.ike_name is missing, write `yes`"),
        ("addrs = $users4", "addrs = 10.90.0.0/24", "pools.*.addrs says `10.90.0.0/24`, write `$users4`"),
        (
            "file = $credential_key",
            "file = gateway.key",
            "secrets.private*.file says `gateway.key`, write `$credential_key`",
        ),
        ("    load = /usr/sbin/swanctl", "    load = /bin/true", "charon.start-scripts.* says `/bin/true"),
        ("  filelog {", "  port = 5000\n  filelog {", "charon.port is not for a template, leave it out"),
        ("dpd_delay = 30s", "dpd_delay = $delay", "$delay is none of"),
        ("dpd_delay = 30s", "dpd_delay = 30s$", "a $ begins no placeholder, write $$ for a dollar"),
    ],
)
def test_what_is_not_left_to_penstock_is_named_with_what_mends_it(line: str, instead: str, said: str) -> None:
    assert line in LAB
    with pytest.raises(BadInput) as refused:
        require_template(LAB.replace(line, instead), "corp.template")
    assert str(refused.value).startswith("corp.template is no template of charon's configuration: ")
    assert said in str(refused.value)


def test_options_are_told_by_the_path_of_their_sections_however_they_are_written() -> None:
    text = (
        "# charon { port = 1 }\n"
        "include strongswan.d/*.conf\n"
        'a { b\n{ c = "d e" # f\n g = CN=h, O=i } }\n'
        "j = k\n"
        "l { m { } n = o }\n"
    )
    assert list(options_of(text)) == [
        ("a.b.c", "d e"),
        ("a.b.g", "CN=h, O=i"),
        ("j", "k"),
        ("l.n", "o"),
    ]
