"""A path that takes its time, both ways: every frame between two interfaces is handed on a while later.

This kernel has no netem, so a process does it. What frames leave to their device, such as checksums, goes
with them (PACKET_VNET_HDR, packet(7)). Its arguments: the two interfaces, and the milliseconds of one way.
"""

import selectors
import socket
import sys
import time
from collections import deque

SOL_PACKET, PACKET_VNET_HDR = 263, 15
ALL_FRAMES = 3
LARGEST = 66_000
BATCH = 256


def opened(interface: str) -> socket.socket:
    """Return a socket that gives and takes whole frames of the interface."""
    frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    frames.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    frames.bind((interface, ALL_FRAMES))
    frames.setblocking(False)
    return frames


def relay(one: socket.socket, other: socket.socket, seconds: float) -> None:
    """Hand frames on for ever."""
    waiting = deque[tuple[float, socket.socket, bytes]]()
    heard = selectors.DefaultSelector()
    for here, there in ((one, other), (other, one)):
        heard.register(here, selectors.EVENT_READ, there)
    while True:
        left = waiting[0][0] - time.monotonic() if waiting else None
        for key, _ in heard.select(left if left is None else max(left, 0.0)):
            assert isinstance(key.fileobj, socket.socket)
            for _ in range(BATCH):
                try:
                    frame, source = key.fileobj.recvfrom(LARGEST)
                except BlockingIOError:
                    break
                if source[2] != socket.PACKET_OUTGOING:  # not what we sent
                    waiting.append((time.monotonic() + seconds, key.data, frame))
        while waiting and waiting[0][0] <= time.monotonic():
            _, to, frame = waiting.popleft()
            to.send(frame)


if __name__ == "__main__":
    relay(opened(sys.argv[1]), opened(sys.argv[2]), float(sys.argv[3]) / 1000)
