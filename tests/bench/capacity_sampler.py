"""Which gateways take new sessions, asked every 100 ms from where users are.

`python -m tests.bench.capacity_sampler < SETTINGS` asks until it is told to stop. A gateway takes new
sessions when a user's connection to it comes to an instance: the instance has to complete a TLS handshake and
to show the gateways' certificate. Neither HAProxy nor penstock is asked for what it knows.
"""

import asyncio
import itertools
import json
import signal
import ssl
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from deploy.lab.processes import Process

EVERY = 0.1
PATIENCE = 2.0
"""Seconds after which a user who has no answer counts as turned away."""
SOURCES = [f"10.88.255.{number}" for number in range(1, 201)]
"""Addresses to ask from in turn, which the namespace has: during a trial they come to either instance."""
HOME = Path(__file__).parents[2]


@dataclass(frozen=True)
class Sample:
    """One look at every gateway."""

    at: float
    """When it was begun, by the clock on the wall."""
    answers: Mapping[str, float | None]
    """The seconds until each gateway answered, None for one that did not."""


class Sampler:
    """The process that looks, in one namespace, and what it wrote."""

    def __init__(self, namespace: str, gateways: Mapping[str, str], authority: Path, folder: Path) -> None:
        """Take from where to ask, the gateways' addresses by their names, and who vouches for them."""
        self._log = folder / "samples.jsonl"
        self._settings = {"gateways": gateways, "authority": str(authority), "log": str(self._log)}
        self._process = Process(
            "the sampler",
            [sys.executable, "-m", "tests.bench.capacity_sampler"],
            log=folder / "sampler.log",
            namespace=namespace,
            environment={"PYTHONPATH": str(HOME)},
        )

    @property
    def looks(self) -> bool:
        """Whether it has begun to look and was not stopped since."""
        return self._process.pid is not None

    def start(self) -> None:
        """Begin to look."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._process.start(stdin=json.dumps(self._settings).encode())

    def stop(self) -> None:
        """Look no more."""
        self._process.stop(signal.SIGTERM)

    def between(self, began: float, ended: float) -> list[Sample]:
        """Return the looks that were begun between two times of the wall clock."""
        lines = map(json.loads, self._log.read_text().splitlines())
        found = sorted((Sample(**line) for line in lines), key=lambda sample: sample.at)
        return [sample for sample in found if began <= sample.at <= ended]


def capacity(sample: Sample, gateways: Sequence[str], each: int) -> int:
    """Return how many sessions those of these gateways can carry that took a new one."""
    return each * sum(sample.answers[name] is not None for name in gateways)


def away(samples: Sequence[Sample], gateway: str) -> Iterator[float]:
    """Yield for how long the gateway took no new session, each time that it did not."""
    since: float | None = None
    for sample in samples:
        if sample.answers[gateway] is None:
            since = since or sample.at
        elif since is not None:
            yield sample.at - since
            since = None
    if since is not None:
        yield samples[-1].at - since


async def _look(gateways: Mapping[str, str], source: str, trust: ssl.SSLContext, log: TextIO) -> None:
    loop = asyncio.get_running_loop()
    begun, wall = loop.time(), time.time()
    names = list(gateways)
    found = await asyncio.gather(*(_answer(gateways[name], source, trust) for name in names))
    answers = {name: at and round(at - begun, 4) for name, at in zip(names, found, strict=True)}
    log.write(json.dumps({"at": round(wall, 4), "answers": answers}) + "\n")


async def _answer(address: str, source: str, trust: ssl.SSLContext) -> float | None:
    with suppress(OSError):
        async with asyncio.timeout(PATIENCE):
            _, writer = await asyncio.open_connection(address, 443, ssl=trust, local_addr=(source, 0))
            writer.transport.abort()
            return asyncio.get_running_loop().time()
    return None


async def _main(gateways: Mapping[str, str], authority: str, log: TextIO) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    trust = ssl.create_default_context(cafile=authority)
    due, sources = loop.time(), itertools.cycle(SOURCES)
    async with asyncio.TaskGroup() as looks:
        while not stop.is_set():
            looks.create_task(_look(gateways, next(sources), trust, log))
            due += EVERY
            await asyncio.sleep(due - loop.time())


if __name__ == "__main__":
    given = json.loads(sys.stdin.read())
    with Path(given["log"]).open("a", encoding="utf-8", buffering=1) as written:
        asyncio.run(_main(given["gateways"], given["authority"], written))
