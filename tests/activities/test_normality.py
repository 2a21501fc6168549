"""Asking history whether this hour is unusual."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.testing import ActivityEnvironment

from activities.normality import NormalityActivities, NormalityOrder, unusual, weeks_before
from activities.observation import BadQuery, MetricsUnavailable
from policies.judge.counts import Series
from policies.judge.offline.advisory import Advice
from policies.model.plan import Plan
from policies.model.zones import zone
from tests.activities.test_recorded_plans import plan_of
from tests.unit.judged import policy

NOW = datetime(2026, 11, 18, 12, 30, tzinfo=UTC)
WEEKLY = (600, 620, 580, 610, 590)
"""Events of this hour, last week first."""


class Remembering:
    """A metrics source whose counters grew by so much in the hour of each past week."""

    def __init__(self, weeks: Sequence[int], this_week: int, bad: float = 0.01) -> None:
        self._grown = dict(enumerate((this_week, *weeks)))
        self._bad = bad

    async def raw(
        self, selector: str, instances: Sequence[str], at: datetime, lookback: timedelta
    ) -> tuple[Series, ...]:
        week, rest = divmod(NOW - at, timedelta(weeks=1))
        if week not in self._grown:
            raise MetricsUnavailable("too long ago")
        grown = self._grown[week] * (
            self._bad if "bad" in selector and week == 0 else 0.01 if "bad" in selector else 1
        )
        value = 10_000.0 + (grown if rest < timedelta(hours=1) else 0.0)
        return tuple(Series({"instance": name}, ((at.timestamp(), value),)) for name in instances)


PLAN = plan_of(2, waves=(1, 1)).model_copy(update={"gates": policy()})


class Shelf:
    """Has one plan of two gateways."""

    def plan(self, digest: str) -> Plan:
        assert digest == PLAN.digest
        return PLAN


async def ask(source: Remembering) -> tuple[Advice, ...]:
    activities = NormalityActivities(source, Shelf())
    order = NormalityOrder(plan=PLAN.digest, at=NOW)
    return await ActivityEnvironment().run(activities.ask_whether_normal, order)


async def test_a_usual_hour_is_normal() -> None:
    assert [one.normal for one in await ask(Remembering(WEEKLY, 605))] == [True, True]


async def test_an_hour_without_its_users_is_unusual() -> None:
    advice = await ask(Remembering(WEEKLY, 60))
    assert len(unusual(advice)) == 1
    assert "number of events in the last hour is 120" in unusual(advice)[0]


async def test_an_hour_with_many_failures_is_unusual() -> None:
    assert any(
        "share of bad events" in sentence
        for sentence in unusual(await ask(Remembering(WEEKLY, 600, bad=0.2)))
    )


async def test_a_short_memory_says_nothing() -> None:
    advice = await ask(Remembering(WEEKLY[:2], 60))
    assert [one.normal for one in advice] == [None, None]
    assert unusual(advice) == ()


class Habits:
    """A metrics source of a site where people come at nine by their own clocks, and nobody in other hours."""

    def __init__(self, place: str) -> None:
        self._zone = zone(place)

    async def raw(
        self, selector: str, instances: Sequence[str], at: datetime, lookback: timedelta
    ) -> tuple[Series, ...]:
        here = at.astimezone(self._zone)
        days = here.toordinal() - (0 if here.hour >= 10 else 1)
        grown = 1000.0 * days + (1000.0 if here.hour == 9 else 0.0) * here.minute / 60
        value = grown * (0.01 if "bad" in selector else 1)
        return tuple(Series({"instance": name}, ((at.timestamp(), value),)) for name in instances)


class ShelfOf:
    """Has one plan, of a fleet in a zone."""

    def __init__(self, place: str | None) -> None:
        fleet = PLAN.fleet.model_copy(update={"tz": place})
        self._plan = PLAN.model_copy(update={"fleet": fleet})

    def plan(self, digest: str) -> Plan:
        del digest
        return self._plan


@pytest.mark.parametrize("day", [datetime(2026, 10, 27), datetime(2026, 3, 31)])  # noqa: DTZ001 - a wall's
async def test_a_usual_hour_stays_usual_after_clocks_were_changed(day: datetime) -> None:
    """Both are the first Tuesday after a change: in UTC the same people come an hour earlier or later."""
    at = day.replace(hour=10, tzinfo=zone("Europe/Berlin")).astimezone(UTC)
    order = NormalityOrder(plan=PLAN.digest, at=at)
    answers = []
    for place in ("Europe/Berlin", None):
        activities = NormalityActivities(Habits("Europe/Berlin"), ShelfOf(place))
        answers.append(await ActivityEnvironment().run(activities.ask_whether_normal, order))
    here, in_utc = answers
    assert [one.normal for one in here] == [True, True], here
    assert in_utc[0].normal is False, in_utc


def test_weeks_are_those_of_the_clocks_on_the_wall() -> None:
    berlin = zone("Europe/Berlin")
    after = datetime(2026, 3, 31, 8, 0, tzinfo=UTC)
    assert weeks_before(after, 1, berlin) == datetime(2026, 3, 24, 9, 0, tzinfo=UTC)
    in_the_gap = datetime(2026, 4, 5, 0, 30, tzinfo=UTC)  # 02:30, which no clock showed a week before
    assert weeks_before(in_the_gap, 1, berlin) == datetime(2026, 3, 29, 1, 0, tzinfo=UTC)
    assert weeks_before(after, 0, berlin) == after


class OfAPair(Remembering):
    """The same where both servers of a pair answer, which show each series."""

    async def raw(
        self, selector: str, instances: Sequence[str], at: datetime, lookback: timedelta
    ) -> tuple[Series, ...]:
        found = await super().raw(selector, instances, at, lookback)
        moved = timedelta(seconds=2).total_seconds()
        return tuple(
            Series(
                one.labels | {"replica": server},
                ((one.samples[0][0] - moved, one.samples[0][1]), *one.samples),
            )
            for one in found
            for server in "ab"
        )


async def test_an_hour_that_a_pair_counts_twice_is_not_known() -> None:
    """B7: an answer that is not whole is missing, for advice as for the judge."""
    advice = await ask(OfAPair(WEEKLY, 60))
    assert [one.normal for one in advice] == [None, None]


class NoNumbers(Remembering):
    """The same with a counter of bad events that is no number at one of both gateways."""

    async def raw(
        self, selector: str, instances: Sequence[str], at: datetime, lookback: timedelta
    ) -> tuple[Series, ...]:
        first, *others = await super().raw(selector, instances, at, lookback)
        if "bad" in selector and NOW - at < timedelta(hours=2):
            first = Series(first.labels, ((first.samples[0][0], math.nan),))
        return (first, *others)


async def test_a_gateway_whose_bad_events_are_no_number_is_in_neither_sum() -> None:
    """Case 05."""
    events, _ = await ask(NoNumbers(WEEKLY, 605))
    assert "last hour is 605" in events.sentence


class OfTwoScrapers(Remembering):
    """The same where one gateway's series have the samples of two scrapers, the second a little older."""

    async def raw(
        self, selector: str, instances: Sequence[str], at: datetime, lookback: timedelta
    ) -> tuple[Series, ...]:
        first, *others = await super().raw(selector, instances, at, lookback)
        (now, value) = first.samples[-1]
        return (Series(first.labels, ((now - 0.1, value), (now, value - 1))), *others)


async def test_a_gateway_whose_counters_fall_without_a_restart_is_in_neither_sum() -> None:
    events, _ = await ask(OfTwoScrapers(WEEKLY, 605))
    assert "last hour is 605" in events.sentence


class Away(Remembering):
    """The same where nothing of the last hour can be read, as some failure has it."""

    def __init__(self, failure: Exception | None) -> None:
        super().__init__(WEEKLY, 605)
        self._failure = failure

    async def raw(
        self, selector: str, instances: Sequence[str], at: datetime, lookback: timedelta
    ) -> tuple[Series, ...]:
        found = await super().raw(selector, instances, at, lookback)
        if NOW - at > timedelta(hours=1):
            return found
        if self._failure is not None:
            raise self._failure
        return tuple(Series(one.labels, ()) for one in found)


@pytest.mark.parametrize(
    ("failure", "why"),
    [
        (MetricsUnavailable("Prometheus does not answer"), "Prometheus does not answer"),
        (BadQuery("Prometheus refuses it; correct gates.yaml"), "Prometheus refuses it; correct gates.yaml"),
        (None, "no gateway shows attempts"),
    ],
    ids=["away", "bad query", "series without samples"],
)
async def test_an_hour_that_cannot_be_read_is_unknown_by_its_reason_and_no_hour_without_users(
    failure: Exception | None, why: str
) -> None:
    """R8: it counted as an hour without a login, which refused the upgrade, or ended the step."""
    advice = await ask(Away(failure))
    assert [(one.normal, one.unavailable) for one in advice] == [(None, True), (None, True)]
    assert all(why in one.sentence for one in advice), advice
    assert unusual(advice) == ()
