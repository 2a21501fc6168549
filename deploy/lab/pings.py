"""Pings through every user's tunnel from one process, counted so that nothing is flattered.

A ping is lost when its answer has not come within five seconds, or when it could not even be
sent. What is still under way for less than a second when the counting stops is not counted
at all: it is neither lost nor proven.
"""

import asyncio
import contextlib
import json
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path

from deploy.lab import namespaces
from deploy.lab.topology import TARGET4

ANSWER_WITHIN = 5.0
YOUNG = 1.0
_ECHO_REQUEST, _ECHO_REPLY = 8, 0
_HEADER = struct.Struct("!BBHHHI")  # ICMP echo (RFC 792), then our own count: 16 bits wrap too soon


@dataclass
class Count:
    """What became of one user's pings so far."""

    sent: int = 0
    answered: int = 0
    lost: int = 0
    longest_silence: float = 0.0
    """Seconds from the last answered ping before a loss to the first answered one after it."""


class Pings:
    """Pings from one namespace to the target inside, at a steady rate while it is asked to."""

    def __init__(self, namespace: str, log: Path, *, per_second: float = 5.0, target: str = TARGET4) -> None:
        self.count = Count()
        self._interval = 1 / per_second
        self._target = (target, 0)
        self._under_way: dict[int, float] = {}
        self._settled = asyncio.Event()
        self._serial = 0
        self._last_answered: float | None = None
        self._lost_since = False
        self._sending: asyncio.Task[None] | None = None
        with namespaces.inside(namespace):
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
        self._socket.setblocking(False)
        self._log = log.open("a", encoding="utf-8")
        asyncio.get_running_loop().add_reader(self._socket, self._receive)

    @property
    def running(self) -> bool:
        """Say whether pings are being sent now."""
        return self._sending is not None

    def start(self) -> None:
        """Begin, or go on."""
        if self._sending is None:
            self._last_answered = None
            self._sending = asyncio.create_task(self._send_steadily())

    async def pause(self) -> None:
        """Stop sending and settle what is under way: at once when all is answered, else after a second."""
        if self._sending is None:
            return
        self._sending.cancel()
        self._sending = None
        if self._under_way:
            self._settled.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._settled.wait(), YOUNG)
        for serial in list(self._under_way):
            self._lose(serial)

    def close(self) -> None:
        """Stop now; what is younger than a second is not counted as sent."""
        if self._sending:
            self._sending.cancel()
        now = time.monotonic()
        for serial, sent in list(self._under_way.items()):
            if now - sent >= YOUNG:
                self._lose(serial)
        self.count.sent -= len(self._under_way)
        self._under_way.clear()
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        self._log.close()

    def flush(self) -> None:
        """Ensure that everything known so far is in the log."""
        self._log.flush()

    async def _send_steadily(self) -> None:
        due = time.monotonic()
        while True:
            self._send()
            self._give_up_on_old_ones()
            due = max(due + self._interval, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    def _send(self) -> None:
        self._serial += 1
        self.count.sent += 1
        self._under_way[self._serial] = time.monotonic()
        packet = _HEADER.pack(_ECHO_REQUEST, 0, 0, 0, self._serial & 0xFFFF, self._serial)
        try:
            self._socket.sendto(packet, self._target)
        except OSError as error:
            self._lose(self._serial, str(error))

    def _receive(self) -> None:
        now = time.monotonic()
        try:
            packet = self._socket.recv(256)
        except OSError:
            return  # an ICMP error for a ping that will count as lost
        if len(packet) < _HEADER.size:
            return
        kind, *_, serial = _HEADER.unpack(packet[: _HEADER.size])
        sent = self._under_way.pop(serial, None) if kind == _ECHO_REPLY else None
        if sent is None:
            return
        self.count.answered += 1
        if self._lost_since and self._last_answered is not None:
            self.count.longest_silence = max(self.count.longest_silence, sent - self._last_answered)
        self._last_answered, self._lost_since = sent, False
        self._write(serial, round(now - sent, 6), None)
        if not self._under_way:
            self._settled.set()

    def _give_up_on_old_ones(self) -> None:
        limit = time.monotonic() - ANSWER_WITHIN
        for serial in [serial for serial, sent in self._under_way.items() if sent < limit]:
            self._lose(serial)

    def _lose(self, serial: int, reason: str = "no answer") -> None:
        del self._under_way[serial]
        self.count.lost += 1
        self._lost_since = True
        self._write(serial, None, reason)

    def _write(self, serial: int, seconds: float | None, reason: str | None) -> None:
        lost = {"lost": reason} if reason else {}
        line = {"at": round(time.time(), 6), "ping": serial, "seconds": seconds, **lost}
        self._log.write(json.dumps(line) + "\n")
