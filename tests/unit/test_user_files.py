"""Files for single users and groups give nobody an address: each slot has pools of its own."""

import os
from pathlib import Path

import pytest

from activities.drivers.daemon.ocserv.own_config import read_own_config
from activities.drivers.daemon.ocserv.user_files import addresses_in
from activities.drivers.runtime.host.own_user_files import left_behind
from orchestrator.publishing.builder import ReleaseLabels, build_release
from policies.model.errors import BadInput
from tests.fakes.trees import small_tree

STAFF = "route = 10.55.0.0/16\nipv4-network = 10.90.77.0\nipv4-netmask = 255.255.255.252\n"
HARMLESS = "# ipv4-network = 10.1.0.0/24\nroute = 10.55.0.0/16\niroute = 10.56.0.0/16\nipv4-dns = 10.0.0.1\n"


def build(folder: Path, lines: str, files: dict[str, str]) -> None:
    tree, template = small_tree(folder)
    for name, content in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(content)
    template.write_text(template.read_text() + lines)
    build_release(tree, template, ReleaseLabels(product="gw", version="1.0"), folder / "blobs")


def refusal(folder: Path, lines: str, files: dict[str, str]) -> str:
    with pytest.raises(BadInput) as refused:
        build(folder, lines, files)
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
