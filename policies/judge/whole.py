"""Whole answers: of which gateways a reading is evidence, and why it is none of the others.

An answer is complete or it is missing. What one series shows of a gateway counts only if every sample is
a number that a counter or gauge of a gateway can have, and if the series is there once. A pair of Prometheus
servers without deduplication has each series twice, which differ by a label of the server alone: every login
would count twice. One series may hold the samples of both as well. Its counters fall by a little, and each
fall read as a restart would count all logins once more.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from policies.judge.counts import Cursor, Series, fall_without_restart

LARGEST_VALUE = 2.0**53
"""Up to here a float counts one by one (IEEE 754-2019, 3.6); no counter or gauge of a gateway is larger."""
SCRAPE_WITH_ONE = (
    "look whether one series has the samples of two scrapers: deduplicate them by the label of the replica, "
    "or scrape with one"
)
"""What to do about a counter that falls without a restart."""
_NAMES = frozenset({"__name__", "instance"})
"""Labels by which series are asked for: they name no server."""

Reasons = dict[str, str]
"""By instance, why a selector shows no evidence of it."""


@dataclass(frozen=True, slots=True)
class Whole:
    """What of an answer is evidence: `series` by selector, and in `unsound` the gateways without, and why."""

    series: dict[str, tuple[Series, ...]]
    unsound: dict[str, Reasons]


def whole(
    found: Mapping[str, Sequence[Series]],
    presence: str,
    listed: Collection[str] = frozenset(),
    counters: Collection[str] = frozenset(),
    cursor: Cursor | None = None,
    apart: float = math.inf,
) -> Whole:
    """Return the series that are evidence, and the instances whose series are none.

    Args:
        found: series by selector.
        presence: the selector of the series that each scrape leaves behind: a label that it has is the
            target's or the server's, never the exporter's own.
        listed: selectors whose series are listed and never summed, such as alerts.
        counters: selectors of counters, which fall only where they begin anew.
        cursor: the last sample of each counter that was folded before.
        apart: seconds; between two samples of a counter that are further apart any fall is a restart.
    """
    of_targets = _by_instance(found.get(presence, ()))
    labels = {instance: _labels_of(some) for instance, some in of_targets.items()}
    copied = {
        instance: why for instance, some in of_targets.items() if (why := _copied(some, labels[instance]))
    }
    series, unsound = dict[str, tuple[Series, ...]](), dict[str, Reasons]()
    for selector, some in found.items():
        reasons = senseless = _senseless(some)
        if selector not in listed:
            reasons = reasons | {one.instance: copied[one.instance] for one in some if one.instance in copied}
            for instance, group in _by_instance(some).items():
                if len(group) > 1 and instance not in reasons:
                    why = _copied(group, labels.get(instance, frozenset()))
                    reasons |= {instance: why} if why else {}
        if selector in counters:
            reasons = _fallen(some, cursor or {}, apart) | reasons
        if reasons:
            unsound[selector] = reasons
        # An exporter was reached, however many servers have seen it.
        lost = senseless if selector == presence else reasons
        series[selector] = tuple(one for one in some if one.instance not in lost) if lost else tuple(some)
    return Whole(series, unsound)


def is_number(one: Series) -> bool:
    """Return whether every sample, and the bound of a bucket, is one that a gateway can show."""
    try:
        bound = float(one.labels.get("le", "+Inf"))
    except ValueError:
        return False
    return not math.isnan(bound) and all(abs(value) <= LARGEST_VALUE for _, value in one.samples)


def _senseless(found: Iterable[Series]) -> Reasons:
    return {
        one.instance: f"{_name(one)} of {one.instance or 'no instance'} is not a finite number"
        for one in found
        if not is_number(one)
    }


def _fallen(found: Iterable[Series], cursor: Cursor, apart: float) -> Reasons:
    falls = ((one, fall_without_restart(cursor.get(one.key), one.samples, apart)) for one in found)
    return {
        one.instance: (
            f"{_name(one)} of {one.instance} fell from {fall[0]:.15g} to {fall[1]:.15g}, which is no "
            f"restart; {SCRAPE_WITH_ONE}"
        )
        for one, fall in falls
        if fall is not None
    }


def _copied(group: Sequence[Series], labels: Collection[str]) -> str:
    """Return why these series of one instance are copies of each other; empty where they are none."""
    first = group[0]
    if len(group) == 1:
        return ""
    if len({frozenset(one.labels.items()) for one in group}) < len(group):
        return f"{_name(first)} of {first.instance} is there twice with the same labels; {_DEDUPLICATE}"
    for label in sorted(labels):
        by_value: dict[str, list[Series]] = defaultdict(list)
        for one in group:
            by_value[one.labels.get(label, "")].append(one)
        if len(by_value) > 1 and _meet(list(by_value.values())):
            values = ", ".join(sorted(by_value)[:2])
            return (
                f"{_name(first)} of {first.instance} is there twice, by the label {label} ({values}); "
                f"{_DEDUPLICATE}"
            )
    return ""


_DEDUPLICATE = "query an address that deduplicates the servers of a pair"


def _meet(groups: Sequence[Sequence[Series]]) -> bool:
    """Return whether series of two groups have samples of the same time: one did not follow the other."""
    spans = sorted(
        (min(one.samples[0][0] for one in some), max(one.samples[-1][0] for one in some))
        for some in ([one for one in group if one.samples] for group in groups)
        if some
    )
    return any(late[0] <= early[1] for early, late in pairwise(spans))


def _labels_of(group: Sequence[Series]) -> frozenset[str]:
    return frozenset(name for one in group for name in one.labels) - _NAMES


def _by_instance(found: Iterable[Series]) -> dict[str, list[Series]]:
    groups: dict[str, list[Series]] = defaultdict(list)
    for one in found:
        groups[one.instance].append(one)
    return groups


def _name(one: Series) -> str:
    return one.labels.get("__name__", "a series")
