"""DNS servers, gateways and routes that lie in a pool: they end with the instance that has the pool."""

from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

import pytest

from activities.drivers.daemon.ocserv.own_config import read_own_config as ocserv_own
from activities.drivers.daemon.ocserv.pushed import pushed_in as by_ocserv
from activities.drivers.daemon.openvpn.own_config import read_own_config as openvpn_own
from activities.drivers.daemon.openvpn.pushed import pushed_in as by_openvpn
from activities.drivers.daemon.strongswan.pushed import pushed_in as by_strongswan
from activities.drivers.daemon.template import filled
from activities.drivers.runtime.host.chroot import Chroot
from policies.model.adoption import ADOPTED
from policies.model.errors import BadInput
from policies.pushed import Pushed, pushed_elsewhere
from tests.unit.fleets import gateway

A, B = (
    slot.model_copy(
        update={
            "pool4": IPv4Network(f"10.80.{16 * number}.0/20"),
            "pool6": IPv6Network(f"fd80:0:0:{number}::/64"),
        }
    )
    for number, slot in enumerate(gateway("gw-1").slots[:2])
)
OWN = A.model_copy(update={"name": ADOPTED, "pool4": IPv4Network("10.8.0.0/24"), "pool6": None})
OPENVPN = """\
port 1194
dev tun
server 10.8.0.0 255.255.255.0
server-ipv6 fd08::/64
management /run/openvpn-server/management.sock unix
"""


def elsewhere(template: str, read: Callable[[str], Sequence[Pushed]] = by_openvpn) -> tuple[str, ...]:
    """Return what is wrong with a template whose placeholders are filled for slot b."""
    config = template.replace("$pool4 $netmask4", "10.80.16.0 255.255.240.0").replace("$own4", "10.80.16.1")
    return pushed_elsewhere(read(template), read(config), B, (A, B), OWN)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('push "dhcp-option DNS 10.8.0.1"', ["push dhcp-option DNS 10.8.0.1"]),
        ('push "dhcp-option DNS6 fd08::1"', ["push dhcp-option DNS6 fd08::1"]),
        ('push "dhcp-option DOMAIN 10.8.0.example"', []),
        ('push "dns server 0 address 10.8.0.1:53 [fd08::1]:53 fd08::2"',
         ["push dns server 10.8.0.1", "push dns server fd08::1", "push dns server fd08::2"]),
        ("push 'route-gateway 10.8.0.1'", ["push route-gateway 10.8.0.1"]),
        ('push "route 10.8.0.0 255.255.255.0"', ["push route 10.8.0.0/24"]),
        ('push "route 10.8.0.7"', ["push route 10.8.0.7"]),
        ('push "route 10.99.0.0 255.255.0.0 10.8.0.1"',
         ["push route 10.99.0.0/16", "push route gateway 10.8.0.1"]),
        ('push "route-ipv6 fd99::/64 fd08::1"',
         ["push route-ipv6 fd99::/64", "push route-ipv6 gateway fd08::1"]),
        ('push "dhcp-option DNS $own4"', []),
        ('push "redirect-gateway def1"', []),
        ("push reset", []),
    ],
)  # fmt: skip
def test_what_openvpn_sends_is_read_from_each_push(line: str, found: list[str]) -> None:
    assert [str(one) for one in by_openvpn(f"verb 4\n{line}\n")] == [f"line 2, {one}" for one in found]


def test_what_ocserv_sends_is_read_also_in_sections() -> None:
    text = (
        "dns = 10.8.0.1\nipv6-dns = fd08::1\nnbns = $own4\nroute = default\n"
        "[vhost:x]\nroute = 10.8.0.0/255.255.255.0\n"
    )
    said = [str(one) for one in by_ocserv(text)]
    assert said == ["line 1, dns 10.8.0.1", "line 2, ipv6-dns fd08::1", "line 6, route 10.8.0.0/24"]


def test_what_strongswan_sends_is_read_from_pools_and_from_attr() -> None:
    text = (
        "pools {\n people {\n addrs = $users4\n dns = 10.8.0.1, 9.9.9.9\n subnet = 10.8.0.0/24\n }\n}\n"
        "charon {\n dns1 = 10.8.0.1\n plugins {\n attr {\n dns = $own4\n }\n }\n}\n"
    )
    assert [str(one) for one in by_strongswan(text)] == [
        "pools.people.dns 10.8.0.1",
        "pools.people.dns 9.9.9.9",
        "pools.people.subnet 10.8.0.0/24",
        "charon.dns1 10.8.0.1",
    ]


def test_an_adoption_names_what_ends_with_the_daemon_and_its_placeholder() -> None:
    """Reader of real inputs 1: users of the promoted release were without DNS once the old instance ended."""
    sent = (
        "dhcp-option DNS 10.8.0.1",
        "dhcp-option DNS 9.9.9.9",
        "route-ipv6 fd08::/64",
        "dhcp-option DNS 10.8.0.53",
    )
    own = openvpn_own(OPENVPN + "".join(f'push "{one}"\n' for one in sent))
    ends = "which ends with it; a template says"
    elsewhere = "or an address outside of every pool"
    assert [str(one) for one in own.left_behind] == [
        f"line 6, push: dhcp-option DNS 10.8.0.1 is in its own pool 10.8.0.0/24, {ends} `$own4`",
        f"line 8, push: route-ipv6 fd08::/64 is in its own pool fd08::/64, {ends} `$pool6`",
        f"line 9, push: dhcp-option DNS 10.8.0.53 is in its own pool 10.8.0.0/24, {ends} `$own4` {elsewhere}",
    ]


def test_an_adoption_of_ocserv_names_the_same() -> None:
    text = (
        "auth = certificate\ntcp-port = 443\ndevice = vpns\nipv4-network = 192.168.10.0\n"
        "ipv4-netmask = 255.255.255.0\nuse-occtl = true\ndns = 192.168.10.1\nroute = 192.168.10.0/24\n"
        "route = 192.168.0.0/16\n"
    )
    pool = "is in its own pool 192.168.10.0/24, which ends with it; a template says"
    assert [str(one) for one in ocserv_own(text).left_behind] == [
        f"line 7, dns: 192.168.10.1 {pool} `$own4`",
        f"line 8, route: 192.168.10.0/24 {pool} `$pool4` and `$netmask4`",
    ]


@pytest.mark.parametrize(
    ("line", "owner", "pool", "mend"),
    [
        ("dhcp-option DNS 10.8.0.1", "the daemon that was adopted", "10.8.0.0/24", "`$own4`"),
        ("dhcp-option DNS 10.80.0.1", "slot a", "10.80.0.0/20", "`$own4`"),
        ("dhcp-option DNS 10.80.16.1", "slot b", "10.80.16.0/20", "`$own4`"),
        ("dhcp-option DNS6 fd80::1", "slot a", "fd80::/64", "`$own6`"),
        ("route 10.80.0.0 255.255.240.0", "slot a", "10.80.0.0/20", "`$pool4` and `$netmask4`"),
        ("route-ipv6 fd80:0:0:1::/64", "slot b", "fd80:0:0:1::/64", "`$pool6`"),
    ],
)
def test_a_template_that_sends_users_to_one_instances_address_is_refused_in_every_slot(
    line: str, owner: str, pool: str, mend: str
) -> None:
    (said,) = elsewhere(f'verb 4\npush "{line}"\n')
    assert said.startswith(f"line 2, push {line.partition(' ')[0]} ")
    assert said.endswith(f" is in the pool {pool} of {owner}, and no other instance has it; write {mend}")


@pytest.mark.parametrize(
    "lines",
    [
        'push "dhcp-option DNS $own4"',
        'push "dhcp-option DNS 9.9.9.9"\npush "route 10.0.0.0 255.0.0.0"',
        'push "route $pool4 $netmask4"',
        'push "route 10.80.0.0 255.255.240.0"\npush "route 10.80.16.0 255.255.240.0"',
    ],
)
def test_what_every_instance_has_may_be_sent(lines: str) -> None:
    assert elsewhere(lines) == ()


def test_a_setting_of_the_fleet_in_another_slots_pool_is_named() -> None:
    config = by_ocserv("ipv4-network = 10.80.16.0/20\ndns = 10.80.0.1\n")
    (said,) = pushed_elsewhere((), config, B, (A, B))
    where = "the pool 10.80.0.0/20 of slot a, and no other instance has it"
    assert said == f"line 2, dns 10.80.0.1 is in {where}; write `$own4`"
    assert pushed_elsewhere((), by_ocserv("dns = 10.80.16.1\n"), B, (A, B)) == ()


def test_the_instances_own_addresses_are_filled_in_and_lines_without_ipv6_left_out(tmp_path: Path) -> None:
    template = tmp_path / "t"
    template.write_text("dns = $own4\ndns = ${own6}\n")
    for slot, said in ((B, "dns = 10.80.16.1\ndns = fd80:0:0:1::1\n"), (OWN, "dns = 10.8.0.1\n")):
        here = Chroot(gateway("gw-1"), slot, tmp_path, tmp_path, tmp_path)
        assert filled(here, template, _none)[0] == said


def _none(name: str) -> str:
    raise BadInput(name)


def test_a_network_is_in_a_pool_of_its_own_kind_only() -> None:
    one = Pushed(1, "dns", "", ip_network("10.8.0.1"))
    assert one.pool_in([IPv6Network("::/0")]) is None
    assert one.pool_in([IPv6Network("::/0"), IPv4Network("10.8.0.0/24")]) == IPv4Network("10.8.0.0/24")
