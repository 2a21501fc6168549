"""The metrics of an installation and of its processes, in the words of Prometheus."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from orchestrator.monitoring.ends import IndexEnds
from orchestrator.monitoring.installation import Facts, FleetFacts, is_fresh
from orchestrator.monitoring.readiness import Readiness
from policies.model.change import Phase

PHASES = (*(phase.value for phase in Phase if phase is not Phase.ENDED), "unknown")

BY_FLEET: Mapping[str, tuple[str, Callable[[FleetFacts], float]]] = {
    "changes_needing_people": ("Changes that wait for a person", lambda one: one.needing_people),
    "changes_blind": ("Changes whose newest verdict had no metrics", lambda one: one.blind),
    "drains_held": ("Drains that wait for a person", lambda one: one.held_drains),
    "gateways": ("Gateways in the fleet's file", lambda one: one.gateways),
    "gateways_not_back": ("Gateways that a rollback still tries to bring back", lambda one: one.not_back),
    "gateways_silent": ("Gateways that did not answer when last asked", lambda one: one.silent),
    "gateways_unseen": ("Gateways that were not asked lately", lambda one: one.unseen),
    "gateways_quarantined": ("Gateways that are left out of changes", lambda one: one.quarantined),
    "gateway_certificates_late": (
        "Gateways whose certificate should have been renewed long ago",
        lambda one: one.late_certificates,
    ),
}


class ShownInstallation(Collector):
    """Shows the newest facts, as long as they are young, and when indexes end."""

    def __init__(self, indexes: IndexEnds) -> None:
        """Know nothing of the installation yet."""
        self.facts: Facts | None = None
        self.indexes = indexes

    def describe(self) -> Iterable[Metric]:
        """Name nothing in advance: what cannot be read is not shown."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield every family, none while nothing was read lately."""
        facts = self.facts
        if facts is None or not is_fresh(facts):
            return
        yield from _of_fleets(facts.fleets)
        yield _gauge("facts_read_seconds", "When this was read, in seconds of the epoch", facts.at)
        yield _gauge("fleet_files_wrong", "Files of fleets that cannot be read", facts.wrong_files)
        yield _gauge("audit_entries", "Entries of the audit record", facts.audit_entries)
        yield _gauge("audit_signed_entries", "Those of them below a checkpoint", facts.signed_entries)
        if facts.signed_at is not None:
            text = "When the newest checkpoint was signed, in seconds of the epoch"
            yield _gauge("audit_checkpoint_seconds", text, facts.signed_at)
        index = GaugeMetricFamily(
            "penstock_index_expiry_seconds",
            "When the index of a channel ends, in seconds of the epoch",
            labels=("product", "channel"),
        )
        for (product, channel), end in self.indexes.known.items():
            index.add_metric([product, channel], end)
        yield index


class ShownProcess(Collector):
    """Shows which penstock a process is of, and whether each part that it rests on answers."""

    def __init__(self, process: str, readiness: Readiness) -> None:
        """Take the process's name and its looks."""
        self._process = process
        self._readiness = readiness
        self._version = version("penstock")

    def describe(self) -> Iterable[Metric]:
        """Name nothing in advance."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield what was found last."""
        build = GaugeMetricFamily("penstock_build_info", "Which penstock runs", labels=("process", "version"))
        build.add_metric([self._process, self._version], 1)
        yield build
        ready = GaugeMetricFamily("penstock_ready", "Whether a part answers", labels=("process", "part"))
        for part, fault in self._readiness.faults.items():
            ready.add_metric([self._process, part], float(fault is None))
        yield ready


def _gauge(name: str, text: str, value: float) -> Metric:
    family = GaugeMetricFamily(f"penstock_{name}", text)
    family.add_metric([], value)
    return family


def _of_fleets(fleets: Mapping[str, FleetFacts]) -> Iterator[Metric]:
    changes = GaugeMetricFamily("penstock_changes", "Changes under way", labels=("fleet", "phase"))
    ended = CounterMetricFamily("penstock_changes_ended", "Changes that ended", labels=("fleet", "outcome"))
    families = {
        name: GaugeMetricFamily(f"penstock_{name}", text, labels=("fleet",))
        for name, (text, _) in BY_FLEET.items()
    }
    for fleet, facts in fleets.items():
        for phase in PHASES:
            changes.add_metric([fleet, phase], facts.phases.get(phase, 0))
        for outcome, count in facts.ended.items():
            ended.add_metric([fleet, outcome], count)
        for name, (_, value_of) in BY_FLEET.items():
            families[name].add_metric([fleet], value_of(facts))
    yield changes
    yield ended
    yield from families.values()
