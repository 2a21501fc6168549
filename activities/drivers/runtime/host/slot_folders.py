"""The slots of a gateway as the host has them: folders, and the processes found running in them."""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from activities.drivers.daemon.filled_secrets import without_filled_secrets
from activities.drivers.daemon.port import Daemon, Secret, Session, Users
from activities.drivers.disk import end_of, point, write_whole
from activities.drivers.programs import OF_A_DAEMON
from activities.drivers.runtime.host.chroot import Chroot, OwnPlace
from activities.drivers.runtime.host.own_network import in_own_network
from activities.drivers.runtime.host.process import Alive, Process, mapped_digests
from activities.drivers.runtime.host.silence import Silences
from activities.drivers.runtime.host.versions import Versions
from policies.lines import lines_in
from policies.model.adoption import ADOPTED
from policies.model.errors import BadInput, Refused
from policies.model.fleet import Gateway, Slot
from policies.model.instance import Instance, InstanceState
from policies.model.plan import ReleaseRef
from policies.model.settings import Setting
from policies.model.value import Digest, digest_of

Answer = TypeVar("Answer")

# The process writes down which process it is before it becomes the daemon, and until then holds
# the slots' lock as its standard input: whoever comes after a killed agent waits and finds it.
# It writes over what is there (`1<>`), whose room on a full disk nobody else can have taken meanwhile.
LAUNCH = """set -e
{ cat /proc/sys/kernel/random/boot_id; cat /proc/$$/stat; } 1<> "$1.new"
mv "$1.new" "$1"; shift
exec "$@" < /dev/null
"""


SEEN_INSIDE = 0o755
"""A daemon that has given up its rights goes through this folder to its own sockets."""
OURS = 0o600
"""The log names users and their addresses, also one that an older agent began."""
DAEMON_UMASK = 0o022
"""The agent keeps what it writes to itself; a daemon has the rights that it was made for."""
PATIENCE = timedelta(seconds=3)
LOG_BYTES = 64 * 2**20
LAST_WORDS_BYTES = 64 * 2**10
"""Of the end of a log, in which its last line is looked for."""
_SETTINGS = TypeAdapter(tuple[Setting, ...])


def launched(path: Path) -> Process | None:
    """Return the process that this file names if exactly that process is alive."""
    try:
        boot, stat = path.read_text().splitlines()[:2]
        found = Process(int(stat.split()[0]), int(stat.rpartition(")")[2].split()[19]), boot)
    except (OSError, ValueError, IndexError):
        return None
    return found if found.alive else None


class SlotFolder:
    """One slot's folder: `current`, `conf`, `run`, `state.json`, `launched` and `log`."""

    def __init__(self, gateway: Gateway, slot: Slot, root: Path, versions: Versions) -> None:
        self.slot = slot
        self.path = root / "slots" / slot.name
        self._gateway = gateway
        self._versions = versions
        for name in ("conf", "run"):
            (self.path / name).mkdir(parents=True, exist_ok=True)
        (self.path / "run").chmod(SEEN_INSIDE)

    @property
    def log(self) -> Path:
        """The file the instance's output is appended to; the exporter follows it."""
        return self.path / "log"

    @property
    def state(self) -> dict[str, Any]:
        """What this slot was last meant to do: `release` and whether it is `wanted`."""
        try:
            content: dict[str, Any] = json.loads((self.path / "state.json").read_text())
        except (OSError, ValueError):
            return {}
        return content

    @property
    def placed(self) -> str:
        """What a cluster calls the instance that is wanted here; empty where the host starts it."""
        return ""

    @property
    def release(self) -> ReleaseRef | None:
        """The release the slot was given last."""
        found = self.state.get("release")
        return ReleaseRef.model_validate(found) if found else None

    @property
    def chroot(self) -> Chroot:
        """The folders of the instance, by the version `current` leads to."""
        root = (self.path / "current").resolve() / "root"
        running = self.process()
        pid = running.pid if running else None
        return Chroot(self._gateway, self.slot, root, self.path / "conf", self.path / "run", pid)

    def process(self) -> Alive | None:
        """Return the instance's main process if exactly that process is alive."""
        return launched(self.path / "launched")

    @property
    def start(self) -> bytes:
        """What the last start of an instance here is told by from every other one; empty before the first."""
        try:
            return (self.path / "launched").read_bytes()
        except FileNotFoundError:
            return b""

    def assign(
        self,
        release: ReleaseRef,
        daemon: Daemon,
        credentials: Mapping[str, Secret],
        settings: Sequence[Setting] = (),
    ) -> None:
        """Give the slot a release and its config with these settings; nothing of the one before remains."""
        version = self._versions.path(release.digest)
        if not self._versions.complete(release.digest):
            raise BadInput(
                f"{release.product} {release.version} is not on {self._gateway.name}; stage it first"
            )
        new = self.path / "conf.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        point(self.path / "current", version)
        daemon.render(self.chroot, self._versions.template(release.digest), credentials, new, settings)
        self._replace_config(new)
        self.record_intent(release, wanted=False)

    def _replace_config(self, new: Path) -> None:
        shutil.rmtree(self.path / "conf", ignore_errors=True)
        new.rename(self.path / "conf")

    @property
    def config(self) -> Digest:
        """The digest of the rendered config: it names credentials, whose own folder does not count."""
        files = sorted(path for path in (self.path / "conf").iterdir() if path.is_file())
        return digest_of(b"".join(path.read_bytes() for path in files))

    def record_intent(self, release: ReleaseRef, *, wanted: bool) -> None:
        """Write down what the slot is meant to do."""
        state = {"release": release.model_dump(mode="json"), "wanted": wanted}
        write_whole(self.path / "state.json", json.dumps(state))

    def want_nothing(self) -> None:
        """Write down that nothing is meant to run here any more; what it was given stays known."""
        if self.release is not None and self.state.get("wanted"):
            self.record_intent(self.release, wanted=False)

    @property
    def has_ended(self) -> bool:
        """Whether an instance was started here and has ended since."""
        return bool(self.start) and self.process() is None

    def launch(self, daemon: Daemon, lock: int) -> "subprocess.Popen[bytes]":
        """Start the instance in a session of its own, so that it outlives its agent.

        It holds the lock until it has written down which process it is.
        """
        with suppress(FileNotFoundError):
            (self.path / "launched").unlink()
        for leftover in (self.path / "run").iterdir():
            leftover.unlink()
        command = self.chroot.inside(*daemon.command())
        if self.slot.address is not None:
            command = in_own_network(self._gateway, self.slot, command)
        with self.log.open("ab") as log:
            os.fchmod(log.fileno(), OURS)
            return subprocess.Popen(
                ["sh", "-c", LAUNCH, "launch", str(self.path / "launched"), *command],
                stdin=lock,
                stdout=log,
                stderr=log,
                start_new_session=True,
                umask=DAEMON_UMASK,
                env=OF_A_DAEMON,
            )

    def trim_log(self) -> None:
        """Keep the log from filling the disk: what is there becomes `log.1`, and the instance writes on.

        A disk without room for that keeps its end. Nothing that the disk does is raised: the way back looks
        at the slots first.
        """
        with suppress(OSError):
            if self.log.stat().st_size > LOG_BYTES:
                try:
                    shutil.copyfile(self.log, self.path / "log.1")
                except OSError:
                    self._keep_end_of_log()
                else:
                    os.truncate(self.log, 0)

    def _keep_end_of_log(self) -> None:
        end = end_of(self.log, LAST_WORDS_BYTES)
        (self.path / "log.1").unlink(missing_ok=True)
        os.truncate(self.log, 0)
        (self.path / "log.1").write_bytes(end)

    def last_words(self) -> str:
        """Return the last line the instance logged, without the secrets that it was given."""
        lines = lines_in(end_of(self.log, LAST_WORDS_BYTES).decode(errors="replace"))
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it logged nothing")
        return without_filled_secrets(last, self.path / "conf")


class AdoptedFolder(SlotFolder):
    """The folder of a daemon that somebody else started: what we know of it, and nothing that it reads.

    `own.json` says where its configuration and its control socket are; without it there is no such slot.
    """

    @property
    def own(self) -> dict[str, Any]:
        """What was found of the daemon when it was adopted: `slot`, `config`, `control`, `unit`."""
        content: dict[str, Any] = json.loads((self.path / "own.json").read_text())
        return content

    def process(self) -> Process | None:
        """Return the daemon's main process if exactly that process is alive."""
        return launched(self.path / "launched")

    @property
    def chroot(self) -> OwnPlace:
        """The place that the daemon was given by who started it."""
        running = self.process()
        pid = running.pid if running else None
        root, none, own = Path("/proc") / str(pid or "self") / "root", self.path / "conf", self.own
        return OwnPlace(
            self._gateway,
            self.slot,
            root,
            none,
            self.path / "run",
            pid,
            own["control"],
            own["config"],
            running,
        )

    def assign(
        self,
        release: ReleaseRef,
        daemon: Daemon,  # noqa: ARG002 - it is refused whatever it is given
        credentials: Mapping[str, Secret],  # noqa: ARG002
        settings: Sequence[Setting] = (),  # noqa: ARG002
    ) -> None:
        """Refuse: nothing of ours can be started in the place of somebody else's daemon."""
        raise Refused(
            f"{release.product} {release.version} cannot be started in the place of the daemon that was "
            f"adopted on {self._gateway.name}"
        )

    def take(self, process: Process, release: ReleaseRef, own: Mapping[str, Any]) -> None:
        """Write down which process it is, what it was started from, and where it lives."""
        stat = (Path("/proc") / str(process.pid) / "stat").read_text()
        write_whole(self.path / "launched", f"{process.boot}\n{stat}")
        self.record_intent(release, wanted=True)
        write_whole(self.path / "own.json", json.dumps(own))


async def answered(asked: Awaitable[Answer | None], within: timedelta) -> Answer | None:
    """Return the answer, None when it does not come in time: a hung daemon holds nobody up."""
    try:
        return await asyncio.wait_for(asked, within.total_seconds())
    except TimeoutError:
        return None


class SlotFolders:
    """All slots of one gateway, and what runs in them now."""

    sees_processes = True
    """Whether the processes of instances are seen from here."""
    signed_words = "every file that runs, its libraries too, is as it was signed"
    """What it means that nothing unsigned was found."""

    def __init__(self, gateway: Gateway, root: Path, daemon: Daemon) -> None:
        self.gateway = gateway
        self.root = root
        self.daemon = daemon
        self.versions = Versions(root)
        self.silences = Silences(gateway, daemon)
        self._folders = {slot.name: self._folder_of(slot) for slot in gateway.slots}

    def _folder_of(self, slot: Slot) -> SlotFolder:
        return SlotFolder(self.gateway, slot, self.root, self.versions)

    def __iter__(self) -> Iterator[SlotFolder]:
        yield from self._folders.values()
        if (adopted := self.adopted) is not None:
            yield adopted

    @property
    def adopted(self) -> AdoptedFolder | None:
        """The folder of the daemon that was adopted here, None where none was; other processes adopt, too."""
        try:
            own = json.loads((self.root / "slots" / ADOPTED / "own.json").read_text())
            return AdoptedFolder(self.gateway, Slot.model_validate(own["slot"]), self.root, self.versions)
        except (OSError, ValueError, KeyError):
            return None

    @property
    def settings(self) -> tuple[Setting, ...]:
        """What the fleet's file was last made to say of the instances here, in place of their release."""
        try:
            return _SETTINGS.validate_json((self.root / "settings.json").read_bytes())
        except FileNotFoundError:
            return ()

    def keep_settings(self, settings: Sequence[Setting]) -> None:
        """Have every instance that is started from now on get these settings."""
        write_whole(self.root / "settings.json", _SETTINGS.dump_json(tuple(settings)).decode())

    @property
    def reload_answered(self) -> str:
        """The last reload of credentials that this host has answered, well or not; empty before the first."""
        return self._answered("reload-answered")

    def answer_reload(self, change: str) -> None:
        """Remember that the reload was answered: it need not be asked for again when this host is back."""
        self._answer("reload-answered", change)

    @property
    def settings_answered(self) -> str:
        """The last change of settings that this host has answered, or what took that one back."""
        return self._answered("settings-answered")

    def answer_settings(self, change: str) -> None:
        """Remember that the change of settings was answered, well or not."""
        self._answer("settings-answered", change)

    def _answered(self, name: str) -> str:
        try:
            return (self.root / name).read_text()
        except FileNotFoundError:
            return ""

    def _answer(self, name: str, change: str) -> None:
        """Remember what was answered.

        A disk that takes nothing is no other answer: then it is asked for once more, which harms nobody.
        """
        if self._answered(name) != change:
            with suppress(OSError):
                write_whole(self.root / name, change)

    def is_proven(self, slot: str) -> bool:
        """Whether what runs in the slot is known to be what was meant: a host has started it itself."""
        return self.of(slot).process() is not None

    def unsigned_file(self, folder: SlotFolder, running: Alive, release: ReleaseRef) -> str | None:
        """Return the first file that runs and is not, byte for byte, in the release's manifest."""
        if running.executable != release.executable or running.pid is None:
            return "another executable"
        manifest = self.versions.manifest(release.digest)
        signed = {f"sha256:{file.sha256}" for artifact in manifest.artifacts for file in artifact.files}
        mapped = mapped_digests(running.pid, folder.chroot.root)
        return next((path for path, digest in sorted(mapped.items()) if digest not in signed), None)

    def template(self, folder: SlotFolder) -> Path:
        """Return the template of the release that the slot was given."""
        if folder.release is None:
            raise BadInput(f"slot {folder.slot.name} of {self.gateway.name} was given no release")
        return self.versions.template(folder.release.digest)

    def adopt(
        self, slot: Slot, process: Process, release: ReleaseRef, own: Mapping[str, Any]
    ) -> AdoptedFolder:
        """Ensure that the gateway has the slot in which this process runs; a repeat changes nothing."""
        folder = AdoptedFolder(self.gateway, slot, self.root, self.versions)
        folder.take(process, release, {"slot": slot.model_dump(mode="json"), **own})
        return folder

    def of(self, slot: str) -> SlotFolder:
        """Return the slot's folder; BadInput when the gateway has no such slot."""
        if slot in self._folders:  # asked often, and the adopted one is read from disk
            return self._folders[slot]
        found = {folder.slot.name: folder for folder in self}
        if slot not in found:
            raise BadInput(f"{self.gateway.name} has no slot {slot}; it has {', '.join(found)}")
        return found[slot]

    async def instance(self, folder: SlotFolder, within: timedelta = PATIENCE) -> Instance:
        """Return what is in the slot, read from the host now; sessions are None if not said in time."""
        process, state, release = folder.process(), folder.state, folder.release
        digest = release.digest if release else None
        if process is None:
            died = InstanceState.FAILED if state.get("wanted") else InstanceState.STOPPED
            return Instance(
                slot=folder.slot.name, state=died, release=digest, sessions=0, placed=folder.placed
            )
        return Instance(
            slot=folder.slot.name,
            state=InstanceState.RUNNING,
            release=digest,
            executable=process.executable,
            pid=process.pid,
            started_at=process.started_at,
            sessions=await answered(self.daemon.count(folder.chroot), within),
            pools=self.daemon.pools(folder.chroot),
            placed=folder.placed,
        )

    async def count(self, slot: str) -> int | None:
        """Return the slot's sessions: 0 where nothing runs, None when the instance does not say."""
        folder = self.of(slot)
        return 0 if folder.process() is None else await self.daemon.count(folder.chroot)

    async def users(self, within: timedelta) -> dict[str, Users | None]:
        """Return who is at every running instance by slot, None where that is not said in time."""
        running = [folder for folder in self if folder.process()]
        asked = [answered(self.daemon.users(folder.chroot), within) for folder in running]
        found = await asyncio.gather(*asked)
        return {folder.slot.name: users for folder, users in zip(running, found, strict=True)}

    async def live(self, within: timedelta = PATIENCE) -> dict[str, tuple[Session, ...] | None]:
        """Return the sessions of every running instance by slot, None where they are not said in time."""
        running = [folder for folder in self if folder.process()]
        asked = [answered(self.daemon.sessions(folder.chroot), within) for folder in running]
        found = await asyncio.gather(*asked)
        return {folder.slot.name: sessions for folder, sessions in zip(running, found, strict=True)}
