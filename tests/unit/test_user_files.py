"""Files for single users and groups give nobody an address: each slot has pools of its own."""

import os
from pathlib import Path

import pytest

from activities.drivers.daemon.ocserv.own_config import read_own_config
from activities.drivers.daemon.ocserv.user_files import addresses_in, networks_in
from activities.drivers.daemon.openvpn.own_config import read_own_config as read_own_openvpn
from activities.drivers.daemon.openvpn.user_files import addresses_in as openvpn_addresses_in
from activities.drivers.daemon.openvpn.user_files import networks_in as openvpn_networks_in
from activities.drivers.runtime.host.own_user_files import left_behind, more_pools
from orchestrator.publishing.builder import ReleaseLabels, build_release
from policies.model.errors import BadInput
from tests.fakes.trees import small_tree

STAFF = "route = 10.55.0.0/16\nipv4-network = 10.90.77.0\nipv4-netmask = 255.255.255.252\n"
HARMLESS = "# ipv4-network = 10.1.0.0/24\nroute = 10.55.0.0/16\niroute = 10.56.0.0/16\nipv4-dns = 10.0.0.1\n"


OPENVPN = (Path(__file__).parents[2] / "deploy/lab/openvpn.conf.template").read_text()


def build(folder: Path, lines: str, files: dict[str, str], daemon: str = "ocserv") -> None:
    tree, template = small_tree(folder)
    if daemon == "openvpn":
        template.write_text(OPENVPN)
        (tree / "etc").mkdir(exist_ok=True)
        (tree / "etc/passwd").write_text("nobody:x:65534:65534::/:/bin/false\n")
        (tree / "etc/group").write_text("nogroup:x:65534:\n")
    for name, content in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(content)
    template.write_text(template.read_text() + lines)
    labels = ReleaseLabels(product="gw", version="1.0", daemon=daemon)
    build_release(tree, template, labels, folder / "blobs")


def refusal(folder: Path, lines: str, files: dict[str, str], daemon: str = "ocserv") -> str:
    with pytest.raises(BadInput) as refused:
        build(folder, lines, files, daemon)
    return str(refused.value)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("config-per-group = /etc/ocserv/groups", "etc/ocserv/groups/staff"),
        ("config-per-user = /etc/ocserv/users/", "etc/ocserv/users/ana"),
        ("default-group-config = /etc/ocserv/group.conf", "etc/ocserv/group.conf"),
        ('default-user-config = "/etc/ocserv/user.conf"', "etc/ocserv/user.conf"),
        ("[vhost:a.example]\nconfig-per-group = /etc/ocserv/a", "etc/ocserv/a/staff"),
    ],
)
def test_a_groups_own_pool_makes_no_release_and_is_named_with_its_file_and_line(
    line: str, name: str, tmp_path: Path
) -> None:
    """Reader of the third round, 1: two users of two instances got one address, and one of them was cut."""
    said = refusal(tmp_path, f"{line}\n", {name: STAFF})
    assert f"{name}: line 2: ipv4-network gives the same addresses in every slot; leave it out" in said
    assert "line 3: ipv4-netmask" in said


@pytest.mark.parametrize(
    "line",
    [
        "ipv4-network = 10.9.0.0/24",
        "ipv4-netmask: 255.255.255.0",
        "ipv6-network = fd00::/64",
        "ipv6-prefix = 64",
        "explicit-ipv4 = 10.9.0.7",
        "\ufeffexplicit-ipv6 = fd00::7",
    ],
)
def test_every_option_that_gives_a_user_an_address_is_found(line: str) -> None:
    (said,) = addresses_in(f"{line}\n")
    assert said.startswith("line 1: ")


def test_a_file_for_a_group_that_gives_no_address_makes_a_release(tmp_path: Path) -> None:
    lines = "config-per-group = /etc/ocserv/groups\ndefault-group-config = /etc/ocserv/group.conf\n"
    section = f"{HARMLESS}[other]\nipv4-network = 10.1.0.0/24\n"
    build(tmp_path, lines, {"etc/ocserv/groups/staff": HARMLESS, "etc/ocserv/group.conf": section})


@pytest.mark.parametrize("path", ["/etc/ocserv/groups", "$run/groups", "$credential_groups"])
def test_files_for_users_that_are_not_in_the_tree_are_refused_with_their_option(
    path: str, tmp_path: Path
) -> None:
    """What is put there later was read by nobody."""
    said = refusal(tmp_path, f"config-per-group = {path}\n", {})
    assert f"line 9: config-per-group names {path}, which is not in " in said


def test_links_of_the_tree_are_followed_to_the_files_for_users(tmp_path: Path) -> None:
    tree, _ = small_tree(tmp_path)
    (tree / "etc/ocserv").mkdir(parents=True)
    (tree / "etc/ocserv/groups").symlink_to("all")
    (tree / "etc/ocserv/all").mkdir()
    (tree / "etc/ocserv/all/staff").symlink_to("/etc/staff.conf")
    said = refusal(tmp_path, "config-per-group = /etc/ocserv/groups\n", {"etc/staff.conf": STAFF})
    assert "etc/staff.conf: line 2" in said


def test_a_file_for_a_group_with_a_line_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    said = refusal(tmp_path, "config-per-group = /g\n", {"g/staff": "no value\nipv4-network = 10.1.0.0/24\n"})
    assert "g/staff: line 1 is no `key = value`" in said


def test_of_many_files_that_give_addresses_some_are_quoted_and_the_others_counted(tmp_path: Path) -> None:
    said = refusal(
        tmp_path, "config-per-user = /u\n", {f"u/{n:02}": "explicit-ipv4 = 10.1.0.7\n" for n in range(40)}
    )
    assert "u/00: line 1: explicit-ipv4" in said
    assert said.endswith("; and 35 files more")


OWN = (
    "tcp-port = 443\ndevice = vpns\nipv4-network = 10.9.0.0/24\nuse-occtl = true\n"
    "config-per-group = {folder}/groups\ndefault-group-config = {folder}/group.conf\n"
)


def read(_pid: int, path: str) -> str:
    return Path(path).read_text()


def test_an_adoption_names_the_daemons_own_files_that_give_addresses(tmp_path: Path) -> None:
    """They are read before a person copies them into a tree."""
    (tmp_path / "groups").mkdir()
    (tmp_path / "groups/staff").write_text(STAFF)
    (tmp_path / "groups/guests").write_text(HARMLESS)
    (tmp_path / "group.conf").write_text(HARMLESS)
    own = read_own_config(OWN.format(folder=tmp_path))
    groups, default = left_behind(os.getpid(), own, read, addresses_in)
    assert (groups.number, groups.key) == (5, "config-per-group")
    assert (
        f"{tmp_path}/groups/staff: line 2: ipv4-network gives the same addresses in every slot"
        in groups.reason
    )
    assert "guests" not in groups.reason
    assert default.reason.endswith("is a file of this host, and a release has its own root")


def test_an_adoption_names_files_for_users_that_it_cannot_read(tmp_path: Path) -> None:
    own = read_own_config(OWN.format(folder=tmp_path))
    groups, default = left_behind(os.getpid(), own, read, addresses_in)
    for line in (groups, default):
        assert "cannot be read: No such file or directory" in line.reason


def test_an_adoption_names_files_that_a_section_alone_has(tmp_path: Path) -> None:
    (tmp_path / "group.conf").write_text(STAFF)
    text = (
        "tcp-port = 443\ndevice = v\nipv4-network = 10.9.0.0/24\n"
        f"[vhost:a]\ndefault-group-config = {tmp_path}/group.conf\n"
    )
    section, group = left_behind(os.getpid(), read_own_config(text), read, addresses_in)
    assert (section.key, group.number, group.key) == ("[vhost:a]", 5, "default-group-config")
    assert "group.conf: line 2: ipv4-network" in group.reason


def test_an_adoption_finds_the_pools_of_groups_users_and_virtual_hosts(tmp_path: Path) -> None:
    """No slot may have them: a pool next to the daemon's own is what groups have, and what is proposed."""
    (tmp_path / "groups").mkdir()
    (tmp_path / "groups/staff").write_text(STAFF)
    (tmp_path / "groups/wide").write_text("ipv4-network = 10.9.1.0/24\nipv6-network = fd00:9::/48\n")
    (tmp_path / "groups/odd").write_text("no value\n")
    (tmp_path / "group.conf").write_text("explicit-ipv4 = 10.9.0.7\nexplicit-ipv4 = 10.8.0.7\n")
    section = "[vhost:a]\nipv4-network = 10.7.0.0\nipv4-netmask = 255.255.255.0\n"
    own = read_own_config(OWN.format(folder=tmp_path) + section)
    found = more_pools(os.getpid(), own, read, networks_in)
    assert sorted(map(str, found)) == [
        "10.7.0.0/24",
        "10.8.0.7/32",
        "10.9.1.0/24",
        "10.90.77.0/30",
        "fd00:9::/48",
    ]
    assert str(found[-1]) == "10.8.0.7/32", "the widest come first"


# --- OpenVPN -------------------------------------------------------------------------------

CCD = "client-config-dir /etc/openvpn/ccd\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ifconfig-push 10.8.0.50 255.255.255.0", "ifconfig-push gives the same address in every slot"),
        ("--ifconfig-ipv6-push fd08::50/64", "ifconfig-ipv6-push gives the same address in every slot"),
        ('push "ifconfig 10.8.0.50 255.255.255.0"', "push ifconfig gives the same address in every slot"),
        ("setenv opt ifconfig-push 10.8.0.50 10.8.0.49", "ifconfig-push gives the same address"),
        ("config /etc/openvpn/more", "config brings lines that are not read; write them out"),
        ("push 'ifconfig", "has a quotation mark that is not closed"),
    ],
)
def test_a_users_own_address_makes_no_release_and_is_named_with_what_gives_one_in_each_slot(
    line: str, said: str, tmp_path: Path
) -> None:
    """Reader of the third round, 2: such a user was let in at the new instance and reached nothing."""
    refused = refusal(tmp_path, CCD, {"etc/openvpn/ccd/ana": f"# ana\n{line}\n"}, "openvpn")
    assert "etc/openvpn/ccd/ana: line 2" in refused
    assert said in refused
    assert ("ifconfig-pool-persist $credential_addresses 0" in refused) == ("gives" in said)


def test_a_file_for_a_user_without_an_address_makes_a_release(tmp_path: Path) -> None:
    lines = 'iroute 10.56.0.0 255.255.0.0\npush "route 10.55.0.0 255.255.0.0"\n# ifconfig-push 10.8.0.50 x\n'
    build(tmp_path, CCD, {"etc/openvpn/ccd/DEFAULT": lines}, "openvpn")


def test_an_adoption_names_the_users_whose_address_is_of_the_old_pool(tmp_path: Path) -> None:
    (tmp_path / "ccd").mkdir()
    (tmp_path / "ccd/ana").write_text("ifconfig-push 10.8.0.50 255.255.255.0\n")
    text = f"dev tun\nserver 10.8.0.0 255.255.255.0\nclient-config-dir {tmp_path}/ccd\n"
    (line,) = left_behind(os.getpid(), read_own_openvpn(text), read, openvpn_addresses_in)
    assert (line.number, line.key) == (3, "client-config-dir")
    assert f"{tmp_path}/ccd/ana: line 1: ifconfig-push gives the same address" in line.reason


def test_an_adoption_finds_the_addresses_of_users_beside_the_pool(tmp_path: Path) -> None:
    (tmp_path / "ccd").mkdir()
    (tmp_path / "ccd/ana").write_text("ifconfig-push 10.8.1.5 10.8.1.6\nifconfig-ipv6-push fd08:1::5/64\n")
    (tmp_path / "ccd/ben").write_text('ifconfig-push 10.8.0.50 255.255.255.0\npush "ifconfig 10.8.1.9 x"\n')
    text = f"dev tun\nserver 10.8.0.0 255.255.255.0\nclient-config-dir {tmp_path}/ccd\n"
    found = more_pools(os.getpid(), read_own_openvpn(text), read, openvpn_networks_in)
    assert list(map(str, found)) == ["10.8.1.5/32", "10.8.1.9/32", "fd08:1::5/128"]
