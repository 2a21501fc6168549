"""Watching a wave through a real Prometheus: faults of the canary, and faults of the metrics."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from temporalio.testing import ActivityEnvironment

from activities.drivers.metrics.prometheus import PrometheusSource
from activities.observation import ObservationActivities, ObservationOrder, ObservationSlice
from orchestrator.files import load
from policies.gates import GatePolicy
from policies.words.verdict import Action, Cohorts, GateVerdict
from tests.fakes.metrics import DIGEST, OLD, Exported, exporting
from tests.fakes.prometheus import PROGRAM, RealPrometheus, prometheus_over

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="prometheus is not installed here")

LAB = load(Path(__file__).parents[2] / "deploy/lab/gates.yaml", GatePolicy)


@pytest.fixture
def gateways() -> Iterator[dict[str, Exported]]:
    with exporting(DIGEST, OLD, OLD, OLD) as exported:
        yield exported


def order_for(gateways: dict[str, Exported], gates: GatePolicy = LAB, state: str = "") -> ObservationOrder:
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
async def users(gateways: dict[str, Exported], canary_fails: float = 0.0) -> AsyncIterator[None]:
    """Two logins a second on every gateway."""
    chance = random.Random(7)

    async def log_in() -> None:
        while True:
            for place, exported in enumerate(gateways.values()):
                failed = place == 0 and chance.random() < canary_fails
                exported.serve(good=not failed, bad=failed)
            await asyncio.sleep(0.5)

    coming = asyncio.create_task(log_in())
    try:
        yield
    finally:
        coming.cancel()


async def watch(prometheus: RealPrometheus, order: ObservationOrder) -> ObservationSlice:
    source = PrometheusSource(prometheus.url)
    try:
        return await ActivityEnvironment().run(ObservationActivities(source).observe_slice, order)
    finally:
        source.close()


async def test_a_clean_canary_is_promoted_on_proof(gateways: dict[str, Exported]) -> None:
    with prometheus_over(list(gateways)) as prometheus:
        async with users(gateways):
            await prometheus.start()
            await asyncio.sleep(4)
            found = await watch(prometheus, order_for(gateways))
    assert found.decision.action is Action.PROMOTE, found.decision
    assert timedelta(seconds=12) <= found.observed <= timedelta(seconds=25)


async def test_a_canary_on_which_logins_fail_is_rolled_back_within_ten_seconds(
    gateways: dict[str, Exported],
) -> None:
    with prometheus_over(list(gateways)) as prometheus:
        async with users(gateways, canary_fails=0.9):
            await prometheus.start()
            await asyncio.sleep(4)
            found = await watch(prometheus, order_for(gateways))
    assert found.decision.action is Action.ROLL_BACK, found.decision
    assert found.decision.verdict is GateVerdict.UNHEALTHY
    assert found.wall <= timedelta(seconds=10)
