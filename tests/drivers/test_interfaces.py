"""What goes through tunnels and interfaces, from the kernel's own words; pings through real namespaces."""

import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from activities.drivers.metrics import tunnel_probes
from activities.drivers.metrics.interfaces import MOST_INTERFACES, Interfaces
from activities.drivers.metrics.tunnel_probes import PINGS, TunnelProbes, answered, require_pings
from policies.model.errors import BadInput
from policies.model.fleet import Gateway
from tests.patience import PATIENCE

HEAD = "Inter-|   Receive\n face |bytes packets\n"
GATEWAY = Gateway.model_validate(
    {
        "name": "gw-1",
        "addresses": ["192.0.2.1"],
        "slots": [
            {"name": "a", "port": 4441, "device": "oc", "pool4": "10.0.0.0/24"},
            {"name": "b", "port": 4442, "device": "oc1b", "pool4": "10.0.1.0/24"},
        ],
    }
)

OWN_NETWORKS = Gateway.model_validate(
    {
        "name": "gw-1",
        "daemon": "strongswan",
        "addresses": ["192.0.2.1"],
        "port": 500,
        "slots": [
            {"name": "a", "port": 500, "address": "10.1.0.1", "device": "ia", "pool4": "10.0.0.0/24"},
            {"name": "b", "port": 500, "address": "10.1.0.3", "device": "ib", "pool4": "10.0.1.0/24"},
        ],
    }
)


class Kernel:
    """What `/proc/net/dev` says, written by the test."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "dev"
        self.interfaces = Interfaces(GATEWAY, self._file)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self.interfaces)

    def says(self, **devices: tuple[int, int]) -> None:
        """Let each device have received and sent so many bytes, one packet of ten in error, one dropped."""
        lines = [
            f"{name}: {into} {into // 10} {into // 100} 1 0 0 0 0 {out} {out // 10} {out // 100} 1 0 0 0 0\n"
            for name, (into, out) in devices.items()
        ]
        self._file.write_text(HEAD + "".join(lines))
        self.interfaces.read()

    def tunnel(self, what: str, slot: str, direction: str) -> float | None:
        labels = {"slot": slot, "direction": direction}
        return self._registry.get_sample_value(f"vpngw_tunnel_{what}_total", labels)

    def interface(self, what: str, device: str, direction: str) -> float | None:
        labels = {"device": device, "direction": direction}
        return self._registry.get_sample_value(f"vpngw_interface_{what}_total", labels)

    @property
    def shown(self) -> set[str]:
        return {
            s.labels["device"] for f in self.interfaces.collect() for s in f.samples if "device" in s.labels
        }


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


def test_what_tunnels_moved_is_added_up_by_slot_and_stays_when_a_session_ends(kernel: Kernel) -> None:
    kernel.says(oc0=(1000, 2000), oc1b0=(5, 5), eth0=(7, 8))
    assert kernel.tunnel("bytes", "a", "received") == 0
    kernel.says(oc0=(1500, 2600), oc1=(100, 200), oc1b0=(5, 5), eth0=(9, 9))
    assert kernel.tunnel("bytes", "a", "received") == 600
    assert kernel.tunnel("bytes", "a", "sent") == 800
    assert kernel.tunnel("bytes", "b", "sent") == 0
    kernel.says(oc1=(100, 200), eth0=(9, 9))
    assert kernel.tunnel("bytes", "a", "sent") == 800


def test_a_device_that_all_tunnels_of_a_slot_share_is_that_slots(kernel: Kernel) -> None:
    kernel.says(oc=(1000, 2000), oc1b=(5, 5))
    kernel.says(oc=(1500, 2600), oc1b=(5, 5))
    assert kernel.tunnel("bytes", "a", "received") == 500
    assert kernel.tunnel("bytes", "b", "received") == 0
    assert kernel.shown == set()


def test_a_device_that_was_made_anew_counts_from_zero(kernel: Kernel) -> None:
    kernel.says(oc0=(1000, 1000))
    kernel.says(oc0=(40, 1200))
    assert kernel.tunnel("bytes", "a", "received") == 40
    assert kernel.tunnel("bytes", "a", "sent") == 200


def test_errors_and_drops_of_the_hosts_interfaces_are_shown_and_loopback_is_not(kernel: Kernel) -> None:
    kernel.says(lo=(1, 1), eth0=(100_000, 200_000), oc0=(1, 1))
    assert kernel.interface("errors", "eth0", "received") == 1000
    assert kernel.interface("drops", "eth0", "sent") == 1
    assert kernel.shown == {"eth0"}


def test_a_host_of_many_interfaces_shows_a_bounded_number(kernel: Kernel) -> None:
    kernel.says(**{f"veth{number}": (1, 1) for number in range(5000)})
    assert len(kernel.shown) == MOST_INTERFACES


def test_tunnels_in_an_instances_own_network_are_counted_there_also_when_another_instance_follows(
    tmp_path: Path,
) -> None:
    here, there = tmp_path / "dev", tmp_path / "net/dev"
    there.parent.mkdir()
    running = {"a": ("first", tmp_path)}
    registry = CollectorRegistry(auto_describe=False)
    interfaces = Interfaces(OWN_NETWORKS, here, lambda: running)
    registry.register(interfaces)

    def received(own: int, device: str = "ipsec0", slot: str = "a") -> float | None:
        here.write_text(HEAD + "eth0: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n")
        there.write_text(f"{HEAD}eth0: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n"
                         f"{device}: {own} 1 0 0 0 0 0 0 5 1 0 0 0 0 0 0\n")  # fmt: skip
        interfaces.read()
        labels = {"slot": slot, "direction": "received"}
        return registry.get_sample_value("vpngw_tunnel_bytes_total", labels)

    assert received(0, device="eth1") is None
    assert received(700) == 0
    assert received(900) == 200
    running["a"] = ("second", tmp_path)
    assert received(950) == 1150
    del running["a"]
    assert received(0) == 1150
    assert received(0, slot="b") is None


def test_the_kernel_of_this_machine_is_understood() -> None:
    interfaces = Interfaces(GATEWAY)
    interfaces.read()
    shown = {s.labels["device"] for f in interfaces.collect() for s in f.samples if "device" in s.labels}
    assert shown == {*sorted(set(os.listdir("/sys/class/net")) - {"lo"})[:MOST_INTERFACES]}  # noqa: PTH208


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a network namespace")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)


@pytest.fixture
def lossy() -> Iterator[None]:
    """This thread in a namespace whose 127.0.0.2 answers, 127.0.0.3 loses, and 127.0.0.4 says nothing."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    name = f"pst-loss-{os.getpid()}"
    _run("ip", "netns", "add", name)
    there = os.open(f"/run/netns/{name}", os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        assert libc.setns(there, 0x40000000) == 0
        _run("ip", "link", "set", "lo", "up")
        _run("sysctl", "-q", "net.ipv4.ping_group_range=0 2147483647")
        rules = (
            "type filter hook input priority 0",
            "ip daddr 127.0.0.3 icmp type echo-request icmp sequence 2 drop",
            "ip daddr 127.0.0.4 drop",
        )
        _run("nft", "table ip t {\nchain c {\n" + ";\n".join(rules) + ";\n}\n}")
        yield
    finally:
        libc.setns(before, 0)
        os.close(before)
        os.close(there)
        _run("ip", "netns", "del", name)


@needs_root
async def test_a_tunnel_that_loses_pings_is_told_from_one_that_answers_none(
    lossy: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnel_probes, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(tunnel_probes, "APART_SECONDS", 0.05)
    require_pings()
    came = await answered(["127.0.0.2", "127.0.0.3", "127.0.0.4", "::1"])
    assert came == {"127.0.0.2": PINGS, "127.0.0.3": PINGS - 1, "127.0.0.4": 0, "::1": PINGS}

    probes = TunnelProbes()
    tunnels = [("a", "digest", f"127.0.0.{number}") for number in (2, 3, 4)]
    for _ in range(2):  # the second time it is nobody's turn
        await probes.ask([("a", "digest")], tunnels)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(probes)
    labels = {"slot": "a", "digest": "digest"}
    assert registry.get_sample_value("vpngw_tunnel_probes_total", labels) == 2
    assert registry.get_sample_value("vpngw_tunnel_probe_lossy_total", labels) == 1
    await probes.ask([], [])
    assert registry.get_sample_value("vpngw_tunnel_probes_total", labels) is None


async def test_many_tunnels_take_turns_and_those_that_ended_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rounds: list[list[str]] = []

    async def ping(addresses: list[str], _: Path | None) -> dict[str, int]:
        rounds.append(addresses)
        return dict.fromkeys(addresses, PINGS)

    monkeypatch.setattr(tunnel_probes, "answered", ping)
    probes = TunnelProbes()
    tunnels = [("a", "d", f"10.0.{n // 250}.{n % 250}") for n in range(150)]
    for _ in range(4):
        await probes.ask([("a", "d")], tunnels)
    assert [len(one) for one in rounds] == [64, 64, 22]
    assert len({address for one in rounds for address in one}) == 150
    await probes.ask([("a", "d")], tunnels[:1])
    await probes.ask([("a", "d")], tunnels)
    assert len(rounds[-1]) == 64
    assert len(rounds) == 4


def test_whoever_may_not_ping_is_told_which_setting_lets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> socket.socket:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "socket", refused)
    with pytest.raises(BadInput, match=r"net\.ipv4\.ping_group_range"):
        require_pings()
