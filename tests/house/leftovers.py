"""What a run could leave on this machine, looked at before and after.

Orphans come to us: while we look, this process is the subreaper of everything it started
(PR_SET_CHILD_SUBREAPER, prctl(2)), so a process whose parent died is one of our children.
"""

import ctypes
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

from deploy.lab import namespaces
from deploy.lab.topology import PREFIX, other_labs
from tests.patience import PATIENCE

_PR_SET_CHILD_SUBREAPER = 36
_OURS = ("penstock", "pst-")
_SIDE = re.compile(r"/(?:pytest|popen)-(gw[0-9]+)(?:-|/|$)")
"""The folder of one of the processes of pytest that run side by side."""


@dataclass(frozen=True)
class Traces:
    """Everything of ours that can outlive a run."""

    namespaces: frozenset[str]
    interfaces: frozenset[str]
    tables: frozenset[str]
    mounts: frozenset[str]
    folders: frozenset[str]
    processes: frozenset[str]

    def __sub__(self, before: "Traces") -> list[str]:
        """Return what is here now and was not before, one line each."""
        return sorted(
            f"{field.name}: {trace}"
            for field in fields(self)
            for trace in getattr(self, field.name) - getattr(before, field.name)
        )


def traces(prefix: str = PREFIX, before: Traces | None = None) -> Traces:
    """Look at this machine now, past what labs and tests of other processes have here.

    What a process that was there before has started since is that one's: a browser of the whole module
    begins processes at any time.
    """
    others = tuple(other_labs())
    return Traces(
        namespaces=frozenset(namespaces.existing(prefix)),
        interfaces=frozenset(
            path.name for path in Path("/sys/class/net").iterdir() if not path.name.startswith(others)
        ),
        tables=frozenset(_lines("nft", "list", "tables")),
        mounts=frozenset(
            line.split()[4]
            for line in Path("/proc/self/mountinfo").read_text().splitlines()
            if not line.split()[4].startswith(str(namespaces.NAMES)) and not _is_beside(line.split()[4])
        ),
        folders=frozenset(
            str(path)
            for place in (Path(tempfile.gettempdir()), Path("/run"))
            for path in place.iterdir()
            if path.name.startswith(_OURS)
        ),
        processes=frozenset(_children(os.getpid(), before.processes if before else frozenset())),
    )


def _is_beside(place: str) -> bool:
    """Whether it lies in the folder of a process of pytest that runs beside this one."""
    side = _SIDE.search(place)
    return side is not None and side[1] != os.environ.get("PYTEST_XDIST_WORKER")


@contextmanager
def nothing_is_left(prefix: str = PREFIX, *, within: float = PATIENCE) -> Iterator[None]:
    """Fail when something that was not here before is still here after the block.

    What was killed needs a moment to be gone; what is not gone `within` seconds is left. Another
    lab on this machine is named: with the same prefix it leaves no room. One of another prefix may
    be beside it; what that makes under other names looks like something left behind.
    """
    if holder := other_labs().get(prefix):
        raise AssertionError(f"hindered by another lab on this machine ({holder}): wait for it or stop it")
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = traces(prefix)
    yield
    deadline = time.monotonic() + within
    while (left := traces(prefix, before) - before) and time.monotonic() < deadline:
        _bury()
        time.sleep(0.05)
    if left:
        raise AssertionError("\n".join([_heading(), *left]))


def _heading() -> str:
    others = "; ".join(f"{prefix} {holder}" for prefix, holder in other_labs().items())
    return f"left behind, or made by another lab on this machine ({others}):" if others else "left behind:"


def _lines(*command: str) -> list[str]:
    return subprocess.run(command, text=True, capture_output=True, check=False).stdout.splitlines()


def _children(pid: int, before: frozenset[str]) -> list[str]:
    """Return pid and command line of every living child and grandchild, but for children of `before`."""
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    numbers = listed.read_text().split() if listed.exists() else []
    found = []
    for number in numbers:
        try:
            command = (
                Path(f"/proc/{number}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            )
        except OSError:
            continue
        if command:  # a zombie has none, and holds nothing but its number
            found.append(f"{number} {command.strip()}")
            found += _children(int(number), before) if found[-1] not in before else []
    return found


def _bury() -> None:
    """Take the exit codes of adopted orphans; children of our own are left to those who started them."""
    for number in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split():
        stat = Path(f"/proc/{number}/stat")
        try:
            session = int(stat.read_text().rsplit(")", 1)[1].split()[3])
        except (OSError, IndexError):
            continue
        if session != os.getsid(0):
            try:
                os.waitpid(int(number), os.WNOHANG)
            except ChildProcessError:
                continue
