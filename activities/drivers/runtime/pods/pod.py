"""A pod as its node's agent sees it: a folder called by its uid, and whoever listens at its socket there.

The agent does not see the pod's processes. A daemon makes its control socket when it starts and holds it
until it ends, so the socket's file tells one start of it from every other one.
"""

import re
import signal
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from activities.drivers.runtime.host.process import boot_id
from activities.drivers.runtime.pods.listening import INODE, listened_at

CONTROL = "occtl.sock"
"""The control socket in a pod's folder, as templates say with `$run/occtl.sock`."""
UID = re.compile(r"[0-9a-z][0-9a-z-]{0,62}")
"""What a pod's folder may be called."""


@dataclass(frozen=True)
class Pod:
    """One start of the daemon in one pod; a later start in the same pod is not equal to it."""

    uid: str
    socket: Path
    inode: int
    made: int
    """When its socket was made, in nanoseconds since 1970."""
    boot: str
    executable: str | None = None
    """What it was proven to run, None for one that nobody has proven."""
    pid: None = None
    """Its processes are not seen from here."""
    after_boot: None = None
    """Its socket's file records the wall time of its start."""

    @property
    def name(self) -> str:
        """The pod, and which start in it."""
        return f"{self.uid}.{self.inode}.{self.made}"

    @property
    def alive(self) -> bool:
        """Whether this start of it still listens at its socket."""
        found = pod_at(self.socket.parent)
        return found is not None and (found.name, found.boot) == (self.name, self.boot)

    @property
    def file(self) -> tuple[int, int] | None:
        """Its socket; None when it has ended."""
        return (self.inode, self.made) if self.alive else None

    @property
    def started_at(self) -> datetime:
        """When it made its socket, which daemons do as they begin."""
        return datetime.fromtimestamp(self.made / 1e9, UTC)

    def tell(self, wish: signal.Signals) -> bool:  # noqa: ARG002 - whatever it is
        """Return that nothing was sent: only its cluster ends a pod."""
        return False


def pod_at(folder: Path) -> Pod | None:
    """Return the pod that runs in its folder, None when nobody listens there.

    Raises:
        Unavailable: The kernel does not say.
    """
    socket = folder / CONTROL
    try:
        found = socket.lstat()
    except OSError:
        return None
    if not stat.S_ISSOCK(found.st_mode) or (found.st_ino & INODE, CONTROL) not in listened_at():
        return None
    return Pod(folder.name, socket, found.st_ino, found.st_mtime_ns, boot_id())
