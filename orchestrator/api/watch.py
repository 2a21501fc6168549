"""How the API is: `/healthz` and `/readyz` at its own doors, and its requests counted for Prometheus."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from orchestrator.monitoring.readiness import Readiness

METHODS = frozenset({"GET", "POST", "DELETE"})
BOUNDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)


class Requests(Collector):
    """Counts requests by method and status, and how long each took until its answer began."""

    def __init__(self) -> None:
        """Begin at zero."""
        self._counts = Counter[tuple[str, int]]()
        self._buckets = [0] * (len(BOUNDS) + 1)
        self._seconds = 0.0

    def count(self, method: str, status: int, seconds: float) -> None:
        """Take in one that was answered; methods that nobody has to use count as one."""
        self._counts[method if method in METHODS else "another", status] += 1
        self._buckets[bisect_left(BOUNDS, seconds)] += 1
        self._seconds += seconds

    def describe(self) -> Iterable[Metric]:
        """Name nothing in advance."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield the counts as they are now."""
        requests = CounterMetricFamily("penstock_api_requests", "Requests", labels=("method", "status"))
        for (method, status), count in self._counts.copy().items():
            requests.add_metric([method, str(status)], count)
        yield requests
        total, bounds = 0, list[tuple[str, float]]()
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), self._buckets, strict=True):
            total += count
            bounds.append((bound, total))
        seconds = HistogramMetricFamily("penstock_api_request_seconds", "Until an answer began", labels=())
        seconds.add_metric([], buckets=bounds, sum_value=self._seconds)
        yield seconds


@dataclass(frozen=True)
class Watch:
    """What the API knows of itself."""

    readiness: Readiness
    requests: Requests = field(default_factory=Requests)


def health(readiness: Readiness) -> APIRouter:
    """Return the routes that say how the API is, to everybody and from memory."""
    router = APIRouter(include_in_schema=False)

    @router.get("/healthz")
    async def healthz() -> Response:
        return PlainTextResponse("alive\n")

    @router.get("/readyz")
    async def readyz() -> Response:
        if (wrong := readiness.sentence) is not None:
            return PlainTextResponse(f"not ready: {wrong}\n", status_code=503)
        return PlainTextResponse("ready\n")

    return router
