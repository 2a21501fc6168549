"""What a process tells whoever has started it: systemd, and a person or a lab that reads along.

There is no watchdog. What an agent or a worker owes is judged where it is missed: by heartbeats, and by the
lease in the host's kernel. One that only shows that an event loop turns would end a busy worker with all
that it has begun, and let one live whose steps hang.
"""

import logging
import os
import socket

SOCKET = "NOTIFY_SOCKET"
"""systemd names in this variable the socket where a unit of `Type=notify` says how it is (sd_notify(3))."""

_log = logging.getLogger(__name__)


def say_ready(what: str) -> None:
    """Say that the process does its work from now on; `systemctl start` returns, and so does a restart."""
    print(f"ready: {what}", flush=True)  # noqa: T201 - the lab waits for this line
    path = os.environ.get(SOCKET)
    if path is None:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notice:
        try:
            notice.sendto(b"READY=1\n", path.replace("@", "\0", 1) if path.startswith("@") else path)
        except OSError as error:
            _log.warning("systemd was not told that the process is ready, at %s: %s", path, error.strerror)
