"""The metrics of notices: since when something waits at each sink, and how often it did not take it."""

import logging
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from orchestrator.noticing.delivering import Delivering
from orchestrator.store.ledger import Ledger
from policies.model.errors import PenstockError

_log = logging.getLogger(__name__)


class ShownNotices(Collector):
    """Shows how every sink takes what it is told."""

    def __init__(self, ledger: Ledger, delivering: Delivering) -> None:
        """Take the outbox, and who tells the sinks in this process."""
        self._ledger = ledger
        self._delivering = delivering

    def describe(self) -> Iterable[Metric]:
        """Name nothing in advance: what cannot be read is not shown."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield what waits by sink, and what was taken and refused since this process began."""
        try:
            health, now = self._ledger.sink_health(), datetime.now(UTC)
        except PenstockError as error:
            _log.debug("what waits at sinks is not shown: %s", error)
            return
        names = sorted(self._delivering.sinks | health.keys())
        oldest = GaugeMetricFamily(
            "penstock_notices_oldest_seconds",
            "How long the oldest notice has waited to be delivered",
            labels=("sink",),
        )
        waiting = GaugeMetricFamily(
            "penstock_notices_waiting", "Notices that are due and were not delivered", labels=("sink",)
        )
        given_up = GaugeMetricFamily(
            "penstock_notices_given_up", "Notices that a sink never took", labels=("sink",)
        )
        failures = CounterMetricFamily(
            "penstock_notice_failures", "Tries of a sink that were in vain", labels=("sink",)
        )
        delivered = CounterMetricFamily(
            "penstock_notices_delivered", "Notices that a sink took", labels=("sink",)
        )
        for name in names:
            found = health.get(name)
            since = found.oldest if found is not None else None
            oldest.add_metric([name], (now - since).total_seconds() if since is not None else 0)
            waiting.add_metric([name], found.waiting if found is not None else 0)
            given_up.add_metric([name], found.given_up if found is not None else 0)
            failures.add_metric([name], self._delivering.failures[name])
            delivered.add_metric([name], self._delivering.delivered[name])
        yield from (oldest, waiting, given_up, failures, delivered)
