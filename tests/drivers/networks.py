"""Users who change networks while their instance drains: what becomes of their sessions."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from activities.drivers.programs import run
from tests.drivers.front_lab import move
from tests.drivers.gateway_client import Client
from tests.drivers.gateway_lab import GatewayLab, operation
from tests.drivers.nat_router import NatRouter

POOL = 99
TARGET = f"10.90.{POOL}.1"
"""An address of the gateway's own, through whatever tunnel."""
SILENT = 1.0
"""Seconds without an answer at the end of which nobody knows whether more would come."""
BEFORE = 2.0
"""Seconds of pings before anybody changes networks."""


class Change(StrEnum):
    """How a user changes networks."""

    ADDRESS = "rebound, another address"
    """The router between user and gateway was given another address, and knows no flow of before."""
    PORT = "rebound, other ports"
    """That router forgot its flows, and gives each another port."""
    MOVED = "moved"
    """The user's own address is another one; the client finds out by itself."""
    TOLD = "moved and told"
    """The same, and the client is told to connect again at once, before it has sent anything from there."""


@dataclass(frozen=True)
class Changed:
    """What one user noticed; the gap is the longest time without an answer, None without a session.

    A session that carries nothing at the end was not kept, whatever client and instance say of it.
    """

    change: Change
    kept: bool
    gap_s: float | None
    pings_sent: int
    pings_lost: int


async def change_networks(
    lab: GatewayLab, changes: Sequence[Change], *, watched: float, draining: float = 0.0
) -> list[Changed]:
    """Have one user for each change on an instance that drains, and look at them for so many seconds.

    The caller is in the gateway's network, whose table was primed. The drain is so many seconds old when
    all of them change networks. Their sites stay as they are then.
    """
    await run(["ip", "address", "replace", f"{TARGET}/32", "dev", "lo"])
    routers = {
        number: NatRouter(lab, number)
        for number, how in enumerate(changes, start=1)
        if how in (Change.ADDRESS, Change.PORT)
    }
    old = await lab.running("1")
    await lab.table.make_permanent(operation("keep"), old)
    people = [await lab.client(number).up() for number in range(1, 1 + len(changes))]
    own = {session.remote_address: session.vpn_address for session in (await lab.folders.live())[old] or ()}
    homes = [
        own[routers[number].address if number in routers else f"10.77.0.{10 + number}"]
        for number in range(1, 1 + len(changes))
    ]
    new = await lab.running("2")
    await lab.table.make_permanent(operation("keep new"), new)
    keeping = asyncio.create_task(lab.table.keep())
    try:
        await asyncio.sleep(draining)
        for person in people:
            person.ping(host=POOL)
        await asyncio.sleep(BEFORE)
        for person, how in zip(people, changes, strict=True):
            _change(lab, person, how, routers.get(person.number))
        await asyncio.sleep(watched)
        live = {one.vpn_address for one in (await lab.folders.live())[old] or () if one.connected}
    finally:
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping
    return [
        _noticed(person, how, here=home in live)
        for person, how, home in zip(people, changes, homes, strict=True)
    ]


def _change(lab: GatewayLab, person: Client, how: Change, router: NatRouter | None) -> None:
    if router is None:
        move(lab, person, 110 + person.number)
    elif how is Change.PORT:
        router.forget()
    else:
        router.rebind()
    if how is Change.TOLD:
        person.reconnect()


def _noticed(person: Client, how: Change, *, here: bool) -> Changed:
    only, alive = person.said(person.logged_in) == 1, person.alive
    sent, lost = person.lost()
    kept = here and only and alive and person.silent_at_the_end() < SILENT
    return Changed(how, kept, round(person.gap(), 2) if kept else None, sent, lost)
