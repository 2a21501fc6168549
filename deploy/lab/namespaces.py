"""Network namespaces: enter one, see who lives in them, end what lives in them.

A socket belongs for ever to the namespace in which it was made, so one process can hold
sockets of many (namespaces(7)). Python offers setns(2) from 3.12 on; until then libc does it.
"""

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from policies.model.errors import Unavailable

NAMES = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def enter(name: str | int) -> None:
    """Move the calling thread into the namespace of that name or open file, before it starts other threads.

    Raises:
        OSError: there is no such namespace, or this process is not root.
    """
    if isinstance(name, int):
        _set(name)
        return
    descriptor = os.open(NAMES / name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _set(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def inside(name: str) -> Iterator[None]:
    """Be in that namespace for a moment: to open a socket there, or to write a setting of it."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter(name)
        try:
            yield
        finally:
            _set(home)
    finally:
        os.close(home)


@contextmanager
def home_again() -> Iterator[int]:
    """Return at the end to the namespace of now, wherever `enter` has led meanwhile; yield its open file."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield home
    finally:
        _set(home)
        os.close(home)


def existing(prefix: str) -> list[str]:
    """Return the names that begin with the prefix, sorted."""
    if not NAMES.is_dir():
        return []
    return sorted(path.name for path in NAMES.iterdir() if path.name.startswith(prefix))


def inhabitants(names: list[str]) -> list[int]:
    """Return the pids of every process in any of these namespaces, in one pass over /proc."""
    wanted = {(seen.st_dev, seen.st_ino) for name in names if (seen := _stat(NAMES / name))}
    pids = (path for path in Path("/proc").iterdir() if path.name.isdigit())
    return sorted(
        int(path.name)
        for path in pids
        if (seen := _stat(path / "ns/net")) and (seen.st_dev, seen.st_ino) in wanted
    )


def rooted_below(folder: Path) -> list[int]:
    """Return the pids of every process whose root is below the folder, whatever namespaces it has."""
    found = []
    for place in Path("/proc").glob("[0-9]*/root"):
        with suppress(OSError):
            if place.readlink().is_relative_to(folder):
                found.append(int(place.parent.name))
    return found


def end_rooted(folder: Path) -> None:
    """Kill by pid whatever has its root below the folder: instances in networks that have no name."""
    for pid in rooted_below(folder):
        _kill(pid)


def end_inhabitants(names: list[str], *, patience: float = 5.0) -> int:
    """Kill by pid whatever lives in these namespaces and wait until it is gone; return how many.

    Children that appear while their parents die are found by the next pass.

    Raises:
        Unavailable: some do not die.
    """
    ended: set[int] = set()
    deadline = time.monotonic() + patience
    while living := [pid for pid in inhabitants(names) if pid != os.getpid()]:
        if time.monotonic() > deadline:
            raise Unavailable(f"processes {living} do not die: see what they wait for, then try again")
        for pid in living:
            _kill(pid)
        ended.update(living)
        time.sleep(0.02)
    return len(ended)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _set(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot change the network namespace: {os.strerror(number)}")
