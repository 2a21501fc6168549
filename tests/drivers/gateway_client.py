"""A real user at one site of a scratch gateway: openconnect, and the pings through its tunnel."""

import asyncio
import re
import signal
import subprocess
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from tests.patience import PATIENCE, until

PINGS_A_SECOND = 20
LEAVES_WITHIN = 20.0
"""Seconds in which a client says goodbye on a busy machine; one that hangs is killed then."""
ANSWERED_WITHIN = 0.5
"""Seconds in which a ping comes back on a busy machine; one that was sent later may be under way."""


class Client:
    """One openconnect at one site, and what it pings."""

    logged_in = "penstock: tunnel"
    """What it says once for each login that led to a tunnel, and not when it comes back to its session."""

    def __init__(
        self,
        site: str,
        folder: Path,
        number: int,
        *,
        version: int = 4,
        url_port: int = 443,
        more: tuple[str, ...] = (),
        host: str | None = None,
    ) -> None:
        self.name, self.number = site, number
        self.log = folder / f"client-{number}.log"
        self.answers = folder / f"pings-{number}.log"
        address = host or ("10.77.0.1" if version == 4 else "[fd77::1]")
        script = (
            '[ "$reason" = connect ] || exit 0; ip link set tun0 up mtu 1300; '
            'ip address add "$INTERNAL_IP4_ADDRESS/32" dev tun0; ip route add 10.90.0.0/16 dev tun0; '
            "echo penstock: tunnel"
        )
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self.name, "openconnect", "--protocol=anyconnect",
                 "--passwd-on-stdin", "--non-inter", f"--user=user{number}",
                 f"--cafile={folder}/ca.pem", "--interface=tun0",
                 "--reconnect-timeout=60", "--script", script, *more, f"https://{address}:{url_port}"],
                stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        assert self.process.stdin
        self.process.stdin.write(b"secret\n")
        self.process.stdin.close()
        self.pings: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def said(self, words: str) -> int:
        return self.log.read_text(errors="replace").count(words)

    async def until(self, words: str, times: int = 1, within: float = PATIENCE) -> None:
        """Wait until it has said the words so often.

        Raises:
            AssertionError: It ended before.
            TimeoutError: It has not said them in time.
        """

        def is_said() -> bool:
            if self.said(words) >= times:
                return True
            assert self.alive, f"the client ended:\n{self._last_words()}"
            return False

        await until(is_said, within, lambda: f"{words!r} not said in:\n{self._last_words()}")

    def _last_words(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]

    async def up(self) -> "Client":
        await self.until(self.logged_in)
        await self.until("Established DTLS connection")
        return self

    def ping(self, slot: str = "a", host: int | None = None) -> None:
        """Start counting: 20 pings a second through the tunnel, until `lost` is asked.

        What is pinged is the slot's end of the tunnel, or that of the pool with this number.
        """
        target = f"10.90.{'abc'.index(slot) if host is None else host}.1"
        with self.answers.open("wb") as answers:
            self.pings = subprocess.Popen(
                ["ip", "netns", "exec", self.name, "ping", "-n", "-i", str(1 / PINGS_A_SECOND), target],
                stdout=answers,
            )

    def lost(self) -> tuple[int, int]:
        """Stop counting; return pings sent and lost, of those that had half a second to be answered."""
        assert self.pings
        time.sleep(ANSWERED_WITHIN)
        self.pings.send_signal(signal.SIGINT)
        self.pings.wait(PATIENCE)
        said = self.answers.read_text()
        found = re.search(r"(\d+) packets transmitted", said)
        assert found, said
        sent = int(found[1])
        answered = {int(number) for number in re.findall(r"bytes from .* icmp_seq=(\d+)", said)}
        under_way = 1 + round(ANSWERED_WITHIN * PINGS_A_SECOND)
        missing = sorted(set(range(1, sent + 1 - under_way)) - answered)
        if missing:
            print(f"{self.name}: of {sent} pings these were not answered: {missing}")
        return sent, len(missing)

    def gap(self) -> float:
        """Return the longest time without an answer to a ping, once `lost` was asked."""
        answered, last = self._answered()
        return max(after - before for before, after in pairwise([0, *answered, last])) / PINGS_A_SECOND

    def silent_at_the_end(self) -> float:
        """Return the time without an answer before the counting ended, once `lost` was asked."""
        answered, last = self._answered()
        return max(0, last - max(answered, default=0)) / PINGS_A_SECOND

    def _answered(self) -> tuple[list[int], int]:
        """Return the numbers of pings with an answer, and that of the last one that must have one."""
        said = self.answers.read_text()
        answered = sorted({int(number) for number in re.findall(r"bytes from .* icmp_seq=(\d+)", said)})
        found = re.search(r"(\d+) packets transmitted", said)
        return answered, (int(found[1]) if found else 0) - round(ANSWERED_WITHIN * PINGS_A_SECOND)

    def reconnect(self) -> None:
        """Let openconnect drop its connections and come back with its cookie (SIGUSR2)."""
        self.process.send_signal(signal.SIGUSR2)

    async def leave(self) -> None:
        for process in (self.pings, self.process):
            if process is not None:
                process.send_signal(signal.SIGINT)
        for process in (self.pings, self.process):
            if process is not None:
                with suppress(ProcessLookupError):
                    await asyncio.to_thread(_ended, process)


def _ended(process: "subprocess.Popen[bytes]") -> None:
    try:
        process.wait(LEAVES_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
