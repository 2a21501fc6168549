"""What a daemon and all its children use, as the kernel counts it (proc(5))."""

import os
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Usage:
    """What one daemon uses in all; open files and their limit are those of its process nearest to it."""

    cpu_seconds: float
    resident_bytes: int
    open_fds: int
    max_fds: int


def usage(pid: int) -> Usage | None:
    """Return what the process and its living descendants use; None when it is gone.

    CPU includes children that have ended, so it only falls while one is being reaped.
    """
    cpu, resident, files = 0.0, 0, list[tuple[int, int]]()
    for member in _family(pid):
        try:
            folder = PROC / str(member)
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            files.append((len(os.listdir(folder / "fd")), _limit(folder)))  # noqa: PTH208 - only the number
        except OSError:
            if member == pid:
                return None
            continue
        cpu += sum(int(field) for field in fields[11:15]) / _TICKS
        resident += int(fields[21]) * _PAGE
    if not files:
        return None
    open_fds, max_fds = max(files, key=lambda pair: pair[0] / pair[1])
    return Usage(cpu_seconds=cpu, resident_bytes=resident, open_fds=open_fds, max_fds=max_fds)


def _family(pid: int) -> list[int]:
    """Return the process and its descendants, parents first."""
    family = [pid]
    for member in family:
        try:
            children = (PROC / str(member) / "task" / str(member) / "children").read_text()
        except OSError:
            continue
        family.extend(int(child) for child in children.split())
    return family


def _limit(folder: Path) -> int:
    for line in (folder / "limits").read_text().splitlines():
        if line.startswith("Max open files"):
            soft = line.split()[3]
            return int(soft) if soft.isdigit() else 1 << 30
    return 1 << 30
