"""An ocserv that hangs: when its host stops it although its sessions cannot be counted."""

from contextlib import suppress
from datetime import timedelta

import pytest

from activities.drivers.runtime.host.process import PROC, process
from activities.drivers.runtime.host.silence import Silences
from deploy.lab.spoiled import HARM, SpoiledLater, spoil
from policies import drains
from policies.model.drain import Silence, Uncounted
from policies.model.errors import Refused
from policies.model.instance import InstanceState
from tests.drivers.gateway_client import Client
from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, built_lab, lab  # noqa: F401 - fixtures
from tests.drivers.gateway_lab import GatewayLab, operation
from tests.patience import until

pytestmark = ON_A_REAL_GATEWAY
A_LOOK = timedelta(seconds=40)
"""From one look of a drain to the next one, by the clock of these tests."""
LONG = timedelta(minutes=2)
"""What `DESERTED_FOR` is here: each look at a daemon that hangs takes five seconds."""
AGAIN = "3"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drains, "DESERTED_FOR", LONG)


class Hours:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Hung:
    """A release that was rolled back and hangs, beside the one that serves."""

    def __init__(self, lab: GatewayLab, slot: str) -> None:  # noqa: F811
        self.lab, self.slot = lab, slot
        self.clock = Hours()
        lab.folders.silences = Silences(lab.gateway, lab.folders.daemon, self.clock)

    async def silent_for(self, time: timedelta) -> Silence:
        """Look at it for so long, as a drain does."""
        look = await self.lab.sessions.look(self.slot)
        while look.silence is None or look.silence.lasts < time:
            self.clock.now += A_LOOK.total_seconds()
            look = await self.lab.sessions.look(self.slot)
            assert (look.sessions, look.exempt) == (None, None)
        return look.silence

    async def stop(self, uncounted: Uncounted) -> None:
        state = await self.lab.slots.stop(operation("stop"), self.slot, uncounted)
        assert state.instance(self.slot).state is InstanceState.STOPPED

    async def is_refused(self, uncounted: Uncounted) -> None:
        with pytest.raises(Refused, match="cannot be counted"):
            await self.lab.slots.stop(operation("stop"), self.slot, uncounted)


async def hanging(lab: GatewayLab, *, user: bool) -> tuple[Hung, Client | None]:  # noqa: F811
    """Have the release on trial hang at a login, perhaps with a user's tunnel, and steer back."""
    old = await lab.running("1")
    await lab.table.make_permanent(operation("keep"), old)
    spoil(lab.admission.tree, SpoiledLater.HANGS_AT_LOGINS)
    new = await lab.running("2")
    await lab.table.start_trial(operation("trial"), new, timedelta(minutes=1))
    worked = await lab.client(1).up() if user else None
    (lab.folders.of(new).chroot.root / HARM).touch()
    late = lab.client(2)

    async def hangs() -> bool:  # an instance of a busy machine is late once, and not each time
        return [await lab.sessions.count(new) for _ in range(3)] == [None] * 3

    await until(hangs)
    late.process.kill()
    await lab.table.end_trial(operation("back"))
    return Hung(lab, new), worked


@pytest.mark.sweep
async def test_a_hung_instance_without_users_is_stopped_whole_once_its_kernel_has_shown_none_for_long(
    lab: GatewayLab,  # noqa: F811
) -> None:
    hung, _ = await hanging(lab, user=False)
    running = lab.folders.of(hung.slot).process()
    assert running is not None
    await hung.is_refused(Uncounted.SILENT)
    await hung.silent_for(LONG - A_LOOK)
    await hung.is_refused(Uncounted.DESERTED)
    await hung.is_refused(Uncounted.NONE)
    silence = await hung.silent_for(LONG + A_LOOK)
    assert silence.deserted is not None
    await hung.stop(Uncounted.DESERTED)
    assert _processes_of_group(running.pid or 0) == []
    assert await lab.running(AGAIN) == hung.slot


@pytest.mark.sweep
async def test_a_hung_instance_with_a_users_tunnel_is_stopped_by_an_operators_order_alone(
    lab: GatewayLab,  # noqa: F811
) -> None:
    hung, worked = await hanging(lab, user=True)
    assert worked is not None
    worked.ping(hung.slot)
    silence = await hung.silent_for(LONG + A_LOOK)
    assert silence.deserted == timedelta(0)
    await hung.is_refused(Uncounted.DESERTED)
    assert worked.alive
    await hung.stop(Uncounted.SILENT)
    devices = (PROC / "thread-self/net/dev").read_text()
    assert lab.folders.of(hung.slot).slot.device not in devices


@pytest.mark.sweep
async def test_an_instance_that_answers_again_is_silent_no_more(lab: GatewayLab) -> None:  # noqa: F811
    hung, _ = await hanging(lab, user=False)
    await hung.silent_for(drains.SILENT_FOR)
    (lab.folders.of(hung.slot).chroot.root / HARM).unlink()
    while (look := await lab.sessions.look(hung.slot)).sessions is None:
        pass
    assert look.silence is None
    assert (await lab.sessions.look(hung.slot)).sessions == 0


def _processes_of_group(group: int) -> list[int]:
    found = []
    for stat in PROC.glob("[0-9]*/stat"):
        with suppress(OSError):
            pid = int(stat.parent.name)
            if int(stat.read_text().rpartition(")")[2].split()[2]) == group and process(pid):
                found.append(pid)
    return found
