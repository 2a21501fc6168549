"""charon's control socket, which speaks vici (its README of strongSwan 5.9): a question, one answer.

strongSwan's own client waits for ever where charon stops in the middle of an answer. So each question has a
connection and a thread of its own, and when its time is over the connection is shut, which ends both.
"""

import asyncio
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from vici import Session
from vici.exception import CommandException, DeserializationException, EventUnknownException, SessionException

from activities.drivers.daemon.strongswan.messages import streamed
from policies.model.fleet import Gateway

SOCKET = "charon.vici"
"""In the folder that the instance sees as RUN."""
ANSWER = timedelta(seconds=2)
_NO_ANSWER = (
    OSError,
    DeserializationException,
    EventUnknownException,
    SessionException,
    CommandException,
    struct.error,
    UnicodeDecodeError,
    KeyError,
)
Said = TypeVar("Said")
SecurityAssociation = Mapping[str, Any]
"""One IKE_SA as `list-sas` tells it: keys are words, values bytes, lists of bytes or more of the same."""


async def ask(folder: Path, question: Callable[[Session], Said], within: timedelta = ANSWER) -> Said | None:
    """Return what charon says to the question, None where it does not in time, or says that it cannot."""
    line = _Line(folder, within)
    asking = asyncio.ensure_future(asyncio.to_thread(line.ask, question))
    asking.add_done_callback(lambda done: done.cancelled() or done.exception())  # whoever waits for it or not
    try:
        async with asyncio.timeout(within.total_seconds()):
            return await asyncio.shield(asking)
    except _NO_ANSWER:
        return None
    finally:
        line.hang_up()


def connections(session: Session) -> tuple[str, ...]:
    """Return the names of the connections that charon has loaded: it takes logins by them."""
    return tuple(name.decode() for name in session.get_conns()["conns"])


def security_associations(session: Session) -> Iterator[SecurityAssociation]:
    """Yield every IKE_SA."""
    for listed in streamed(session, "list-sas", "list-sa"):
        yield from listed.values()


def time_to_list(gateway: Gateway) -> timedelta:
    """Return how long charon may take to list everybody whom the gateway can carry."""
    return ANSWER + gateway.capacity // 5000 * timedelta(seconds=1)


def holder(session: Session) -> int:
    """Return the number of the process that made the socket."""
    credentials = session.transport.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("3i", credentials)[0])


def termination(number: str, told: Callable[[], object]) -> Callable[[Session], bool]:
    """Return what has charon tell that peer to go, and let it go at once, whether it hears or not.

    `told` is called right after that, in the same thread: the peer may be back a few milliseconds later.
    """

    def terminate(session: Session) -> bool:
        session.request("terminate", {"ike-id": number, "force": "yes"})  # its log would take longer
        told()
        return True

    return terminate


class _Line:
    """One connection, which is shut by whoever has waited long enough."""

    def __init__(self, folder: Path, within: timedelta) -> None:
        self._folder = folder
        self._over = threading.Event()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(within.total_seconds())

    def ask(self, question: Callable[[Session], Said]) -> Said:
        with self._socket:
            self._connect()
            if self._over.is_set():
                raise TimeoutError
            return question(Session(self._socket))

    def _connect(self) -> None:
        """Connect by the folder's descriptor: a socket's own path may have 107 bytes (unix(7))."""
        there = os.open(self._folder, os.O_PATH | os.O_DIRECTORY)
        try:
            self._socket.connect(f"/proc/self/fd/{there}/{SOCKET}")
        finally:
            os.close(there)

    def hang_up(self) -> None:
        self._over.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
