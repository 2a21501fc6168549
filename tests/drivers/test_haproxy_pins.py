"""A HAProxy that leads thousands of users back: a real one, which listens on unix sockets alone."""

import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import pytest
import pytest_asyncio

from activities.drivers.daemon.port import Session
from activities.drivers.steering import haproxy
from activities.drivers.steering.haproxy import Balancer
from activities.drivers.steering.haproxy_process import HaproxyProcess
from activities.drivers.steering.haproxy_socket import PATIENCE, HaproxySocket
from activities.drivers.steering.haproxy_switch import read_map, replace_map
from activities.drivers.steering.orders import Sessions
from activities.drivers.steering.switch import Switch
from policies.model.errors import Conflict, Unavailable
from tests.drivers.front_lab import simulated_liar, why_not_here
from tests.drivers.gateway_lab import gateway
from tests.patience import until

pytestmark = pytest.mark.skipif(why_not_here() is not None, reason="needs haproxy")
CONFIGURATION = """
global
    stats socket {folder}/haproxy.sock mode 600 level admin
defaults
    mode tcp
    timeout connect 5s
    timeout client 10s
    timeout server 10s
frontend users
    bind unix@{folder}/users.sock
    tcp-request content set-var(txn.slot) src,map_ip({folder}/pins.map)
    tcp-request content reject
"""


class Pins:
    """A HAProxy of its own with a map of addresses."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.map = folder, folder / "pins.map"
        self.socket = HaproxySocket(folder / "haproxy.sock", "gw-1")

    async def lead(self, pins: dict[str, str]) -> None:
        await replace_map(self.socket, self.map, "".join(f"{one} {slot}\n" for one, slot in pins.items()))

    async def led(self) -> dict[str, str]:
        return await read_map(self.socket, self.map)


@pytest.fixture
def running() -> Iterator[Path]:
    """The folder of a HAProxy that was started; its name is short enough for a socket's."""
    with TemporaryDirectory(prefix="psp") as name:
        configuration = Path(name, "haproxy.cfg")
        configuration.write_text(CONFIGURATION.format(folder=name))
        Path(name, "pins.map").touch()
        process = subprocess.Popen(["haproxy", "-db", "-f", str(configuration)])
        try:
            yield Path(name)
        finally:
            process.kill()
            process.wait()


@pytest_asyncio.fixture(loop_scope="function")
async def pins(running: Path) -> Pins:
    """The map of a HAProxy that answers."""
    made = Pins(running)
    await until(lambda: answers(made.socket))
    return made


async def answers(socket: HaproxySocket) -> bool:
    try:
        return bool(await socket.ask("show version"))
    except Unavailable:  # its socket is there before it listens on it
        return False


def users(count: int) -> dict[str, str]:
    """Return that many addresses of each family, each with the slot of its session."""
    first4, first6 = IPv4Address("10.100.0.1"), IPv6Address("2001:db8:aaaa:bbbb:cccc:dddd:eeee:1")
    both = [str(first + number) for first in (first4, first6) for number in range(count)]
    return {address: "abc"[number % 3] for number, address in enumerate(both)}


async def test_five_thousand_users_of_each_family_are_led_back_to_their_sessions(pins: Pins) -> None:
    await pins.lead({"10.77.0.1": "c"})
    await pins.lead(users(5000))
    assert await pins.led() == users(5000)
    await pins.lead({})
    assert await pins.led() == {}


async def test_who_was_led_back_still_is_when_haproxy_takes_others_and_keeps_none(pins: Pins) -> None:
    await pins.lead(users(500))
    async with simulated_liar(pins.folder, lambda said: said.startswith("add map")) as taken:
        with pytest.raises(Conflict, match=r"was given 2400 entries of .*pins\.map and has 0"):
            await pins.lead(users(1200))
        assert len(taken) > 4
    assert await pins.led() == users(500)


async def test_a_command_that_is_too_long_for_haproxy_is_no_success(pins: Pins) -> None:
    await pins.lead(users(1))
    version = (await pins.socket.order(f"prepare map {pins.map}")).rpartition(" ")[2]
    begin = f"add map @{version} {pins.map} <<\n"
    lines = "".join(f"{address} a\n" for address in users(1200))[: 16 * 1024 - len(begin)]
    with pytest.raises(Unavailable, match=r"closed its socket on .* without an answer"):
        await pins.socket.order(begin + lines)
    assert await pins.led() == users(1)


async def test_users_are_led_back_though_the_disk_takes_no_map(
    pins: Pins, caplog: pytest.LogCaptureFixture
) -> None:
    balancer = Balancer(gateway(), HaproxyProcess(pins.folder, "gw-1"))
    on_a = {"a": [session("10.77.0.11"), session("fd77::12")], "b": []}
    later = {"a": [session("10.77.0.11")], "b": []}
    switched = Switch(steer="b")
    assert await balancer.follow(as_live(on_a), switched, frozenset()) == 2
    in_the_way = pins.folder / ".pins.map.new"
    in_the_way.mkdir()
    assert await balancer.follow(as_live(later), switched, frozenset()) == 1
    assert await pins.led() == {"10.77.0.11": "a"}
    assert await balancer.disagrees(switched) == ""
    assert not await balancer.heal(pins.socket)
    assert "where sessions of gw-1 are is not kept on disk" in caplog.text
    assert len(pins.map.read_text().splitlines()) == 2
    in_the_way.rmdir()
    await balancer.follow(as_live(later), switched, frozenset())
    assert pins.map.read_text() == "10.77.0.11 a\n"


class Listened(HaproxySocket):
    """A socket that notes what was asked."""

    asked: ClassVar[list[str]] = []

    async def ask(self, command: str, within: timedelta = PATIENCE) -> str:
        self.asked.append(command)
        return await super().ask(command, within)


async def test_entries_are_read_again_only_where_haproxy_says_that_they_are_others(
    pins: Pins, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = HaproxyProcess(pins.folder, "gw-1")
    balancer, switched = Balancer(gateway(), process), Switch(steer="b")
    on_a = as_live({"a": [session(address) for address in users(1000)], "b": []})
    assert await balancer.follow(on_a, switched, frozenset()) == 2000
    listened = Listened(process.socket.path, "gw-1")
    listened.asked.clear()
    assert [await balancer.heal(listened) for _ in range(5)] == 5 * [False]
    assert listened.asked.count(f"show map {pins.map}") == 1
    await pins.socket.order(f"del map {pins.map} 10.100.0.1")
    assert [await balancer.heal(listened) for _ in range(2)] == [True, False]
    await pins.socket.order(f"set map {pins.map} 10.100.0.1 b")
    monkeypatch.setattr(haproxy, "LOOK_EVERY", timedelta(0))
    assert await balancer.follow(on_a, switched, frozenset()) == 2000
    assert await pins.led() == dict.fromkeys(users(1000), "a")


@pytest.mark.sweep
async def test_users_who_leave_one_by_one_cost_one_listing_each_and_who_stay_cost_none(
    pins: Pins, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(haproxy, "LOOK_EVERY", timedelta(hours=1))  # the next look is due after the test
    process = HaproxyProcess(pins.folder, "gw-1")
    process.socket = Listened(process.socket.path, "gw-1")
    balancer, switched = Balancer(gateway(), process), Switch(steer="b")
    everybody = list(users(5000))

    async def refresh(stay: list[str]) -> list[str]:
        """Return what HAProxy was told or asked, but for sums."""
        Listened.asked.clear()
        live = as_live({"a": [session(address) for address in stay], "b": []})
        assert await balancer.follow(live, switched, frozenset()) == len(stay)
        assert await balancer.disagrees(switched) == ""
        assert not await balancer.heal(process.socket)
        return [asked for asked in Listened.asked if asked != "show map"]

    await refresh(everybody)
    listing = f"show map {pins.map}"
    assert await refresh(everybody) == [listing]  # an order is looked at once more
    assert await refresh(everybody) == []
    left = await refresh(everybody[2:])
    assert sorted(left) == sorted([*(f"del map {pins.map} {gone}" for gone in everybody[:2]), listing])
    came = [*everybody[2:], "10.77.0.99"]
    assert await refresh(came) == [f"add map {pins.map} <<\n10.77.0.99 a\n", listing]
    assert await refresh(came) == []
    assert await pins.led() == dict.fromkeys(came, "a")


async def test_who_moves_to_another_slot_is_led_there_alone(pins: Pins) -> None:
    balancer = Balancer(gateway(), HaproxyProcess(pins.folder, "gw-1"))
    on_trial = Switch(steer="a").on_trial("b", timedelta(seconds=30), share=5, seed=1)
    for homes in ({"10.77.0.1": "a", "10.77.0.2": "b"}, {"10.77.0.1": "b", "10.77.0.2": "b"}):
        live = {slot: [session(one) for one, home in homes.items() if home == slot] for slot in "ab"}
        await balancer.follow(as_live(live), on_trial, frozenset())
        assert await balancer.disagrees(on_trial) == ""
        assert (await pins.socket.ask(f"show map {pins.map}")).count(" 10.77.0.") == 2
        assert await pins.led() == homes


async def test_what_haproxy_lost_is_given_anew_with_the_next_user_who_leaves(pins: Pins) -> None:
    balancer, switched = Balancer(gateway(), HaproxyProcess(pins.folder, "gw-1")), Switch(steer="b")
    for stay in (users(5), dict(list(users(5).items())[:9])):
        live = as_live({"a": [session(address) for address in stay], "b": []})
        await balancer.follow(live, switched, frozenset())
        assert await balancer.disagrees(switched) == ""
        assert await pins.led() == dict.fromkeys(stay, "a")
        await pins.socket.order(f"clear map {pins.map}")


def as_live(sessions: dict[str, list[Session]]) -> Sessions:
    return {slot: tuple(those) for slot, those in sessions.items()}


def session(address: str) -> Session:
    since = datetime.now(UTC)
    return Session(id=address, remote_address=address, vpn_address="", since=since, transport="tls")
