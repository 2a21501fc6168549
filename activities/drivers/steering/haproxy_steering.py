"""Steering by a HAProxy on the gateway's own host, whatever it does with who is steered."""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Collection, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from activities.drivers.disk import ensure_whole
from activities.drivers.steering.haproxy_process import HaproxyProcess
from activities.drivers.steering.haproxy_socket import PATIENCE, HaproxySocket, nobody_listens
from activities.drivers.steering.haproxy_switch import LEASES, map_of, read_switch, write_switch
from activities.drivers.steering.orders import AT_ONCE, Sessions, SteeringOrders, generation_of, seed_of
from activities.drivers.steering.switch import EVERYBODY, Switch
from policies.model.errors import Conflict, PenstockError, Refused, Unavailable
from policies.model.fleet import Gateway, Slot
from policies.model.instance import Steering
from policies.model.operation import Operation
from policies.steering import Promises

FOLDER = "front"
"""In the agent's folder: configuration, socket and log of the HAProxy in front of the slots."""
MAP = "switch.map"
HEAL_EVERY = timedelta(seconds=1)
RENEW_EVERY = timedelta(minutes=1)
FOLLOW_EVERY = timedelta(seconds=10)
SILENT_FOR = timedelta(seconds=10)
SILENCES = 3
"""For how long, and how often in a row, HAProxy does not answer its agent before it may be ended."""
NEARLY_OVER = timedelta(seconds=1)
"""What is left of a lease that HAProxy may have ended by its own clock, and ours not yet.

It reads its clock when it wakes, a while before it acts on a busy machine, and cuts to milliseconds what is
left.
"""
_log = logging.getLogger(__name__)


class Front(Protocol):
    """What the HAProxy in front of the slots does with users."""

    @property
    def promises(self) -> Promises:
        """What users can count on."""
        ...

    def configuration(self) -> str:
        """Return the whole configuration."""
        ...

    async def prepare(self) -> None:
        """Ensure that what the configuration names is on disk, before HAProxy reads it."""
        ...

    async def renew(self, haproxy: HaproxySocket) -> bool:
        """Ensure that HAProxy shows the credentials of now; return whether they were others."""
        ...

    async def follow(self, live: Sessions, switch: Switch, leaving: frozenset[str]) -> int:
        """Ensure that whoever has a session finds it again, unless it is on a slot that is being left.

        Return for how many addresses that is elsewhere than where new sessions go.
        """
        ...

    async def heal(self, haproxy: HaproxySocket) -> bool:
        """Ensure that HAProxy still knows who is led where; return whether it did not."""
        ...

    async def disagrees(self, switch: Switch) -> str:
        """Return what users get in place of what was written, empty where they get that."""
        ...


class HaproxySteering:
    """The steering of one gateway by a HAProxy, in the network namespace this process lives in.

    What it says lives in its memory; a file that it reads at its start says which slot is permanent. A trial
    that was lost with its process is written again for what is left of its lease while this agent lives;
    otherwise new sessions go to the permanent slot.
    """

    def __init__(self, orders: SteeringOrders, process: HaproxyProcess, front: Front) -> None:
        """Take who may steer and where to, the process, and what it does with users."""
        self._orders = orders
        self._gateway = orders.gateway
        self._process = process
        self._front = front
        self._entries = process.folder / MAP
        self._wanted: Switch | None = None
        self._until = 0.0
        """When the lease of the wanted trial ends, by this process' clock."""
        self._silences = list[float]()
        """When HAProxy did not answer, since it did last."""
        self._pinned = 0
        self._leaving: set[str] = set()
        self._turn = asyncio.Lock()
        process.folder.mkdir(parents=True, exist_ok=True)

    @property
    def promises(self) -> Promises:
        """What users can count on."""
        return self._front.promises

    @property
    def permanent(self) -> str | None:
        """The slot that was made permanent last, and is so after a reboot; None before the first."""
        return self._orders.permanent

    @property
    def listens(self) -> Collection[int]:
        """The HAProxy, which takes users' connections before any slot serves."""
        running = self._process.running
        return () if running is None else (running.pid,)

    def take(self, adopted: Slot) -> None:
        """Refuse: HAProxy and a daemon that nobody prepared cannot both have the users' port."""
        if self._gateway.steering == "haproxy":  # `SteeringOrders.require_successor` would refuse the change
            way = "an adopted daemon cannot be followed by steering haproxy: set the gateway up anew"
        else:
            way = "adopt it with `steering: nftables`, and change to another steering after an upgrade"
        raise Refused(
            f"{self._gateway.name} cannot adopt a daemon on port {adopted.port}, where its HAProxy takes "
            f"users: {way}"
        )

    async def prime(self) -> Steering:
        """Ensure that HAProxy runs; where it cannot, that is told and tried again while the agent lives."""
        async with self._turn:
            try:
                changed = await self._healed()
                return (await self.read()).model_copy(update={"changed": changed})
            except (PenstockError, OSError) as error:
                _log.warning("the steering of %s: %s", self._gateway.name, error)
                return Steering(serving=self.permanent)

    async def read(self) -> Steering:
        """Return what HAProxy says; where none runs, what it says from its start on."""
        try:
            return self._told(await self._found())
        except Unavailable as error:
            if nobody_listens(error):
                return Steering(serving=self.permanent)
            raise

    async def start_trial(
        self,
        operation: Operation,
        slot: str,
        lease: timedelta,
        *,
        renew: bool = False,
        share: int = EVERYBODY,
    ) -> Steering:
        """Send new sessions to the slot until the lease ends; a repeat renews the lease.

        A renewal that comes in the very moment in which the lease ends may begin it anew.

        Raises:
            Fenced: when a newer rollout or rollback owns the gateway.
            BeyondHostLimits: when the lease is longer than this host takes.
            InstanceGone: when nothing runs in the slot.
            LeaseLapsed: when a trial is to be renewed and has ended.
            Conflict: when HAProxy does not say, or do, what was written.
        """
        live = await self._orders.admit_trial(operation, slot, lease)
        if not self.promises.comes_back:
            now = await self.read()
            if now.trial != slot or now.share < share:
                self._orders.require_listed(live, now, but=slot)

        def wish(now: Switch) -> Switch:
            if now.steer == slot:
                return now
            if renew and now.trial != slot:
                raise self._orders.lapsed(slot)
            return now.on_trial(slot, lease, share=share, seed=seed_of(operation))

        async with self._turn:
            self._leaving.discard(slot)
            return await self._change(operation, live, wish)

    async def make_permanent(self, operation: Operation, slot: str) -> Steering:
        """Send new sessions to the slot with no lease, and end any trial.

        Raises:
            Fenced: when a newer rollout or rollback owns the gateway.
            InstanceGone: when nothing runs in the slot.
            Conflict: when HAProxy does not say, or do, what was written.
        """
        live = await self._orders.admit_permanent(operation, slot)
        async with self._turn:
            self._leaving.discard(slot)
            steering = await self._change(operation, live, lambda now: now.permanently(slot))
            self._orders.remember(slot)
            self._keep_entries()
        self._orders.tell_kept(slot)
        return steering

    async def end_trial(self, operation: Operation) -> Steering:
        """Send new sessions to the permanent slot again at once; nothing but the fence can refuse this."""
        self._orders.journal.admit(operation)
        live = await self._orders.live(AT_ONCE)
        async with self._turn:
            self._orders.journal.check(operation)
            if self._wanted is not None:  # also where HAProxy cannot be asked now: it heals to this
                self._want(self._before_trial(self._wanted), None)
            return await self._change(operation, live, self._before_trial, back=True)

    def _before_trial(self, now: Switch) -> Switch:
        """Return it with new sessions going where the last order that was carried out had them go."""
        return now.without_trial() if self.permanent is None else now.permanently(self.permanent)

    async def refresh(self) -> Steering:
        """Ensure that whoever has a session finds it again, and that users get what was written."""
        live = await self._orders.live(AT_ONCE)
        async with self._turn:
            await self._present()
            found = await self._found()
            await self._follow(live, found)
            if why := await self._front.disagrees(found):
                raise self._conflict(why)
            return self._told(found)

    async def leave(self, slot: str) -> Steering:
        """Lead nobody to the slot any more: its sessions are being ended, their users log in elsewhere."""
        async with self._turn:
            self._leaving.add(slot)
        return await self.refresh()

    async def heal(self) -> bool:
        """Ensure that HAProxy runs, answers and says what was written last; say whether it did not.

        One that does not answer for long is ended when it does not answer users either: it may carry all of
        them, and only be late.
        """
        async with self._turn:
            return await self._healed()

    async def keep(self) -> None:
        """Heal it for ever, look at what users get, and renew what it shows, without any order."""
        followed = renewed = time.monotonic()
        said = ""
        while True:
            await asyncio.sleep(HEAL_EVERY.total_seconds())
            try:
                if await self.heal():
                    _log.warning(
                        "the HAProxy of %s had ended, or said something else; it says again what it has to",
                        self._gateway.name,
                    )
                if time.monotonic() - followed > FOLLOW_EVERY.total_seconds():
                    followed = time.monotonic()
                    await self.refresh()
                if time.monotonic() - renewed > RENEW_EVERY.total_seconds():
                    renewed = time.monotonic()
                    await self.renew()
                said = ""
            except (PenstockError, OSError) as error:  # a host out of descriptors has them again later
                if said != str(error):
                    said = str(error)
                    _log.warning("the steering of %s: %s", self._gateway.name, said)

    async def renew(self) -> bool:
        """Ensure that HAProxy shows the credentials of now; return whether they were others."""
        async with self._turn:
            await self._present()
            return await self._front.renew(self._process.socket)

    async def words(self) -> str:
        """Return what HAProxy says of its map and its lease."""
        return await self._process.socket.ask(f"show map {self._entries};show table {LEASES}")

    async def remove(self) -> None:
        """End HAProxy."""
        await self._process.end()

    async def _healed(self) -> bool:
        try:
            if await self._present():
                return True
            found = await self._found()
        except Unavailable:
            if self._process.running is None or not await self._hangs():
                raise
            await self._process.end()
            self._silences.clear()
            await self._present()
            return True
        self._silences.clear()
        if self._wanted is None and found.steer is not None:  # as an earlier agent left it
            self._want(found, found.expires_in)
        agrees = self._agrees(found)
        if not agrees:
            await self._write_wanted()
        return await self._front.heal(self._process.socket) or not agrees

    async def _hangs(self) -> bool:
        """Whether it was asked in vain often enough, for long enough, and does not answer users either."""
        self._silences.append(time.monotonic())
        lasted = timedelta(seconds=self._silences[-1] - self._silences[0])
        if len(self._silences) < SILENCES or lasted < SILENT_FOR:
            return False
        return not await answers_users(self._gateway)

    async def _present(self) -> bool:
        """Ensure that HAProxy runs with the present configuration, and knows what it is to say.

        Return whether it was started for that.
        """
        text = self._front.configuration()
        if await self._process.has(text):
            return False
        self._keep_entries()
        await self._front.prepare()
        before = await self._found() if self._process.running is not None else None
        await self._process.ensure(text)
        if self._wanted is None and before is not None:  # another configuration, with a trial under way
            self._want(before, before.expires_in)
        await self._write_wanted()
        return True

    def _keep_entries(self) -> None:
        """Have the file that HAProxy reads at its start say which slot is permanent."""
        lines = map_of(Switch(steer=self.permanent, generation="primed"))
        self._orders.journal.reserve.spend_for(lambda: ensure_whole(self._entries, lines))

    async def _found(self) -> Switch:
        return await read_switch(self._process.socket, self._entries)

    def _want(self, wanted: Switch, lease: timedelta | None) -> None:
        if lease is not None:
            self._until = time.monotonic() + lease.total_seconds()
        self._wanted = wanted

    def _still_wanted(self) -> Switch | None:
        """Return what was written last, without a trial whose lease is over by now."""
        wanted, left = self._wanted, self._until - time.monotonic()
        if wanted is None or wanted.trial is None:
            return wanted
        if left <= 0:
            return wanted.without_trial()
        return wanted.on_trial(wanted.trial, timedelta(seconds=left), share=wanted.share, seed=wanted.seed)

    def _agrees(self, found: Switch) -> bool:
        wanted = self._still_wanted()
        if wanted is None:
            return found.steer is not None or self.permanent is None
        tried = [(wanted.trial, wanted.share)]
        if wanted.lease is not None and wanted.lease < NEARLY_OVER:
            tried.append((None, EVERYBODY))
        return found.steer == wanted.steer and (found.trial, found.share) in tried

    async def _write_wanted(self) -> None:
        """Write again what was written last, as far as it still holds; the permanent slot otherwise."""
        wanted = self._still_wanted() or Switch(steer=self.permanent, generation="primed")
        await write_switch(self._process.socket, self._entries, wanted)

    async def _change(
        self, operation: Operation, live: Sessions, wish: Callable[[Switch], Switch], *, back: bool = False
    ) -> Steering:
        """Write what is wished for, and read it back.

        What has no lease is remembered right before it is written: whatever fails then, it heals to that, and
        never to a trial that was ended; nothing is remembered of what failed before. On the way back only
        what HAProxy says of it counts; what else is wrong is told in the log.
        """
        await self._present()
        before = await self._found()
        wanted = wish(before).generated(generation_of(operation))
        self._orders.journal.check(operation)
        if not back:
            await self._follow(live, wanted)
        if wanted.trial is None:
            self._want(wanted, None)
        begun = time.monotonic()
        await write_switch(self._process.socket, self._entries, wanted)
        after = await self._found()
        self._require_written(wanted, after, timedelta(seconds=time.monotonic() - begun))
        if back:
            await self._look_after_way_back(live, after)
        elif why := await self._front.disagrees(after):
            raise self._conflict(why)
        self._want(wanted, wanted.lease)
        changed = (before.steer, before.trial, before.share) != (after.steer, after.trial, after.share)
        steering = self._told(after).model_copy(update={"changed": changed})
        self._orders.journal.finish(operation, {"serving": steering.serving, "trial": steering.trial})
        return steering

    async def _follow(self, live: Sessions, switch: Switch) -> None:
        self._pinned = await self._front.follow(live, switch, frozenset(self._leaving))

    async def _look_after_way_back(self, live: Sessions, after: Switch) -> None:
        """Lead back whoever has a session, and tell what users get in place of what was written."""
        try:
            await self._follow(live, after)
            if why := await self._front.disagrees(after):
                raise self._conflict(why)
        except (PenstockError, OSError) as error:
            _log.warning("%s goes back, and not all is well: %s", self._gateway.name, error)

    def _conflict(self, why: str) -> Conflict:
        return Conflict(f"the HAProxy of {self._gateway.name} says one thing and does another: {why}")

    def _require_written(self, wanted: Switch, after: Switch, took: timedelta) -> None:
        """Raise Conflict when HAProxy says something else than what it was just told."""
        lease = wanted.lease or wanted.expires_in or timedelta(0)
        tried = (wanted.trial, wanted.share)
        lapsed = [(None, EVERYBODY)] if took >= lease else []
        late = (
            wanted.lease is not None and after.trial is not None and _left(after) + took + NEARLY_OVER < lease
        )
        if after.steer != wanted.steer or (after.trial, after.share) not in [tried, *lapsed] or late:
            raise Conflict(
                f"the HAProxy of {self._gateway.name} took a change and did not make it: wanted "
                f"{wanted.trial or wanted.steer}, read back {after.trial or after.steer}; look at "
                f"`show map {self._entries}` and `show table lease` on {self._process.socket.path}"
            )

    def _told(self, found: Switch) -> Steering:
        return found.steering.model_copy(update={"pinned": self._pinned})


def _left(found: Switch) -> timedelta:
    return found.expires_in or timedelta(0)


async def answers_users(gateway: Gateway) -> bool:
    """Whether anything comes back at the users' port: a kernel takes connections for a process that hangs."""
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE  # it is told nothing
    try:
        async with asyncio.timeout(PATIENCE.total_seconds()):
            _, writer = await asyncio.open_connection(str(gateway.addresses[0]), gateway.port, ssl=anybody)
            writer.close()
    except (TimeoutError, ConnectionRefusedError):
        return False
    except OSError:  # whoever breaks a connection off is there
        return True
    return True


async def read_haproxy(gateway: Gateway, root: Path, _slots: object) -> Steering:
    """Return what the gateway's HAProxy says, for who changes nothing."""
    process = HaproxyProcess(root / FOLDER, gateway.name)
    return (await read_switch(process.socket, process.folder / MAP)).steering


def section(title: str, lines: Iterable[str]) -> str:
    """Return a section of a configuration."""
    return "\n".join([title, *(f"    {line}" for line in lines), ""])
