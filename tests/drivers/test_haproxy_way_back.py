"""The way back by a HAProxy that is in trouble: a real one on loopback, in front of simulated users."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import pytest_asyncio

from activities.drivers.daemon.port import Session
from activities.drivers.runtime.host.bounds import HostBounds
from activities.drivers.runtime.host.journal import Journal
from activities.drivers.steering import haproxy_steering
from activities.drivers.steering.haproxy_process import HaproxyProcess
from activities.drivers.steering.haproxy_socket import HaproxySocket
from activities.drivers.steering.haproxy_steering import MAP, HaproxySteering
from activities.drivers.steering.haproxy_switch import leases, rules
from activities.drivers.steering.orders import Sessions, SteeringOrders
from activities.drivers.steering.switch import Switch
from deploy.ports import free_port
from policies.model.errors import Conflict, Refused, Unavailable
from policies.model.fleet import Gateway, Slot, SteeringKind
from policies.steering import PROMISES
from tests.drivers.front_lab import simulated_liar, why_not_here
from tests.drivers.gateway_lab import gateway, operation
from tests.drivers.halted import halt

pytestmark = pytest.mark.skipif(why_not_here() is not None, reason="needs haproxy")
LEASE = timedelta(minutes=5)


class SimulatedFront:
    """Users of whom a test says what they get, and whether they can be led back."""

    promises = PROMISES["redirect"]

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.why, self.fails = "", False

    def configuration(self) -> str:
        lines = [
            "global",
            f"    stats socket {self.folder}/haproxy.sock mode 600 level admin",
            "defaults",
            "    mode tcp",
            "    timeout connect 5s",
            "    timeout client 10s",
            "    timeout server 10s",
            "frontend users",
            f"    bind 127.0.0.1:{self.port}",
            *(f"    {line}" for line in rules(self.folder / MAP, "tcp-request content")),
            "    tcp-request content reject",
            *leases(),
        ]
        return "\n".join([*lines, ""])

    async def prepare(self) -> None:
        """Have nothing on disk."""

    async def renew(self, haproxy: HaproxySocket) -> bool:
        return False

    async def heal(self, haproxy: HaproxySocket) -> bool:
        return False

    async def follow(self, live: Sessions, switch: Switch, leaving: frozenset[str]) -> int:
        if self.fails:
            raise OSError("no space left on device")
        return 0

    async def disagrees(self, switch: Switch) -> str:
        return self.why


class Fronted:
    """A gateway whose slots a and b run, steered by a HAProxy of its own."""

    def __init__(self, folder: Path, steering: SteeringKind = "redirect") -> None:
        self.folder = folder / "front"
        self.port = free_port()
        own = {"addresses": ["127.0.0.1"], "port": self.port, "steering": steering}
        self.gateway = Gateway.model_validate(gateway().model_dump() | own)
        self.front = SimulatedFront(self.folder, self.port)
        self.process = HaproxyProcess(self.folder, "gw-1")

        async def live(within: timedelta) -> Mapping[str, tuple[Session, ...] | None]:
            return {"a": (), "b": ()}

        journal = Journal(folder / "journal.jsonl", HostBounds("gw-1"))
        orders = SteeringOrders(self.gateway, journal, live, folder / "steering.json")
        self.steering = HaproxySteering(orders, self.process, self.front)

    async def in_force(self) -> tuple[str | None, str | None]:
        found = await self.steering.read()
        return found.serving, found.trial

    async def healed(self) -> tuple[str | None, str | None]:
        await self.steering.heal()
        return await self.in_force()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose name is short enough for a socket's."""
    with TemporaryDirectory(prefix="psw") as name:
        yield Path(name)


@pytest_asyncio.fixture(loop_scope="function")
async def fronted(folder: Path) -> AsyncIterator[Fronted]:
    """A gateway that serves in slot a, with slot b on trial."""
    made = Fronted(folder)
    try:
        await made.steering.make_permanent(operation("keep"), "a")
        await made.steering.start_trial(operation("trial"), "b", LEASE)
        assert await made.healed() == ("a", "b")
        yield made
    finally:
        await made.process.end()


@pytest.mark.parametrize(
    ("steering", "way"),
    [("redirect", "adopt it with `steering: nftables`"), ("haproxy", "set the gateway up anew$")],
)
def test_a_daemon_that_cannot_be_adopted_is_told_a_way_that_can_be_gone(
    folder: Path, steering: SteeringKind, way: str
) -> None:
    own = Slot(**gateway().slots[0].model_dump() | {"name": "own", "port": 443})
    with pytest.raises(Refused, match=way):
        Fronted(folder, steering).steering.take(own)


@pytest.mark.parametrize("trouble", [{"why": "it does not answer users"}, {"fails": True}])
async def test_what_users_get_refuses_no_way_back(fronted: Fronted, trouble: dict[str, object]) -> None:
    vars(fronted.front).update(trouble)
    back = await fronted.steering.end_trial(operation("back"))
    assert (back.serving, back.trial, back.changed) == ("a", None, True)
    assert await fronted.healed() == ("a", None)


@pytest.mark.sweep
async def test_a_lease_that_haproxy_reckons_by_its_own_clock_is_taken_for_renewed(fronted: Fronted) -> None:
    """What it says is left is cut to milliseconds, by which one quick renewal in fifteen fell short."""
    for number in range(200):
        renewed = await fronted.steering.start_trial(operation(f"renew {number}"), "b", LEASE, renew=True)
        assert renewed.trial == "b"


async def test_a_lease_that_haproxy_did_not_renew_is_a_conflict(fronted: Fronted) -> None:
    await asyncio.sleep(haproxy_steering.NEARLY_OVER.total_seconds() + 0.2)
    async with simulated_liar(fronted.folder, lambda said: said.startswith("set table")) as taken:
        with pytest.raises(Conflict, match="took a change and did not make it"):
            await fronted.steering.start_trial(operation("renew"), "b", LEASE, renew=True)
    assert taken


async def test_a_trial_is_not_healed_that_was_ended_and_could_not_be_read_back(fronted: Fronted) -> None:
    asked = 0

    def lies(said: str) -> bool:
        nonlocal asked
        asked += said.startswith("show table")
        return asked == 2 and said.startswith("show table")

    async with simulated_liar(fronted.folder, lies):
        with pytest.raises(Conflict, match="took a change and did not make it"):
            await fronted.steering.end_trial(operation("back"))
    assert await fronted.healed() == ("a", None)


async def test_a_haproxy_that_could_not_be_asked_is_healed_to_what_was_before_the_trial(
    fronted: Fronted,
) -> None:
    fronted.process.socket.path.rename(fronted.folder / "away")
    with pytest.raises(Unavailable):
        await fronted.steering.end_trial(operation("back"))
    (fronted.folder / "away").rename(fronted.process.socket.path)
    assert await fronted.in_force() == ("a", "b")
    assert await fronted.healed() == ("a", None)


async def test_a_slot_that_was_made_permanent_is_not_healed_to_the_trial_of_another(
    fronted: Fronted,
) -> None:
    fronted.front.why = "it does not answer users"
    with pytest.raises(Conflict, match="does not answer users"):
        await fronted.steering.make_permanent(operation("keep old"), "a")
    assert await fronted.healed() == ("a", None)


async def test_an_order_that_failed_before_it_was_written_is_not_carried_out_later(
    fronted: Fronted,
) -> None:
    fronted.front.fails = True
    with pytest.raises(OSError, match="no space left"):
        await fronted.steering.make_permanent(operation("keep new"), "b")
    assert await fronted.healed() == ("a", "b")
    back = await fronted.steering.end_trial(operation("back"))
    assert (back.serving, back.trial) == ("a", None)


async def test_the_way_back_from_an_order_that_failed_leads_to_the_last_one_that_did_not(
    fronted: Fronted,
) -> None:
    fronted.front.why = "it does not answer users"
    with pytest.raises(Conflict, match="does not answer users"):
        await fronted.steering.make_permanent(operation("keep new"), "b")
    assert await fronted.healed() == ("b", None)
    assert fronted.steering.permanent == "a"
    back = await fronted.steering.end_trial(operation("back"))
    assert (back.serving, back.trial) == ("a", None)
    assert await fronted.healed() == ("a", None)


async def test_a_trial_that_users_do_not_get_is_healed_to_what_was_before_it(fronted: Fronted) -> None:
    await fronted.steering.end_trial(operation("back"))
    fronted.front.why = "it does not answer users"
    with pytest.raises(Conflict, match="does not answer users"):
        await fronted.steering.start_trial(operation("trial again"), "b", LEASE)
    assert await fronted.healed() == ("a", None)


@pytest.mark.sweep
async def test_a_haproxy_that_is_late_for_its_agent_alone_is_not_ended(
    fronted: Fronted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(haproxy_steering, "SILENT_FOR", timedelta(milliseconds=200))
    served = fronted.process.running
    fronted.process.socket.path.rename(fronted.folder / "away")
    for _ in range(5):
        with pytest.raises(Unavailable):
            await fronted.steering.heal()
        await asyncio.sleep(0.1)
    assert fronted.process.running == served
    assert served is not None
    await halt(served.pid)
    assert await fronted.steering.heal()
    assert not served.alive
    assert await fronted.in_force() == ("a", "b")


@pytest.mark.sweep
async def test_a_haproxy_that_hangs_for_a_moment_is_not_ended(fronted: Fronted) -> None:
    served = fronted.process.running
    assert served is not None
    await halt(served.pid)
    with pytest.raises(Unavailable):
        await fronted.steering.heal()
    served.tell(signal.SIGCONT)
    assert not await fronted.steering.heal()
    assert fronted.process.running == served
    assert await fronted.in_force() == ("a", "b")
