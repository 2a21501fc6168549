"""Wait until nftables has changed, as the kernel tells it, instead of asking again and again.

The kernel sends a message to the group NFNLGRP_NFTABLES of the netlink family NETLINK_NETFILTER for every
change of any table in this network namespace (netlink(7), linux/netfilter/nfnetlink.h); who listens needs
CAP_NET_ADMIN, as who changes does.
"""

import asyncio
import socket
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Self

_NETLINK_NETFILTER = 12
_NFNLGRP_NFTABLES = 7
_MESSAGE_BYTES = 64 * 1024
_MOST_MESSAGES = 10_000


class NftablesChanges:
    """The kernel's messages about nftables, from the beginning of the block on."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def __enter__(self) -> Self:
        with suppress(OSError):  # a kernel that does not tell is asked more often
            listening = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
            try:
                listening.setblocking(False)
                listening.bind((0, 1 << (_NFNLGRP_NFTABLES - 1)))
            except OSError:
                listening.close()
                raise
            self._socket = listening
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._socket is not None:
            self._socket.close()

    @property
    def told(self) -> bool:
        """Whether the kernel tells of changes at all."""
        return self._socket is not None

    async def next(self, within: timedelta) -> bool:
        """Return True when something has changed since this was asked last, False when the time is over."""
        if self._socket is None:
            await asyncio.sleep(within.total_seconds())
            return False
        loop = asyncio.get_running_loop()
        with suppress(TimeoutError):
            async with asyncio.timeout(within.total_seconds()):
                with suppress(OSError):  # more than the socket could hold: whatever it was, it is a change
                    await loop.sock_recv(self._socket, _MESSAGE_BYTES)
            self._forget_more(self._socket)
            return True
        return False

    @staticmethod
    def _forget_more(listening: socket.socket) -> None:
        """Take what else has come: one look at the tables answers all of it."""
        for _ in range(_MOST_MESSAGES):
            try:
                listening.recv(_MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError:  # some were lost
                continue
