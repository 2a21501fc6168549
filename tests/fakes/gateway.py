"""A gateway in memory: slots, steering with leases, sessions and people, as the real one behaves.

It passes the same contract tests as the real drivers (tests/drivers/test_slots_contract.py).
`FakeGateway` is Runtime, SteeringTable and SessionTable at once, over one state.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network

from activities.drivers.runtime.host.audit import HostAudit
from activities.drivers.runtime.host.bounds import HostBounds
from activities.host_record import HostRecordPage
from activities.instances import Reloaded, Restored, Staged, Started
from activities.snapshots import Evidence
from policies.adoption import derived_slots
from policies.drains import may_stop_uncounted
from policies.drift import described_by
from policies.model.adoption import ADOPTED, Adopted, FoundDaemon, FreeSlot
from policies.model.client_profiles import NO_PROFILES, Profiles
from policies.model.drain import Look, Silence, Uncounted
from policies.model.errors import (
    BadInput,
    Fenced,
    InstanceGone,
    LeaseLapsed,
    PenstockError,
    Refused,
    Unavailable,
)
from policies.model.fleet import Gateway, Slot
from policies.model.instance import (
    GatewayState,
    GivenCredential,
    Instance,
    InstanceState,
    Probe,
    Steering,
)
from policies.model.mirror import Mirror
from policies.model.operation import BREAK_GLASS, Operation
from policies.model.path import PathFacts, TriedTunnel
from policies.model.placement import Placed
from policies.model.plan import ReleaseRef
from policies.model.release_tests import OF_MIRROR, OF_NAMES, UNDER_LOAD, Asked, Load, Measurement, Names
from policies.model.settings import Setting, lines_of
from policies.model.value import digest_of


@dataclass
class FakeSlot:
    """One slot: what it was given, whether that runs, and whose sessions live there."""

    release: ReleaseRef | None = None
    state: InstanceState = InstanceState.STOPPED
    started_at: datetime | None = None
    people: list[str] = field(default_factory=list)
    instance: str = ""
    """What a cluster calls it that placed it here."""
    image: ReleaseRef | None = None
    """What that is of, as long as the gateway's agent has not taken it over: nothing trusts it."""


class FakeGateway:
    """One gateway; tests speak to it through its ports, and as its users, faults and clock."""

    boot = "first boot"
    settings: tuple[Setting, ...] = ()
    reload_answered = ""
    settings_answered = ""
    before: tuple[str, tuple[Setting, ...]] | None = None
    """The last change of settings, and what was there before it."""
    no_way_back = ""
    """Why what serves would not start again."""
    names: Names | None = None
    """The names that it was asked for last."""
    profiles: Profiles = NO_PROFILES
    """The client profiles that it was asked for last."""
    knows_names = True
    """Whether its agent is one that can ask for names."""

    def __init__(self, gateway: Gateway, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.gateway = gateway
        self.now = now
        self.slots = {slot.name: FakeSlot() for slot in gateway.slots}
        self.pools = {slot.name: slot.pools for slot in gateway.slots}
        """What instances were started with, or were given since."""
        self.staged: dict[str, ReleaseRef] = {}
        self.laid_out: dict[str, str] = {}
        """Of which manifest each slot has the config that an instance of a cluster finds there."""
        self.unserved: tuple[str, ...] = ()
        self.credentials: tuple[GivenCredential, ...] | None = tuple(
            GivenCredential(name=name) for name in ("certificate", "key", "users")
        )
        self.effects: list[str] = []
        """Everything that changed something, oldest first: `start b`, `steer b`, `stop a` …"""
        self.bad_releases: set[str] = set()
        """Manifest digests whose instances take no logins: their probe fails at auth."""
        self.dead_tunnels: set[str] = set()
        """Manifest digests whose instances take logins and then carry nothing: their probe fails at ping."""
        self.spoiled: dict[str, dict[Asked, float | None]] = {}
        """What the release tests of a manifest's instances measure where it is not what a good one does."""
        self.uncountable: set[str] = set()
        """Slots whose instance does not say how many sessions it has."""
        self.silences: dict[str, Silence] = {}
        """What else is known of such an instance."""
        self.exempt: set[str] = set()
        """Addresses whose sessions no deadline ends."""
        self.lost: list[str] = []
        """Addresses whose session ended without anybody having ordered it."""
        self.primed = True
        self.serving: str | None = None
        self.trial: str | None = None
        self.trial_ends = datetime.min.replace(tzinfo=UTC)
        self.share = 100
        self.seed = ""
        self.pins: dict[str, str] = {}
        self.generation, self.owner = "", (0, "")
        self.bounds: HostBounds | None = None
        """The host's own limits; the clock of a server that skips time is beyond those of any host."""
        self.record: HostAudit | None = None
        """The host's own record; one that has never refused anything has none."""
        self.frozen: dict[str, bytes] = {}
        self.freezing = 0.0
        """Seconds that freezing evidence takes here."""
        self.unprepared: FakeSlot | None = None
        """The daemon that serves by itself, with its people, until it is adopted."""
        self.staying: int | None = 0
        """Sessions of users whom a reload takes out that go on where it does not end them."""
        self.own_pools: tuple[IPv4Network, ...] = ()
        self.probe_of_own = ""
        """Why the probe gets no tunnel of what serves by itself."""
        """What that daemon gives to its people."""
        self._failures: dict[str, list[PenstockError]] = defaultdict(list)

    # --- HostRecord -------------------------------------------------------------------

    def page(self, after: int) -> HostRecordPage:
        """Return lines of the host's own record."""
        if self.record is None:
            return HostRecordPage(public_key="", after=after, recorded=0, lines=())
        return self.record.page(after)

    # --- HostPath ---------------------------------------------------------------------

    async def walk(self) -> PathFacts:
        """Return what is true of a way on which everything passes."""
        self._maybe_fail("walk")
        tried = TriedTunnel(slot="a", let_in=True, mtu=1400, small=(10, 10), full=(10, 10))
        return PathFacts(
            gateway=self.gateway.name,
            running=("a",),
            steering=True,
            steered_to="a",
            forwards4=True,
            translates=True,
            target="10.99.0.1",
            tried=(tried,),
        )

    # --- what tests do to it -------------------------------------------------------

    def serve(self, release: ReleaseRef, slot: str | None = None) -> str:
        """Let the release serve, as on a gateway that has run for months; return its slot."""
        slot = slot or self.gateway.slots[0].name
        self.staged[release.digest] = release
        self.slots[slot] = FakeSlot(release, InstanceState.RUNNING, self.now())
        self.serving = slot
        return slot

    def fail(self, step: str, error: PenstockError, times: int = 1) -> None:
        """Let the next calls of that method raise the error instead."""
        self._failures[step] += [error] * times

    def failing(self, step: str) -> bool:
        """Say whether a call of that method is still to raise an error."""
        return bool(self._failures[step])

    def recover(self, step: str) -> None:
        """Let the calls of that method work again."""
        self._failures[step].clear()

    def login(self, address: str) -> str | None:
        """Log in as a user from that address; return the slot of the session, None when refused."""
        slot = self.pins.get(address) or self._target_of(address)
        if slot is None:
            return None
        held = self.slots[slot]
        if held.state is not InstanceState.RUNNING or self._is_bad(held):
            return None
        held.people.append(address)
        return slot

    def logout(self, address: str) -> None:
        """End one session of that address."""
        slot = next(name for name, held in self.slots.items() if address in held.people)
        self.slots[slot].people.remove(address)

    def reconnect(self, address: str) -> str | None:
        """Drop and resume the address' session by its cookie; return its slot, None when it was lost."""
        home = next(name for name, held in self.slots.items() if address in held.people)
        slot = self.pins.get(address) or self._target_of(address)
        if slot == home and self.slots[home].state is InstanceState.RUNNING:
            return home
        self.slots[home].people.remove(address)
        self.lost.append(address)
        return None

    def crash(self, slot: str) -> None:
        """Let the instance die with its sessions."""
        held = self.slots[slot]
        held.state = InstanceState.FAILED
        self.lost += held.people
        held.people.clear()

    def reboot(self) -> None:
        """Let the host start anew: sessions and trials are gone, and the serving instance comes up again."""
        self.boot = f"{self.boot}, then another"
        self.trial, self.share, self.pins = None, 100, {}
        for name in self.slots:
            self.crash(name)
        if self.serving is not None:
            self.slots[self.serving].state = InstanceState.RUNNING
            self.slots[self.serving].started_at = self.now()

    @property
    def target(self) -> str | None:
        """The slot that gets new sessions now; of those of a share while there is one."""
        return self.trial if self.trial and self.now() < self.trial_ends else self.serving

    def _target_of(self, address: str) -> str | None:
        """Return where a new session of that address goes: the share is a hash of address and seed."""
        drawn = int(digest_of(f"{self.seed} {address}".encode())[-8:], 16) % 100
        return self.target if drawn < self.share else self.serving

    # --- Runtime -------------------------------------------------------------------

    async def observe(self) -> GatewayState:
        """Return what is true now."""
        self._maybe_fail("observe")
        return self._state(changed=False)

    async def preflight(
        self, release: ReleaseRef, source: str = "", *, given_up: bool = False
    ) -> tuple[str, ...]:
        """Return a reason when no slot is free for the release, or what serves would not start again."""
        self._maybe_fail("preflight")
        full = () if self._running(release) or self._free() else (f"{self.gateway.name} has no free slot",)
        return full if given_up or not self.no_way_back else (self.no_way_back, *full)

    async def stage(
        self, operation: Operation, release: ReleaseRef, source: str, slot: str | None = None
    ) -> Staged:
        """Ensure that the release is on the host, and its config in a slot that a cluster starts."""
        self._begin("stage", operation)
        changed = release.digest not in self.staged
        self.staged[release.digest] = release
        if slot is not None:
            if self._slot(slot).people:
                raise Refused(f"slot {slot} still has {len(self.slots[slot].people)} sessions")
            self.laid_out[slot] = release.digest
        self._note(changed, f"stage {release.version}")
        return Staged(release=release, signers=("release@example.org",), changed=changed)

    async def start(self, operation: Operation, release: ReleaseRef, placed: Placed | None = None) -> Started:
        """Run the release in a free slot, or leave it running where it does; take over what was placed."""
        self._begin("start", operation)
        if placed is not None:
            return self._taken_over(release, placed)
        slot = self._running(release)
        if slot is not None:
            return Started(slot=slot, state=self._state(changed=False), changed=False)
        if release.digest not in self.staged:
            raise BadInput(
                f"{release.product} {release.version} is not on {self.gateway.name}; stage it first"
            )
        free = self._free()
        if not free:
            raise Refused(f"{self.gateway.name} has no free slot")
        slot = free[0]
        self.slots[slot] = FakeSlot(release, InstanceState.RUNNING, self.now())
        self.pools |= {one.name: one.pools for one in self.gateway.slots if one.name == slot}
        self._note(True, f"start {slot}")
        return Started(slot=slot, state=self._state(changed=True), changed=True)

    def _taken_over(self, release: ReleaseRef, placed: Placed) -> Started:
        held = self._slot(placed.slot)
        if held.state is not InstanceState.RUNNING or held.instance != placed.instance:
            raise Unavailable(f"nothing called {placed.instance} runs in slot {placed.slot}")
        changed = held.release is None
        held.release, held.image = release, None
        self._note(changed, f"start {placed.slot}")
        return Started(slot=placed.slot, state=self._state(changed=changed), changed=changed)

    async def probe(self, slot: str) -> Probe:
        """Log in and ping, unless the release is bad or nothing runs."""
        self._maybe_fail("probe")
        held = self._slot(slot)
        if held.state is not InstanceState.RUNNING:
            return Probe(passed=False, stage="tcp", reason=f"nothing runs in slot {slot}")
        if self._is_bad(held):
            return Probe(passed=False, stage="auth", reason="the probe's login was refused")
        if held.release is not None and held.release.digest in self.dead_tunnels:
            return Probe(passed=False, stage="ping", reason="0 of 5", connect_seconds=0.05, pings_sent=5)
        return Probe(passed=True, stage="ping", reason="5 of 5", connect_seconds=0.05, pings_sent=5)

    async def inspect(
        self, operation: Operation, slot: str, names: Names | None = None, profiles: Profiles = NO_PROFILES
    ) -> tuple[Measurement, ...]:
        """Pass every test but those that this release was given another measurement for."""
        self._maybe_fail("inspect")
        held = self._slot(slot)
        if held.state is not InstanceState.RUNNING or held.release is None:
            raise Refused(f"nothing that could be tested runs in slot {slot}")
        self.effects.append(f"inspect {slot}")
        self.names = names if self.knows_names else None
        self.profiles = profiles
        unasked = {*UNDER_LOAD, *OF_MIRROR} | ({*OF_NAMES} if self.names is None else set())
        unasked |= set() if profiles else {Asked.PROFILES}
        return self._measured(
            held, {test: 2.0 if test is Asked.LOGIN else 0.0 for test in Asked if test not in unasked}
        )

    async def mirror(self, operation: Operation, slot: str, mirror: Mirror) -> tuple[Measurement, ...]:
        """Let in as many as the old instance, as fast, unless this release was given another measurement."""
        self._begin("mirror", operation)
        held = self._slot(slot)
        self._note(True, f"mirror {slot} for {mirror.seconds} s at {mirror.at_least} to {mirror.at_most}")
        return self._measured(held, {Asked.MIRROR_REFUSED: 0.0, Asked.MIRROR_SECONDS: 0.2})

    async def load(self, operation: Operation, slot: str, load: Load) -> tuple[Measurement, ...]:
        """Carry as much as the old instance, unless this release was given another measurement."""
        self._begin("load", operation)
        held = self._slot(slot)
        self._note(True, f"load {slot}")
        return self._measured(
            held, dict.fromkeys(UNDER_LOAD, float(load.sessions)) | {Asked.LOAD_SESSIONS: 0.0}
        )

    def _measured(self, held: FakeSlot, good: dict[Asked, float]) -> tuple[Measurement, ...]:
        spoiled = self.spoiled.get(held.release.digest, {}) if held.release else {}
        return tuple(
            Measurement(test=test, measured=spoiled.get(test, usual), control=usual, said="as it was found")
            for test, usual in good.items()
        )

    async def stop(
        self, operation: Operation, slot: str, uncounted: Uncounted = Uncounted.NONE
    ) -> GatewayState:
        """Stop an instance nobody uses; of one that does not answer, only one that the order means."""
        self._begin("stop", operation)
        held = self._slot(slot)
        running = held.state is InstanceState.RUNNING
        if running:
            if slot in (self.serving, self.trial and self.target):
                raise Refused(f"slot {slot} gets new sessions")
            count = await self.count(slot)
            if count is None and not may_stop_uncounted(self.silences.get(slot), uncounted):
                raise Refused(f"the sessions in slot {slot} cannot be counted, so it is not stopped")
            if count:
                raise Refused(f"slot {slot} still has {count} sessions")
            await self.leave(slot)
        if not held.instance:  # what a cluster has placed is ended by it alone
            held.state = InstanceState.STOPPED
            self.lost += held.people
            held.people.clear()
            self.uncountable.discard(slot)
        self._note(running, f"stop {slot}")
        return self._state(changed=running)

    async def fence(self, operation: Operation) -> GatewayState:
        """Raise the epoch."""
        changed = self.owner[0] != operation.epoch
        self._begin("fence", operation)
        return self._state(changed=changed)

    async def restore(
        self, operation: Operation, release: ReleaseRef, *, overrules: bool = False
    ) -> Restored:
        """Raise the epoch and send new sessions to the release where it is alive."""
        self._maybe_fail("restore")
        if not overrules and self.owner[1] == BREAK_GLASS:
            raise Fenced(f"an operator steered {self.gateway.name} by break-glass", *self.owner)
        fenced = await self.fence(operation)
        slot, steered = fenced.running(release.digest, release.executable), False
        if slot is not None and slot == self.serving:
            steered = (await self.end_trial(operation)).changed
        elif slot is not None:
            steered = (await self.make_permanent(operation, slot)).changed
        state = self._state(changed=fenced.changed or steered)
        back = slot is not None and (state.steering.serving, state.steering.trial) == (slot, None)
        return Restored(state=state, slot=slot, back=back, changed=state.changed)

    async def reload(self, operation: Operation, *, older: bool, end_removed: bool = False) -> Reloaded:
        """Give what runs the host's present credentials; nothing is taken over from who owns the gateway."""
        self._maybe_fail("reload")
        self._refuse_overtaken(operation)
        running = [name for name, held in self.slots.items() if held.state is InstanceState.RUNNING]
        self._note(True, f"reload {' '.join(running)}{' older' if older else ''}")
        self.unserved = ()
        self.reload_answered = operation.rollout
        state = self._state(changed=True)
        ended = 1 if end_removed else 0
        staying = self.staying if not end_removed or ADOPTED in running else 0
        return Reloaded(
            state=state, slots=tuple(running), credentials=("users",), ended=ended, staying=staying
        )

    async def configure(self, operation: Operation, settings: Sequence[Setting]) -> Reloaded:
        """Have what runs and what starts later use these settings; what refuses them has answered, too."""
        try:
            self._maybe_fail("configure")
        except (BadInput, Refused):
            self.settings_answered = operation.rollout
            raise
        self._refuse_overtaken(operation)
        if lines_of(settings) != lines_of(self.settings):
            self.before = (operation.rollout, self.settings)
        self.settings = tuple(settings)
        self.settings_answered = operation.rollout
        self.pools |= {slot.name: slot.pools for slot in self.gateway.slots}
        return self._told(f"configure {'; '.join(lines_of(settings))}")

    async def take_back(self, operation: Operation, change: str) -> Reloaded:
        """Have what runs use again what it had before that reload."""
        self._maybe_fail("take_back")
        self._refuse_overtaken(operation)
        if self.settings_answered == change:
            self.settings_answered = operation.rollout
        if self.before is None or self.before[0] != change:
            return Reloaded(state=self._state(changed=False), slots=(), credentials=())
        self.settings = self.before[1]
        return self._told(f"take back {change}")

    def _told(self, effect: str) -> Reloaded:
        """Answer for the instances of ours: a daemon that was adopted has a configuration of its own."""
        running = [
            name
            for name, held in self.slots.items()
            if held.state is InstanceState.RUNNING and name != ADOPTED
        ]
        self._note(True, effect)
        return Reloaded(state=self._state(changed=True), slots=tuple(running), credentials=("ocserv.conf",))

    # --- SnapshotStore -----------------------------------------------------------

    async def freeze(self, operation: Operation, evidence: Evidence) -> str:
        """Freeze what is true now."""
        self._maybe_fail("snapshot")
        await asyncio.sleep(self.freezing)
        state = self._state(changed=False).model_dump_json()
        content = f"{operation.step} {evidence.model_dump_json()} {state}".encode()
        self.frozen[digest_of(content)] = content
        return digest_of(content)

    def read_frozen(self, digest: str) -> bytes:
        """Return what was frozen."""
        return self.frozen[digest]

    # --- Adoption ------------------------------------------------------------------

    async def examine(self) -> FoundDaemon:
        """Return what serves by itself."""
        self._maybe_fail("examine")
        held = self.unprepared
        if held is None:
            return FoundDaemon(gateway=self.gateway.name, obstacles=("there is nothing to adopt",))
        return FoundDaemon(
            gateway=self.gateway.name,
            release=held.release,
            sessions=len(held.people),
            pools=self.own_pools,
            slots=tuple(self._beside_own()),
            probe=self.probe_of_own,
        )

    def _beside_own(self) -> Iterator[FreeSlot]:
        """Yield what a host proposes that knows of no other gateway."""
        for pool in self.own_pools:
            own = Slot(name=ADOPTED, port=443, device="vpns", pool4=pool)
            for slot in derived_slots(own, ()):
                yield FreeSlot(name=slot.name, port=slot.port, device=slot.device, pool4=str(slot.pool4))

    async def adopt(self, operation: Operation, without: tuple[str, ...]) -> Adopted:
        """Make what serves the instance of a slot of its own; nobody is moved."""
        self._begin("adopt", operation)
        held = self.slots.get(ADOPTED) or self.unprepared
        if held is None or held.release is None:
            raise Refused("there is nothing to adopt")
        changed = self.serving != ADOPTED
        self.slots[ADOPTED], self.serving, self.unprepared = held, ADOPTED, None
        self._note(changed, f"adopt {held.release.version}")
        return Adopted(
            gateway=self.gateway.name, release=held.release, sessions=len(held.people), changed=changed
        )

    # --- SteeringTable -------------------------------------------------------------

    async def read(self) -> Steering:
        """Return the table."""
        self._maybe_fail("read")
        return self._steering(changed=False)

    async def start_trial(
        self, operation: Operation, slot: str, lease: timedelta, *, renew: bool = False, share: int = 100
    ) -> Steering:
        """Send new sessions of so many percent of the addresses to the slot while the lease lasts."""
        self._begin("start_trial", operation)
        if self._slot(slot).state is not InstanceState.RUNNING:
            raise InstanceGone(f"nothing runs in slot {slot} of {self.gateway.name}")
        now = self._steering(changed=False)
        joined = {self.serving, now.trial} - {None, slot}
        if (unknown := sorted(self.uncountable & joined)) and (slot != self.target or now.share < share):
            raise Unavailable(f"the sessions in slot {unknown[0]} cannot be listed; nobody was steered away")
        if renew and slot not in (now.trial, self.serving):
            raise LeaseLapsed(f"slot {slot} of {self.gateway.name} is not on trial any more")
        before = self._aim
        if self.serving != slot:
            self.trial, self.trial_ends = slot, self.now() + lease
            self.share, self.seed = share, operation.rollout
        return self._steered(operation, before)

    async def make_permanent(self, operation: Operation, slot: str) -> Steering:
        """Send new sessions to the slot with no lease."""
        self._begin("make_permanent", operation)
        self._slot(slot)
        before, target = (self.serving, self.trial), self._aim
        self.serving, self.trial, self.share = slot, None, 100
        steering = self._steered(operation, target)
        changed = before != (slot, None)
        self._note(changed, f"keep {slot}")
        return steering.model_copy(update={"changed": changed})

    async def end_trial(self, operation: Operation) -> Steering:
        """Send new sessions to the permanent slot again."""
        self._begin("end_trial", operation)
        before = self._aim
        self.trial, self.share = None, 100
        return self._steered(operation, before)

    async def leave(self, slot: str) -> Steering:
        """Pin nobody to the slot any more."""
        self.pins = {address: home for address, home in self.pins.items() if home != slot}
        return self._steering(changed=False)

    # --- SessionTable --------------------------------------------------------------

    async def count(self, slot: str) -> int | None:
        """Return the slot's sessions, None when its instance does not say."""
        self._maybe_fail("count")
        return None if slot in self.uncountable else len(self._slot(slot).people)

    async def look(self, slot: str) -> Look:
        """Return the slot's sessions and its process; counts are None when the instance does not say."""
        count, held = await self.count(slot), self._slot(slot)
        if held.state is not InstanceState.RUNNING:
            return Look(sessions=0, boot=self.boot)
        exempt = None if count is None else len(self.exempt & set(held.people))
        return Look(
            sessions=count,
            exempt=exempt,
            boot=self.boot,
            process=f"{slot} {held.started_at}",
            silence=self.silences.get(slot) if count is None else None,
        )

    async def check(self, operation: Operation) -> None:
        """Raise Fenced when the operation is overtaken; nothing is taken over from it."""
        self._refuse_overtaken(operation)

    async def end(self, operation: Operation, slot: str, batch: int, *, exempt_too: bool = False) -> int:
        """End up to `batch` sessions; their addresses are let go first."""
        self._begin("end", operation)
        people = self._slot(slot).people
        await self.leave(slot)
        ended = [person for person in people if exempt_too or person not in self.exempt][:batch]
        people[:] = [person for person in people if person not in ended]
        self._note(bool(ended), f"end {len(ended)} in {slot}")
        return len(ended)

    # --- inside --------------------------------------------------------------------

    @property
    def _aim(self) -> tuple[str | None, int]:
        return self.target, self._steering(changed=False).share

    def _steered(self, operation: Operation, before: tuple[str | None, int]) -> Steering:
        self.pins = {
            address: name
            for name, held in self.slots.items()
            if name != self.target or self.share < 100
            for address in held.people
        }
        self.generation = f"{operation.rollout}/{operation.epoch}"
        changed = before != self._aim
        self._note(changed, f"steer {self.target}")
        return self._steering(changed=changed)

    def _steering(self, *, changed: bool) -> Steering:
        lasts = self.trial is not None and self.now() < self.trial_ends
        return Steering(
            primed=self.primed,
            serving=self.serving,
            trial=self.trial if lasts else None,
            trial_expires_in=self.trial_ends - self.now() if lasts else None,
            share=self.share if lasts else 100,
            pinned=len(self.pins),
            generation=self.generation,
            changed=changed,
        )

    def _state(self, *, changed: bool) -> GatewayState:
        return GatewayState(
            gateway=self.gateway.name,
            instances=tuple(self._instance(name, held) for name, held in self.slots.items()),
            steering=self._steering(changed=False),
            epoch=self.owner[0],
            owner=self.owner[1],
            observed_at=self.now(),
            boot=self.boot,
            changed=changed,
            recorded=self.record.length() if self.record else 0,
            described=described_by(self.gateway),
            own_pools=self.own_pools if ADOPTED in self.slots else (),
            credentials=self.credentials,
            unserved=self.unserved,
            settings=lines_of(self.settings),
            reload_answered=self.reload_answered,
            settings_answered=self.settings_answered,
        )

    def _instance(self, name: str, held: FakeSlot) -> Instance:
        running = held.state is InstanceState.RUNNING
        return Instance(
            slot=name,
            state=held.state,
            release=held.release.digest if held.release else None,
            executable=held.release.executable if held.release and running else None,
            pid=1000 + sorted(self.slots).index(name) if running else None,
            started_at=held.started_at if running else None,
            sessions=None if name in self.uncountable else len(held.people),
            pools=self.pools.get(name, ()) if running else (),
            placed=held.instance if held.release else "",
        )

    def _begin(self, step: str, operation: Operation) -> None:
        self._maybe_fail(step)
        self._refuse_overtaken(operation)
        self.owner = (operation.epoch, operation.rollout)

    def _refuse_overtaken(self, operation: Operation) -> None:
        if self.bounds is not None:
            self.bounds.check(operation)
        epoch, rollout = self.owner
        if operation.epoch < epoch or (operation.epoch == epoch and rollout not in ("", operation.rollout)):
            raise Fenced(f"{self.gateway.name} obeys rollout {rollout} since epoch {epoch}", epoch, rollout)

    def _maybe_fail(self, step: str) -> None:
        if self._failures[step]:
            raise self._failures[step].pop(0).with_traceback(None)

    def _running(self, release: ReleaseRef) -> str | None:
        return next(
            (
                name
                for name, held in self.slots.items()
                if held.state is InstanceState.RUNNING and held.release == release
            ),
            None,
        )

    def _free(self) -> list[str]:
        free = [
            name
            for name, held in self.slots.items()
            if name not in (self.serving, self._steering(changed=False).trial, ADOPTED)
            and not held.people
            and name not in self.uncountable
        ]
        return sorted(free, key=lambda name: self.slots[name].state is InstanceState.RUNNING)

    def _slot(self, slot: str) -> FakeSlot:
        if slot not in self.slots:
            raise BadInput(f"{self.gateway.name} has no slot {slot}; it has {', '.join(self.slots)}")
        return self.slots[slot]

    def _is_bad(self, held: FakeSlot) -> bool:
        return held.release is not None and held.release.digest in self.bad_releases

    def _note(self, changed: bool, effect: str) -> None:
        if changed:
            self.effects.append(effect)
