"""The slots of a gateway as the host has them: folders, and the processes found running in them."""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from activities.drivers.daemon.port import Daemon, Secret
from activities.drivers.disk import point, write_whole
from activities.drivers.runtime.host.chroot import Place
from activities.drivers.runtime.host.process import Process
from activities.drivers.runtime.host.versions import Versions
from policies.words.errors import BadInput
from policies.words.fleet import Gateway, Slot
from policies.words.instance import Instance, InstanceState, Session
from policies.words.plan import ReleaseRef
from policies.words.word import Digest, digest_of

Answer = TypeVar("Answer")

# The process writes down which process it is before it becomes the daemon, and until then holds
# the slots' lock as its standard input: whoever comes after a killed agent waits and finds it.
LAUNCH = """set -e
{ cat /proc/sys/kernel/random/boot_id; cat /proc/$$/stat; } > "$1.new"
mv "$1.new" "$1"; shift
exec "$@" < /dev/null
"""


PATIENCE = timedelta(seconds=3)
LOG_BYTES = 64 * 2**20


class Berth:
    """One slot's folder: `current`, `conf`, `run`, `state.json`, `launched` and `log`."""

    def __init__(self, gateway: Gateway, slot: Slot, root: Path, versions: Versions) -> None:
        self.slot = slot
        self.folder = root / "slots" / slot.name
        self._gateway = gateway
        self._versions = versions
        for name in ("conf", "run"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)

    @property
    def log(self) -> Path:
        """The file the instance's output is appended to; the exporter follows it."""
        return self.folder / "log"

    @property
    def state(self) -> dict[str, Any]:
        """What this slot was last meant to do: `release` and whether it is `wanted`."""
        try:
            content: dict[str, Any] = json.loads((self.folder / "state.json").read_text())
        except (OSError, ValueError):
            return {}
        return content

    @property
    def release(self) -> ReleaseRef | None:
        """The release the slot was given last."""
        found = self.state.get("release")
        return ReleaseRef.model_validate(found) if found else None

    @property
    def place(self) -> Place:
        """The folders of the instance, by the version `current` leads to."""
        root = (self.folder / "current").resolve() / "root"
        running = self.process()
        pid = running.pid if running else None
        return Place(self._gateway, self.slot, root, self.folder / "conf", self.folder / "run", pid)

    def process(self) -> Process | None:
        """Return the instance's main process if exactly that process is alive."""
        try:
            boot, stat = (self.folder / "launched").read_text().splitlines()[:2]
            found = Process(int(stat.split()[0]), int(stat.rpartition(")")[2].split()[19]), boot)
        except (OSError, ValueError, IndexError):
            return None
        return found if found.alive else None

    def assign(self, release: ReleaseRef, daemon: Daemon, credentials: Mapping[str, Secret]) -> None:
        """Give the slot a release and its rendered config; nothing of the one before remains."""
        version = self._versions.path(release.digest)
        if not self._versions.complete(release.digest):
            raise BadInput(
                f"{release.product} {release.version} is not on {self._gateway.name}; stage it first"
            )
        new = self.folder / "conf.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        point(self.folder / "current", version)
        daemon.render(self.place, self._versions.template(release.digest), credentials, new)
        shutil.rmtree(self.folder / "conf", ignore_errors=True)
        new.rename(self.folder / "conf")
        self.mean(release, wanted=False)

    @property
    def config(self) -> Digest:
        """The digest of the rendered config: it names credentials, whose own folder does not count."""
        files = sorted(path for path in (self.folder / "conf").iterdir() if path.is_file())
        return digest_of(b"".join(path.read_bytes() for path in files))

    def mean(self, release: ReleaseRef, *, wanted: bool) -> None:
        """Write down what the slot is meant to do."""
        state = {"release": release.model_dump(mode="json"), "wanted": wanted}
        write_whole(self.folder / "state.json", json.dumps(state))

    def launch(self, daemon: Daemon, lock: int) -> "subprocess.Popen[bytes]":
        """Start the instance in a session of its own, so that it outlives its agent.

        It holds the lock until it has written down which process it is.
        """
        with suppress(FileNotFoundError):
            (self.folder / "launched").unlink()
        for leftover in (self.folder / "run").iterdir():
            leftover.unlink()
        command = self.place.inside(*daemon.command())
        with self.log.open("ab") as log:
            return subprocess.Popen(
                ["sh", "-c", LAUNCH, "launch", str(self.folder / "launched"), *command],
                stdin=lock,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            )

    def trim_log(self) -> None:
        """Keep the log from filling the disk: what is there becomes `log.1`, and the instance writes on."""
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            shutil.copyfile(self.log, self.folder / "log.1")
            os.truncate(self.log, 0)

    def last_words(self) -> str:
        """Return the last line the instance logged."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "it logged nothing")


async def answered(asked: Awaitable[Answer | None], within: timedelta) -> Answer | None:
    """Return the answer, None when it does not come in time: a hung daemon holds nobody up."""
    try:
        return await asyncio.wait_for(asked, within.total_seconds())
    except TimeoutError:
        return None


class Berths:
    """All slots of one gateway, and what runs in them now."""

    def __init__(self, gateway: Gateway, root: Path, daemon: Daemon) -> None:
        self.gateway = gateway
        self.root = root
        self.daemon = daemon
        self.versions = Versions(root)
        self._berths = {slot.name: Berth(gateway, slot, root, self.versions) for slot in gateway.slots}

    def __iter__(self) -> Iterator[Berth]:
        return iter(self._berths.values())

    def berth(self, slot: str) -> Berth:
        """Return the slot's berth; BadInput when the gateway has no such slot."""
        if slot not in self._berths:
            raise BadInput(f"{self.gateway.name} has no slot {slot}; it has {', '.join(self._berths)}")
        return self._berths[slot]

    async def instance(self, berth: Berth, within: timedelta = PATIENCE) -> Instance:
        """Return what is in the slot, read from the host now; sessions are None if not said in time."""
        process, state, release = berth.process(), berth.state, berth.release
        digest = release.digest if release else None
        if process is None:
            died = InstanceState.FAILED if state.get("wanted") else InstanceState.STOPPED
            return Instance(slot=berth.slot.name, state=died, release=digest, sessions=0)
        return Instance(
            slot=berth.slot.name,
            state=InstanceState.RUNNING,
            release=digest,
            executable=process.executable,
            pid=process.pid,
            started_at=process.started_at,
            sessions=await answered(self.daemon.count(berth.place), within),
        )

    async def count(self, slot: str) -> int | None:
        """Return the slot's sessions: 0 where nothing runs, None when the instance does not say."""
        berth = self.berth(slot)
        return 0 if berth.process() is None else await self.daemon.count(berth.place)

    async def live(self, within: timedelta = PATIENCE) -> dict[str, tuple[Session, ...] | None]:
        """Return the sessions of every running instance by slot, None where they are not said in time."""
        running = [berth for berth in self if berth.process()]
        asked = [answered(self.daemon.sessions(berth.place), within) for berth in running]
        found = await asyncio.gather(*asked)
        return {berth.slot.name: sessions for berth, sessions in zip(running, found, strict=True)}
