"""Users whom a bad release on trial refuses, and their own next login once it was rolled back.

One user of the trial got a working tunnel before the release turned bad, and keeps it.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from itertools import cycle

from activities.drivers.programs import run
from deploy.lab.spoiled import HARM, SpoiledLater, spoil
from policies.model.errors import PenstockError
from tests.drivers.gateway_client import Client
from tests.drivers.gateway_lab import GatewayLab, operation
from tests.patience import PATIENCE

LEASE = timedelta(seconds=20)
GIVES_UP_AFTER = 4.0
"""Seconds after which a user gives up a login and tries again."""
REFUSALS = 2
"""So often each user has been refused when the release is rolled back."""
WORKED = 1
"""The site whose user has a working tunnel on the trial before it turns bad."""
USER_SETTINGS = "etc/ocserv/users"


class Refusal(StrEnum):
    """How a bad release refuses its users."""

    AT_PASSWORD = "at the password"
    AFTER_PASSWORD = "after the password"
    AT_TUNNEL = "at the tunnel"
    CRASHES = "crashes"
    HANGS = "hangs"


_SPOILED = {
    Refusal.AT_PASSWORD: SpoiledLater.REFUSES_PASSWORDS,
    Refusal.AT_TUNNEL: SpoiledLater.REFUSES_TUNNELS,
    Refusal.CRASHES: SpoiledLater.DIES_IN_TUNNELS,
    Refusal.HANGS: SpoiledLater.HANGS_AT_LOGINS,
}


@dataclass(frozen=True)
class Refused:
    """What one address counted, in seconds of the wall clock from the decision."""

    refusals_before: int
    refusals_after: int
    """Logins that began after the decision was carried out, and failed."""
    next_good_s: float
    """From the decision to its own next good login."""


@dataclass(frozen=True)
class Outcome:
    """What users of one bad release counted."""

    addresses: tuple[Refused, ...]
    worked_kept: bool
    """Whether the session that worked was still there, and its user was led back to it."""


class _Address:
    """One address from which users log in, one after the other: a person's own, or an office's."""

    def __init__(self, lab: GatewayLab, site: int, names: Sequence[int]) -> None:
        self._lab, self._site, self._names = lab, site, cycle(names)
        self.logins = list[tuple[float, float, bool]]()
        """When each login began and ended, and whether it was good."""
        self.changed = asyncio.Event()

    async def keep_logging_in(self) -> None:
        while True:
            began = time.monotonic()
            good = await self._logs_in()
            self.logins.append((began, time.monotonic(), good))
            self.changed.set()

    async def until(self, wanted: "_Counted") -> None:
        while not wanted(self):
            self.changed.clear()
            await self.changed.wait()

    async def _logs_in(self) -> bool:
        name = f"--user=user{next(self._names)}"
        client = Client(f"{self._lab.prefix}c{self._site}", self._lab.folder, self._site, more=(name,))
        try:
            with suppress(AssertionError, TimeoutError):  # it ended, or had no tunnel in time
                await client.until(client.logged_in, within=GIVES_UP_AFTER)
                ping = ["ip", "netns", "exec", client.name, "ping", "-c1", "-W1", "10.90.0.1"]
                return (await run(ping)).status == 0
            client.process.kill()  # there is no session to say goodbye to
            return False
        finally:
            await client.leave()


class _Counted:
    """Whether so many of its logins, begun at or after a moment, ended so."""

    def __init__(self, times: int, since: float, *, good: bool) -> None:
        self._times, self._since, self._good = times, since, good

    def __call__(self, address: _Address) -> bool:
        logins = address.logins
        found = [good for began, _, good in logins if began >= self._since and good is self._good]
        return len(found) >= self._times


async def refuse(lab: GatewayLab, how: Refusal, sites: Sequence[int] = (2, 3)) -> Outcome:
    """Play it on a gateway whose network the caller is in; the last site is an office of three users.

    Raises:
        Unavailable: There is no compiler here.
    """
    old = await lab.running("1")
    await lab.table.make_permanent(operation("keep"), old)
    names = {site: (site,) for site in sites[:-1]} | {sites[-1]: tuple(range(sites[-1], lab.clients + 1))}
    _prepare(lab, how, [name for some in names.values() for name in some])
    new = await lab.running("2")
    await lab.table.start_trial(operation("trial"), new, LEASE)
    worked = await lab.client(WORKED).up()
    worked.ping(new)
    harm = lab.folders.of(new).chroot.root / HARM
    addresses = [_Address(lab, site, some) for site, some in names.items()]
    await lab.table.refresh()  # as its keeper does every ten seconds
    harm.touch()
    keeping = [asyncio.create_task(lab.table.keep()), asyncio.create_task(_renewing(lab, new))]
    users = [asyncio.create_task(one.keep_logging_in()) for one in addresses]
    try:
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(one.until(_Counted(REFUSALS, 0, good=False)) for one in addresses))
            keeping.pop().cancel()
            decided = time.monotonic()
            await lab.table.end_trial(operation("back"))
            steered = time.monotonic()
            await asyncio.gather(*(one.until(_Counted(1, steered, good=True)) for one in addresses))
    finally:
        for task in (*keeping, *users):
            task.cancel()
        await asyncio.gather(*keeping, *users, return_exceptions=True)
    harm.unlink()
    kept = await _is_led_back(lab, worked, new)
    return Outcome(tuple(_counted(one, decided, steered) for one in addresses), kept)


def _prepare(lab: GatewayLab, how: Refusal, names: Sequence[int]) -> None:
    """Make the next release of the lab a bad one."""
    if how is not Refusal.AFTER_PASSWORD:
        spoil(lab.admission.tree, _SPOILED[how])
        return
    folder = lab.admission.tree / USER_SETTINGS
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"user{name}").write_text("route = 10.99.0.0\n")
    with lab.admission.template.open("a") as template:
        template.write(f"\nconfig-per-user = /{USER_SETTINGS}\n")


async def _renewing(lab: GatewayLab, slot: str) -> None:
    """Confirm the trial as its wave does; a daemon that hangs has its lease renewed all the same."""
    while True:
        await asyncio.sleep(LEASE.total_seconds() / 10)
        with suppress(PenstockError):
            await lab.table.start_trial(operation("trial"), slot, LEASE, renew=True)


async def _is_led_back(lab: GatewayLab, worked: Client, slot: str) -> bool:
    """Have the user with the working session connect again, and return whether it is that session still."""
    live = (await lab.folders.live())[slot] or ()
    before = [session.vpn_address for session in live if session.connected]
    worked.reconnect()
    with suppress(AssertionError, TimeoutError):
        await worked.until("Established DTLS", times=2)
        live = (await lab.folders.live())[slot] or ()
        after = [session.vpn_address for session in live if session.connected]
        return worked.alive and len(before) == 1 and after == before
    return False


def _counted(address: _Address, decided: float, steered: float) -> Refused:
    ended = [(end, good) for began, end, good in address.logins if began >= steered]
    good = next(end for end, is_good in ended if is_good)
    return Refused(
        refusals_before=sum(not good for began, _, good in address.logins if began < steered),
        refusals_after=sum(not is_good for end, is_good in ended if end < good),
        next_good_s=round(good - decided, 2),
    )
