"""What one look at the metrics found, before any counting."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from policies.judge.counts import Series
from policies.model.verdict import Cohorts

COMPLAINTS = "complaints"
"""What complaints are called among what could not be read."""
TICKETS = "tickets"
"""The same of tickets."""


@dataclass(frozen=True, slots=True)
class OpenTicket:
    """A ticket that nobody has closed, about an instance, or about the whole fleet where that is empty."""

    instance: str
    severity: str
    opened: float
    sentence: str


@dataclass(frozen=True, slots=True)
class Reading:
    """Everything read at one moment, before any counting.

    `series` maps a selector to what it found; a selector that could not be read is in
    `unread` with the reason instead. `history` holds the same selectors one baseline earlier,
    for the first tick only. `unsound` names, by selector, instances of which that is no evidence, and why:
    their series are left out. `unreachable` names instances that a probe from here did not reach, `absent`
    those of which neither the users' port nor the agent answers, `silent` those whose users' port is silent.
    `complaints` has first complaints since counters were last folded, or is in `unread` as `COMPLAINTS`;
    `tickets` are those that are open now, or in `unread` as `TICKETS`. `wrong` says why one of the unread
    questions never has an answer; only a person can correct it.
    """

    at: float
    series: dict[str, tuple[Series, ...]]
    unread: dict[str, str] = field(default_factory=dict)
    history: dict[str, tuple[Series, ...]] = field(default_factory=dict)
    unsound: dict[str, dict[str, str]] = field(default_factory=dict)
    unreachable: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()
    complaints: dict[str, int] = field(default_factory=dict)
    tickets: tuple[OpenTicket, ...] = ()
    wrong: str = ""


def with_old_instances(reading: Reading, cohorts: Cohorts) -> Reading:
    """Return the reading in which old instances that are controls have series of their own.

    A gateway that gives its new instance a share of the new sessions is compared with itself, in the
    same minutes. What is read of it that is not of the slot on trial is shown once more, under the
    name of a control; what belongs to the host (whether it was reached, its boot) is shared.
    """
    if not cohorts.beside:
        return reading
    controls = {gateway: control for control, gateway in cohorts.beside.items()}

    def doubled(found: Mapping[str, Iterable[Series]]) -> dict[str, tuple[Series, ...]]:
        return {name: tuple(_doubled(series, cohorts, controls)) for name, series in found.items()}

    return replace(reading, series=doubled(reading.series), history=doubled(reading.history))


def _doubled(found: Iterable[Series], cohorts: Cohorts, controls: Mapping[str, str]) -> Iterator[Series]:
    for one in found:
        yield one
        trial = cohorts.slots.get(one.instance)
        if one.instance in controls and (trial is None or one.labels.get("slot") != trial):
            yield Series(one.labels | {"instance": controls[one.instance]}, one.samples)
