"""Which drills there are, and how it stands with each by what was seen so far."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from policies.model.drill import (
    Drill,
    DrillOutcome,
    DrillPast,
    DrillReport,
    DrillRow,
    DrillStanding,
)
from policies.model.errors import Conflict, Unknown

EARLIEST = datetime(2020, 1, 1, tzinfo=UTC)
"""Nobody rehearsed anything with penstock before: a clock is wrong that says so."""
AHEAD = timedelta(minutes=5)
"""How far the clock of a place may be ahead of ours."""


def _drill(name: str, seconds: int, summary: str) -> Drill:
    return Drill(name=name, summary=summary, budget=timedelta(seconds=seconds))


DRILLS: Mapping[str, Drill] = {
    one.name: one
    for one in (
        _drill("bad-logins", 60, "a third of all logins fail on the canary"),
        _drill("crash", 30, "the canary's daemon dies"),
        _drill("metrics-down", 90, "Prometheus dies while a canary is watched"),
        _drill("worker-killed", 60, "the orchestrator's worker dies"),
        _drill("engine-killed", 60, "the engine dies"),
        _drill("agent-killed", 60, "the canary's agent dies"),
        _drill("worker-frozen", 60, "the orchestrator's worker stops in its tracks"),
        _drill("control-plane-cut", 60, "the canary's host is cut off from the control plane"),
        _drill("nft-refuses", 60, "the canary's kernel takes no change of its steering"),
        _drill("disk-full", 60, "the canary's agent can write nothing down"),
        _drill("nftables-flushed", 60, "a firewall's reload removes the canary's steering"),
        _drill("rollback-after-promotion", 60, "a person takes back a whole fleet that was promoted"),
        _drill("control-plane-lost", 90, "engine, worker, relay and API die while a canary is watched"),
        _drill("host-rebooted", 90, "the canary's host reboots while it is watched"),
        _drill("agent-stolen", 60, "somebody has a copy of a gateway's certificate and key"),
        _drill("rollback-by-chat", 10, "a person takes a canary back by an order and its code in a chat"),
    )
}
"""Every failure that can be rehearsed, by name."""


SPARE: Mapping[str, Drill] = {
    one.name: one
    for one in (
        _drill("way-open", 30, "a spare gateway is asked, logged in to and read back; nothing is changed"),
    )
}
"""What is rehearsed by the clock on spare gateways of real fleets; none of it is played in a lab."""


def require_genuine(report: DrillReport, now: datetime) -> None:
    """Return if this is a result of a drill that there is here, held against its budget, and of the past.

    Nobody passes by reporting a larger budget: it is the one that users were promised.

    Raises:
        Unknown: There is no such drill.
        Conflict: It was held against another budget, or a clock is wrong.
    """
    drill = DRILLS.get(report.name) or SPARE.get(report.name)
    if drill is None:
        raise Unknown(f"there is no drill {report.name}; there are {', '.join(DRILLS)}")
    budget = drill.budget.total_seconds()
    if report.budget != budget:
        raise Conflict(
            f"{report.name} was held against {report.budget:g} s, and here users have to be safe within "
            f"{budget:g} s: rehearse it with the penstock that runs here"
        )
    if not EARLIEST <= report.began <= now + AHEAD:
        raise Conflict(
            f"{report.name} began at {report.began.isoformat()}, and here it is {now.isoformat()}: set the "
            "clock of the host where it was rehearsed"
        )


def rows(pasts: Mapping[str, DrillPast]) -> tuple[DrillRow, ...]:
    """Return how it stands with each drill, what needs somebody first; those that there are no more last."""
    spare = [drill for drill in SPARE.values() if drill.name in pasts]
    known = [_row(drill, pasts.get(drill.name)) for drill in (*DRILLS.values(), *spare)]
    gone = [
        DrillRow(
            name=name,
            summary="",
            budget=past.last.report.budget,
            standing=DrillStanding(past.last.outcome),
            past=past,
        )
        for name, past in sorted(pasts.items())
        if name not in DRILLS and name not in SPARE
    ]
    return (*_worst_first(known), *_worst_first(gone))


def _row(drill: Drill, past: DrillPast | None) -> DrillRow:
    budget = drill.budget.total_seconds()
    return DrillRow(
        name=drill.name, summary=drill.summary, budget=budget, standing=_standing(past, budget), past=past
    )


def _standing(past: DrillPast | None, budget: float) -> DrillStanding:
    """Return how it stands; what passed against another budget is held against that of now."""
    if past is None:
        return DrillStanding.NEVER
    last = past.last
    if last.outcome is DrillOutcome.PASSED and last.seconds is not None and last.seconds > budget:
        return DrillStanding.OVER_BUDGET
    return DrillStanding(last.outcome)


def _worst_first(found: Iterable[DrillRow]) -> list[DrillRow]:
    order = list(DrillStanding)
    return sorted(found, key=lambda row: order.index(row.standing))
