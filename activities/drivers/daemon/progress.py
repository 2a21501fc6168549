"""How far a probe's client comes: the stages of a login, as its own words and those of its pings tell."""

import asyncio
import re
import time
from collections.abc import Callable, Sequence

from activities.drivers.daemon.client import ANSWERED, COUNTS, WITHIN, Client
from activities.drivers.daemon.port import Environment
from policies.model.instance import Probe

STAGES = ("tcp", "tls", "auth", "tunnel", "ping")
"""Of every product; the first is an answer at all, also over UDP."""
MOST_LOST = 0.2
"""The share of its pings that a probe may lose and still pass."""


class Progress:
    """What one client has reached by now, in which words, and how many pings came back."""

    def __init__(
        self,
        marks: Sequence[re.Pattern[str]],
        says_why: re.Pattern[str],
        causes: Sequence[tuple[re.Pattern[str], str]] = (),
    ) -> None:
        """Take what shows that each stage but the last is passed, and which words tell why one is not.

        A line of `causes` is the reason whatever the client prints after it, with what to do.
        """
        self._marks = (*marks, COUNTS)
        self._says_why = says_why
        self._causes = causes
        self._has_cause = False
        self._begun = time.monotonic()
        self._reached = 0
        self._words = "it said nothing"
        self._connect_seconds: float | None = None
        self._last = self._sent = self._received = 0

    async def hear(
        self,
        client: Client,
        out: asyncio.StreamReader,
        pings: int,
        is_over: Callable[[str], bool] | None = None,
    ) -> None:
        """Listen until the client has left, or for as long as a login may take; so many pings are wanted.

        A client with an `is_over`, which knows its last words, waits for a line before it pings or leaves.
        """
        try:
            async with asyncio.timeout(WITHIN.total_seconds()):
                await self._listen(client, out, is_over)
                if self._received >= pings:  # ping leaves then, and what it sent last is not lost
                    self._sent = self._last
                await client.process.wait()
        except TimeoutError:
            late = f"nothing more came within {WITHIN.total_seconds():.0f} s"
            self._words = f"{late} after {self._words!r}"

    def verdict(self, environment: Environment, where: str) -> Probe:
        """Return the stage that was reached, or the failed one and why; `where` is the instance's place."""
        lost = self._sent - self._received
        passed = self._reached == len(STAGES) and lost <= MOST_LOST * self._sent
        slot = f"slot {environment.slot.name} on {environment.gateway.name}, {where}"
        said = f"{lost} of {self._sent} pings lost" if self._sent else self._words
        return Probe(
            passed=passed,
            stage=STAGES[min(self._reached, len(STAGES) - 1)],
            reason=f"{slot}: {'login and tunnel work, ' if passed else ''}{said}",
            connect_seconds=self._connect_seconds,
            pings_sent=self._sent,
            pings_lost=lost,
        )

    async def _listen(
        self, client: Client, out: asyncio.StreamReader, is_over: Callable[[str], bool] | None
    ) -> None:
        self._begun, told = time.monotonic(), is_over is None
        async for raw in out:
            line = raw.decode(errors="replace").strip()
            self._note(line)
            if told or is_over is None:
                continue
            connected = self._reached == STAGES.index("ping")
            if told := connected or is_over(line):
                await client.say("connected\n" if connected else "\n")

    def _note(self, line: str) -> None:
        if answered := ANSWERED.search(line):
            self._last = max(self._last, int(answered[1]))
        for number, mark in enumerate(self._marks, start=1):
            found = mark.search(line)
            if found is None:
                continue
            self._reached = max(self._reached, number)
            if STAGES[number - 1] == "tunnel":
                self._connect_seconds = time.monotonic() - self._begun
            if STAGES[number - 1] == "ping":
                self._sent, self._received = int(found[1]), int(found[2])
        for cause, mend in self._causes:
            if not self._has_cause and cause.search(line):
                self._has_cause, self._words = True, f"{line}; {mend}"
        if not self._has_cause and self._reached < len(STAGES) and self._says_why.search(line):
            self._words = line
