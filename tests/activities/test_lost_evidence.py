"""A slice goes on whatever was left to it: the state of another version, the clock of another worker (C1)."""

import asyncio
import json
import zlib
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from temporalio.testing import ActivityEnvironment

from activities.files import load
from activities.observation import ObservationActivities, ObservationOrder, ObservationSlice, packed, unpacked
from policies.judge.counts import Series
from policies.judge.window import WindowState
from policies.model.gates import GatePolicy
from policies.model.verdict import Action, Cohorts, GateVerdict
from tests.patience import PATIENCE

LAB = load(Path(__file__).parents[2] / "deploy/lab/gates.yaml", GatePolicy)
GATES = LAB.model_copy(update={"scrape": timedelta(seconds=0.5), "poll": timedelta(seconds=0.5)})


class Silent:
    """A source that answers at once, and has seen nothing."""

    def __init__(self) -> None:
        self.asked = 0

    async def raw(
        self, selector: str, instances: Sequence[str], at: datetime, lookback: timedelta
    ) -> tuple[Series, ...]:
        self.asked += 1
        return ()


AT_ONCE = LAB.blindness.model_copy(update={"grace": timedelta(0)})


def order_of(**more: object) -> ObservationOrder:
    """Return an order to observe one canary and one control."""
    order = ObservationOrder(
        rollout="r-1",
        wave=1,
        gates=GATES,
        cohorts=Cohorts(canary=("c:9500",), control=("k:9500",), expected={}),
        window=GATES.window,
    )
    return order.model_copy(update=more)


async def one_tick(source: Silent, state: str = "", carry: str = "") -> ObservationSlice:
    """Observe until the first tick is folded."""
    order = order_of(slice=timedelta(0), state=state, carry=carry)
    observe = ObservationActivities(source).observe_slice
    return await asyncio.wait_for(ActivityEnvironment().run(observe, order), PATIENCE)


def of_a_newer_version() -> str:
    """Return a state as a later penstock packs it, whose deployment was rolled back."""
    written = json.loads(WindowState(started=1.0, last=2.0).model_dump_json()) | {"a_newer_field": 1}
    return b64encode(zlib.compress(json.dumps(written).encode())).decode()


async def test_a_clock_that_was_ahead_keeps_the_next_slice_waiting_for_a_tick_at_most() -> None:
    ahead = datetime.now(UTC).timestamp() + 600
    source = Silent()
    found = await one_tick(source, packed(WindowState(started=ahead, last=ahead)))
    assert source.asked > 0
    assert unpacked(found.state).last < ahead - 500


async def test_a_worker_whose_clock_is_behind_the_engines_reads_nothing_and_says_so() -> None:
    """R8: to its clock samples of before the fault look fresh."""
    engine = ActivityEnvironment()
    engine.info = replace(engine.info, started_time=datetime.now(UTC) + timedelta(minutes=10))
    source = Silent()
    order = order_of(slice=timedelta(0), gates=GATES.model_copy(update={"blindness": AT_ONCE}))
    found = await asyncio.wait_for(engine.run(ObservationActivities(source).observe_slice, order), PATIENCE)
    found = await asyncio.wait_for(
        engine.run(
            ObservationActivities(source).observe_slice, order.model_copy(update={"state": found.state})
        ),
        PATIENCE,
    )
    assert source.asked == 0
    assert found.decision.verdict is GateVerdict.METRICS_UNAVAILABLE
    assert "the clock of the worker is " in found.decision.reason
    assert " s behind the engine's" in found.decision.reason


@pytest.mark.parametrize("text", ["of a newer version", "not even packed"])
async def test_a_window_whose_state_cannot_be_read_begins_anew_is_held_and_says_so(text: str) -> None:
    state = of_a_newer_version() if text == "of a newer version" else text
    found = await one_tick(Silent(), state)
    assert found.decision.action is Action.HOLD
    assert found.decision.verdict is GateVerdict.METRICS_UNAVAILABLE
    assert "this one cannot read; the window begins anew" in found.decision.reason
    assert (await one_tick(Silent(), found.state)).decision.action is Action.HOLD


async def test_what_the_wave_before_left_and_cannot_be_read_is_said_too() -> None:
    found = await one_tick(Silent(), carry=of_a_newer_version())
    assert "the window begins anew" in found.decision.reason
