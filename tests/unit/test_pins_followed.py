"""How often pins follow the sessions while a drain counts them."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from activities.drivers.daemon.strongswan.daemon import StrongSwan
from activities.drivers.runtime.host import sessions as counted
from activities.drivers.runtime.host.bounds import HostBounds
from activities.drivers.runtime.host.journal import Journal
from activities.drivers.runtime.host.sessions import SlotSessions
from activities.drivers.runtime.host.slot_folders import SlotFolders
from policies.model.instance import Steering
from tests.unit.fleets import gateway


class SlowPins:
    """A table that takes a while to follow the sessions."""

    def __init__(self, takes: float) -> None:
        self.takes = takes
        self.followed = 0

    async def read(self) -> Steering:
        return Steering()

    async def refresh(self) -> Steering:
        self.followed += 1
        await asyncio.sleep(self.takes)
        return Steering()

    async def leave(self, slot: str) -> Steering:
        return Steering()


@pytest.mark.parametrize(("takes", "fewest", "most"), [(0.0, 5, 10), (0.2, 1, 2)])
async def test_pins_that_take_long_to_follow_the_sessions_follow_them_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, takes: float, fewest: int, most: int
) -> None:
    monkeypatch.setattr(counted, "REFRESH", timedelta(milliseconds=100))
    here, pins = gateway("gw-1"), SlowPins(takes)
    folders = SlotFolders(here, tmp_path, StrongSwan())
    journal = Journal(tmp_path / "journal.jsonl", HostBounds(here.name))
    sessions, until = SlotSessions(folders, journal, pins), asyncio.get_running_loop().time() + 1
    while asyncio.get_running_loop().time() < until:
        assert await sessions.count("a") == 0
        await asyncio.sleep(0.02)
    assert fewest <= pins.followed <= most
