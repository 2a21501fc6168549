"""Replicas of one Prometheus: the first one that answers whole is believed, and answers are never mixed."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from activities.drivers.metrics.access import Access
from activities.drivers.metrics.prometheus import MOST_INSTANCES, PrometheusSource
from activities.observation import MetricsUnavailable
from policies.judge.counts import Series
from policies.judge.tick import Offence

T = TypeVar("T")


class Replicas:
    """Servers with the same series; a question goes to the one that answered last, then to the others."""

    def __init__(self, sources: Sequence[PrometheusSource]) -> None:
        """Take at least one."""
        self.sources = tuple(sources)
        self._preferred = 0

    @classmethod
    def of(cls, access: Access) -> "Replicas":
        """Return the servers at these addresses."""
        return cls([PrometheusSource(url, access) for url in access.urls])

    async def raw(
        self, selector: str, instances: Sequence[str], at: datetime, lookback: timedelta
    ) -> tuple[Series, ...]:
        """Return the raw samples of one replica; see MetricsSource."""
        return await self.whole(lambda source: source.raw(selector, instances, at, lookback))

    async def offenders(self, offence: Offence, at: datetime) -> frozenset[str]:
        """Return who may offend, by one replica; see OffenderSource."""
        return await self.whole(lambda source: source.offenders(offence, at))

    async def summed(
        self,
        expression: str,
        at: datetime,
        lookback: timedelta,
        step: timedelta,
        most: int = MOST_INSTANCES,
    ) -> tuple[Series, ...]:
        """Return what an expression over many series was at one replica; see PrometheusSource."""
        return await self.whole(lambda source: source.summed(expression, at, lookback, step, most))

    async def clock(self) -> float:
        """Return what the clock of one replica shows, in seconds of the epoch."""
        return await self.whole(lambda source: source.clock())

    async def whole(self, read: Callable[[PrometheusSource], Awaitable[T]]) -> T:
        """Return what the first replica answers that answers everything of this read.

        Raises:
            MetricsUnavailable: None does; the sentence has what each of them answers.
            BadQuery: A question itself is wrong.
        """
        refused = []
        for number in self._in_turn():
            try:
                found = await read(self.sources[number])
            except MetricsUnavailable as error:
                refused.append(str(error))
            else:
                self._preferred = number
                return found
        raise MetricsUnavailable("; ".join(refused))

    def close(self) -> None:
        """Let go of connections and threads."""
        for source in self.sources:
            source.close()

    def _in_turn(self) -> Iterator[int]:
        count = len(self.sources)
        return ((self._preferred + step) % count for step in range(count))
