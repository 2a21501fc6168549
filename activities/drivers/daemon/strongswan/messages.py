"""vici's messages, read faster than by strongSwan's own client: a listing has one of each user."""

from collections.abc import Iterator
from typing import Any

from vici import Session
from vici.exception import DeserializationException, EventUnknownException, SessionException
from vici.protocol import Packet

_BEGINS, _ENDS, _VALUE, _LIST, _ITEM = 1, 2, 3, 4, 5
"""What an element of a message is (README of strongSwan's vici)."""
_LENGTH_BYTES = 4


def streamed(session: Session, command: str, event: str) -> Iterator[dict[str, Any]]:
    """Yield what charon tells in events while it carries out the command; it is the last one of a session."""
    session.transport.send(Packet.register_event(event))
    with session.transport.socket.makefile("rb") as told:
        if _packet(told)[0] != Packet.EVENT_CONFIRM:
            raise EventUnknownException(event)
        session.transport.send(Packet.request(command))
        while (packet := _packet(told))[0] == Packet.EVENT:
            yield message_in(packet, 2 + packet[1])
    if packet[0] != Packet.CMD_RESPONSE:
        raise SessionException(command)


def message_in(packet: bytes, at: int = 0) -> dict[str, Any]:
    """Return the message that begins there: keys are words, values bytes, lists of bytes or more of the same.

    Raises:
        DeserializationException: It is none, or not all of one.
    """
    found = here = dict[str, Any]()
    above, end = list[dict[str, Any]](), len(packet)
    try:
        while at < end:
            kind = packet[at]
            if kind == _ENDS:
                here, at = above.pop(), at + 1
                continue
            value = at + 2 + packet[at + 1]
            key = packet[at + 2 : value].decode()
            if kind == _VALUE:
                at = value + 2 + (packet[value] << 8 | packet[value + 1])
                here[key] = packet[value + 2 : at]
            elif kind == _BEGINS:
                above.append(here)
                here[key] = here = {}
                at = value
            elif kind == _LIST:
                here[key], at = _list_in(packet, value)
            else:
                raise DeserializationException(f"an element of kind {kind}")
    except IndexError as error:
        raise DeserializationException("a message ends too early, or too often") from error
    if above or at > end:
        raise DeserializationException("a message ends too early")
    return found


def _list_in(packet: bytes, at: int) -> tuple[list[bytes], int]:
    """Return the items of a list, and where it is over."""
    items = list[bytes]()
    while packet[at] == _ITEM:
        end = at + 3 + (packet[at + 1] << 8 | packet[at + 2])
        items.append(packet[at + 3 : end])
        at = end
    return items, at + 1


def _packet(told: Any) -> bytes:
    size = int.from_bytes(told.read(_LENGTH_BYTES), "big")
    packet = bytes(told.read(size))
    if not packet or len(packet) < size:
        raise SessionException("charon hung up")
    return packet
