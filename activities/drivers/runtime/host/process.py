"""Processes as the kernel tells of them: alive, since when, and made of which files."""

import hashlib
import os
import re
import signal
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from policies.lines import lines_in

PROC = Path("/proc")
_MAPPING = re.compile(
    r"^(?P<span>[0-9a-f]+-[0-9a-f]+) (?P<rights>\S+) \S+ \S+ (?P<inode>\d+)\s+(?P<path>/.*)$"
)


class Alive(Protocol):
    """The daemon that runs in a slot, as much of it as is seen from here."""

    @property
    def pid(self) -> int | None:
        """Its number, None where only others see its processes."""
        ...

    @property
    def boot(self) -> str:
        """The kernel's name for the boot in which it runs."""
        ...

    @property
    def name(self) -> str:
        """What no other one of this boot is called, earlier or later."""
        ...

    @property
    def alive(self) -> bool:
        """Whether exactly this one runs."""
        ...

    @property
    def file(self) -> tuple[int, int] | None:
        """What tells the file that it runs from every other one; None when it has ended."""
        ...

    @property
    def started_at(self) -> datetime:
        """When it started."""
        ...

    @property
    def after_boot(self) -> float | None:
        """Seconds from the boot to its start; None where its start has a recorded wall time."""
        ...

    @property
    def executable(self) -> str | None:
        """The digest of what it was started from, None where that is not known."""
        ...

    def tell(self, wish: signal.Signals) -> bool:
        """Send exactly this one the signal; return whether it was sent."""
        ...


@dataclass(frozen=True)
class Process:
    """One process of one boot; a later process with the same number is not equal to it."""

    pid: int
    start: int
    """Clock ticks after boot, field 22 of /proc/PID/stat (proc(5))."""
    boot: str

    @property
    def name(self) -> str:
        """Its number, which others had before, and its start."""
        return f"{self.pid}.{self.start}"

    @property
    def alive(self) -> bool:
        """Whether exactly this process runs; a zombie does not."""
        return (boot_id(), self.start) == (self.boot, _start_of(self.pid))

    @property
    def file(self) -> tuple[int, int] | None:
        """The device and inode of its executable; None when it has ended."""
        try:
            found = (PROC / str(self.pid) / "exe").stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def tell(self, wish: signal.Signals) -> bool:
        """Send exactly this process the signal, no later one with its number; return whether it was sent."""
        with suppress(ProcessLookupError):
            held = os.pidfd_open(self.pid)
            try:
                if self.alive:
                    signal.pidfd_send_signal(held, wish)
                    return True
            finally:
                os.close(held)
        return False

    @property
    def started_at(self) -> datetime:
        """When it started, by the wall clock as it is set now."""
        return datetime.fromtimestamp(boot_time() + self.after_boot, UTC)

    @property
    def after_boot(self) -> float:
        """Seconds from the boot to its start, which no step of the wall clock changes."""
        return self.start / os.sysconf("SC_CLK_TCK")

    @property
    def executable(self) -> str | None:
        """The digest of the file it was started from, hashed now; None when it is gone."""
        return digest_of_file(PROC / str(self.pid) / "exe")


def boot_id() -> str:
    """Return the kernel's name for this boot."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


def boot_time() -> float:
    """Return when this boot began, in whole seconds since 1970.

    The kernel computes it from the wall clock, so each step of that clock moves it (`btime`, proc(5)).
    """
    lines = (PROC / "stat").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("btime "))


def process(pid: int) -> Process | None:
    """Return the process with that number, None when there is none alive."""
    start = _start_of(pid)
    return None if start is None else Process(pid, start, boot_id())


def left_of(leader: int) -> tuple[Process, ...]:
    """Return what lives on of the process group whose leader has ended; nothing while it lives itself."""
    if _start_of(leader) is not None:
        return ()
    left = []
    for stat in PROC.glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[2]) == leader:
                left.append(process(int(stat.parent.name)))
    return tuple(one for one in left if one is not None)


def digest_of_file(path: Path) -> str | None:
    """Return the digest of the file's bytes, None when it cannot be read."""
    try:
        with path.open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError:
        return None


def mapped_digests(pid: int, root: Path) -> dict[str, str | None]:
    """Return the digest of every file the process has mapped to execute, by path inside its root.

    The bytes are read through /proc/PID/map_files, so a file that was replaced or deleted on
    disk after it was mapped shows the digest of what runs. A file that cannot be read is None,
    which equals no digest of any manifest.
    """
    found: dict[str, str | None] = {}
    for line in lines_in((PROC / str(pid) / "maps").read_bytes().decode(errors="surrogateescape")):
        mapping = _MAPPING.match(line)
        if mapping is None or "x" not in mapping["rights"] or mapping["inode"] == "0":
            continue
        path = mapping["path"].removeprefix(str(root)) or mapping["path"]
        found[path] = digest_of_file(PROC / str(pid) / "map_files" / _as_a_name(mapping["span"]))
    return found


def _as_a_name(span: str) -> str:
    """Return the name of a mapping in map_files, which has no zeros before low addresses (proc(5))."""
    return "-".join(f"{int(end, 16):x}" for end in span.split("-"))


def _start_of(pid: int) -> int | None:
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
