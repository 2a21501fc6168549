"""Normality: is the fleet already unusual for this hour of the week, before anything changes? Only advice."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

from temporalio import activity

from activities.liveness import answering
from activities.observation import BadQuery, MetricsSource, MetricsUnavailable
from policies.judge.counts import Series, grown
from policies.judge.gates.rate import Rate
from policies.judge.offline.advisory import FEWEST_WEEKS, Advice, advise, bands
from policies.judge.whole import Whole, whole
from policies.model.gates import GatePolicy
from policies.model.plan import Plan
from policies.model.value import Digest, Value
from policies.model.zones import zone
from policies.planning.local_time import instant

HOUR = timedelta(hours=1)
WEEK = timedelta(weeks=1)
WEEKS = 6


MOST_INSTANCES = 200
"""Gateways that are asked about, evenly spread: an unusual hour shows on a part of a large fleet, too."""


class NormalityOrder(Value):
    """Compare the hour before `at` with the same hour of past weeks, on the gateways of a plan's fleet."""

    plan: Digest
    at: datetime


class PlanShelf(Protocol):
    """Where whole plans are."""

    def plan(self, digest: str) -> Plan:
        """Return the plan; BadInput when there is none of that digest."""
        ...


@dataclass(frozen=True)
class _Question:
    gates: GatePolicy
    instances: tuple[str, ...]
    at: datetime
    zone: ZoneInfo
    """On whose clocks hours of the week are counted."""


class NormalityActivities:
    """Asking history; changes nothing."""

    def __init__(self, source: MetricsSource, plans: PlanShelf) -> None:
        self._source = source
        self._plans = plans

    @activity.defn(name="ask_whether_normal")
    async def ask_whether_normal(self, order: NormalityOrder) -> tuple[Advice, ...]:
        """Return advice on the number of events and the share of bad ones of each required rate gate."""
        async with answering():
            question = await asyncio.to_thread(self._question, order)
            found = [
                await self._advice(question, gate)
                for gate in question.gates.gates
                if isinstance(gate, Rate) and gate.required
            ]
        return tuple(advice for pair in found for advice in pair)

    def _question(self, order: NormalityOrder) -> _Question:
        plan = self._plans.plan(order.plan)
        targets = sorted(gateway.metrics_target for gateway in plan.fleet.gateways)
        stride = max(1, -(-len(targets) // MOST_INSTANCES))
        return _Question(
            gates=plan.gates,
            instances=tuple(targets[::stride]),
            at=order.at,
            zone=zone(plan.fleet.tz or "UTC"),
        )

    async def _advice(self, order: _Question, gate: Rate) -> tuple[Advice, Advice]:
        ends = [weeks_before(order.at, n, order.zone) for n in range(WEEKS)]
        (now, *past) = await asyncio.gather(*(self._hour(order, gate, end) for end in ends))
        at, *before = [end.timestamp() for end in ends]  # an hour is known by its end
        known = [(when, hour) for when, hour in zip(before, past, strict=True) if not isinstance(hour, str)]
        if isinstance(now, str) and len(known) >= FEWEST_WEEKS:
            unknown = f"{gate.id}: nothing is known of the last hour: {now}"
            return (Advice(normal=None, sentence=unknown, unavailable=True),) * 2
        events = bands([(when, total) for when, (total, _) in known], order.zone)
        shares = bands([(when, bad / total) for when, (total, bad) in known if total], order.zone)
        total, bad = (0.0, 0.0) if isinstance(now, str) else now  # a short history is compared with nothing
        share, asked = bad / total if total else 0.0, f"{gate.id}: share of bad events in the last hour"
        return (
            advise(events, at, total, f"{gate.id}: number of events in the last hour", order.zone),
            advise(shares, at, share, asked, order.zone),
        )

    async def _hour(self, order: _Question, gate: Rate, end: datetime) -> tuple[float, float] | str:
        """Return events and bad events of the hour that ended then, or why they are not known.

        A gateway of which one answer is no evidence is in neither number.
        """
        try:
            early, late = [await self._whole(order, gate, at) for at in (end - HOUR, end)]
        except (MetricsUnavailable, BadQuery) as error:
            return str(error)
        reasons = [some for answer in (early, late) for some in answer.unsound.values()]
        lost = {one for some in reasons for one in some}
        total, bad = (_grown(early, late, selector, lost) for selector in (gate.total, gate.bad))
        if total is None:
            why = next((why for some in reasons for why in some.values()), "")
            return why or f"no gateway shows {gate.total} at both ends of it"
        return total, bad or 0.0

    async def _whole(self, order: _Question, gate: Rate, at: datetime) -> Whole:
        presence, lookback = order.gates.presence, order.gates.fresh_within
        asked = dict.fromkeys((presence, gate.total, gate.bad))
        found = {one: await self._source.raw(one, order.instances, at, lookback) for one in asked}
        apart = lookback.total_seconds()
        return whole(found, presence, counters={gate.total, gate.bad}, apart=apart)


def _grown(early: Whole, late: Whole, selector: str, lost: Collection[str]) -> float | None:
    """Return by how much the counters of sound gateways grew from one answer to the other."""
    before, after = [
        {one.key: _last(one) for one in answer.series[selector] if one.samples and one.instance not in lost}
        for answer in (early, late)
    ]
    both = before.keys() & after.keys()
    if not both:
        return None
    return sum(grown(before[key], after[key]) for key in both)


def weeks_before(at: datetime, weeks: int, zone: ZoneInfo) -> datetime:
    """Return the moment that many weeks earlier at which clocks of the zone showed the same.

    What no clock showed then is the first moment after it; what was shown twice is the first of the two.
    """
    return instant(at.astimezone(zone).replace(tzinfo=None) - weeks * WEEK, zone) if weeks else at


def _last(one: Series) -> float:
    return one.samples[-1][1]


def unusual(advice: Sequence[Advice]) -> tuple[str, ...]:
    """Return the sentences that speak against starting now; unknown speaks neither for nor against."""
    return tuple(one.sentence for one in advice if one.normal is False)
