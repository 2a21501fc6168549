"""What a listing of the kernel's flows says: messages of its form, made here."""

import struct
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from ipaddress import IPv4Address

import pytest

from activities.drivers.flows import Flow, Sent, read_listing

HOME, GATEWAY = IPv4Address("10.255.0.1"), IPv4Address("192.0.2.11")
SECOND = timedelta(seconds=1)
END = struct.pack("=IHHII", 16, 3, 0, 1, 0)


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def direction(kind: int, source: IPv4Address, source_port: int, to: IPv4Address, port: int) -> bytes:
    addresses = attribute(1, source.packed) + attribute(2, to.packed)
    ports = attribute(1, b"\x11") + attribute(2, struct.pack("!H", source_port))
    ports += attribute(3, struct.pack("!H", port))
    return attribute(kind | 1 << 15, attribute(1 | 1 << 15, addresses) + attribute(2 | 1 << 15, ports))


def message(flow: Flow, home: IPv4Address, home_port: int) -> bytes:
    told = direction(1, *flow) + direction(2, home, home_port, flow.source, flow.source_port)
    told += attribute(3, bytes(4)) + attribute(7, bytes(4))
    return struct.pack("=IHHII", 20 + len(told), 256, 2, 1, 0) + bytes([2, 0, 0, 0]) + told


def table(size: int) -> list[bytes]:
    """Return a listing of so many flows of others, some in each answer."""
    flows = [
        message(Flow(IPv4Address(0x64400000 + n), 4500, GATEWAY, 4500), GATEWAY, 4500) for n in range(size)
    ]
    return [b"".join(flows[at : at + 100]) for at in range(0, size, 100)]


def said(answers: Iterable[bytes]) -> Callable[[], bytes]:
    coming = iter(answers)
    return lambda: next(coming)


def test_a_flow_is_found_among_many_by_where_it_is_sent() -> None:
    flow = Flow(IPv4Address("203.0.113.7"), 4500, GATEWAY, 4500)
    answers = [*table(1000), message(flow, HOME, 4500), *table(100), END]
    assert read_listing(said(answers), [HOME.packed], SECOND) == [Sent(flow, HOME, 4500)]


def test_a_table_of_others_flows_costs_a_fifth_at_most_of_reading_it() -> None:
    def cost_of(mark: bytes) -> float:
        answers = [*table(10_000), END]
        began = time.process_time()
        read_listing(said(answers), [mark], 30 * SECOND)
        return time.process_time() - began

    assert cost_of(HOME.packed) < cost_of(GATEWAY.packed) / 5


def test_a_listing_that_takes_too_long_is_given_up() -> None:
    read = 0

    def slow() -> bytes:
        nonlocal read
        read += 1
        time.sleep(0.05)
        return table(1)[0]

    with pytest.raises(OSError, match="took more than"):
        read_listing(slow, [HOME.packed], timedelta(milliseconds=200))
    assert read <= 5


def test_what_the_kernel_refuses_is_said() -> None:
    refused = struct.pack("=IHHIIi", 20, 2, 0, 1, 0, -1)
    with pytest.raises(PermissionError):
        read_listing(said([refused]), [HOME.packed], SECOND)
