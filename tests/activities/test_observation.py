"""Watching a wave through a real Prometheus: faults of the canary, and faults of the metrics."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from temporalio.testing import ActivityEnvironment

from activities.drivers.metrics.prometheus import PrometheusSource
from activities.drivers.metrics.records import FolderRecorder, read_record
from activities.files import load
from activities.observation import (
    BadQuery,
    MetricsUnavailable,
    ObservationActivities,
    ObservationOrder,
    ObservationSlice,
    unpacked,
)
from deploy.lab.services import scrape_limits
from policies.judge.counts import Series
from policies.judge.offline.replay import replay
from policies.judge.reading import Reading
from policies.judge.tick import Offence, Tick
from policies.judge.window import WindowState, fold_reading
from policies.model.gates import Blindness, GatePolicy
from policies.model.verdict import Action, Cohorts, Decision, GateVerdict
from tests.fakes.metrics import DIGEST, OLD, Exported, exporting
from tests.fakes.prometheus import PROGRAM, RealPrometheus, prometheus_over
from tests.patience import PATIENCE, until
from tests.side_by_side import Playing, SideBySide

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="prometheus is not installed here")

LAB = load(Path(__file__).parents[2] / "deploy/lab/gates.yaml", GatePolicy)
"""What the lab watches with: the two tests of its promises use it as it is."""
FAST = LAB.model_copy(
    update={
        "window": LAB.window.model_copy(update={"minimum": timedelta(seconds=9)}),
        "blindness": Blindness(grace=timedelta(seconds=4), cap=timedelta(seconds=60)),
    }
)
"""The same, deciding sooner at thrice the traffic."""


@asynccontextmanager
async def four() -> AsyncIterator[dict[str, Exported]]:
    """A canary and three that were not changed."""
    with exporting(DIGEST, OLD, OLD, OLD) as exported:
        yield exported


scenes = SideBySide[dict[str, Exported]](at_once=5)


@pytest.fixture(scope="module")
async def playing(request: pytest.FixtureRequest) -> AsyncIterator[Playing]:
    async with scenes.playing(request.session.items, four) as begun:
        yield begun


@pytest.fixture
async def gateways() -> AsyncIterator[dict[str, Exported]]:
    async with four() as exported:
        yield exported


def order_for(gateways: dict[str, Exported], gates: GatePolicy = FAST, state: str = "") -> ObservationOrder:
    canary, *control = gateways
    return ObservationOrder(
        rollout="r-1",
        wave=1,
        gates=gates,
        cohorts=Cohorts(
            canary=(canary,),
            control=tuple(control),
            expected={name: exported.digest for name, exported in gateways.items()},
        ),
        window=gates.window,
        slice=timedelta(seconds=60),
        state=state,
    )


@asynccontextmanager
async def users(
    gateways: dict[str, Exported], canary_fails: float = 0.0, per_second: float = 6.0
) -> AsyncIterator[None]:
    """Logins on every gateway."""
    chance = random.Random(7)

    async def log_in() -> None:
        while True:
            for place, exported in enumerate(gateways.values()):
                failed = place == 0 and chance.random() < canary_fails
                exported.serve(good=not failed, bad=failed)
            await asyncio.sleep(1 / per_second)

    coming = asyncio.create_task(log_in())
    try:
        yield
    finally:
        coming.cancel()


async def watch(
    prometheus: RealPrometheus, order: ObservationOrder, kind: type[PrometheusSource] = PrometheusSource
) -> ObservationSlice:
    source = kind(prometheus.url)
    try:
        observe = ObservationActivities(source, offenders=source).observe_slice
        return await ActivityEnvironment().run(observe, order)
    finally:
        source.close()


@scenes.plays
async def test_a_clean_canary_is_promoted_on_proof(gateways: dict[str, Exported]) -> None:
    with prometheus_over(list(gateways)) as prometheus:
        async with users(gateways, per_second=2):
            await prometheus.start()
            await all_scraped(prometheus, gateways)
            found = await watch(prometheus, order_for(gateways, LAB))
    assert found.decision.action is Action.PROMOTE, found.decision
    assert timedelta(seconds=12) <= found.observed <= timedelta(seconds=25)


@scenes.plays
async def test_a_canary_on_which_logins_fail_is_rolled_back_within_ten_seconds(
    gateways: dict[str, Exported],
) -> None:
    with prometheus_over(list(gateways)) as prometheus:
        async with users(gateways, canary_fails=0.9, per_second=2):
            await prometheus.start()
            await all_scraped(prometheus, gateways)
            found = await watch(prometheus, order_for(gateways, LAB))
    assert found.decision.action is Action.ROLL_BACK, found.decision
    assert found.decision.verdict is GateVerdict.UNHEALTHY
    assert found.wall <= timedelta(seconds=10)


async def slices(
    prometheus: RealPrometheus, order: ObservationOrder, until: frozenset[Action], most: int = 60
) -> list[ObservationSlice]:
    """Watch slice by slice, as the workflow does, until one of these decisions."""
    found: list[ObservationSlice] = []
    for _ in range(most):
        found.append(await watch(prometheus, order))
        if found[-1].decision.action in until:
            return found
        order = order.model_copy(update={"state": found[-1].state})
    raise AssertionError(f"never decided: {found[-1].decision}")


@asynccontextmanager
async def steady(gateways: dict[str, Exported], prometheus: RealPrometheus) -> AsyncIterator[None]:
    """Users log in, Prometheus has seen some of it."""
    async with users(gateways):
        await prometheus.start()
        await all_scraped(prometheus, gateways)
        yield


async def all_scraped(prometheus: RealPrometheus, gateways: dict[str, Exported]) -> None:
    """Return when Prometheus has reached every gateway at least twice."""
    source = PrometheusSource(prometheus.url)

    async def are_scraped() -> bool:
        found = await source.raw("up{$cohort}", list(gateways), datetime.now(UTC), timedelta(seconds=30))
        return sum(len(one.samples) > 1 for one in found) == len(gateways)

    try:
        await until(are_scraped)
    finally:
        source.close()


DECIDED = frozenset({Action.PROMOTE, Action.ROLL_BACK, Action.HOLD, Action.HOLD_FOR_HUMAN})


@scenes.plays
async def test_bar_12_a_killed_canary_is_rolled_back_within_twenty_seconds(
    gateways: dict[str, Exported],
) -> None:
    canary = next(iter(gateways.values()))
    with prometheus_over(list(gateways)) as prometheus:
        async with steady(gateways, prometheus):
            watching = asyncio.create_task(watch(prometheus, order_for(gateways)))
            await asyncio.sleep(3)
            died = time.monotonic()
            canary.hidden = frozenset({"first_attempts", "build_info", "probe", "process", "handshake"})
            found = await watching
            took = time.monotonic() - died
    assert (found.decision.action, found.decision.verdict) == (Action.ROLL_BACK, GateVerdict.HARD)
    assert found.decision.reason.startswith("gone: on canary")
    assert took <= 20


class Refusing(PrometheusSource):
    """A Prometheus that cannot parse the question about handshakes."""

    async def raw(
        self, selector: str, instances: Sequence[str], at: datetime, lookback: timedelta
    ) -> tuple[Series, ...]:
        if "handshake" in selector:
            raise BadQuery("Prometheus refuses handshakes: parse error; correct the gate policy")
        return await super().raw(selector, instances, at, lookback)


@scenes.plays
async def test_harm_is_found_and_rolled_back_while_another_question_is_wrong(
    gateways: dict[str, Exported],
) -> None:
    """R8, a fresh reader's F7: a wrong question ended the watch for all the others."""
    canary = next(iter(gateways.values()))
    with prometheus_over(list(gateways)) as prometheus:
        async with steady(gateways, prometheus):
            order = order_for(gateways)
            found = await watch(prometheus, order, Refusing)
            held = found.decision
            canary.hidden = frozenset({"first_attempts", "build_info", "probe", "process", "handshake"})
            died = time.monotonic()
            while found.decision.action is not Action.ROLL_BACK and time.monotonic() - died < PATIENCE:
                order = order.model_copy(update={"state": found.state})
                found = await watch(prometheus, order, Refusing)
    assert (held.action, held.verdict) == (Action.HOLD_FOR_HUMAN, GateVerdict.METRICS_UNAVAILABLE)
    assert held.reason.startswith("Prometheus refuses handshakes: parse error")
    assert (found.decision.action, found.decision.verdict) == (Action.ROLL_BACK, GateVerdict.HARD)


@pytest.mark.sweep
@scenes.plays
async def test_bar_12_a_restarted_canary_is_rolled_back_and_a_fleet_that_restarts_holds(
    gateways: dict[str, Exported],
) -> None:
    with prometheus_over(list(gateways)) as prometheus:
        async with steady(gateways, prometheus):
            for touched, action in ((1, Action.ROLL_BACK), (2, Action.HOLD)):
                watching = asyncio.create_task(watch(prometheus, order_for(gateways)))
                await asyncio.sleep(3)
                for exported in list(gateways.values())[:touched]:
                    exported.started += 100
                assert (await watching).decision.action is action
                await asyncio.sleep(6)


@pytest.mark.sweep
@scenes.plays
async def test_bar_10_prometheus_killed_in_the_window_holds_and_then_goes_on_without_a_lost_login(
    gateways: dict[str, Exported],
) -> None:
    gates = FAST.model_copy(update={"gates": FAST.gates[:1]})
    order = order_for(gateways, gates).model_copy(update={"slice": timedelta(0)})
    recorder = Recording()
    with prometheus_over(list(gateways)) as prometheus:
        async with steady(gateways, prometheus):
            source = PrometheusSource(prometheus.url)
            observe = ObservationActivities(source, recorder=recorder).observe_slice
            first = await ActivityEnvironment().run(observe, order)
            order = order.model_copy(update={"slice": timedelta(seconds=60), "state": first.state})
            watching = asyncio.create_task(ActivityEnvironment().run(observe, order))
            await asyncio.sleep(5)
            killed = time.monotonic()
            prometheus.kill()
            held = found = await watching
            blind_for = time.monotonic() - killed
            await prometheus.start()
            while found.decision.action not in {Action.PROMOTE, Action.ROLL_BACK}:
                order = order.model_copy(update={"state": found.state})
                found = await ActivityEnvironment().run(observe, order)
            source.close()
    assert (held.decision.action, held.decision.verdict) == (Action.HOLD, GateVerdict.METRICS_UNAVAILABLE)
    assert blind_for <= gates.blindness.grace.total_seconds() + 5
    assert found.decision.action is Action.PROMOTE
    assert recorder.counted("connect-success") == end_minus_start(first.state, found.state)


def end_minus_start(first: str, last: str) -> float:
    """Return what the counters themselves grew by between two states."""
    start, end = (unpacked(text).memory.cursor for text in (first, last))
    return sum(value - start[key][1] for key, (_, value) in end.items())


@scenes.plays
async def test_bar_9_a_frozen_prometheus_holds_and_keeps_its_heartbeat(gateways: dict[str, Exported]) -> None:
    beats: list[float] = []
    with prometheus_over(list(gateways)) as prometheus:
        async with steady(gateways, prometheus):
            source = PrometheusSource(prometheus.url)
            environment = ActivityEnvironment()
            environment.on_heartbeat = lambda *_: beats.append(time.monotonic())
            activities = ObservationActivities(source)
            watching = asyncio.create_task(environment.run(activities.observe_slice, order_for(gateways)))
            await asyncio.sleep(3)
            prometheus.freeze()
            found = await watching
            source.close()
    assert (found.decision.action, found.decision.verdict) == (Action.HOLD, GateVerdict.METRICS_UNAVAILABLE)
    assert max(late - early for early, late in pairwise(beats)) <= 2


@scenes.plays
async def test_counts_that_no_gateway_can_have_are_no_evidence_and_a_person_hears_of_them(
    gateways: dict[str, Exported],
) -> None:
    with prometheus_over(list(gateways)) as prometheus:
        async with steady(gateways, prometheus):
            watching = asyncio.create_task(slices(prometheus, order_for(gateways), DECIDED))
            await asyncio.sleep(3)
            for exported in gateways.values():
                exported.serve(good=10**8, bad=10**8)
            found = (await watching)[-1]
    assert found.decision.action is Action.HOLD_FOR_HUMAN
    assert found.decision.verdict is GateVerdict.METRICS_UNAVAILABLE
    assert "the judge cannot work on what it read" in found.decision.reason


@scenes.plays
async def test_a_lost_metric_holds_and_is_no_bad_release(gateways: dict[str, Exported]) -> None:
    canary = next(iter(gateways.values()))
    with prometheus_over(list(gateways)) as prometheus:
        async with steady(gateways, prometheus):
            canary.hidden = frozenset({"first_attempts"})
            await asyncio.sleep(6)
            found = (await slices(prometheus, order_for(gateways), DECIDED))[-1]
    assert (found.decision.action, found.decision.verdict) == (Action.HOLD, GateVerdict.METRICS_UNAVAILABLE)
    assert "vpngw_first_attempts_total has no fresh value" in found.decision.reason


async def decided_with_one_that_floods(gateways: dict[str, Exported], flooder: str) -> Decision:
    """Have a gateway export 100,000 series beside its own; return what is decided with the shipped limits."""
    gateways[flooder].flood = 100_000
    with prometheus_over(list(gateways), how=scrape_limits()) as prometheus:
        async with users(gateways, per_second=2):
            await prometheus.start()
            await all_scraped(prometheus, {name: one for name, one in gateways.items() if name != flooder})
            source = PrometheusSource(prometheus.url)
            up = await source.raw("up{$cohort}", list(gateways), datetime.now(UTC), timedelta(seconds=2))
            source.close()
            assert {one.instance for one in up if one.samples[-1][1] == 0} == {flooder}
            return (await watch(prometheus, order_for(gateways, LAB))).decision


@pytest.mark.sweep
@scenes.plays
async def test_a_gateway_with_100_000_series_keeps_no_other_from_being_judged(
    gateways: dict[str, Exported],
) -> None:
    decision = await decided_with_one_that_floods(gateways, list(gateways)[-1])
    assert decision.action is Action.PROMOTE, decision


@scenes.plays
async def test_a_changed_gateway_with_100_000_series_is_named_as_one_without_metrics(
    gateways: dict[str, Exported],
) -> None:
    canary = next(iter(gateways))
    decision = await decided_with_one_that_floods(gateways, canary)
    assert decision.action is not Action.PROMOTE
    assert canary in decision.reason, decision


@pytest.mark.sweep
async def test_a_gateway_outside_the_sample_that_restarts_is_found_by_filter_and_fails_alone() -> None:
    with exporting(DIGEST, OLD, OLD, DIGEST, DIGEST) as gateways:
        canary, *control, quiet, restarting = gateways
        order = order_for(gateways)
        cohorts = Cohorts(
            canary=(canary,),
            control=tuple(control),
            beyond=(quiet, restarting),
            may_fail=1,
            expected={canary: DIGEST, **dict.fromkeys(control, OLD)},
        )
        order = order.model_copy(update={"cohorts": cohorts})
        with prometheus_over(list(gateways)) as prometheus:
            async with steady(gateways, prometheus):
                watching = asyncio.create_task(watch(prometheus, order))
                await asyncio.sleep(3)
                gateways[restarting].started += 100
                found = await watching
    assert found.decision.failed == (restarting,)
    assert found.decision.action is Action.CONTINUE


@scenes.plays
async def test_an_outage_of_all_is_not_the_canarys(gateways: dict[str, Exported]) -> None:
    order = order_for(gateways).model_copy(update={"slice": timedelta(seconds=12)})
    with prometheus_over(list(gateways)) as prometheus:
        async with steady(gateways, prometheus):
            watching = asyncio.create_task(watch(prometheus, order))
            for _ in range(20):
                for exported in gateways.values():
                    exported.serve(good=0, bad=6)
                await asyncio.sleep(0.5)
            found = await watching
    assert found.decision.action is Action.CONTINUE
    assert found.decision.readings[0].numbers["canary_bad"] >= 20


@scenes.plays
async def test_a_canary_that_runs_something_else_holds(gateways: dict[str, Exported]) -> None:
    order = order_for(gateways)
    next(iter(gateways.values())).digest = OLD
    with prometheus_over(list(gateways)) as prometheus:
        async with steady(gateways, prometheus):
            found = (await slices(prometheus, order, DECIDED))[-1]
    assert found.decision.action is Action.HOLD
    assert found.decision.verdict in {GateVerdict.CONFLICTING, GateVerdict.METRICS_UNAVAILABLE}


@scenes.plays
async def test_bar_11_a_repeated_activity_goes_on_from_its_heartbeat(gateways: dict[str, Exported]) -> None:
    details: list[str] = []
    with prometheus_over(list(gateways)) as prometheus:
        async with steady(gateways, prometheus):
            source = PrometheusSource(prometheus.url)
            activities = ObservationActivities(source)
            first = ActivityEnvironment()
            first.on_heartbeat = lambda *given: details.append(given[0])
            killed = asyncio.create_task(first.run(activities.observe_slice, order_for(gateways)))
            await until(lambda: bool(details) and unpacked(details[-1]).ticks >= 3)
            killed.cancel()
            with suppress(asyncio.CancelledError):
                await killed
            before = unpacked(details[-1])
            second = ActivityEnvironment()
            second.info = replace(second.info, heartbeat_details=[details[-1]])
            found = await second.run(activities.observe_slice, order_for(gateways))
            source.close()
    after = unpacked(found.state)
    assert after.started == before.started
    assert after.ticks == before.ticks + found.ticks
    assert found.decision.action is Action.PROMOTE


@pytest.mark.sweep
async def test_what_is_recorded_replays_to_the_same_decision(
    gateways: dict[str, Exported], tmp_path: Path
) -> None:
    with prometheus_over(list(gateways)) as prometheus:
        async with users(gateways, canary_fails=0.9):
            await prometheus.start()
            await all_scraped(prometheus, gateways)
            source = PrometheusSource(prometheus.url)
            activities = ObservationActivities(source, recorder=FolderRecorder(tmp_path))
            found = await ActivityEnvironment().run(activities.observe_slice, order_for(gateways))
            source.close()
    record = read_record(tear(tmp_path / "r-1-1.window"))
    again = replay(record.policy, record.window, record.cohorts, record.ticks)
    assert again is not None
    assert again.decision == found.decision.model_copy(update={"otherwise": ()})  # told once, when decided


def tear(path: Path) -> Path:
    """Leave half a line at the end, as a crash would."""
    path.write_bytes(path.read_bytes() + b"eJyrVk")
    return path


class Young:
    """A metrics source that remembers only so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._began = datetime.now(UTC) - timedelta(seconds=seconds)
        self.asked: list[float] = []

    async def raw(
        self, selector: str, instances: Sequence[str], at: datetime, lookback: timedelta
    ) -> tuple[Series, ...]:
        self.asked.append((datetime.now(UTC) - at).total_seconds())
        if at < self._began:
            return ()
        return tuple(Series({"__name__": "x", "instance": i}, ((at.timestamp(), 1.0),)) for i in instances)


@pytest.mark.parametrize(("remembers", "oldest"), [(200, 120), (70, 60), (20, 15), (5, 15)])
async def test_a_young_prometheus_gives_a_shorter_past(
    gateways: dict[str, Exported], remembers: float, oldest: float
) -> None:
    order, source = order_for(gateways), Young(remembers)
    reading = await ObservationActivities(source).read(order.gates, order.cohorts, WindowState())
    assert source.asked[-1] == pytest.approx(oldest, abs=1)
    assert any(reading.history.values()) == (remembers >= oldest)


class Server:
    """One of two replicas, whose series name it; it fails, or knows less, where a test says so."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.fails: str | None = None
        self.error: type[MetricsUnavailable | BadQuery] = MetricsUnavailable
        self.knows = True
        self.asked = 0

    async def raw(
        self, selector: str, instances: Sequence[str], at: datetime, lookback: timedelta
    ) -> tuple[Series, ...]:
        self.asked += 1
        if self.fails is not None and self.fails in selector:
            raise self.error(f"{self.name} answers with a part of its series")
        known = instances if self.knows else ()
        return tuple(Series({"by": self.name, "instance": i}, ((at.timestamp(), 1.0),)) for i in known)

    async def offenders(self, offence: Offence, at: datetime) -> frozenset[str]:
        return frozenset()


def servers_of(reading: Reading) -> set[str]:
    return {
        one.labels["by"] for found in (*reading.series.values(), *reading.history.values()) for one in found
    }


async def read_of(order: ObservationOrder, *servers: Server) -> tuple[ObservationActivities, Reading]:
    activities = ObservationActivities(servers[0], offenders=servers[0], replicas=servers)
    return activities, await activities.read(order.gates, order.cohorts, WindowState())


@pytest.mark.parametrize("fails", ["up", "vpngw_first_attempts", "vpngw_process_open_fds"])
async def test_a_tick_is_read_from_one_replica_alone(gateways: dict[str, Exported], fails: str) -> None:
    """Case 06: the first that answers whole; two replicas scrape at different moments."""
    one, other = Server("one"), Server("other")
    one.fails, order = fails, order_for(gateways)
    activities, found = await read_of(order, one, other)
    assert (servers_of(found), found.unread) == ({"other"}, {})
    before = one.asked
    assert servers_of(await activities.read(order.gates, order.cohorts, WindowState())) == {"other"}
    assert one.asked == before


async def test_a_replica_that_was_begun_anew_and_knows_no_gateway_has_no_tick(
    gateways: dict[str, Exported],
) -> None:
    one, other = Server("one"), Server("other")
    one.knows = False
    _, found = await read_of(order_for(gateways), one, other)
    assert servers_of(found) == {"other"}


async def test_where_no_replica_answers_whole_the_better_one_has_the_tick_and_names_what_lacks(
    gateways: dict[str, Exported],
) -> None:
    one, other = Server("one"), Server("other")
    one.fails, other.fails = "up", "vpngw_process_open_fds"
    _, found = await read_of(order_for(gateways), one, other)
    assert servers_of(found) == {"other"}
    assert set(found.unread.values()) == {"other answers with a part of its series"}


async def test_a_question_that_one_replica_calls_wrong_is_answered_by_the_other(
    gateways: dict[str, Exported],
) -> None:
    """R8, a fresh reader's F7: the slice ended there, and nothing was judged."""
    one, other = Server("one"), Server("other")
    one.fails, one.error = "vpngw_process_open_fds", BadQuery
    _, found = await read_of(order_for(gateways), one, other)
    assert (servers_of(found), found.unread, found.wrong) == ({"other"}, {}, "")


class HalfRemembering(Young):
    """Answers only half of what is asked about the past."""

    async def raw(
        self, selector: str, instances: Sequence[str], at: datetime, lookback: timedelta
    ) -> tuple[Series, ...]:
        if "handshake" in selector and datetime.now(UTC) - at > timedelta(seconds=10):
            raise MetricsUnavailable("only a part is there")
        return await super().raw(selector, instances, at, lookback)


async def test_half_an_answer_about_the_past_is_no_past_without_failures(
    gateways: dict[str, Exported],
) -> None:
    """R8: what was answered was taken for the whole past."""
    order = order_for(gateways)
    reading = await ObservationActivities(HalfRemembering(200)).read(
        order.gates, order.cohorts, WindowState()
    )
    assert reading.history == {}
    assert set(reading.unread.values()) == {"only a part is there"}
    state, _, _ = fold_reading(order.gates, order.window, order.cohorts, WindowState(), reading)
    assert not state.memory.based


class Recording:
    """Keeps ticks in memory."""

    def __init__(self) -> None:
        self.ticks: list[Tick] = []

    async def record(self, order: ObservationOrder, tick: Tick) -> None:
        self.ticks.append(tick)

    def counted(self, gate: str) -> int:
        return sum(n for tick in self.ticks for n, _ in tick.counts.get(gate, {}).values())
