"""Sockets of another network namespace, opened by this process and used from here (namespaces(7)).

A thread of its own goes there, opens the socket and ends: no other thread ever leaves its namespace.
"""

import ctypes
import os
import socket
from pathlib import Path
from threading import Thread

_CLONE_NEWNET = 0x40000000


def opened_in(process: Path, family: int, kind: int, protocol: int) -> socket.socket:
    """Return a new socket of the network in which that process lives, which its folder of `/proc` names.

    Raises:
        OSError: It has ended, or this process may not go there or open such a socket there.
    """
    opened: list[socket.socket] = []
    failed: list[OSError] = []

    def go() -> None:
        try:
            there = os.open(process / "ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                if ctypes.CDLL(None, use_errno=True).setns(there, _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), f"setns to the network of {process.name}")
            finally:
                os.close(there)
            opened.append(socket.socket(family, kind, protocol))
        except OSError as error:
            failed.append(error)

    thread = Thread(target=go, name="opens a socket")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return opened[0]
