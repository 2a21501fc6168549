"""Which sockets somebody listens at, asked of the kernel and not of who listens there.

A daemon that is connected to notices, and logs a connection that says nothing. The kernel is asked by
sock_diag(7) instead: it lists the Unix sockets of this network namespace, which pods on the node's own
network share with their agent, each with the inode of its file.
"""

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress

from policies.model.errors import Unavailable

NETLINK_SOCK_DIAG = 4
BY_FAMILY = 20
"""SOCK_DIAG_BY_FAMILY (linux/sock_diag.h)."""
DUMP = 0x301
"""NLM_F_REQUEST and NLM_F_DUMP (netlink(7))."""
ERROR, DONE = 2, 3
"""Types of netlink's own messages."""
LISTENING = 1 << 10
"""The state TCP_LISTEN, as one of a set."""
SHOW_NAME_AND_FILE = 1 | 2
"""UDIAG_SHOW_NAME and UDIAG_SHOW_VFS (linux/unix_diag.h)."""
NAME, FILE = 0, 1
"""Attributes of an answer."""
INODE = 2**32 - 1
"""The kernel tells the lower 32 bits of an inode's number."""
PATIENCE = 2.0
"""Seconds in which a kernel answers."""
LARGEST = 2**16
"""Bytes of one part of an answer."""

_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBHIII8x")
_MESSAGE = struct.Struct("=BBBBI8x")
_ATTRIBUTE = struct.Struct("=HH")


def listened_at() -> frozenset[tuple[int, str]]:
    """Return the file of every Unix socket that somebody listens at: its inode, and the name in its folder.

    Raises:
        Unavailable: This kernel does not say.
    """
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as kernel:
            kernel.settimeout(PATIENCE)
            request = _REQUEST.pack(socket.AF_UNIX, 0, 0, LISTENING, 0, SHOW_NAME_AND_FILE)
            kernel.send(_HEADER.pack(_HEADER.size + len(request), BY_FAMILY, DUMP, 1, 0) + request)
            return frozenset(_told(kernel))
    except OSError as error:
        raise Unavailable(
            f"the kernel does not say which sockets are listened at ({error}): load its module unix_diag"
        ) from error


def _told(kernel: socket.socket) -> Iterator[tuple[int, str]]:
    """Yield what the kernel answers, until it has said all."""
    while True:
        for kind, body in _parts(kernel.recv(LARGEST), _HEADER.size):
            if kind == DONE:
                return
            if kind == ERROR:
                raise OSError(-struct.unpack_from("=i", body)[0], "refused")
            said = dict(_parts(body[_MESSAGE.size :], _ATTRIBUTE.size))
            if FILE in said:
                (inode,) = struct.unpack_from("=I", said[FILE])
                yield inode, said.get(NAME, b"").rstrip(b"\0").decode(errors="replace").rpartition("/")[2]


def _parts(said: bytes, head: int) -> Iterator[tuple[int, bytes]]:
    """Yield type and content of each message, or of each attribute of one; both begin with their length."""
    while len(said) >= head:
        if head == _HEADER.size:
            length, kind = _HEADER.unpack_from(said)[:2]
        else:
            length, kind = _ATTRIBUTE.unpack_from(said)
        with suppress(struct.error):
            yield kind, said[head:length]
        said = said[max(head, (length + 3) & ~3) :]
