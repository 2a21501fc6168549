"""Who looks after the steering table goes on, whatever this host has run out of for a moment."""

import asyncio
import errno
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from activities.drivers.daemon.port import Session
from activities.drivers.runtime.host.bounds import HostBounds
from activities.drivers.runtime.host.journal import Journal
from activities.drivers.steering import nftables
from activities.drivers.steering.nftables import NftablesTable
from tests.unit.fleets import gateway


async def test_a_host_out_of_descriptors_ends_nobodys_look_after_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nftables, "FOLLOW_EVERY", timedelta(0))
    asked, often = 0, asyncio.Event()

    async def live(within: timedelta) -> Mapping[str, tuple[Session, ...] | None]:
        nonlocal asked
        asked += 1
        if asked >= 3:
            often.set()
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    journal = Journal(tmp_path / "journal.jsonl", HostBounds("gw-1"))
    table = NftablesTable(gateway("gw-1"), journal, live, tmp_path / "steering.json")
    keeping = asyncio.create_task(table.keep())
    try:
        async with asyncio.timeout(5):
            await often.wait()
    finally:
        keeping.cancel()
