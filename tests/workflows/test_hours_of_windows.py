"""Windows and freezes over the hours that they last, in skipped time: when a change hears of each."""

from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from temporalio import activity, workflow
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from activities.windows import WindowActivities, WindowQuery
from orchestrator.store.freezes import kept_now
from policies.model.fleet import Fleet
from policies.model.plan import Plan
from policies.model.windows import Frozen, KeptFreeze, PatchWindow, WindowAnswer
from tests.unit.fleets import facts_of, planned
from workflows.patch_window import Opened, OpenedOrder
from workflows.sandbox import RUNNER
from workflows.steps import CONTROL_QUEUE

BERLIN = ZoneInfo("Europe/Berlin")
OPENS = time(12)
"""An hour of the day in which no zone sets its clocks."""
LASTS = timedelta(hours=2)
NOON = PatchWindow(name="noon", tz="Europe/Berlin", rrule="FREQ=DAILY", start=OPENS, duration=LASTS)
LATE = timedelta(seconds=31)
"""After what is true a change may hear of it: it is asked every 30 seconds."""

MOMENTS_LATER = timedelta(minutes=5, seconds=10)
"""After a wave may begin it does so; never when it is asked, as the server refuses to cancel a timer then."""

Heard = list[tuple[datetime, bool, bool, str | None]]
"""When an answer came, whether a wave may start, whether one may go on, and which freeze forbids it."""


@workflow.defn(name="Listens", sandboxed=False)
class Listens:
    """Stands for a change: its wave begins some minutes after it may, and is over hours later."""

    def __init__(self) -> None:
        self._heard: Heard = []

    @workflow.signal(name="window")
    def window(self, change: str, wave: int, answer: WindowAnswer) -> None:
        del change, wave
        self._heard.append((workflow.now(), answer.fits, answer.is_open, answer.freeze))

    @workflow.run
    async def run(self, plan: str, begins_after: timedelta | None, hours: float) -> Heard:
        order = OpenedOrder(change="edge-1", plan=plan, wave=1, parent=workflow.info().workflow_id)
        asking = await workflow.start_child_workflow(Opened.run, order, id=f"{order.parent}/window")
        if begins_after is not None:
            await workflow.wait_condition(lambda: bool(self._heard) and self._heard[-1][1])
            await workflow.sleep(begins_after)
            await asking.signal(Opened.begins)
        await workflow.sleep(timedelta(hours=hours))
        return self._heard


class Kept:
    """A fleet as it is described, one plan of it, and what people freeze."""

    def __init__(self, folder: Path) -> None:
        facts = facts_of(2)
        fleet = facts[0].model_copy(update={"windows": (NOON,), "tz": "Europe/Berlin"})
        self.kept_plan: Plan = planned((fleet, *facts[1:]))
        self.adds: tuple[datetime, KeptFreeze] | None = None
        """A freeze, and from when on it is known."""
        self.frozen: tuple[KeptFreeze, ...] = ()
        self._folder = folder

    def freezes_from(self, known: datetime, what: str, begins: time, ends: time) -> None:
        """Have people freeze these hours of that day, known from that moment on."""
        day = known.date()
        span = Frozen(
            begins=datetime.combine(day, begins), ends=datetime.combine(day, ends), tz="Europe/Berlin"
        )
        self.adds = (known, kept_now("edge", what, (span,), "ana", "others work on it"))

    def plan(self, digest: str) -> Plan:
        assert digest == self.kept_plan.digest
        return self.kept_plan

    def freezes(self, fleet: str) -> tuple[KeptFreeze, ...]:
        return self.frozen

    def take_turn(self, fleet: str, change: str, most: int | None) -> tuple[str, ...]:
        raise AssertionError("any number of fleets may change")

    def give_turn_back(self, fleet: str, change: str) -> None:
        raise AssertionError("any number of fleets may change")

    def fleet(self, name: str) -> Fleet:
        return self.kept_plan.fleet

    def place_of(self, name: str) -> Path:
        return self._folder / f"{name}.yaml"


class Clock:
    """The window's step by the server's clock, which skips: the real one asks this machine's."""

    def __init__(self, kept: Kept) -> None:
        self._windows = WindowActivities(kept, kept)
        self._kept = kept

    @activity.defn(name="ask_window")
    async def ask_window(self, query: WindowQuery) -> WindowAnswer:
        at = activity.info().started_time
        if self._kept.adds is not None and at >= self._kept.adds[0]:
            self._kept.frozen = self._kept.adds[1:]
        plan = self._kept.plan(query.plan)
        return self._windows.standing(plan, query.wave, at, under_way=query.under_way)


async def tomorrow(environment: WorkflowEnvironment, at: time) -> datetime:
    """Return that time of the next day in Berlin."""
    now = await environment.get_current_time()
    return datetime.combine((now.astimezone(BERLIN) + timedelta(days=1)).date(), at, BERLIN).astimezone(UTC)


async def heard(
    environment: WorkflowEnvironment,
    kept: Kept,
    begins: datetime,
    *,
    wave_after: timedelta | None = None,
    hours: float,
) -> list[tuple[float, bool, bool, str | None]]:
    """Let a change begin then and return what it heard, with the minutes since that day's opening.

    Its wave begins so long after it may, or never, and is watched for so many hours.
    """
    await environment.sleep(begins - await environment.get_current_time())
    client = environment.client
    async with Worker(
        client,
        task_queue=CONTROL_QUEUE,
        workflows=[Listens, Opened],
        activities=[Clock(kept).ask_window],
        workflow_runner=RUNNER,
    ):
        told: Heard = await client.execute_workflow(
            Listens.run,
            args=[kept.kept_plan.digest, wave_after, hours],
            id="change/edge",
            task_queue=CONTROL_QUEUE,
        )
    opening = datetime.combine(begins.astimezone(BERLIN).date(), OPENS, BERLIN)
    for at, *_ in told:
        assert (at - opening) % timedelta(minutes=1) < LATE
    return [((at - opening) // timedelta(minutes=1), *answer) for at, *answer in told]  # type: ignore[misc]


@pytest.mark.sweep
async def test_a_wait_of_hours_ends_with_the_opening(
    environment: WorkflowEnvironment, tmp_path: Path
) -> None:
    begins = await tomorrow(environment, time(9))
    said = await heard(environment, Kept(tmp_path), begins, hours=3.4)
    assert said == [(-180, False, False, None), (0, True, True, None)]


@pytest.mark.sweep
async def test_a_wave_hears_of_the_closing_in_its_middle_and_of_nothing_before(
    environment: WorkflowEnvironment, tmp_path: Path
) -> None:
    begins = await tomorrow(environment, time(11, 50))
    said = await heard(environment, Kept(tmp_path), begins, wave_after=MOMENTS_LATER, hours=3)
    assert said == [(-10, False, False, None), (0, True, True, None), (120, False, False, None)]


@pytest.mark.sweep
async def test_a_freeze_that_is_added_in_mid_change_is_heard_when_it_begins_and_when_it_is_over(
    environment: WorkflowEnvironment, tmp_path: Path
) -> None:
    kept, begins = Kept(tmp_path), await tomorrow(environment, time(11, 55))
    known = datetime.combine(begins.astimezone(BERLIN).date(), time(12, 20), BERLIN)
    kept.freezes_from(known, "dns-move", time(12, 40), time(13, 10))
    said = await heard(environment, kept, begins, wave_after=MOMENTS_LATER, hours=1.5)
    assert said == [
        (-5, False, False, None),
        (0, True, True, None),
        (20, True, True, None),  # still open, and until when is another answer
        (40, False, False, "dns-move"),
        (70, True, True, None),
    ]


@pytest.mark.sweep
async def test_a_freeze_of_the_moment_is_heard_within_half_a_minute_of_being_added(
    environment: WorkflowEnvironment, tmp_path: Path
) -> None:
    kept, begins = Kept(tmp_path), await tomorrow(environment, time(12, 5))
    known = datetime.combine(begins.astimezone(BERLIN).date(), time(12, 30), BERLIN)
    kept.freezes_from(known, "black-friday", time(0), time(23))
    said = await heard(environment, kept, begins, wave_after=MOMENTS_LATER, hours=1)
    assert said == [(5, True, True, None), (30, False, False, "black-friday")]
