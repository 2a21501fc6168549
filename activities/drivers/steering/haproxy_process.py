"""The HAProxy of one gateway: a process that its agent starts, and that outlives its agent."""

import asyncio
import os
import re
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from activities.drivers.disk import end_of, ensure_whole
from activities.drivers.programs import run
from activities.drivers.runtime.host.journal import exclusive
from activities.drivers.runtime.host.process import Process
from activities.drivers.runtime.host.slot_folders import LAUNCH, OURS, launched
from activities.drivers.steering.haproxy_socket import HaproxySocket
from policies.lines import lines_in
from policies.model.errors import PenstockError, Refused, Unavailable

PROGRAM = "haproxy"
UP_WITHIN = timedelta(seconds=5)
DOWN_WITHIN = timedelta(seconds=5)
POLL_SECONDS = 0.02
LAST_WORDS_BYTES = 16 * 1024


class HaproxyProcess:
    """The folder of a HAProxy, and the process that was started from it."""

    def __init__(self, folder: Path, whose: str) -> None:
        """Take the folder of its configuration, socket and log, and the gateway's name."""
        self.folder = folder
        self._whose = whose
        self.configuration = folder / "haproxy.cfg"
        self.socket = HaproxySocket(folder / "haproxy.sock", whose)
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def running(self) -> Process | None:
        """The process that was started here last, None when it has ended."""
        for pid in [pid for pid, child in self._children.items() if child.poll() is not None]:
            del self._children[pid]
        return launched(self.folder / "launched")

    async def has(self, text: str) -> bool:
        """Whether it runs, was started with this configuration, and nobody else answers in its place.

        One that was replaced by hand lives on as long as its connections do.
        """
        running = self.running
        if running is None or self._written != text:
            return False
        return await self._answering() in (None, running.pid)

    async def ensure(self, text: str) -> bool:
        """Ensure that it runs with this configuration and answers; return whether it was started for that.

        One that has another configuration gives its listeners over to the one that is started in its place.

        Raises:
            Refused: HAProxy itself refuses the configuration; what runs goes on.
            Unavailable: it does not start, as when somebody else has the port.
        """
        async with exclusive(self.folder / "lock") as lock:
            if await self.has(text):
                return False
            await self._check(text)
            ensure_whole(self.configuration, text)
            running, before = self.running, await self._answering()
            if before is None and running is not None:
                before = running.pid
            self._launch(lock, [] if before is None else ["-sf", str(before)])
            await self._up()
            return True

    async def end(self) -> None:
        """End it at once; who has no session with it notices nothing but that nobody new gets in."""
        running = self.running
        if running is None:
            return
        running.tell(signal.SIGKILL)
        for _ in range(int(DOWN_WITHIN.total_seconds() / POLL_SECONDS)):
            if not running.alive:
                return
            await asyncio.sleep(POLL_SECONDS)
        raise Unavailable(f"the HAProxy of {self._whose} does not end (process {running.pid})")

    @property
    def _written(self) -> str | None:
        try:
            return self.configuration.read_text()
        except OSError:
            return None

    async def _check(self, text: str) -> None:
        tried = self.configuration if self._written == text else self.folder / "tried.cfg"
        ensure_whole(tried, text)
        said = await run([PROGRAM, "-c", "-q", "-f", str(tried)])
        if said.status:
            raise Refused(f"HAProxy refuses its configuration for {self._whose}: {said.last_words}")

    def _launch(self, lock: int, more: Sequence[str]) -> None:
        launched_as = self.folder / "launched"
        with suppress(FileNotFoundError):
            launched_as.rename(self.folder / "launched.new")  # whose room is there also on a full disk
        log = self.folder / "log"
        with log.open("wb") as output:
            os.fchmod(output.fileno(), OURS)
            command = [PROGRAM, "-db", "-f", str(self.configuration), *more]
            child = subprocess.Popen(
                ["sh", "-c", LAUNCH, "launch", str(launched_as), *command],
                stdin=lock,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            )
        self._children[child.pid] = child
        self._started = child

    async def _up(self) -> None:
        try:
            async with asyncio.timeout(UP_WITHIN.total_seconds()):
                while not await self._answers():
                    if self._started.poll() is not None:
                        raise Unavailable(f"HAProxy does not start on {self._whose}: {self.last_words()}")
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError as late:
            raise Unavailable(f"HAProxy on {self._whose} does not answer after its start") from late

    async def _answers(self) -> bool:
        """Whether the process that was started last answers itself, and no older one."""
        running = self.running
        return running is not None and await self._answering() == running.pid

    async def _answering(self) -> int | None:
        """Return the number of the process that answers, whoever started it."""
        with suppress(PenstockError):
            if found := re.search(r"^Pid: (\d+)$", await self.socket.ask("show info"), re.MULTILINE):
                return int(found[1])
        return None

    def last_words(self) -> str:
        """Return what it complained about last."""
        lines = lines_in(end_of(self.folder / "log", LAST_WORDS_BYTES).decode(errors="replace"))
        return next((line.strip() for line in reversed(lines) if "[ALERT]" in line), "it said nothing")
