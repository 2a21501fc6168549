"""What a template of OpenVPN's configuration must leave to penstock."""

import re
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from activities.drivers.daemon.openvpn.config import options_in
from activities.drivers.daemon.openvpn.daemon import OpenVpn
from activities.drivers.daemon.openvpn.template import require_template
from activities.drivers.daemon.port import Secret
from activities.drivers.daemon.template import credentials_in
from activities.drivers.runtime.host.chroot import Chroot
from policies.model.errors import BadInput
from tests.unit.fleets import gateway

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


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("", "verb is missing, write `verb 4`"),
        ("verb 0", "logins cannot be read in the log of `verb 0`, write `verb 4`"),
        ("verb 4\nverb 2", "line 32: logins cannot be read in the log of `verb 2`"),
        ("verb four", "logins cannot be read in the log of `verb 0`"),
        ("verb 5", "logins cannot be read in the log of `verb 5`"),
        ("verb 3\nmute 3", "line 32: `mute 3` hides lines of logins, write `mute 20` or leave it out"),
        ("verb 3\nsetenv opt mute 9", "`mute 9` hides"),
        ("verb 4\nmachine-readable-output", "machine-readable-output is not for a template"),
        ("verb 4\nsuppress-timestamps", "suppress-timestamps is not for a template"),
    ],
)
def test_a_template_whose_log_does_not_tell_logins_is_refused_with_what_mends_it(
    lines: str, said: str
) -> None:
    """R11, a fresh reader's F2: every good login would count as a timeout."""
    with pytest.raises(BadInput) as refused:
        require_template(LAB.replace("verb 4", lines), "corp.template")
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "lines", ["verb 3", "verb 4", "verb 6", "verb 1\nverb 3", "verb 4\nmute 0", "verb 4\nmute 20"]
)
def test_a_template_whose_log_tells_logins_is_taken(lines: str) -> None:
    """R11, a fresh reader's F2."""
    require_template(LAB.replace("verb 4", lines), "corp.template")


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("", "users have too few addresses of a pool, write `topology subnet`"),
        ("topology net30", "line 10: users have too few addresses of a pool, write `topology subnet`"),
        ("topology subnet\ntopology p2p", "line 11: users have too few addresses"),
        ("topology subnet\nmax-clients 100", "max-clients is not for a template, leave it out"),
    ],
)
def test_a_template_by_which_a_pool_has_room_for_fewer_users_than_are_planned_is_refused(
    lines: str, said: str
) -> None:
    """R11, a fresh reader's F3: with net30, a /24 has addresses for 62 users, where 253 are counted."""
    with pytest.raises(BadInput) as refused:
        require_template(LAB.replace("topology subnet", lines), "corp.template")
    assert said in str(refused.value)


@pytest.mark.parametrize(("pool", "clients"), [("10.90.0.0/24", 1024), ("10.90.0.0/20", 8192)])
def test_an_instance_takes_as_many_clients_as_its_pool_has_addresses(
    pool: str, clients: int, tmp_path: Path
) -> None:
    """R11, a fresh reader's F3: left out, OpenVPN takes 1,024."""
    (tmp_path / "conf").mkdir()
    template = tmp_path / "openvpn.conf.template"
    template.write_text(LAB)
    slot = gateway("gw-1").slots[1].model_copy(update={"pool4": IPv4Network(pool)})
    environment = Chroot(gateway("gw-1"), slot, tmp_path / "root", tmp_path / "conf", tmp_path / "run")
    given: dict[str, Secret] = dict.fromkeys(("authority", "certificate", "key"), lambda: "it")
    OpenVpn().render(environment, template, given, environment.config)
    options = options_in((environment.config / "openvpn.conf").read_text())
    assert [one.words for one in options if one.name == "max-clients"] == [(str(clients),)]


@pytest.mark.parametrize(
    "line", ["management-client-auth", "management-query-passwords", "management-signal", "management-hold"]
)
def test_what_waits_for_somebody_at_the_management_socket_is_not_for_a_template(line: str) -> None:
    """R11, a fresh reader's F19: penstock lets nobody in there, so nobody would get in."""
    with pytest.raises(BadInput, match=f"{line} is not for a template, leave it out"):
        require_template(f"{LAB}{line}\n", "corp.template")


def test_comments_and_inline_files_are_no_options() -> None:
    text = (
        '; port 1\n# dev tun9\n--port 2\n<tls-crypt>\nport 3\n</tls-crypt>\npush "route 10.0.0.0 255.0.0.0"\n'
    )
    assert [(one.name, one.value) for one in options_in(text)] == [
        ("port", "2"),
        ("tls-crypt", "[inline]"),
        ("push", "route 10.0.0.0 255.0.0.0"),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("port 1194", "port says `1194`, write `port $port`"),
        ("--port\t1194", "port says `1194`"),
        ("setenv opt port 1194", "port says `1194`"),
        (
            "auth-gen-token 3600",
            "auth-gen-token-secret is missing, write `auth-gen-token-secret $credential_NAME`: each instance",
        ),
        ("auth-gen-token\nauth-gen-token-secret /etc/x", "auth-gen-token-secret says `/etc/x`, write"),
        ("lport 1194", "lport says `1194`, write `lport $port`"),
        ("dev tun0", "dev says `tun0`"),
        ("server 10.8.0.0 255.255.255.0", "server says `10.8.0.0 255.255.255.0`"),
        ("server $pool4 $netmask4 nopool", "server says `$pool4 $netmask4 nopool`"),
        ("server-ipv6 fd00::/64", "server-ipv6 says `fd00::/64`, write `server-ipv6 $pool6`"),
        ("management 127.0.0.1 7505", "management says `127.0.0.1 7505`"),
        ("key /etc/openvpn/gw.key", "key says `/etc/openvpn/gw.key`"),
        ("management-client", "management-client is not for a template"),
        ('push "open', "has a quotation mark that is not closed"),
        ("push a\x0cport 1", "it has a character that shows nothing"),
    ],
)
def test_a_second_line_of_what_is_ours_is_refused(line: str, said: str) -> None:
    """Case 14's kind: OpenVPN takes the last line of an option, wherever it stands."""
    for text in (f"{LAB}{line}\n", f"{line}\n{LAB}"):
        with pytest.raises(BadInput) as refused:
            require_template(text, "corp.template")
        assert said in str(refused.value)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("tls-auth /etc/ta.key 0", "tls-auth says `/etc/ta.key 0`, write `tls-auth $credential_NAME`"),
        ("tls-crypt-v2 v2.key", "tls-crypt-v2 says `v2.key`"),
        ("pkcs12 gw.p12", "pkcs12 is not for a template, leave it out"),
        ("askpass /etc/pass", "askpass says `/etc/pass`"),
        (
            "<tls-crypt>\nthe key\n</tls-crypt>",
            "tls-crypt says `[inline]`, write `tls-crypt $credential_NAME`",
        ),
        ("<key>\nthe key\n</key>", "key says `[inline]`, write `key $credential_key`"),
        ("<pkcs12>\nMII\n</pkcs12>", "pkcs12 is not for a template, leave it out"),
    ],
)
def test_a_secret_in_a_template_is_refused_and_not_quoted(lines: str, said: str) -> None:
    """Case 16: a release is read by many; an inline file of the configuration, too."""
    with pytest.raises(BadInput) as refused:
        require_template(f"{LAB}{lines}\n", "corp.template")
    assert said in str(refused.value)
    assert "the key" not in str(refused.value)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("ifconfig-push 10.8.0.50 255.255.255.0", "ifconfig-push"),
        ("ifconfig-ipv6-push fd08::50/64", "ifconfig-ipv6-push"),
        ('push "ifconfig 10.8.0.50 255.255.255.0"', "push ifconfig"),
        ("push 'setenv opt ifconfig-ipv6 fd08::50/64 fd08::1'", "push ifconfig-ipv6"),
    ],
)
def test_an_address_for_users_in_a_template_is_refused_with_what_gives_one_in_each_slot(
    line: str, name: str
) -> None:
    with pytest.raises(BadInput) as refused:
        require_template(f"{LAB}{line}\n", "corp.template")
    assert f"line 32: {name} gives the same address in every slot" in str(refused.value)
    assert "ifconfig-pool-persist $credential_addresses 0" in str(refused.value)


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("ifconfig 10.8.0.1 255.255.255.0", "server $pool4 $netmask4"),
        ("ifconfig-pool 10.8.0.2 10.8.0.254 255.255.255.0", "server $pool4 $netmask4"),
        ("ifconfig-push-constraint 10.8.0.0 255.255.255.0", "server $pool4 $netmask4"),
        ("server-bridge 10.8.0.4 255.255.255.0 10.8.0.128 10.8.0.254", "server $pool4 $netmask4"),
        ("ifconfig-ipv6 fd90:77::1/64 fd90:77::2", "server-ipv6 $pool6"),
        ("--ifconfig-ipv6-pool fd90:77::1000/64", "server-ipv6 $pool6"),
        ("setenv opt ifconfig-ipv6-pool fd90:77::1000/64", "server-ipv6 $pool6"),
    ],
)
def test_a_pool_that_a_template_spells_out_is_refused_with_what_each_slot_fills(
    line: str, instead: str
) -> None:
    """Reader of the third round, 5: two users of two instances got one IPv6 address."""
    name = re.sub(r"^(--|setenv opt )", "", line).partition(" ")[0]
    for text in (f"{LAB}{line}\n", f"{LAB.replace('server-ipv6 $pool6', '')}{line}\n"):
        with pytest.raises(BadInput) as refused:
            require_template(text, "corp.template")
        assert f"line 32: {name} gives the same addresses in every slot, write `{instead}`" in str(
            refused.value
        )


def test_comments_tabs_quotes_and_a_byte_order_mark_are_read_as_openvpn_does() -> None:
    """Cases 24 and 25: a template as another system's editor writes it."""
    more = "tls-auth $credential_shared 0 # clients have it\n;\t$5 a month\n"
    text = LAB.replace("port $port", 'port\t"$port" # users').replace("dev $device", "\tdev\t$device ; ours")
    require_template("\ufeff" + (text + more).replace("\n", "\r\n"), "corp.template")
    assert credentials_in(LAB + more) == {"authority", "certificate", "key", "shared"}
