"""Instances in the slots of a gateway's host: plain processes from verified folders.

Every step reads what is, does what is missing, and reads again; the journal only says who may
order and what was begun. A crash at any line leaves a state from which the same step ends the same way.
"""

import asyncio
import logging
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from activities.drivers.daemon.port import Dialled, Secret
from activities.drivers.runtime.host.adoption import Adopts
from activities.drivers.runtime.host.filter_listing import read_rules
from activities.drivers.runtime.host.given import given
from activities.drivers.runtime.host.handshake import probe_handshake
from activities.drivers.runtime.host.input_filter import drops_users
from activities.drivers.runtime.host.journal import Journal, exclusive
from activities.drivers.runtime.host.listeners import serves_already
from activities.drivers.runtime.host.machine import this_platform
from activities.drivers.runtime.host.other_ports import other_ways
from activities.drivers.runtime.host.own_network import cut_off
from activities.drivers.runtime.host.process import Alive, boot_id, left_of
from activities.drivers.runtime.host.reloads import SlotReloads
from activities.drivers.runtime.host.routes import routes
from activities.drivers.runtime.host.slot_folders import PATIENCE, AdoptedFolder, SlotFolder, SlotFolders
from activities.drivers.runtime.host.slot_tests import SlotTests
from activities.drivers.runtime.host.tunnel_rules import models_among, planes_of, uncovered
from activities.drivers.runtime.host.unserved import UnservedCredentials
from activities.drivers.runtime.host.versions import KEPT_KNOWN_GOOD, Admission
from activities.drivers.steering.port import SteeringDriver
from activities.instances import Reloaded, Restored, Staged, Started
from activities.refusals import RunningMismatch
from policies.adoption import is_adopted
from policies.drains import COUNT_BY_HAND, may_stop_uncounted, stopped_by_hand
from policies.drift import described_by
from policies.model.adoption import ADOPTED
from policies.model.client_profiles import NO_PROFILES, Profiles
from policies.model.drain import Uncounted
from policies.model.errors import BadInput, PenstockError, Refused, Unavailable
from policies.model.host import Host, Serving
from policies.model.instance import GatewayState, InstanceState, Probe
from policies.model.mirror import Mirror
from policies.model.operation import Operation
from policies.model.placement import Placed
from policies.model.plan import ReleaseRef
from policies.model.refusals import TrustError
from policies.model.release_tests import Load, Measurement, Names
from policies.model.settings import Setting, lines_of
from policies.model.value import Digest, Name
from policies.pools import pools_in_use
from policies.pushed import pushed_elsewhere
from policies.trust.ways_back import no_way_back

UP_WITHIN = timedelta(seconds=15)
DOWN_WITHIN = timedelta(seconds=10)
HANGS_ON = timedelta(seconds=2)
"""How long an instance that does not answer may take to end before it is killed."""
AT_ONCE = timedelta(milliseconds=300)
ANSWERS = timedelta(seconds=5)
"""How long one that was adopted may take to say that it serves."""
RESUMED_WITHIN = timedelta(seconds=20)
"""How long whoever holds the slots may hold up an agent's start, and how often that is tried afterwards."""
RESUMED_EVERY = timedelta(seconds=20)
NOT_ASKED = timedelta(0)
"""No daemon is asked for its sessions: only the kernel tells what runs."""
POLL_SECONDS = 0.05
SPARE_BYTES = 512 * 2**20
FLOWS_PER_SESSION = 4
CONNTRACK = Path("/proc/sys/net/netfilter")
_log = logging.getLogger(__name__)


class HostSlots:
    """The slots of one gateway, in whose network namespace this process lives."""

    def __init__(
        self,
        folders: SlotFolders,
        journal: Journal,
        table: SteeringDriver,
        admission: Admission,
        credentials: Mapping[str, Secret],
        adoption: Adopts,
        recorded: Callable[[], int] = lambda: 0,
        unrenewed: Callable[[], str] = lambda: "",
    ) -> None:
        """Take the parts.

        `credentials` are what templates may ask for as `$credential_NAME`; `adoption` knows the daemon that
        serves here by itself; `recorded` counts the lines of the host's own record; `unrenewed` says since
        when the certificate is not renewed, and why.
        """
        self._folders = folders
        self._gateway = folders.gateway
        self._journal = journal
        self._table = table
        self._admission = admission
        self._credentials = dict(credentials)
        self._reloads = SlotReloads(folders, journal, self._credentials)
        self._tests = SlotTests(folders, journal, table)
        self._unserved = UnservedCredentials(folders, self._credentials)
        self._adoption = adoption
        self._recorded = recorded
        self._unrenewed = unrenewed
        self._described = described_by(folders.gateway)
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._resumed = True

    async def observe(self) -> GatewayState:
        """Return what is true now: processes, executables, sessions, steering, epoch."""
        return await self._observe(PATIENCE)

    async def _observe(self, patience: timedelta) -> GatewayState:
        self._reap()
        self._trim_logs()
        instances = await asyncio.gather(
            *(self._folders.instance(folder, patience) for folder in self._folders)
        )
        adopted = self._folders.adopted
        epoch, owner = self._journal.owner
        return GatewayState(
            gateway=self._gateway.name,
            instances=tuple(instances),
            steering=await self._table.read(),
            epoch=epoch,
            owner=owner,
            observed_at=datetime.now(UTC),
            boot=boot_id(),
            recorded=self._recorded(),
            described=self._described,
            own_pools=adopted.slot.pools if adopted is not None and adopted.process() else (),
            credentials=await asyncio.to_thread(given, self._credentials),
            unserved=self._unserved.names(),
            unrenewed=self._unrenewed(),
            settings=lines_of(self._folders.settings),
            reload_answered=self._folders.reload_answered,
            settings_answered=self._folders.settings_answered,
        )

    async def preflight(
        self, release: ReleaseRef, source: str = "", *, given_up: bool = False
    ) -> tuple[str, ...]:
        """Return every reason why the release cannot be put here; nothing is changed.

        One is that this host would not start again what serves, unless that way back was `given_up`.
        """
        state = await self.observe()
        reasons = [*self._room_on_disk(), *self._room_for_flows(), *self._way_back(state)]
        if not given_up:
            reasons += await self._refused_way_back(state, source)
        if self._gateway.has_own_networks:
            reasons += await cut_off(self._gateway)
        if state.steering.serving is None:
            reasons += await self._serves_already()
        reasons += pools_in_use(self._gateway, await routes())
        if not state.steering.primed:
            by = self._gateway.steering
            reasons.append(f"{self._gateway.name} is not steered by {by} yet; look at its agent's log")
        if self._running(release) is None:
            reasons += self._free_slot(state)
            dialled = self._folders.daemon.dialled(self._gateway) if self._table.promises.translates else ()
            reasons += await self._unlike(state.steering.serving, dialled)
        return tuple(reasons)

    async def stage(
        self, operation: Operation, release: ReleaseRef, source: str, slot: str | None = None
    ) -> Staged:
        """Ensure that the release is on the host, admitted and laid out whole; a second call changes nothing.

        One that a slot was given is judged as it lies here and fetched only if that is not enough: the way
        back needs neither its source nor anybody's consent, but what was withdrawn is refused.

        Raises:
            BadInput: when a slot is named, which this host chooses by itself when it starts an instance.
        """
        if slot is not None:
            raise self._is_no_node()
        return await self._laid_out(operation, release, source)

    async def _laid_out(self, operation: Operation, release: ReleaseRef, source: str) -> Staged:
        async with exclusive(self._folders.root / "staging.lock"):
            self._journal.admit(operation)
            versions = self._folders.versions
            here = versions.complete(release.digest)
            await asyncio.to_thread(versions.remove_half_laid)
            if not here and (full := self._room_on_disk()):
                raise Refused(full[0])
            host = await self._host()
            changed = not (here and await self._may_stay(release, host)) and await versions.lay_out(
                release, self._admission, source, host
            )
            self._require_own_daemon(release)
            signers = versions.signers(release.digest)
            self._journal.finish(operation, {"release": release.digest})
            await asyncio.to_thread(self._prune, release)
            return Staged(release=release, signers=signers, changed=changed)

    async def start(self, operation: Operation, release: ReleaseRef, placed: Placed | None = None) -> Started:
        """Ensure that the release runs in a slot; one that runs it already is returned as it is.

        Raises:
            BadInput: when a cluster has placed it, which starts nothing on this host.
            TrustError: when it may not be started any more: withdrawn, below the floor, or not for this host.
            Refused: when no slot is free, the config test says no, or what runs is not what was signed; when
                it would be the gateway's first one, and the host serves already or uses a slot's pool.
            Unavailable: when the instance takes no logins in time; a repeat goes on waiting for it.
        """
        if placed is not None:
            raise self._is_no_node()
        async with exclusive(self._folders.root / "slots.lock") as lock:
            self._journal.admit(operation)
            if is_adopted(release):
                return await self._start_adopted(operation, release)
            await self._refuse_unless_empty()
            await self._settle()
            folder = self._running(release)
            changed = folder is None
            if folder is None:
                await self._may_start(release)
                folder = await self._choose(await self.observe())
                await asyncio.to_thread(self._assign, folder, release)
                self._require_own_addresses(folder, release)
                await self._verified(folder, release)
                self._journal.check(operation)
                self._launch(folder, release, lock)
            return await self._started(operation, folder, release, changed=changed)

    async def _may_start(self, release: ReleaseRef) -> None:
        """Return if the release is here and may be started now."""
        self._require_staged(release)
        self._require_own_daemon(release)
        await self._admission.reconsider(release, host=await self._host())

    async def _started(
        self, operation: Operation, folder: SlotFolder, release: ReleaseRef, *, changed: bool
    ) -> Started:
        """Return what was started in the slot, once it takes logins."""
        await self._up(folder, release)
        self._journal.finish(operation, {"slot": folder.slot.name, "config": folder.config})
        state = (await self.observe()).model_copy(update={"changed": changed})
        return Started(slot=folder.slot.name, state=state, changed=changed)

    def _is_no_node(self) -> BadInput:
        return BadInput(
            f"{self._gateway.name} starts its instances itself: take its placement out of fleet.yaml, or let "
            "its agent.yaml say `runtime: kubernetes`"
        )

    async def _start_adopted(self, operation: Operation, release: ReleaseRef) -> Started:
        """Return the slot of what was adopted, once its own unit runs it; nothing of it is ours to start."""
        before = self._running(release)
        await self._adoption.take_again(release)
        self._journal.finish(operation, {"slot": ADOPTED})
        state = (await self.observe()).model_copy(update={"changed": before is None})
        return Started(slot=ADOPTED, state=state, changed=before is None)

    async def probe(self, slot: str) -> Probe:
        """Log in and ping through the instance's own port; what was adopted has accounts of its own.

        So that one is asked whether it completes a handshake, from this host, whose own connections the
        steering does not touch; over UDP, where no stranger is answered, whether it says that it serves.
        """
        folder = self._folders.of(slot)
        if folder.process() is None:
            reason = f"nothing runs in slot {slot} of {self._gateway.name}"
            return Probe(passed=False, stage="tcp", reason=reason)
        if slot == ADOPTED and self._folders.daemon.dialled(self._gateway)[0].transport == "udp":
            found = await self._folders.daemon.answer(folder.chroot, ANSWERS)
            said = "it says that it serves" if found.answers else "it does not say that it serves"
            reason = f"{said}; its accounts are its own, so nobody was logged in"
            return Probe(passed=found.answers, stage="tcp", reason=reason)
        if slot == ADOPTED:
            return await probe_handshake(self._gateway.addresses[0], folder.slot.port)
        return await self._folders.daemon.probe(folder.chroot)

    async def inspect(
        self, operation: Operation, slot: str, names: Names | None = None, profiles: Profiles = NO_PROFILES
    ) -> tuple[Measurement, ...]:
        """Make the release tests of an instance; see `SlotTests`."""
        return await self._tests.inspect(operation, slot, names, profiles)

    async def mirror(self, operation: Operation, slot: str, mirror: Mirror) -> tuple[Measurement, ...]:
        """Play users' last logins to the instance and to the one that serves here; see `SlotTests`."""
        return await self._tests.mirror(operation, slot, mirror)

    async def load(self, operation: Operation, slot: str, load: Load) -> tuple[Measurement, ...]:
        """Load the instance and the one that serves here, in turn; see `SlotTests`."""
        return await self._tests.load(operation, slot, load)

    async def stop(
        self, operation: Operation, slot: str, uncounted: Uncounted = Uncounted.NONE
    ) -> GatewayState:
        """Stop an instance that has no sessions and gets no new ones.

        Raises:
            Refused: when it serves, is on trial, has sessions, or their number is unknown and it is not one
                that `uncounted` means by what this host has found itself.
        """
        async with exclusive(self._folders.root / "slots.lock"):
            self._journal.admit(operation)
            await self._settle()
            folder = self._folders.of(slot)
            running = folder.process()
            if running is not None:
                await self._let_go(folder, uncounted)
                self._journal.check(operation)
                hangs = uncounted is not Uncounted.NONE
                await self._end(folder, running, HANGS_ON if hangs else DOWN_WITHIN)
            else:
                folder.want_nothing()
            self._journal.finish(operation, {"stopped": slot})
            return (await self.observe()).model_copy(update={"changed": running is not None})

    async def fence(self, operation: Operation) -> GatewayState:
        """Raise the gateway's epoch; it waits for no other step and no hung daemon."""
        changed = self._journal.epoch != operation.epoch
        self._journal.fence(operation)
        return (await self._observe(AT_ONCE)).model_copy(update={"changed": changed})

    async def restore(
        self, operation: Operation, release: ReleaseRef, *, overrules: bool = False
    ) -> Restored:
        """Raise the epoch and send new sessions to the slot where the release is alive, at once.

        It waits for no other step and no hung daemon, ends no session, and steers nobody when the
        release does not run here: what gets new sessions then is better than a slot without anything.

        Raises:
            Fenced: when a newer rollout or rollback owns the gateway, or an operator it does not overrule.
            Conflict: when the steering was not read back as it was written.
        """
        fenced = self._journal.epoch != operation.epoch
        self._journal.fence(operation, overrules=overrules)
        before = await self._observe(NOT_ASKED)
        slot = before.running(release.digest, release.executable)
        counted, steered = await asyncio.gather(
            self._observe(AT_ONCE), self._steer_back(operation, slot, before.steering.serving)
        )
        state = _with_sessions_of(counted, await self._observe(NOT_ASKED))
        state = state.model_copy(update={"changed": fenced or steered})
        slot = state.running(release.digest, release.executable)
        back = slot is not None and (state.steering.serving, state.steering.trial) == (slot, None)
        return Restored(state=state, slot=slot, back=back, changed=state.changed)

    async def _steer_back(self, operation: Operation, slot: str | None, serving: str | None) -> bool:
        """Send new sessions to the slot, if there is one; return whether anything changed."""
        if slot is None:
            return False
        if slot == serving:
            return (await self._table.end_trial(operation)).changed
        return (await self._table.make_permanent(operation, slot)).changed

    async def reload(self, operation: Operation, *, older: bool, end_removed: bool = False) -> Reloaded:
        """Ensure that whatever runs uses the host's present credentials, draining instances as well.

        Raises:
            BadInput: when one of them cannot be used; nothing was changed.
            Refused: when the daemon itself refuses them, or what serves is no longer the process that was
                adopted, as after a reboot: nobody would have told it; nothing was changed.
            BeyondHostLimits: when more users were taken out than this host ends sessions in a minute; they
                go on, and the credentials are in use.
            Unavailable: when an instance does not take them in time; a repeat tells it again.
        """
        serves = (await self._table.read()).serving == ADOPTED
        if serves and self._folders.of(ADOPTED).process() is None:
            raise Refused(
                f"the daemon that was adopted on {self._gateway.name} has ended, or was started anew: adopt "
                f"it again; nothing was changed on {self._gateway.name}"
            )
        done = await self._reloads.reload(operation, older=older)
        ended = await self._reloads.end_removed(operation) if end_removed else 0
        staying = await self._reloads.staying(adopted_alone=end_removed)
        return (await self._reloaded(*done)).model_copy(update={"ended": ended, "staying": staying})

    async def configure(self, operation: Operation, settings: Sequence[Setting]) -> Reloaded:
        """Ensure that whatever runs uses these settings for new sessions, and all that starts later does.

        Raises:
            BadInput: when one of them is none that a fleet may have of its own.
            BeyondHostLimits: when this host's own file does not let orders change one of them.
            Refused: when only a new instance takes what differs, what serves was adopted and has a file of
                its own, or nobody could log in with them: those before are back.
        """
        if (await self._table.read()).serving == ADOPTED:
            raise Refused(
                f"{self._gateway.name} is served by the daemon that was adopted, which has a configuration "
                "of its own: change that file and reload, or upgrade the gateway first"
            )
        return await self._reloaded(*await self._reloads.configure(operation, settings))

    async def take_back(self, operation: Operation, change: Name) -> Reloaded:
        """Ensure that whatever runs has again what it had before that reload; a later one is left alone."""
        return await self._reloaded(*await self._reloads.take_back(operation, change))

    async def _reloaded(self, slots: tuple[str, ...], changed: tuple[str, ...]) -> Reloaded:
        state = (await self.observe()).model_copy(update={"changed": bool(changed)})
        return Reloaded(state=state, slots=slots, credentials=changed)

    async def resume(self) -> GatewayState:
        """Start again what a reboot ended: the release of the slot that gets new sessions.

        What cannot be started is left as failed and told in the state: the agent must come up. That is so
        also for what was withdrawn before the reboot: nobody's tunnel is left in it, and the way back starts
        what was known-good.

        What was adopted is started by its own unit, and is taken again when it is the same. While somebody
        else changes the slots for long, as a program that hangs does, that is told: `keep` tries again.
        """
        self._trim_logs()  # a disk that they have filled has room for a start then
        with suppress(PenstockError, OSError):  # it is followed from now on, and tried again
            await self._adoption.follow()
        try:
            ended = await self._start_again()
        except Unavailable as error:
            _log.warning("nothing is started again on %s yet: %s", self._gateway.name, error)
            ended = False
            self._resumed = False
        else:
            self._resumed = True
        return (await self.observe()).model_copy(update={"changed": ended})

    async def keep(self) -> None:
        """Try again for ever what `resume` could not."""
        while True:
            await asyncio.sleep(RESUMED_EVERY.total_seconds())
            if not self._resumed:
                await self.resume()

    async def _start_again(self) -> bool:
        """Start what serves and has ended; return whether it had."""
        async with exclusive(self._folders.root / "slots.lock", RESUMED_WITHIN) as lock:
            await self._settle()
            serving = (await self._table.read()).serving
            ours = serving is not None and serving != ADOPTED
            folder = self._folders.of(serving) if serving and ours else None
            release = folder.release if folder else None
            ended = folder is not None and release is not None and folder.process() is None
            if folder is not None and release is not None and ended:
                with suppress(PenstockError, OSError):
                    folder.record_intent(release, wanted=True)
                    await self._admission.reconsider(release, host=await self._host())
                    await asyncio.to_thread(self._assign, folder, release)
                    await self._verified(folder, release)
                    self._launch(folder, release, lock)
                    await self._up(folder, release)
            return ended

    # --- what may be here ---------------------------------------------------------

    async def _host(self) -> Host:
        """Return what a release meets here: the platform, and what serves."""
        serving = (await self._table.read()).serving
        release = self._folders.of(serving).release if serving else None
        if release is not None and is_adopted(release):
            return Host(platform=this_platform(), serving=Serving.adopted(release))
        manifest = self._folders.versions.manifest_or_none(release.digest) if release else None
        return Host(platform=this_platform(), serving=Serving.of(manifest) if manifest else None)

    async def _may_stay(self, release: ReleaseRef, host: Host) -> bool:
        """Return whether a release that a slot was given may start again as it lies here."""
        if release.digest not in self._given():
            return False
        try:
            await self._admission.reconsider(release, host=host)
        except TrustError:  # admitting it anew finds what was renewed meanwhile, or says why not
            return False
        return True

    def _assign(self, folder: SlotFolder, release: ReleaseRef) -> None:
        """Give the slot the release with this gateway's credentials and settings."""
        folder.assign(release, self._folders.daemon, self._credentials, self._folders.settings)

    def _require_staged(self, release: ReleaseRef) -> None:
        if not self._folders.versions.complete(release.digest):
            raise BadInput(
                f"{release.product} {release.version} is not on {self._gateway.name}; stage it first"
            )

    def _require_own_daemon(self, release: ReleaseRef) -> None:
        """Refuse a release of a daemon that this gateway does not run."""
        kind = self._folders.versions.manifest(release.digest).daemon.kind
        if kind != self._folders.daemon.product:
            raise Refused(
                f"{release.product} {release.version} is a release of {kind}, and {self._gateway.name} runs "
                f"{self._folders.daemon.product}; say `daemon: {kind}` in fleet.yaml and in its agent.yaml, "
                "or take another release"
            )

    def _given(self) -> set[Digest]:
        """Return the releases that slots were given."""
        return {folder.release.digest for folder in self._folders if folder.release}

    def _prune(self, release: ReleaseRef) -> None:
        """Remove what nobody may need: a failure leaves more than is needed, and the step is done."""
        with suppress(PenstockError, OSError):
            kept = {*self._given(), release.digest, *self._admission.known_good()[-KEPT_KNOWN_GOOD:]}
            if self._folders.versions.prune(kept):
                self._admission.collect_garbage(kept)

    # --- which slot --------------------------------------------------------------

    def _running(self, release: ReleaseRef) -> SlotFolder | None:
        """Return the slot in which a live process was started from this release."""
        for folder in self._folders:
            found = folder.release
            if found and found.digest == release.digest and folder.state.get("wanted") and folder.process():
                return folder
        return None

    async def _choose(self, state: GatewayState) -> SlotFolder:
        """Return a slot that nobody uses; an empty instance that gets no new sessions is ended first."""
        if refused := self._free_slot(state):
            raise Refused(refused[0])
        users = (state.steering.serving, state.steering.trial, ADOPTED)
        unused = [i for i in state.instances if i.slot not in users]
        idle = [i for i in unused if i.state is not InstanceState.RUNNING]
        folder = self._folders.of((idle or [i for i in unused if i.sessions == 0])[0].slot)
        if running := folder.process():
            await self._end(folder, running)
        return folder

    def _free_slot(self, state: GatewayState) -> list[str]:
        users = (state.steering.serving, state.steering.trial, ADOPTED)
        unused = [i for i in state.instances if i.slot not in users]
        free = [i for i in unused if i.sessions == 0]
        if not free:
            why = "each serves, is on trial or has sessions; wait for its drain or end it"
            if silent := [i.slot for i in unused if i.sessions is None]:
                why = self._uncounted(silent[0])
            return [f"{self._gateway.name} has no free slot: {why}"]
        idle = [i for i in free if i.state is not InstanceState.RUNNING]
        return [] if len(idle) < len(free) else self._ports_taken(idle[0].slot)

    def _uncounted(self, slot: str) -> str:
        """Return why the slot's sessions are unknown, and what to do."""
        if unread := self._folders.daemon.unread(self._folders.of(slot).chroot):
            return f"in slot {slot}, {unread}; {COUNT_BY_HAND}"
        by_hand = stopped_by_hand(self._gateway.fleet, self._gateway.name, slot)
        return f"slot {slot} does not answer; {by_hand}"

    @property
    def _instances(self) -> str:
        """Where instances take connections: everywhere, or where only HAProxy reaches them."""
        return "127.0.0.1" if self._gateway.steering == "haproxy" else ""

    def _ports_taken(self, slot: str) -> list[str]:
        port = self._folders.of(slot).slot.port
        if self._folders.of(slot).slot.address is not None:
            return []  # nobody else is in the instance's own network
        with ExitStack() as stack:
            for kind, name in ((socket.SOCK_STREAM, "TCP"), (socket.SOCK_DGRAM, "UDP")):
                try:
                    probe = stack.enter_context(socket.socket(socket.AF_INET, kind))
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(kind == socket.SOCK_STREAM))
                    probe.bind((self._instances, port))
                except OSError:
                    where = f"{name} port {port} of slot {slot} on {self._gateway.name}"
                    return [f"{where} is taken by something else"]
        return []

    # --- the rest of preflight -----------------------------------------------------

    async def _serves_already(self) -> tuple[str, ...]:
        dialled = self._folders.daemon.dialled(self._gateway)
        return await serves_already(self._gateway, dialled, self._table.listens)

    async def _refuse_unless_empty(self) -> None:
        """Refuse the first instance of a gateway that serves without us: its users would be thrown out.

        Who serves by us already has users that must get back, whatever else listens or is routed here.
        """
        if (await self._table.read()).serving is None:
            reasons = [
                *await self._serves_already(),
                *pools_in_use(self._gateway, await routes()),
            ]
            if reasons:
                raise Refused(reasons[0])

    async def _unlike(self, serving: str | None, dialled: Sequence[Dialled]) -> tuple[str, ...]:
        """Return what the packet filter does for users whom it knows, and not for those of a new slot."""
        adopted = self._folders.adopted
        own = [slot for slot in self._gateway.slots if slot.name != ADOPTED]
        slots = [*own, *([adopted.slot] if adopted is not None and adopted.process() else [])]
        judged = [slot.name for slot in own if slot.name != serving]
        try:
            redirected = {one.transport for one in dialled}
            rules = await read_rules()
            unlike = await drops_users(self._gateway, redirected, serving, rules)
            unlike += await other_ways(self._gateway, dialled, rules)
            planes = await planes_of(slots, self._gateway.inside, rules)
            unlike += await uncovered(planes, models_among(slots, serving), judged)
        except Unavailable as error:
            return (f"whether users of a new slot get through {self._gateway.name} is not known: {error}",)
        return unlike

    def _room_on_disk(self) -> list[str]:
        versions = self._folders.versions
        free = (
            shutil.disk_usage(self._folders.root).free + versions.left_by_the_killed()
        )  # removed by staging
        needed = 2 * versions.largest() + SPARE_BYTES
        if free >= needed:
            return []
        sizes = f"has {free >> 20} MB free for releases and needs {needed >> 20} MB"
        return [f"{self._gateway.name} {sizes}; make room"]

    def _room_for_flows(self) -> list[str]:
        if not self._table.promises.translates:
            return []
        try:
            most = int((CONNTRACK / "nf_conntrack_max").read_text())
            now = int((CONNTRACK / "nf_conntrack_count").read_text())
        except OSError:
            return [f"{self._gateway.name} does not track connections, so steering would cut them"]
        if most - now >= FLOWS_PER_SESSION * self._gateway.capacity:
            return []
        return [
            (
                f"{self._gateway.name} tracks {now} of at most {most} connections; raise nf_conntrack_max "
                f"by {FLOWS_PER_SESSION} for each of its {self._gateway.capacity} sessions"
            )
        ]

    def _way_back(self, state: GatewayState) -> list[str]:
        """A gateway that serves must still have on disk what it serves, whole."""
        serving = state.steering.serving
        if serving is None:
            return []
        if serving == ADOPTED:
            runs = state.instance(serving).state is InstanceState.RUNNING
            why = f": {self._adoption.not_again}" if self._adoption.not_again else ""
            ended = f"the daemon that was adopted on {self._gateway.name} has ended{why}: adopt it again"
            return [] if runs else [ended]
        release = state.instance(serving).release
        if release and self._folders.versions.complete(release):
            return []
        return [
            f"the known-good release in slot {serving} of {self._gateway.name} is not on its disk any more"
        ]

    async def _refused_way_back(self, state: GatewayState, source: str) -> list[str]:
        """What serves must be startable again by the admission that each start asks.

        It may run for as long as it likes, and a rollback finds it alive until its drain has ended.
        """
        serving = state.steering.serving
        release = self._folders.of(serving).release if serving else None
        if release is None or is_adopted(release):
            return []
        try:
            await self._admission.require_way_back(release, source)
        except TrustError as refusal:
            return [no_way_back(release, refusal)]
        return []

    # --- processes -----------------------------------------------------------------

    async def _settle(self) -> None:
        """Take notice of what runs though nobody wrote it down: here that is nothing, see `LAUNCH`."""

    def _launch(self, folder: SlotFolder, release: ReleaseRef, lock: int) -> None:
        """Start the instance, with what is meant written down first: a crash in between is seen as one."""
        folder.record_intent(release, wanted=True)
        child = folder.launch(self._folders.daemon, lock)
        self._children[child.pid] = child

    def _require_own_addresses(self, folder: SlotFolder, release: ReleaseRef) -> None:
        """Refuse a release whose users are sent to addresses that end with another instance.

        Known-good is not refused: it has to start whatever it sends.
        """
        if release.digest in self._admission.known_good():
            return
        daemon, adopted = self._folders.daemon, self._folders.adopted
        template = self._folders.template(folder).read_bytes().decode(errors="replace")
        config = ""
        with suppress(OSError):
            config = (folder.chroot.config / daemon.config_file).read_text()
        wrong = pushed_elsewhere(
            daemon.pushed_in(template),
            daemon.pushed_in(config),
            folder.slot,
            self._gateway.slots,
            adopted.slot if adopted is not None and adopted.process() else None,
        )
        if wrong:
            raise Refused(
                f"{release.product} {release.version} sends users of {self._gateway.name} to addresses that "
                f"end with one instance: {'; '.join(wrong)}"
            )

    async def _verified(self, folder: SlotFolder, release: ReleaseRef) -> None:
        """Refuse files that are no longer those that were signed, and a config the daemon refuses."""
        versions = self._folders.versions
        version = versions.path(release.digest)
        manifest = versions.manifest(release.digest)
        await asyncio.to_thread(versions.verify, version, manifest, release)
        await self._folders.daemon.check(folder.chroot)

    async def _up(self, folder: SlotFolder, release: ReleaseRef) -> None:
        """Wait until the instance takes logins, then compare what runs with what was signed."""
        try:
            async with asyncio.timeout(UP_WITHIN.total_seconds()):
                while folder.process() is None or not await self._folders.daemon.ready(folder.chroot):
                    self._reap()
                    if folder.has_ended:
                        raise Refused(
                            f"{release.product} {release.version} ended as soon as it was started in slot "
                            f"{folder.slot.name} of {self._gateway.name}: {folder.last_words()}"
                        )
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError as late:
            raise Unavailable(
                f"{release.product} {release.version} takes no logins in slot {folder.slot.name} of "
                f"{self._gateway.name} after {UP_WITHIN.total_seconds():.0f} s"
            ) from late
        running = folder.process()
        if running is None:
            raise Unavailable(
                f"the instance in slot {folder.slot.name} of {self._gateway.name} has just ended"
            )
        if stranger := self._folders.unsigned_file(folder, running, release):
            await self._end(folder, running)
            raise RunningMismatch(
                f"{stranger} runs in slot {folder.slot.name} of {self._gateway.name} and was not signed for "
                f"{release.product} {release.version}; the instance was ended before it got a user"
            )

    async def _let_go(self, folder: SlotFolder, uncounted: Uncounted) -> None:
        """Have nobody be sent to the slot any more, where nobody uses it; raise Refused where somebody does.

        Whoever has just logged out is sent there until the table follows, and would find a closed port.
        """
        await self._refuse_if_in_use(folder, uncounted)
        with suppress(PenstockError):  # a table that cannot be written holds up no stop; it is healed later
            await self._table.leave(folder.slot.name)
        await self._refuse_if_in_use(folder, uncounted)

    async def _refuse_if_in_use(self, folder: SlotFolder, uncounted: Uncounted) -> None:
        steering, slot = await self._table.read(), folder.slot.name
        where = f"slot {slot} of {self._gateway.name}"
        if slot in (steering.serving, steering.trial):
            raise Refused(f"{where} gets new sessions; steer them elsewhere before it is stopped")
        sessions = await self._folders.count(slot)
        if sessions is None:
            running = folder.process()
            if running is not None and may_stop_uncounted(
                self._folders.silences.note(folder.slot, running), uncounted
            ):
                return
            raise Refused(f"the sessions in {where} cannot be counted, so it is not stopped; look at its log")
        if sessions > 0:
            raise Refused(f"{where} still has {sessions} sessions; drain it before it is stopped")

    async def _end(self, folder: SlotFolder, running: Alive, politely: timedelta = DOWN_WITHIN) -> None:
        """End exactly this process, politely first; its folder remembers that this was meant.

        A daemon that had to be killed ends none of its own processes: those that hang keep their tunnels'
        devices, and with them addresses of the slot's pool.
        """
        folder.want_nothing()
        if isinstance(folder, AdoptedFolder) and (own := folder.process()) is not None:
            with suppress(Unavailable):  # its unit may be slow, and signals are not
                await self._adoption.end(own)
        running.tell(signal.SIGTERM)
        if await self._gone(running, politely):
            return
        running.tell(signal.SIGKILL)
        if not await self._gone(running, DOWN_WITHIN):
            raise Unavailable(f"process {running.pid} in slot {folder.slot.name} does not end")
        for left in left_of(running.pid) if running.pid is not None else ():
            left.tell(signal.SIGKILL)

    async def _gone(self, running: Alive, within: timedelta) -> bool:
        for _ in range(int(within.total_seconds() / POLL_SECONDS)):
            if not running.alive:
                break
            await asyncio.sleep(POLL_SECONDS)
        self._reap()
        return not running.alive

    def _trim_logs(self) -> None:
        for folder in self._folders:
            folder.trim_log()

    def _reap(self) -> None:
        """Take leave of instances of ours that have ended, so that no zombie keeps their number."""
        self._children = {pid: child for pid, child in self._children.items() if child.poll() is None}


def _with_sessions_of(counted: GatewayState, state: GatewayState) -> GatewayState:
    """Return the later state with the sessions that the same daemons had a moment ago."""
    sessions = {(one.slot, one.pid, one.started_at): one.sessions for one in counted.instances}
    instances = (
        instance.model_copy(
            update={"sessions": sessions.get((instance.slot, instance.pid, instance.started_at))}
        )
        if instance.state is InstanceState.RUNNING
        else instance
        for instance in state.instances
    )
    return state.model_copy(update={"instances": tuple(instances)})
