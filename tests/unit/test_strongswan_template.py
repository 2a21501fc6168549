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


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            "charon {\n plugins {\n vici {\n socket = unix:///run/charon.vici\n }\n }\n}",
            "charon.plugins.vici.socket says `unix:///run/charon.vici`, write `unix://$run/charon.vici`",
        ),
        (
            "pools {\n more {\n addrs = 10.9.0.0/24\n }\n}",
            "pools.more.addrs says `10.9.0.0/24`, write `$users4`",
        ),
        ("secrets {\n private_b {\n file = b.key\n }\n}", "secrets.private_b.file says `b.key`"),
        (
            "secrets {\n ike-a {\n secret = letmein\n }\n}",
            "secrets.ike-a.secret says `...`, write `$secret_NAME`",
        ),
        ("secrets {\n eap-ana {\n secret = letmein\n }\n}", "secrets.eap-ana.secret says `...`"),
        ("secrets {\n token {\n pin = letmein\n }\n}", "secrets.token.pin says `...`"),
        ("secrets {\n pkcs12-a {\n file = a.p12\n }\n}", "secrets.pkcs12-a.file says `...`"),
    ],
)
def test_a_second_line_of_what_is_ours_and_a_secret_are_refused(lines: str, said: str) -> None:
    """Cases 14 and 16, of strongSwan: the last line counts, and a release is read by many."""
    with pytest.raises(BadInput) as refused:
        require_template(f"{LAB}{lines}\n", "corp.template")
    assert said in str(refused.value)
    assert "letmein" not in str(refused.value)


def test_a_secret_that_a_gateway_gives_is_taken() -> None:
    """Case 16: `$secret_NAME` is filled with what is in a credential itself."""
    secret = "secrets {\n ike-a {\n secret = $secret_shared\n }\n}\n"
    text = LAB + secret + "pools {\n v6 {\n addrs = $pool6\n }\n}\n"
    require_template(text, "corp.template")
    assert "shared" in credentials_in(text)
