"""The host's journal, told in systemd's own form (systemd.io/JOURNAL_NATIVE_PROTOCOL): a line and its fields.

Nobody waits for it: what it does not take at once is not said.
"""

import socket
from collections.abc import Mapping
from pathlib import Path

SOCKET = Path("/run/systemd/journal/socket")


class Journald:
    """The journal behind a socket; it may come later, or go and come back."""

    def __init__(self, path: Path = SOCKET) -> None:
        """Name the socket; nothing is opened there yet."""
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def say(self, fields: Mapping[str, object]) -> bool:
        """Return whether the journal took this entry."""
        try:
            self._socket.sendto(
                b"".join(_field(name, str(value)) for name, value in fields.items()), self._path
            )
        except OSError:  # full, not there, or an entry too large for it
            return False
        return True


def _field(name: str, value: str) -> bytes:
    """Return the field as the journal reads it; a value of several lines begins no other field."""
    said = value.encode(errors="replace")
    if b"\n" in said:
        return b"%s\n%s%s\n" % (name.encode(), len(said).to_bytes(8, "little"), said)
    return b"%s=%s\n" % (name.encode(), said)
