"""Taking over a daemon that serves this gateway by itself: found by its socket, never restarted.

It becomes the instance of a slot of its own that has the users' own port. The steering sends new
sessions where they went anyway; from then on it is left, drained and gone back to like any other.
"""

import asyncio
import logging
import os
import pwd
import re
import shlex
import stat
import time
from collections.abc import Container, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Protocol

from activities.drivers.daemon.port import Dialled, OwnConfig
from activities.drivers.programs import run
from activities.drivers.rights import OTHERS_WRITE
from activities.drivers.runtime.host.chroot import OwnPlace, seen_by
from activities.drivers.runtime.host.containers import WHAT_TO_DO, why_in_container
from activities.drivers.runtime.host.journal import Journal, exclusive
from activities.drivers.runtime.host.listeners import (
    Listener,
    in_a_container,
    listeners_for_users,
    path_of,
    program_of,
)
from activities.drivers.runtime.host.other_ports import other_ways
from activities.drivers.runtime.host.own_evidence import LARGEST_CONFIG
from activities.drivers.runtime.host.own_unit import OwnUnit, Record
from activities.drivers.runtime.host.own_user_files import left_behind, more_pools
from activities.drivers.runtime.host.process import PROC, Process, process
from activities.drivers.runtime.host.routes import routes
from activities.drivers.runtime.host.slot_folders import AdoptedFolder, SlotFolders
from activities.drivers.runtime.host.units import Units
from activities.drivers.steering.port import SteeringDriver
from policies.adoption import derived_slots, more_pools_in_use, obstacles_to, release_of
from policies.model.adoption import ADOPTED, MOST_LINES, Adopted, FoundDaemon, FreeSlot, OwnLine
from policies.model.errors import BadInput, PenstockError, Refused, Unavailable
from policies.model.fleet import Slot
from policies.model.operation import Operation
from policies.model.plan import ReleaseRef
from policies.model.value import Digest, digest_of
from policies.pools import Route, own_pools_in_use, pools_in_use

LONGEST_LOSS = 440
"""Characters, so that whoever hands the sentence on has room for a word before it."""
FIRST_PROCESS = 1
"""Holds sockets that it hands to services (systemd.socket(5)), and is no daemon of the users."""

OTHER_EXECUTABLE = "what its unit runs now is another executable"
PROBED_WITHIN = timedelta(seconds=5)
"""How long a probe of the daemon that serves may take while it is examined."""
FOLLOW_EVERY = timedelta(seconds=5)
UP_WITHIN, POLL_SECONDS = timedelta(seconds=15), 0.2
"""How long a daemon may take to serve that its unit has just started, and how often it is looked for."""

_log = logging.getLogger(__name__)
_VERSION = re.compile(r"\b([0-9]+(?:\.[0-9]+)+[0-9a-z.~-]*)")


@dataclass(frozen=True)
class _Found:
    """The daemon, as far as it was found; `obstacles` say what kept us from finding more."""

    obstacles: tuple[str, ...] = ()
    process: Process | None = None
    release: ReleaseRef | None = None
    config: str = ""
    digest: Digest | None = None
    own: OwnConfig | None = None
    slot: Slot | None = None
    unit: str = ""
    sessions: int | None = None
    slots: tuple[Slot, ...] = ()


@dataclass(frozen=True)
class _Whole:
    """A daemon that nothing keeps from being adopted."""

    process: Process
    release: ReleaseRef
    own: OwnConfig
    slot: Slot
    config: str
    digest: Digest | None
    unit: str
    sessions: int


class Adopts(Protocol):
    """What the slots of a gateway need to know of a daemon that was adopted there."""

    @property
    def not_again(self) -> str:
        """Why a daemon that was started anew was not taken again; empty if it was."""
        ...

    async def take_again(self, release: ReleaseRef) -> None:
        """Ensure that the slot of what was adopted has its daemon; Refused when it cannot have it."""
        ...

    async def end(self, running: Process) -> None:
        """Have the unit of what was adopted end it, if it has one; Unavailable when it does not stop."""
        ...

    async def follow(self) -> None:
        """Ensure that what was adopted is known, also when it was started again."""
        ...


class HostAdoption:
    """The host's part of an adoption; safe to repeat after a crash at any line."""

    def __init__(
        self,
        folders: SlotFolders,
        journal: Journal,
        table: SteeringDriver,
        unit: OwnUnit | None = None,
        refused: Record = lambda _action, _sentence: None,
    ) -> None:
        """Take the gateway's slots, what says who may order, and what decides where new sessions go.

        `unit` is what the host's service manager does with the daemon's own unit; `refused` hears why a
        daemon that was started anew is not taken again.
        """
        self._folders = folders
        self._gateway = folders.gateway
        self._journal = journal
        self._table = table
        self._unit = unit or OwnUnit(Units())
        self._refused = refused
        self.not_again: str = ""
        """Why a daemon that was started anew was not taken again, by the last look at it; empty if it was."""

    async def examine(self) -> FoundDaemon:
        """Return what serves here by itself, and all that keeps it from being adopted; nothing is changed."""
        taken = self._taken((await self._table.read()).serving)
        found = _Found((taken,)) if taken else await self._find()
        running, more = found.process, await self._more_pools(found.process, found.own)
        others = await self._other_ways() if running is not None else ()
        slots = found.slots
        if more and found.slot is not None:
            beside = [Route(network=pool, device=found.slot.device, connected=True) for pool in more]
            slots = derived_slots(found.slot, [*await routes(), *beside])
        return FoundDaemon(
            gateway=self._gateway.name,
            obstacles=(*found.obstacles, *more_pools_in_use(more, self._gateway), *others)[:MOST_LINES],
            pid=running.pid if running else None,
            release=found.release,
            config=found.config,
            unit=found.unit,
            sessions=found.sessions,
            pools=(*found.slot.pools, *more)[:MOST_LINES] if found.slot else (),
            slots=tuple(
                FreeSlot(
                    name=slot.name,
                    port=slot.port,
                    device=slot.device,
                    pool4=str(slot.pool4),
                    pool6=str(slot.pool6 or ""),
                )
                for slot in slots
            ),
            left_behind=await asyncio.to_thread(self._left_behind, found),
            probe=await self._probed(found),
        )

    def _left_behind(self, found: _Found) -> tuple[OwnLine, ...]:
        if found.own is None or found.process is None:
            return ()
        return left_behind(found.process.pid, found.own, _read, self._folders.daemon.addresses_in)

    async def _more_pools(
        self, running: Process | None, own: OwnConfig | None
    ) -> tuple[IPv4Network | IPv6Network, ...]:
        """Return of which other networks the daemon gives some of its users addresses."""
        if running is None or own is None:
            return ()
        return await asyncio.to_thread(more_pools, running.pid, own, _read, self._folders.daemon.networks_in)

    async def _other_ways(self) -> tuple[str, ...]:
        """Return what leads other ports to the daemon, whose users no new instance would get."""
        try:
            return await other_ways(self._gateway, self._dialled)
        except Unavailable as error:
            return (
                f"whether other ports lead to the users' port of {self._gateway.name} is unknown: {error}",
            )

    async def _probed(self, found: _Found) -> str:
        """Return why the probe cannot log in at the daemon that serves, as it will at each new instance."""
        if found.process is None or found.slot is None or found.own is None:
            return ""
        try:
            async with asyncio.timeout(PROBED_WITHIN.total_seconds()):
                tried = await self._folders.daemon.probe(self._place(found.process, found.slot, found.own))
        except TimeoutError:
            return f"it did not end within {PROBED_WITHIN.total_seconds():g} s"
        except PenstockError as error:
            return str(error)
        return "" if tried.passed else f"it failed at {tried.stage}: {tried.reason}"

    async def adopt(self, operation: Operation, without: Sequence[str]) -> Adopted:
        """Ensure that the daemon which serves here is the gateway's first instance; nobody is moved.

        Raises:
            Refused: when there is an obstacle, or a line of its configuration would be lost that is not
                among those that may stay behind; when slots serve already.
            Fenced: when a newer change owns the gateway.
        """
        async with exclusive(self._folders.root / "slots.lock"):
            self._journal.admit(operation)
            if taken := self._taken((await self._table.read()).serving):
                raise Refused(taken)
            found = await self._whole()
            self._refuse_losses(found.own, without)
            more = await self._more_pools(found.process, found.own)
            if obstacles := (*more_pools_in_use(more, self._gateway), *await self._other_ways()):
                raise Refused(obstacles[0])
            self._journal.check(operation)
            known = self._take(found)
            steering = await self._table.make_permanent(operation, ADOPTED)
            self._journal.finish(operation, {"adopted": found.release.model_dump(mode="json")})
            changed = steering.changed or not known
            return Adopted(
                gateway=self._gateway.name,
                release=found.release,
                sessions=found.sessions,
                config=found.config,
                unit=found.unit,
                changed=changed,
            )

    async def take_again(self, release: ReleaseRef) -> None:
        """Ensure that the slot of what was adopted has its daemon, started by its own unit where none serves.

        It steers nobody. For who holds the lock of the slots.

        Raises:
            Refused: when it does not run, when another executable does, or when something is in its way; a
                unit that was started for it is stopped again.
            Unavailable: when its unit does not start.
        """
        before = self._folders.adopted
        running = before.process() if before is not None else None
        if before is not None and running is not None and before.release == release:
            return
        was = f"{release.product} {release.version} of {self._gateway.name} was adopted"
        started = before is not None and not await self._listeners() and await self._unit.start(before)
        try:
            found = await self._whole(UP_WITHIN if started else timedelta(0))
            _require_same(release, found.release)
        except Refused as refused:
            if before is not None and started:
                await self._unit.withdraw(before)
            raise Refused(f"{was}, and only its own unit can start it: {refused}") from refused
        self._take(found)

    async def end(self, running: Process) -> None:
        """Have the unit of what was adopted end it, if it has one, since the unit might start it anew.

        Raises:
            Unavailable: when the unit does not stop.
        """
        if (folder := self._folders.adopted) is not None:
            await self._unit.stop(folder, running)

    async def keep(self) -> None:
        """Follow what was adopted for ever; what cannot be done now is tried again."""
        while True:
            try:
                await self.follow()
            except (PenstockError, OSError) as error:
                _log.warning("what was adopted on %s: %s", self._gateway.name, error)
            await asyncio.sleep(FOLLOW_EVERY.total_seconds())

    async def follow(self) -> None:
        """Ensure that its own unit starts at boot while new sessions go to it, and that it is known then.

        A daemon that was started again, as by a reboot, is taken as the first instance once more when it is
        the same executable with the same configuration; nobody is steered by that.

        Raises:
            Unavailable: when systemd refuses something, or does not answer.
        """
        folder, serving = self._folders.adopted, self._table.permanent
        if folder is None:
            return
        replaced, ended = serving not in (None, ADOPTED), serving == ADOPTED and folder.process() is None
        if not ended and self._unit.is_settled(folder, replaced=replaced):
            return
        async with exclusive(self._folders.root / "slots.lock"):
            await self._unit.settle(folder, replaced=replaced)
            if ended and folder.process() is None:
                await self._know_again(folder)

    async def _know_again(self, folder: AdoptedFolder) -> None:
        """Take the daemon once more if it is what was adopted, else say why not."""
        name = self._gateway.name
        try:
            found = await self._whole()
            self.not_again = _difference(folder, found)
        except Refused as refused:
            self.not_again = str(refused)
        if self.not_again:
            self._refused("adopted daemon not taken again", f"{name}: {self.not_again}")
            return
        self._take(found)
        _log.warning("the daemon that was adopted on %s was started anew, and is taken again", name)

    async def _whole(self, within: timedelta = timedelta(0)) -> _Whole:
        """Return the daemon that serves here with all that was found of it; Refused if anything hinders."""
        until, found = time.monotonic() + within.total_seconds(), await self._find()
        while found.obstacles and time.monotonic() < until:
            await asyncio.sleep(POLL_SECONDS)
            found = await self._find()
        if found.obstacles:
            raise Refused(found.obstacles[0])
        if (
            found.process is None
            or found.release is None
            or found.own is None
            or found.slot is None
            or found.sessions is None
        ):
            raise Refused(f"the daemon of {self._gateway.name} has ended while it was looked at")
        return _Whole(
            found.process,
            found.release,
            found.own,
            found.slot,
            found.config,
            found.digest,
            found.unit,
            found.sessions,
        )

    def _take(self, found: _Whole) -> bool:
        """Ensure that the slot has this daemon, and the steering knows the slot; say whether it had it."""
        before = self._folders.adopted
        known = before is not None and before.process() == found.process
        if not known:
            own = {"config": found.config, "digest": found.digest}
            own |= {"control": found.own.control, "unit": found.unit}
            self._folders.adopt(found.slot, found.process, found.release, own)
        self._table.take(found.slot)
        return known

    def _taken(self, serving: str | None) -> str | None:
        """Return why a gateway that serves from its slots is left alone, None when it does not."""
        if serving in (None, ADOPTED):
            return None
        return (
            f"slot {serving} of {self._gateway.name} serves already; only a host that serves by itself is "
            "adopted"
        )

    def _refuse_losses(self, own: OwnConfig, without: Sequence[str]) -> None:
        lost = [line for line in own.left_behind if line.key not in without]
        if lost:
            raise Refused(loss(self._gateway.name, lost))

    # --- finding it -----------------------------------------------------------------

    async def _find(self) -> _Found:
        """Return the daemon that serves here, as far as it was found, and what hinders its adoption."""
        listeners = await self._listeners()
        container = await in_a_container(self._gateway, self._dialled, listeners)
        if obstacle := container or self._no_daemon(listeners):
            return _Found((obstacle,))
        daemon = process(_holders(listeners)[0])
        if daemon is None or (executable := daemon.executable) is None:
            return _Found((f"the daemon of {self._gateway.name} has ended while it was looked at",))
        if stranger := self._stranger(daemon.pid):
            return _Found((f"{program_of(daemon.pid)} serves {self._gateway.name} and {stranger}",))
        version = await _version(daemon.pid)
        release = release_of(self._folders.daemon.product, version, executable)
        found = _Found(process=daemon, release=release, unit=await self._unit.of(daemon.pid))
        problems = []
        for path in self._candidates(daemon.pid):
            try:
                said = _read(daemon.pid, path)
                own = self._folders.daemon.read_own(said)
            except (BadInput, OSError) as error:
                problems.append(f"{path}: {error.strerror if isinstance(error, OSError) else error}")
                continue
            if stranger := _why_not_of(daemon.pid, own.user):
                return replace(
                    found, obstacles=(f"{program_of(daemon.pid)} serves {self._gateway.name} and {stranger}",)
                )
            if await self._is_of(daemon, own):
                return await self._judged(
                    replace(found, config=path, digest=digest_of(said.encode()), own=own)
                )
            problems.append(f"{path}: nothing answers at its control socket as process {daemon.pid}")
        why = "; ".join(problems)
        none = f"the configuration of process {daemon.pid} on {self._gateway.name} was not found: {why}"
        return replace(found, obstacles=(f"{none}. Its workers name it: log in once and try again",))

    def _stranger(self, pid: int) -> str | None:
        """Return why the process is none that may be adopted, None when it is."""
        words = self._folders.daemon.own_words
        if stranger := _why_not_trusted(pid, drops_root=words.drops_root):
            return stranger
        beside = words.beside_config
        return None if beside is None else why_not_by_command(_command_of(pid), beside)

    @property
    def _dialled(self) -> Sequence[Dialled]:
        return self._folders.daemon.dialled(self._gateway)

    async def _listeners(self) -> Sequence[Listener]:
        return await asyncio.to_thread(listeners_for_users, self._gateway, self._dialled)

    def _candidates(self, pid: int) -> list[str]:
        """Return where its configuration may be: as it says, as it was before, as its program has it."""
        before = self._folders.adopted
        known = [before.own["config"]] if before is not None else []
        return list(dict.fromkeys([*_named_files(pid), *known, *self._folders.daemon.own_files]))

    def _no_daemon(self, listeners: Sequence[Listener]) -> str | None:
        """Return why what listens is not one daemon of the fleet's product at all addresses."""
        name, port, product = self._gateway.name, self._gateway.port, self._folders.daemon.product
        if not listeners:
            return f"nothing listens on port {port} of {name}: there is nothing to adopt, install a release"
        bound = next((one for one in listeners if not one.address.is_unspecified), None)
        if bound is not None:
            return (
                f"what serves {name} listens on {bound.address} alone, and new sessions are sent to every "
                f"address of the gateway: take {self._folders.daemon.own_words.address} out of its "
                "configuration"
            )
        holders = _holders(listeners)
        if not holders:
            return f"what serves port {port} of {name} is a process that is not seen from here: {WHAT_TO_DO}"
        if len(holders) > 1:
            both = " and ".join(map(program_of, holders))
            return f"{both} listen on port {port} of {name}{_one_alone(listeners)}"
        program = path_of(holders[0])
        if program.rpartition("/")[2] != product:
            return (
                f"{program_of(holders[0])} serves port {port} of {name} and is no {product}: it is {program}"
            )
        return None

    async def _is_of(self, daemon: Process, own: OwnConfig) -> bool:
        """Whether the daemon is who answers where this configuration says; true where nobody may ask."""
        if not own.answers:
            return True
        place = self._place(daemon, self._slot_of(own), own)
        return await self._folders.daemon.main_process(place) == daemon.pid

    async def _judged(self, found: _Found) -> _Found:
        """Return it with its sessions, the slots it would have, and all that is in the way."""
        if found.own is None or found.process is None:
            return found
        slot, known = self._slot_of(found.own), await routes()
        obstacles = [*obstacles_to(slot, self._gateway)]
        obstacles += own_pools_in_use(slot, self._gateway, known)
        foreign = [route for route in known if not route.device.startswith(slot.device)]
        obstacles += pools_in_use(self._gateway, foreign)
        sessions, unread, daemon = None, "", self._folders.daemon
        if found.own.answers:
            place = self._place(found.process, slot, found.own)
            with suppress(PenstockError):
                sessions = await daemon.count(place)
            unread = daemon.unread(place)
        if sessions is None:
            mend = f"let {found.config} say {daemon.own_words.control}"
            if unread:
                mend = f"{unread}; update penstock to a version that reads the answer"
            process = f"process {found.process.pid} on {self._gateway.name}"
            obstacles.append(f"the sessions of {process} cannot be counted: {mend}")
        slots = derived_slots(slot, known)
        return replace(found, slot=slot, sessions=sessions, slots=slots, obstacles=tuple(obstacles))

    def _slot_of(self, own: OwnConfig) -> Slot:
        return Slot(name=ADOPTED, port=own.port, device=own.device, pool4=own.pool4, pool6=own.pool6)

    def _place(self, daemon: Process, slot: Slot, own: OwnConfig) -> OwnPlace:
        nowhere = PROC / str(daemon.pid) / "root"
        return OwnPlace(self._gateway, slot, nowhere, nowhere, nowhere, daemon.pid, own.control)


def _require_same(adopted: ReleaseRef, found: ReleaseRef) -> None:
    if found != adopted:
        raise Refused(OTHER_EXECUTABLE)


def _difference(before: AdoptedFolder, found: _Whole) -> str:
    """Return in what the daemon that serves is not what was adopted, empty where it is the same."""
    if found.release != before.release:
        return OTHER_EXECUTABLE
    if (found.config, found.digest) != (before.own["config"], before.own.get("digest")):
        return f"what its unit runs now has another configuration in {found.config}"
    return ""


def _holders(listeners: Sequence[Listener]) -> list[int]:
    """Return the processes that serve: without the first of all, and without children of one of them."""
    pids = {pid for one in listeners for pid in one.processes} - {FIRST_PROCESS}
    return sorted(pid for pid in pids if _parent(pid) not in pids)


def _one_alone(listeners: Sequence[Listener]) -> str:
    """Return what to do where several serve a gateway's port."""
    if len({one.transport for one in listeners}) == 1:
        return ": end all but one"
    return (
        ", by UDP and by TCP, and a gateway has one transport: give one of them an address and a host of its "
        "own, or leave it, on another port, unmanaged"
    )


def _parent(pid: int) -> int | None:
    try:
        return int((PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return None


def _why_not_of(pid: int, named: str) -> str | None:
    """Return why a daemon that has given up root's rights is not the user that its configuration names."""
    try:
        user = next((one for one in _users(pid) if one), 0)
    except (OSError, StopIteration):
        return "has just ended"
    with suppress(KeyError):
        if user == 0 or (named and pwd.getpwnam(named).pw_uid == user):
            return None
    return f"runs as user {user}, which its configuration does not name: only root's daemons are adopted"


def _why_not_trusted(pid: int, *, drops_root: bool = False) -> str | None:
    """Return why no program of the daemon's may be run by us, None when it is one of this host's own.

    Its occtl is run with our rights where it lives: what a container brought along is not ours to trust,
    nor what a local user mounted there, who gives any program any mounts in a user namespace.
    """
    try:
        program = (PROC / str(pid) / "exe").stat().st_uid
        ours = _user_namespace("self") == _user_namespace(str(pid))
        user = next((one for one in _users(pid) if one), 0)
        container = why_in_container(pid)
    except (OSError, StopIteration):
        return "has just ended"
    if user and not drops_root:
        return f"runs as user {user}: only root's daemons are adopted"
    if container:
        return f"{container}: {WHAT_TO_DO}"
    if not ours:
        return f"runs in a user namespace of its own: {WHAT_TO_DO}"
    if program:
        return f"its executable belongs to user {program}: only root's programs are adopted"
    return None


def _user_namespace(pid: str) -> Path:
    return (PROC / pid / "ns" / "user").readlink()


def _users(pid: int) -> tuple[int, ...]:
    """Return as whom the process runs: real, effective, saved and for files, as we number users."""
    status = (PROC / str(pid) / "status").read_text().splitlines()
    said = next(line for line in status if line.startswith("Uid:"))
    return tuple(map(int, said.split()[1:]))


def why_not_by_command(words: Sequence[str], beside: Container[str]) -> str | None:
    """Return what of a command line counts beside the configuration that it names, None for nothing.

    Args:
        words: The program and its arguments.
        beside: Options that it may have there.
    """
    options = [word.removeprefix("--") for word in words[1:] if word.startswith("--")]
    if options.count("config") > 1:
        return "has several --config on its command line; write their lines into one file"
    if found := [option for option in options if option != "config" and option not in beside]:
        return f"has --{found[0]} on its command line; write it into its configuration"
    return None


def _command_of(pid: int) -> list[str]:
    with suppress(OSError):
        said = (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace")
        return said.removesuffix("\0").split("\0")
    return []


def _named_files(pid: int) -> Iterator[str]:
    """Yield the configurations that the daemon's command line names, or those of its children.

    ocserv's main process writes over its own; its workers still have what it was started with.
    """
    children = [int(p.name) for p in PROC.iterdir() if p.name.isdigit() and _parent(int(p.name)) == pid]
    for one in (pid, *sorted(children)):
        words = _command_of(one)
        for word, after in zip(words, [*words[1:], ""], strict=True):
            if word in ("-c", "--config"):
                yield after
            elif word.startswith("--config="):
                yield word.partition("=")[2]
        if len(words) == 2 and not words[1].startswith("-"):  # noqa: PLR2004 - `openvpn FILE`
            yield words[1]


def _read(pid: int, path: str) -> str:
    """Return the file as the process sees it: in its own root, from its own folder.

    A worker may say anything on its command line, so only what root alone may write is believed.
    """
    place = seen_by(pid, path)
    descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK)  # nobody is waited for at a pipe
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise BadInput("it is no file")
        _require_roots(path, found)
        _require_roots(str(Path(path).parent), place.parent.stat())
        content = file.read(LARGEST_CONFIG + 1)
    if len(content) > LARGEST_CONFIG:
        raise BadInput(f"it is longer than {LARGEST_CONFIG} bytes")
    return content.decode(errors="replace")


def _require_roots(named: str, found: os.stat_result) -> None:
    """Refuse a file, or a folder, in which others than root may write; of a folder, replace what is there."""
    if found.st_uid:
        raise BadInput(
            f"{named} belongs to user {found.st_uid}, who may change it; chown 0 {named}, and check what "
            "it says"
        )
    sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
    if found.st_mode & OTHERS_WRITE and not sticky:
        raise BadInput(f"others may write {named}; chmod go-w {named}, and check what it says")


async def _version(pid: int) -> str:
    """Return what the running program calls its own version."""
    try:
        said = await run([str(PROC / str(pid) / "exe"), "--version"])
    except PenstockError:
        return "unknown"
    found = _VERSION.search(said.out + said.err)
    return found[1] if found else "unknown"


def loss(gateway: str, lost: Sequence[OwnLine]) -> str:
    """Return what stays behind and what to do, with as many lines as a whole sentence has room for."""
    keys = {line.key: line.number for line in reversed(lost)}
    named = sorted(keys, key=lambda key: keys[key])
    for shown in range(len(named), 0, -1):
        lines = ", ".join(f"{key} (line {keys[key]})" for key in named[:shown])
        more = f" and {len(named) - shown} more" if shown < len(named) else ""
        options = " ".join(f"--without {shlex.quote(key)}" for key in named[:shown])
        said = (
            f"the configuration of {gateway} has what no slot can take over: {lines}{more}. Bring it with "
            '"What an adoption leaves behind" in docs/releases.md, then adopt with '
            f"{options}{more}; --dry-run has every reason"
        )
        if len(said) <= LONGEST_LOSS:
            break
    return said
