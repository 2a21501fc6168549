"""The old instance on the same gateway as control: the judge sees it as a gateway of its own.

A gateway that gives its new instance a share of the new sessions is compared with itself, in the
same minutes. Everything read of it that is not of the slot on trial is therefore shown once more,
under the name of a control; what belongs to the host (whether it was reached, its boot) is shared.
"""

from collections.abc import Iterable
from dataclasses import replace

from policies.judge.counts import Series
from policies.judge.reading import Reading
from policies.model.verdict import Cohorts


def with_old_instances(reading: Reading, cohorts: Cohorts) -> Reading:
    """Return the reading in which old instances that are controls have series of their own."""
    if not cohorts.beside:
        return reading
    controls = {gateway: control for control, gateway in cohorts.beside.items()}
    return replace(
        reading,
        series={name: _doubled(found, cohorts, controls) for name, found in reading.series.items()},
        history={name: _doubled(found, cohorts, controls) for name, found in reading.history.items()},
    )


def _doubled(found: Iterable[Series], cohorts: Cohorts, controls: dict[str, str]) -> tuple[Series, ...]:
    doubled: list[Series] = []
    for one in found:
        doubled.append(one)
        trial = cohorts.slots.get(one.instance)
        if one.instance in controls and (trial is None or one.labels.get("slot") != trial):
            labels = one.labels | {"instance": controls[one.instance]}
            doubled.append(Series(labels=labels, samples=one.samples))
    return tuple(doubled)
