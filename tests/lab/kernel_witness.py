"""Which slots of a gateway were given new sessions, as the kernel tells of every change of its table.

The kernel's messages about nftables wait in a socket of the gateway's namespace until they are read
(netlink(7), linux/netfilter/nf_tables.h): nothing is asked again and again, and nothing falls between.
"""

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress

from deploy.lab import namespaces
from deploy.lab.topology import Host
from policies.model.fleet import Gateway

_NETLINK_NETFILTER, _NFNLGRP_NFTABLES = 12, 7
_NEW_ELEMENTS = 10 << 8 | 12
"""NFNL_SUBSYS_NFTABLES and NFT_MSG_NEWSETELEM."""
_SET, _ELEMENTS, _ELEMENT, _DATA, _VALUE = 2, 3, 1, 2, 1
"""NFTA_SET_ELEM_LIST_SET, its ELEMENTS, NFTA_LIST_ELEM, NFTA_SET_ELEM_DATA and NFTA_DATA_VALUE."""
_TYPE = 0x3FFF
"""The rest of an attribute's type are flags."""
_HEADER, _ATTRIBUTE, _PORT = struct.Struct("=IHHII"), struct.Struct("=HH"), struct.Struct("!H")
_FAMILY_BYTES = 4
_SO_RCVBUFFORCE = 33
"""Of asm-generic/socket.h: Python has no name for it."""
_BUFFER_BYTES = 16 * 2**20
_MESSAGE_BYTES = 2**16
_GIVEN = (b"trial", b"steer")


class KernelWitness:
    """What a gateway's kernel has told since this was made."""

    def __init__(self, host: Host, gateway: Gateway) -> None:
        """Listen in the gateway's namespace from now on."""
        self._slots = {slot.port: slot.name for slot in gateway.slots}
        with namespaces.inside(host.namespace):
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        self._socket.bind((0, 1 << (_NFNLGRP_NFTABLES - 1)))

    def close(self) -> None:
        """Listen no longer."""
        self._socket.close()

    def exposed(self) -> list[str]:
        """Return the slots that were given new sessions since the last call, on trial or for good, in order.

        Raises:
            OSError: the kernel had more to tell than it could keep (ENOBUFS), so nobody knows.
        """
        given = [port for message in self._messages() for port in _given(message)]
        return [self._slots[port] for port in given]

    def _messages(self) -> Iterator[bytes]:
        with suppress(BlockingIOError):
            while True:
                yield self._socket.recv(_MESSAGE_BYTES)


def _given(told: bytes) -> Iterator[int]:
    """Yield the port of every element that the kernel has put into one of the maps for new sessions."""
    while told:
        length, kind, *_ = _HEADER.unpack_from(told)
        if kind == _NEW_ELEMENTS:
            attributes = dict(_attributes(told[_HEADER.size + _FAMILY_BYTES : length]))
            if attributes[_SET].rstrip(b"\0") in _GIVEN:
                for number, element in _attributes(attributes.get(_ELEMENTS, b"")):
                    if number == _ELEMENT:
                        data = dict(_attributes(dict(_attributes(element))[_DATA]))
                        yield _PORT.unpack_from(data[_VALUE])[0]
        told = told[_aligned(length) :]


def _attributes(told: bytes) -> Iterator[tuple[int, bytes]]:
    while told:
        length, number = _ATTRIBUTE.unpack_from(told)
        yield number & _TYPE, told[_ATTRIBUTE.size : length]
        told = told[_aligned(length) :]


def _aligned(length: int) -> int:
    return length + 3 & ~3
