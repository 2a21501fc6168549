"""Shadow logins on a new instance and on the one that serves, each pair at the same moment."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence

from activities.drivers.daemon.port import Daemon, Mirrors
from activities.drivers.runtime.host.slot_folders import PATIENCE, SlotFolder, answered
from policies.mirror import Schedule, schedule, shown, unknown
from policies.model.errors import BadInput, Unavailable
from policies.model.mirror import Beside, Mirror, RecordedLogin, ShadowLogin, Tried
from policies.model.release_tests import Measurement

MOST_AT_ONCE = 16
"""Shadow logins under way at one instance, however large its gateway is."""
OF_CAPACITY = 0.05
"""Part of a gateway's sessions that shadow logins may be, at each of the two instances."""
LATE = 2.0
"""Seconds that a login waits for a place: later it would show another moment than the one it stands for."""


class _Instance:
    """One of the two instances, and the places for shadow logins at it."""

    def __init__(self, daemon: Mirrors, folder: SlotFolder) -> None:
        self._daemon = daemon
        self._folder = folder
        most = int(folder.chroot.gateway.capacity * OF_CAPACITY)
        self._places = asyncio.Semaphore(max(1, min(MOST_AT_ONCE, most)))

    async def tried(self, how: ShadowLogin) -> Tried | None:
        """Return how a login fared, None where it could not be made; who finds no place was not let in."""
        try:
            await asyncio.wait_for(self._places.acquire(), LATE)
        except TimeoutError:
            said = (
                f"slot {self._folder.slot.name}: as many as may be were still logging in {LATE:.0f} s later"
            )
            return Tried(let_in=False, said=said)
        try:
            probe = await self._daemon.shadow(self._folder.chroot, how)
        except Unavailable:
            return None
        finally:
            self._places.release()
        return Tried(let_in=probe.passed, seconds=probe.connect_seconds, said=probe.reason)


async def mirrored(
    daemon: Daemon,
    new: SlotFolder,
    old: SlotFolder,
    mirror: Mirror,
    recorded: Sequence[RecordedLogin],
    admit: Callable[[], bool],
) -> tuple[Measurement, ...]:
    """Make the shadow logins that follow from what users did here, and return what they show.

    `admit` is asked before each pair whether this host makes one more now, and raises when the order does
    not hold any more.
    """
    if not isinstance(daemon, Mirrors):
        return unknown(f"logins of {daemon.product} are not mirrored yet; leave tests.mirror out")
    plan = schedule(recorded, mirror, time.time(), await _transports(daemon, old))
    try:
        found = await _made(plan, _Instance(daemon, new), _Instance(daemon, old), admit)
    except BadInput as error:
        return unknown(str(error))
    return tuple(
        one.model_copy(update={"said": f"{one.said} ({plan.said})"}) for one in shown(found, len(plan.logins))
    )


async def _transports(daemon: Daemon, old: SlotFolder) -> Counter[str]:
    """Return how many of the present tunnels are carried by what; none where the daemon does not say."""
    sessions = await answered(daemon.sessions(old.chroot), PATIENCE)
    return Counter(one.transport for one in sessions or () if one.connected)


async def _made(plan: Schedule, new: _Instance, old: _Instance, admit: Callable[[], bool]) -> list[Beside]:
    """Begin each pair at its moment; whatever ends this ends all of them."""
    begun = time.monotonic()

    async def pair(number: int, how: ShadowLogin) -> Beside:
        await asyncio.sleep(begun + how.after - time.monotonic())
        if not admit():
            return Beside(new=None, old=None)
        # Whoever begins first finds the host a little less busy, so they take turns.
        order = (new, old) if number % 2 else (old, new)
        tried = await asyncio.gather(*(instance.tried(how) for instance in order))
        return Beside(new=tried[order.index(new)], old=tried[order.index(old)])

    try:
        async with asyncio.TaskGroup() as logins:
            pairs = [logins.create_task(pair(*one)) for one in enumerate(plan.logins)]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    return [one.result() for one in pairs]
