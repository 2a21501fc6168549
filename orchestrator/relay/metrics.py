"""What a relay tells Prometheus: how much it hands on and refuses, and how many gateways it holds."""

from collections import Counter
from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from orchestrator.relay.server import Relay


class ShownRelay(Collector):
    """Shows what a relay has counted; gateways are counted by fleet and not named."""

    def __init__(self, relay: Relay) -> None:
        """Take the relay."""
        self._relay = relay

    def describe(self) -> Iterable[Metric]:
        """Name nothing in advance."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield the counts as they are now."""
        calls = CounterMetricFamily("penstock_relay_calls", "Calls of agents", labels=("method",))
        for method, count in self._relay.told.calls.copy().items():
            calls.add_metric([method], count)
        yield calls
        refused = CounterMetricFamily("penstock_relay_refused", "Calls that were refused", labels=("method",))
        by_method = Counter[str]()
        for (_, method), count in self._relay.told.refused.copy().items():
            by_method[method] += count
        for method, count in by_method.items():
            refused.add_metric([method], count)
        yield refused
        polling = GaugeMetricFamily(
            "penstock_relay_gateways", "Gateways whose agent waits for work here", labels=("fleet",)
        )
        for fleet, count in self._relay.waiting.items():
            polling.add_metric([fleet], count)
        yield polling
