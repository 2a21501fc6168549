"""vici's messages: what strongSwan's own client reads in them is read, in less time."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from vici.exception import DeserializationException
from vici.protocol import FiniteStream, Message

from activities.drivers.daemon.strongswan.messages import message_in


def listed(number: int) -> bytes:
    """Return what charon says of one user with one tunnel."""
    tunnel = {f"word-{at}": f"{number:08x}" for at in range(20)}
    return bytes(
        Message.serialize(
            {
                "people": {
                    **{f"word-{at}": f"{number:016x}" for at in range(20)},
                    "remote-vips": ["10.9.0.2", "fd00::2"],
                    "nothing": [],
                    "child-sas": {f"people-{number}": {**tunnel, "local-ts": ["0.0.0.0/0"]}},
                    "nobody": {},
                    "long": "x" * 700,
                },
            }
        )
    )


def read_by_its_own_client(message: bytes) -> dict[str, Any]:
    return dict(Message.deserialize(FiniteStream(message)))


def test_a_message_says_what_its_own_client_reads_in_it() -> None:
    assert message_in(listed(7)) == read_by_its_own_client(listed(7))
    assert message_in(b"name" + listed(7), 4) == message_in(listed(7))


def test_a_message_is_read_in_two_thirds_of_its_own_clients_time_at_most() -> None:
    messages = [listed(number) for number in range(500)]

    def cost_of(reading: Callable[[bytes], object]) -> float:
        began = time.process_time()
        for message in messages:
            reading(message)
        return time.process_time() - began

    ours = min(cost_of(message_in) for _ in range(3))
    assert ours < min(cost_of(read_by_its_own_client) for _ in range(3)) * 2 / 3


@pytest.mark.parametrize("end", [1, 2, 5, 40, -1, -2])
def test_a_part_of_a_message_is_none(end: int) -> None:
    with pytest.raises(DeserializationException):
        message_in(listed(7)[:end])


def test_what_is_no_message_is_none() -> None:
    for told in (b"\x09\x01a", b"\x02", b"\x03\x01a\x00"):
        with pytest.raises(DeserializationException):
            message_in(told)
