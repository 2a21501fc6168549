"""What a template of charon's configuration must leave to penstock."""

from pathlib import Path

import pytest

from activities.drivers.daemon.strongswan.secrets import filled_whole
from activities.drivers.daemon.strongswan.settings import options_of
from activities.drivers.daemon.strongswan.template import require_template
from activities.drivers.daemon.template import credentials_in
from activities.drivers.runtime.host.chroot import Chroot
from policies.model.errors import BadInput
from tests.drivers.gateway_lab import gateway

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
        ("include", "strongswan.d/*.conf"),
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
        ("secrets {\n eap-ana {\n secret = {letmein\n }\n}", "secrets.eap-ana.secret says `...`"),
        ("secrets {\n eap-ana {\n secret = vpn{letmein 7 # x\n }\n}", "secrets.eap-ana.secret says `...`"),
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


@pytest.mark.parametrize(
    ("line", "instead", "said"),
    [
        (
            "pools = people",
            "pools = people, radius",
            "connections.people.pools names radius, whose addresses",
        ),
        ("pools = people", "pools = dhcp", "connections.people.pools names dhcp"),
        ("pools = people", 'pools = "people, of-a-database"', "names of-a-database"),
        ("connections {\n", "base {\n pools = radius\n}\nconnections {\n", "base.pools names radius"),
        (
            "    pools = people",
            " pools = x\n}}\nbase {\naddrs = 10.9.0.0/24\n}\npools { x : base {\n}}\nconnections { people {",
            "connections.people.pools names x",
        ),
        (
            "  plugins {",
            "  plugins {\n attr {\n address = 10.9.0.7\n }\n",
            "charon.plugins.attr.address is not",
        ),
        ("  plugins {", "  plugins {\n attr {\n 1 = 10.9.0.7\n }\n", "charon.plugins.attr.1 is not"),
    ],
)
def test_a_pool_that_is_not_of_the_slot_is_refused_where_a_connection_names_it(
    line: str, instead: str, said: str
) -> None:
    """Reader of the third round, 1, 2 and 5, of strongSwan: each slot has a pool of its own."""
    assert line in LAB
    text = LAB.replace(line, instead, 1)
    with pytest.raises(BadInput) as refused:
        require_template(text, "corp.template")
    assert said in str(refused.value)


def in_plugins(text: str) -> str:
    return f"charon {{\n plugins {{\n {text}\n }}\n}}\n"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            in_plugins("eap-radius {\n secret = letmein\n server = 192.0.2.7\n }"),
            "charon.plugins.eap-radius.secret says `...`, write `$secret_NAME`",
        ),
        (
            in_plugins("eap-radius {\n servers { a { address = 192.0.2.7\n secret = letmein\n } }\n }"),
            "charon.plugins.eap-radius.servers.a.secret says `...`, write `$secret_NAME`",
        ),
        (in_plugins("ha {\n secret = letmein\n }"), "charon.plugins.ha.secret says `...`"),
        (
            in_plugins("sql {\n database = mysql://vpn:letmein@db.example/ipsec\n }"),
            "charon.plugins.sql.database has a password in its address, write `$secret_NAME` there",
        ),
        ("charon.plugins.ha.secret = letmein\n", "charon.plugins.ha.secret says `...`"),
        (
            "secrets {\n eap-ana.maria {\n secret = letmein\n }\n}\n",
            "secrets.eap-ana.maria.secret says `...`",
        ),
        (
            "secrets {\n rsa.a {\n file = a.key\n }\n}\n",
            "rsa.a.file says `...`, write `$credential_NAME`",
        ),
        ("include /etc/swanctl/*.conf\n", "include /etc/swanctl/*.conf brings options that nobody signed"),
        ("secrets {\n include more.conf\n}\n", "include more.conf brings options that nobody signed"),
        ('include "more.conf"\n', "include more.conf brings options that nobody signed"),
    ],
)
def test_a_secret_is_refused_wherever_it_stands_and_so_is_what_nobody_signed(lines: str, said: str) -> None:
    """R11, a fresh reader's F6."""
    with pytest.raises(BadInput) as refused:
        require_template(f"{LAB}{lines}", "corp.template")
    assert said in str(refused.value)
    assert "letmein" not in str(refused.value)


@pytest.mark.parametrize(
    "lines",
    [
        in_plugins("eap-radius {\n secret = $secret_radius\n server = 192.0.2.7\n }"),
        in_plugins("sql {\n database = mysql://vpn:$secret_db@db.example/ipsec\n }"),
        in_plugins("sql {\n database = sqlite:///etc/ipsec.db\n }"),
        in_plugins("eap-radius {\n xauth {\n a {\n password = Enter your password:\n }\n }\n }"),
    ],
)
def test_secrets_that_a_gateway_gives_are_taken_wherever_they_stand(lines: str) -> None:
    """R11, a fresh reader's F6."""
    require_template(f"{LAB}{lines}", "corp.template")


FIRST = "    version = 2\n"
WHY = "write `version = 2`: logins by IKEv1 are not counted, so no gate would see a release that breaks them"
UNSAID = f"has no `version`, {WHY}"


@pytest.mark.parametrize(
    ("line", "instead", "said"),
    [
        (FIRST, "", f"connections.people {UNSAID}"),
        (FIRST, "    version = 0\n", f"connections.people says `version = 0`, {WHY}"),
        (FIRST, "    version = 1\n", f"connections.people says `version = 1`, {WHY}"),
        (FIRST, f"{FIRST}    version = 1\n", f"connections.people says `version = 1`, {WHY}"),
        ("connections {\n", "connections {\n  routers {\n  }\n", f"connections.routers {UNSAID}"),
        (
            "connections {\n",
            "base {\n version = 1\n}\nconnections {\n  routers : base {\n  }\n",
            f"connections.routers {UNSAID}",
        ),
        ("connections {\n", "connections.old.pools = people\nconnections {\n", f"connections.old {UNSAID}"),
        (
            "connections {\n",
            "more { old { version = 1\n }}\nconnections : more {\n",
            "`connections : more` takes connections from another section, write them out",
        ),
    ],
)
def test_a_connection_that_answers_ikev1_is_refused_since_its_logins_are_not_counted(
    line: str, instead: str, said: str
) -> None:
    """A release that broke IKEv1 showed in no gate, and a fleet of IKEv1 alone was always held."""
    assert line in LAB
    with pytest.raises(BadInput) as refused:
        require_template(LAB.replace(line, instead, 1), "corp.template")
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        (FIRST, '    version = "2"\n'),
        (
            "  people {\n",
            "  sites : connections.people { version=2\n }\n  people {\n",
        ),
        ("connections {\n", "connections.sites.version = 2\nconnections {\n"),
    ],
)
def test_a_connection_of_ikev2_is_taken_however_it_is_written(line: str, instead: str) -> None:
    assert line in LAB
    require_template(LAB.replace(line, instead, 1), "corp.template")


STDERR = "    stderr {\n"
LOGGED = "and logins are counted by the log"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (f"{STDERR} enc = 0\n", f"charon.filelog.stderr.enc says `0`, {LOGGED}: write `enc = 1`"),
        (f"{STDERR} cfg = -1\n", f"charon.filelog.stderr.cfg says `-1`, {LOGGED}: write `cfg = 1`"),
        (f"{STDERR} ike = 0\n", "charon.filelog.stderr.ike says `0`"),
        (f"{STDERR} job = 0\n", "charon.filelog.stderr.job says `0`"),
        (f"{STDERR} dmn = 0\n", "charon.filelog.stderr.dmn says `0`"),
        (f"{STDERR} enc = 2\n enc = 0\n", "charon.filelog.stderr.enc says `0`"),
        (f"{STDERR} path = /var/log/charon.log\n", "path says `/var/log/charon.log`, where logins are not"),
        (f"{STDERR} json = yes\n", "charon.filelog.stderr.json says `yes`, and logins are not counted"),
        (f"{STDERR} time_format = [%T]\n", "charon.filelog.stderr.time_format has a bracket"),
        ("    stderr : quiet {\n", "`charon.filelog.stderr : quiet` takes options from another section"),
    ],
)
def test_a_log_without_what_is_counted_is_refused_by_name(lines: str, said: str) -> None:
    """charon ran with it, no login was ever read, and no gate of a release got a number."""
    assert STDERR in LAB
    with pytest.raises(BadInput) as refused:
        require_template(LAB.replace(STDERR, lines, 1), "corp.template")
    assert said in str(refused.value)


@pytest.mark.parametrize("level", ["0", "-1"])
def test_a_default_level_that_hides_logins_is_refused_once(level: str) -> None:
    """The start ended with "charon did not say in time", which names no cause."""
    with pytest.raises(BadInput) as refused:
        require_template(LAB.replace("default = 1", f"default = {level}", 1), "corp.template")
    assert str(refused.value).endswith(
        f": charon.filelog.stderr.default says `{level}`, {LOGGED}: write `default = 1`"
    )


@pytest.mark.parametrize(
    "lines",
    [
        " net = 0\n knl = -1\n",
        " ike = 3\n log_level = yes\n time_format = %b %e %T\n",
        " enc = high\n",
        " default = 0\n dmn = 1\n ike = 1\n cfg = 1\n enc = 1\n job = 1\n",
    ],
)
def test_levels_that_hide_no_login_are_taken(lines: str) -> None:
    require_template(LAB.replace("default = 1\n", lines, 1), "corp.template")


@pytest.mark.parametrize(
    ("secret", "whole"),
    [("half # of it", False), ("half}of it", False), ("two  blanks", False), ("a = b", True), ("a{b", True)],
)
def test_a_secret_that_charon_would_read_otherwise_without_quotation_marks_is_refused(
    tmp_path: Path, secret: str, whole: bool
) -> None:
    """Users had half of a secret: what followed `#` was a comment, and no login of theirs passed."""
    (tmp_path / "conf").mkdir()
    template = tmp_path / "corp.template"
    environment = Chroot(
        gateway("gw-1"), gateway("gw-1").slots[1], tmp_path / "root", tmp_path / "conf", tmp_path / "run"
    )

    def read_as(value: str) -> dict[str, str]:
        template.write_text(f"secrets {{\n  eap-ana {{\n    id = ana\n    secret = {value}\n  }}\n}}\n")
        config, wanted = filled_whole(environment, template, lambda _: f"{secret}\n")
        assert wanted == {"ana"}
        return dict(options_of(config))

    quoted = read_as('"$secret_ana"')
    assert quoted == {"secrets.eap-ana.id": "ana", "secrets.eap-ana.secret": secret}
    if whole:
        assert read_as("$secret_ana") == quoted
        return
    with pytest.raises(BadInput) as refused:
        read_as("$secret_ana")
    assert "corp.template: the secret at secrets.eap-ana.secret has characters" in str(refused.value)
    assert secret not in str(refused.value)
