"""The lab's network is whole, invisible to the machine's own, and there only once."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.lab import namespaces
from deploy.lab.topology import TARGET4, TARGET6, Claim, Topology, other_labs
from policies.model.errors import Conflict, Unavailable
from tests.lab.network import network

PREFIX = "pstt-"
ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def topology() -> Iterator[Topology]:
    with network(PREFIX, gateways=2, sites=3) as built:
        yield built


def answers(namespace: str, *arguments: str) -> bool:
    with namespaces.inside(namespace):
        done = subprocess.run(["ping", "-n", "-c1", "-W2", *arguments], capture_output=True, check=False)
    return done.returncode == 0


@pytest.mark.parametrize("where", ["hub", "site-03", "load"])
def test_every_gateway_is_reached_over_both_families(topology: Topology, where: str) -> None:
    for gateway in topology.gateways:
        assert answers(f"{PREFIX}{where}", gateway.address4)
        assert answers(f"{PREFIX}{where}", gateway.address6)


def test_the_inside_target_is_there_on_the_gateway_and_nowhere_else(topology: Topology) -> None:
    for target in (TARGET4, TARGET6):
        assert answers(topology.gateways[0].namespace, target)
        assert not answers(topology.sites[0].namespace, target)


def test_logins_can_come_from_two_hundred_addresses(topology: Topology) -> None:
    assert len(set(topology.load_addresses)) == 200
    for source in (topology.load_addresses[0], topology.load_addresses[-1]):
        assert answers(topology.load.namespace, "-I", source, topology.gateways[0].address4)


def test_gateways_forward_packets_of_both_families(topology: Topology) -> None:
    with namespaces.inside(topology.gateways[0].namespace):
        assert Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1"
        assert Path("/proc/sys/net/ipv6/conf/all/forwarding").read_text().strip() == "1"


def test_the_machines_own_network_never_sees_the_lab() -> None:
    def seen() -> str:
        return subprocess.run(["ip", "-o", "address"], text=True, capture_output=True, check=True).stdout

    before = seen()
    with network("pstu-"):
        assert seen().count("\n") == before.count("\n")
        assert "198.18." not in seen()


def test_a_whole_lab_is_built_with_every_site() -> None:
    start = time.monotonic()
    with network("pstu-", gateways=4, sites=24) as built:
        print(f"4 gateways and 24 sites in {time.monotonic() - start:.2f} s")
        assert len(built.leftovers()) == 30


def test_building_again_replaces_the_network_whatever_its_size_was() -> None:
    with network("pstu-", sites=5):
        smaller = Topology(gateways=1, sites=1, prefix="pstu-")
        smaller.build()
        assert smaller.leftovers() == ["pstu-gw-1", "pstu-hub", "pstu-load", "pstu-site-01"]


def test_tearing_down_nothing_is_nothing() -> None:
    assert Topology(prefix="pstu-").tear_down() == 0


def test_namespaces_of_others_are_left_alone(topology: Topology) -> None:
    assert Topology(prefix="pst").leftovers() == []
    assert f"{PREFIX}hub" in Topology(prefix=PREFIX).leftovers()


def test_a_second_lab_is_told_who_has_the_first() -> None:
    with Claim("pstu-"), pytest.raises(Conflict, match=rf"pid {os.getpid()}\b"), Claim("pstu-"):
        pass


def test_labs_of_other_people_are_listed_with_their_process_and_ours_are_not() -> None:
    listed = "from deploy.lab.topology import other_labs; print(other_labs()['pstu-'])"
    with Claim("pstu-"):
        assert "pstu-" not in other_labs()
        # To a process that we start we are other people.
        command = [sys.executable, "-c", listed]
        said = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=True).stdout
    assert said.startswith(f"pid {os.getpid()}: ")
    assert Path(sys.executable).name in said
    assert "pstu-" not in other_labs()


def test_what_a_child_of_ours_holds_is_ours() -> None:
    holds = "from deploy.lab.topology import Claim\nwith Claim('pstu-'): print('has it', flush=True); input()"
    command = [sys.executable, "-c", holds]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout
        assert child.stdout.readline() == b"has it\n"
        assert "pstu-" not in other_labs()
        child.communicate(b"\n")


def test_a_claim_ends_with_its_holder() -> None:
    for _ in range(2):
        with Claim("pstu-"):
            pass


def test_a_network_that_cannot_be_built_whole_is_not_built_at_all() -> None:
    # A name longer than the kernel allows for an interface: the third of many steps fails.
    broken = Topology(gateways=1, sites=1, prefix="pstu-")
    broken.sites[0] = type(broken.sites[0])(
        "a-name-that-is-too-long", "pstu-site-01", "198.18.2.1", "2001:db8:18::2:1"
    )
    with pytest.raises(Unavailable, match="cannot build the lab's network"):
        broken.build()
    assert broken.leftovers() == []
