"""Steering in the gateway's own kernel: one nftables table decides where new connections go.

Live connections belong to conntrack and never ask the table again. UDP goes the same way only where users
begin by it; else every instance announces its own port. Users are sent to the port of an instance, or to its
address where it has a network of its own. Order of the questions (decision 0003):

0. the maps of `Wandering`: the packet carries a number of a session on another instance, wherever it comes
   from.
1. `old4/old6`: this address has a session on another instance; its reconnect goes there.
2. `learned4/learned6`: this address lately sent UDP to a draining instance's own port (rebound behind its
   NAT). Where that was in the middle of a session, the packet is refused, too, so that its client comes at
   once.
3. `trial`: a new instance whose lease lasts; the kernel drops the element when nobody confirms.
   With a share only addresses whose hash is below it are asked: never connections, since one
   login uses several, and a larger share keeps everybody of a smaller one.
4. `steer`: the permanent slot.

The table is loaded empty before the first session (priming), and never flushed or deleted
while sessions live: that would end them all.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from types import MappingProxyType

from activities.drivers.daemon.port import Dialled
from activities.drivers.flows import LOOK, forget_flows
from activities.drivers.programs import run
from activities.drivers.steering.homes import Home
from activities.drivers.steering.login_flows import FlowsSeen, LoginFlows, Sources
from activities.drivers.steering.nftables_changes import NftablesChanges
from activities.drivers.steering.nftables_ruleset import (
    EVERYBODY,
    Ruleset,
    count_of_rules,
    parse,
    transaction,
)
from activities.drivers.steering.orders import (
    AT_ONCE,
    PATIENCE,
    Sessions,
    SteeringOrders,
    generation_of,
    seed_of,
)
from activities.drivers.steering.pins import homes_of, refused_at
from activities.drivers.steering.port import Means
from policies.model.errors import Conflict, PenstockError, Unavailable
from policies.model.fleet import Gateway, Slot
from policies.model.instance import Steering
from policies.model.operation import Operation
from policies.steering import PROMISES

Address = IPv4Address | IPv6Address
TABLE = "inet penstock"
ATTEMPTS = 3
HEAL_EVERY = timedelta(seconds=1)
FOLLOW_EVERY = timedelta(seconds=10)
_log = logging.getLogger(__name__)


class NftablesTable:
    """The steering table of one gateway, in the network namespace this process lives in."""

    promises = PROMISES["nftables"]

    def __init__(
        self,
        orders: SteeringOrders,
        means: Means,
        pinned_for: timedelta = timedelta(hours=8),
    ) -> None:
        """Take who may steer and where to, and how users come."""
        self._orders = orders
        self._gateway = orders.gateway
        self._journal = orders.journal
        self._live = orders.live
        self._pinned_for = pinned_for
        self._dialled = means.dialled or (Dialled("tcp", orders.gateway.port),)
        self._terms = (self._gateway, self._dialled, means.wandering, means.mid_session)
        """In which a table is written."""
        self._proxies = means.proxies
        self._logins = LoginFlows(
            {slot.name: slot.address for slot in orders.gateway.slots if slot.address is not None},
            self._dialled,
            means.users,
        )
        self._lived = frozenset(orders.slots.values())
        """Where something may have run before this was made, too: an instance may end while nobody looks."""
        self._leaving: set[str] = set()
        self._changes = 0
        self._written: tuple[str, ...] | None = None
        self._turn = asyncio.Lock()

    def take(self, adopted: Slot) -> None:
        """Know the slot of a daemon that is being adopted, to which new sessions can be sent from now on."""
        self._orders.take(adopted)

    @property
    def permanent(self) -> str | None:
        """The slot that was made permanent last, and is so after a reboot; None before the first."""
        return self._orders.permanent

    @property
    def listens(self) -> Collection[int]:
        """Nobody listens for users: the kernel sends them on."""
        return ()

    async def prime(self) -> Steering:
        """Ensure that the table is loaded; an existing one is left as it is.

        After a reboot the permanent slot is what it was. On a gateway that has served without
        a table the empty one changes nothing: read the sessions, pin, then switch. A table that stepped
        aside for another steering sends users to the permanent slot again.
        """
        async with self._turn:
            changed = await self._ruleset() is None
            found, permanent = await self._present(), self._orders.permanent
            if found.steer is None and permanent is not None:
                home, live = self._orders.home(permanent), await self._live(AT_ONCE)
                await self._change(None, live, lambda now: now.permanently(home))
                changed = True
            return (await self.read()).model_copy(update={"changed": changed})

    async def heal(self) -> bool:
        """Write the table again where somebody removed it or changed its rules; say whether that was so.

        Connections that a removed table had redirected are lost with it; those who come back find their
        own instance.
        """
        async with self._turn:
            found = await self._ruleset()
            if found is not None and self._written in (None, found.rules):
                return False
        await self.refresh()
        return True

    async def keep(self) -> None:
        """Heal the table for ever, and let its pins follow the sessions, without any order.

        An instance that is kept beside the serving one keeps its people so, however long nobody
        drains it; and who was pinned to one that has died can log in elsewhere.
        """
        with NftablesChanges() as changes:
            while True:
                await asyncio.sleep(0)  # whatever fails at once lets others work
                await self._keep_for(changes, FOLLOW_EVERY)
                try:
                    await self.refresh()
                except (PenstockError, OSError) as error:  # a host out of descriptors has them again later
                    _log.warning("the steering table of %s: %s", self._gateway.name, error)

    async def _keep_for(self, changes: NftablesChanges, time: timedelta) -> None:
        """Heal the table for that long, at most once a second.

        It is looked at when the kernel tells of a change, its own included, for another may have come
        with it; and every time where the kernel does not tell.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + time.total_seconds()
        while (left := until - loop.time()) > 0:
            await asyncio.sleep(min(left, HEAL_EVERY.total_seconds()))
            left = max(0.0, until - loop.time())
            if not changes.told or await changes.next(timedelta(seconds=left)):
                await self._heal()

    async def _heal(self) -> None:
        try:
            if await self.heal():
                _log.warning(
                    "the steering table of %s was gone or changed, and is written again; something on this "
                    "host writes nftables: let it spare `table %s`",
                    self._gateway.name,
                    TABLE,
                )
        except (PenstockError, OSError) as error:
            _log.warning("the steering table of %s: %s", self._gateway.name, error)

    async def read(self) -> Steering:
        """Return the table as the kernel has it."""
        found = await self._ruleset()
        return Steering() if found is None else self._steering(found)

    def _steering(self, found: Ruleset) -> Steering:
        return steering_of(found, self._orders.slots)

    async def words(self) -> str:
        """Return the table as nft lists it, for who looks at a failure."""
        result = await run(["nft", "list", "table", *TABLE.split()])
        return result.out or result.err

    async def start_trial(
        self, operation: Operation, slot: str, lease: timedelta, *, renew: bool = False, share: int = 100
    ) -> Steering:
        """Send new sessions to the slot until the lease ends; a repeat renews the lease.

        Raises:
            Fenced: when a newer rollout or rollback owns the gateway.
            BeyondHostLimits: when the lease is longer than this host takes.
            InstanceGone: when nothing runs in the slot.
            LeaseLapsed: when a trial is to be renewed and has ended; the kernel decides which, in
                the transaction itself.
            Unavailable: when sessions elsewhere cannot be listed, so that they could not be pinned;
                never for a renewal, which steers nobody away unless the share grows.
        """
        home, live = self._orders.home(slot), await self._orders.admit_trial(operation, slot, lease)
        now = await self.read()
        if now.trial != slot or now.share < share:
            self._orders.require_listed(live, now, but=slot)
        async with self._turn:
            self._leaving.discard(slot)
            return await self._change(
                operation,
                live,
                lambda now: (
                    now
                    if now.steer == home
                    else self._renewable(now, home, renew=renew).on_trial(
                        home, lease, renew=renew, share=share, seed=seed_of(operation)
                    )
                ),
            )

    def _renewable(self, now: Ruleset, home: Home, *, renew: bool) -> Ruleset:
        if renew and now.trial != home:
            raise self._orders.lapsed(self._orders.slots[home])
        return now

    async def make_permanent(self, operation: Operation, slot: str) -> Steering:
        """Send new sessions to the slot with no lease, and end any trial.

        Raises:
            Fenced: when a newer rollout or rollback owns the gateway.
            InstanceGone: when nothing runs in the slot.
        """
        home, live = self._orders.home(slot), await self._orders.admit_permanent(operation, slot)
        async with self._turn:
            self._leaving.discard(slot)
            steering = await self._change(operation, live, lambda now: now.permanently(home))
            self._orders.remember(slot)
        self._orders.tell_kept(slot)
        return steering

    async def end_trial(self, operation: Operation) -> Steering:
        """Send new sessions to the permanent slot again at once; nothing but the fence can refuse this."""
        self._journal.admit(operation)
        live = await self._live(AT_ONCE)
        async with self._turn:
            return await self._change(operation, live, lambda now: now.without_trial())

    async def refresh(self) -> Steering:
        """Pin exactly the addresses of live sessions; who gets new sessions stays as it is.

        What was read before another change is older than what that change read, and is not written. A
        table whose rules are as they were written here last, and that needs no pins, is not written again.
        """
        changes = self._changes
        seen = await self._seen(PATIENCE)
        live = seen.live if seen else await self._live(PATIENCE)
        async with self._turn:
            steering = await self._follow(changes, live)
        # After the pins: one of those that are gone would have sent the next packet to the same instance.
        await self._forget_flows(live)
        if seen:
            self._logins.forget_stale(seen)
        return steering

    async def _follow(self, changes: int, live: Sessions) -> Steering:
        if self._changes != changes:
            return await self.read()
        found = await self._ruleset()
        if found is not None and found.rules == self._written:
            wanted = self._with_pins(found, live)
            pins = (wanted.old, wanted.learned, wanted.numbers, wanted.draining)
            if not any((*pins, found.old, found.learned, found.numbers, found.draining)):
                return self._steering(found)
        return await self._change(None, live, lambda now: now)

    async def _forget_flows(self, live: Mapping[str, object]) -> None:
        """Have the kernel forget where it sent packets whose instance has ended since the last look.

        UDP has no end: a client that goes on sending from the same port would be sent there for ever.
        """
        ended, self._lived = self._lived - live.keys(), frozenset(live)
        udp = "udp" in [one.transport for one in self._dialled]
        for slot, home in [(slot, self._orders.home(slot)) for slot in ended] if udp else ():
            try:
                if isinstance(home, int):
                    await forget_flows(home)
            except Unavailable as error:  # tried again with the next look
                self._lived |= {slot}
                _log.warning("the steering of %s: %s", self._gateway.name, error)

    async def leave(self, slot: str) -> Steering:
        """Pin nobody to the slot any more: its sessions are being ended, their users log in elsewhere."""
        self._leaving.add(slot)  # first: users come back at once, also where something below is late
        live = await self._live(AT_ONCE)
        async with self._turn:
            steering = await self._change(None, live, lambda now: now)
        await self._begin_anew(LOOK)
        return steering

    async def remove(self) -> None:
        """Delete the table, which ends every redirected connection: for the end of a lab only."""
        await run(["nft", "delete", "table", *TABLE.split()])

    async def _change(
        self,
        operation: Operation | None,
        live: Sessions,
        wish: Callable[[Ruleset], Ruleset],
    ) -> Steering:
        """Write what is wished for together with the pins it needs, in one transaction, and read it back."""
        self._changes += 1
        logging_in = await self._logins.logging_in(AT_ONCE) if operation is not None else {}
        for attempt in range(1, ATTEMPTS + 1):
            before = await self._present()
            wished = wish(before)
            generation = generation_of(operation) if operation else before.generation
            wanted = self._with_pins(wished, live, logging_in).generated(generation)
            if operation is not None:
                self._journal.check(operation)
            try:
                await self._write(wanted, before)
                break
            except Unavailable:  # an element may have ended between the reading and the writing
                if attempt == ATTEMPTS:
                    raise
        after = await self._present()
        tried = (wanted.trial, wanted.share if wanted.trial else EVERYBODY)
        if after.steer != wanted.steer or (after.trial, after.share) not in (tried, (None, EVERYBODY)):
            raise Conflict(
                f"somebody else writes the steering table of {self._gateway.name}: wanted "
                f"{wanted.trial or wanted.steer}, read back {after.trial or after.steer}; "
                f"look at `nft list table {TABLE}`"
            )
        if len(after.rules) != count_of_rules(wanted, *self._terms):
            raise Conflict(
                f"somebody else writes the steering table of {self._gateway.name}: its rules were changed a "
                f"moment after they were written; look at `nft list table {TABLE}`"
            )
        self._written = after.rules
        changed = (before.steer, before.trial, before.share) != (after.steer, after.trial, after.share)
        if changed:
            await self._begin_anew(AT_ONCE)
        steering = self._steering(after).model_copy(update={"changed": changed})
        if operation is not None:
            self._journal.finish(operation, {"serving": steering.serving, "trial": steering.trial})
        return steering

    async def _begin_anew(self, within: timedelta) -> None:
        """Have everybody's next login ask the table, which has just changed."""
        try:
            if seen := await self._seen(within):
                self._logins.forget_stale(seen)
        except Unavailable as error:  # the change itself is made
            _log.warning("the steering of %s: %s", self._gateway.name, error)

    async def _seen(self, within: timedelta) -> FlowsSeen | None:
        """Return users and their flows; None where the kernel is late, too: pins are not to wait for it."""
        try:
            return await self._logins.look(within)
        except Unavailable as error:
            _log.warning("the steering of %s: %s", self._gateway.name, error)
            return None

    def _with_pins(
        self, wished: Ruleset, live: Sessions, logging_in: Mapping[str, Sources | None] = MappingProxyType({})
    ) -> Ruleset:
        """Pin every live session that is not where new sessions go; keep what cannot be known.

        While a share of the addresses goes elsewhere, each session is pinned to where it is. So is a login
        whose next packet would ask the table again, until the next look. Sessions of a trial that everybody
        gets are pinned for a short time, so that its end alone, with nobody alive, cuts none. A login that
        failed teaches nothing: whatever its client sent there, its user's next one asks the table.
        """
        split = wished.trial is not None and wished.share < EVERYBODY
        target = None if split else wished.trial or wished.steer
        away = {
            name: sessions
            for name, sessions in live.items()
            if (split or target) and self._orders.home(name) != target and name not in self._leaving
        }
        unknown = {self._orders.home(name) for name, sessions in away.items() if sessions is None}
        kept = {
            address: home
            for address, home in wished.old.items()
            if home in unknown or home not in self._orders.slots
        }
        draining = tuple(
            sorted((self._orders.home(name) for name, sessions in away.items() if sessions != ()), key=str)
        )
        refused = {
            address: self._orders.home(name)
            for name, sessions in away.items()
            for address in refused_at(sessions or ())
            if address not in self._proxies
        }
        learned = {
            address: home
            for address, home in wished.learned.items()
            if home in draining and home not in (target, refused.get(address))
        }
        if wished.trial is None and wished.steer is not None:
            # What its client still sends to the slot that refused it teaches nothing: the kernel leaves an
            # address that it knows where it is.
            learned = dict.fromkeys(refused, wished.steer) | learned
        homes = {address: self._orders.home(name) for address, name in homes_of(away, self._proxies).items()}
        trialists = {} if split else self._of_trial(wished, live, learned)
        begun = {
            source: self._orders.home(name)
            for name, sources in logging_in.items()
            if self._orders.home(name) != target
            for source in sources or ()
        }
        numbers = {number: home for number, home in wished.numbers.items() if home in unknown} | {
            number: self._orders.home(name)
            for name, sessions in away.items()
            for session in sessions or ()
            for number in session.numbers
        }
        longer = {**begun, **homes, **kept}
        briefly = frozenset(trialists.keys() - longer.keys())
        return wished.pinning({**trialists, **longer}, draining, learned, self._pinned_for, numbers, briefly)

    def _of_trial(self, wished: Ruleset, live: Sessions, learned: Collection[Address]) -> dict[Address, Home]:
        """Return from where users of the trial come; those of before, where its instance does not say."""
        if wished.trial is None:
            return {}
        slot = self._orders.slots.get(wished.trial, "")
        sessions = live.get(slot, ())
        if sessions is None:
            found = {address for address, home in wished.old.items() if home == wished.trial}
        else:
            found = set(homes_of({slot: sessions}, self._proxies))
        return dict.fromkeys(found.difference(learned), wished.trial)

    async def _present(self) -> Ruleset:
        """Return the table, loaded first where there is none."""
        found = await self._ruleset()
        if found is None:
            slot = self._orders.permanent
            primed = Ruleset(steer=self._orders.home(slot) if slot else None, generation="primed")
            await self._write(primed, Ruleset())
            found = await self._ruleset()
        if found is None:
            raise Unavailable(f"{self._gateway.name} has no steering table, a moment after it was loaded")
        return found

    async def _ruleset(self) -> Ruleset | None:
        return await _listed(self._gateway)

    async def _write(self, wanted: Ruleset, before: Ruleset) -> None:
        result = await run(
            ["nft", "-f", "-"],
            given=transaction(wanted, before, *self._terms),
        )
        if result.status:
            raise Unavailable(f"nft refused a change on {self._gateway.name}: {result.last_words}")


async def step_aside(gateway: Gateway) -> bool:
    """Have the table send nobody new anywhere, where there is one; return whether it did.

    It stays for live connections, which it translates, and leads back whoever it has pinned.
    """
    found = await _listed(gateway)
    if found is None or found.steer is None:
        return False
    result = await run(["nft", "-f", "-"], given=f"flush map {TABLE} trial\nflush map {TABLE} steer\n")
    if result.status:
        raise Unavailable(f"nft refused a change on {gateway.name}: {result.last_words}")
    return True


async def read_table(gateway: Gateway, _root: Path, slots: Mapping[Home, str]) -> Steering:
    """Return the table as the kernel has it, for who changes nothing; `slots` are those of each home."""
    found = await _listed(gateway)
    return Steering() if found is None else steering_of(found, slots)


def steering_of(found: Ruleset, slots: Mapping[Home, str]) -> Steering:
    """Return what a table says, in the words of every steering."""
    return Steering(
        primed=True,
        serving=slots.get(found.steer or 0),
        trial=slots.get(found.trial or 0),
        trial_expires_in=found.trial_expires_in,
        share=found.share,
        pinned=sum(found.share != EVERYBODY or home != found.trial for home in found.old.values()),
        generation=found.generation,
    )


async def _listed(gateway: Gateway) -> Ruleset | None:
    result = await run(["nft", "-j", "list", "table", *TABLE.split()])
    if result.status:
        if "No such file" in result.err:
            return None
        raise Unavailable(f"nft cannot list the table of {gateway.name}: {result.last_words}")
    return parse(result.out, gateway)
