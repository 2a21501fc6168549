"""Back: whatever goes wrong, every touched gateway gives its new sessions to its own known-good."""

import asyncio
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowHistory
from temporalio.service import RPCError

from activities import plans
from activities.instances import Restored
from orchestrator.service.changes import ChangeService
from orchestrator.service.quarantine import QuarantineService
from policies.model.change import PENSTOCK, ChangeEnding, Outcome, Phase, Quarantine
from policies.model.command import CommandKind
from policies.model.errors import BadInput, Refused, Unavailable
from policies.model.offer import Verb
from policies.model.operation import Operation
from policies.model.plan_part import Part, PartKey
from policies.status.told import BACK
from tests.fakes.control import CRASHING, HEALTHY, UNDECIDED, UNHEALTHY
from tests.patience import until
from tests.workflows.engine import Engine
from tests.workflows.recorded import blocked, soon
from tests.workflows.world import (
    NEW,
    OLD,
    Running,
    World,
    fleet_of,
    in_phase,
    lengthen,
    result_of,
    say,
    status_of,
    waiting_for,
    working,
)
from workflows import change, restore, steps, story_record
from workflows.change import REASON_OF_EACH
from workflows.restore import Restore


async def test_an_unhealthy_canary_goes_back_and_the_others_are_never_touched(world: World) -> None:
    world.judge.says(UNDECIDED, UNHEALTHY)
    result = await world.upgrade()
    assert (result.outcome, result.reason) == (Outcome.ROLLED_BACK, "9 of 10 logins fail")
    assert set(world.serving().values()) == {"1.1.6"}
    assert not world.gateways["gw-2"].effects
    assert world.book.known_good(world.fleet.name) == dict.fromkeys(world.gateways, OLD)


async def test_whoever_sees_that_a_change_has_ended_sees_all_that_it_had_told_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, close = list[str](), world.book.close_change

    def closed(ending: ChangeEnding) -> None:
        seen.extend(row.sentence for row in world.book.events_of_change(ending.change))
        close(ending)

    monkeypatch.setattr(world.book, "close_change", closed)
    monkeypatch.setattr(story_record, "WRITTEN_EVERY", timedelta(hours=1))
    world.judge.says(UNDECIDED, UNHEALTHY)
    assert (await world.upgrade()).outcome is Outcome.ROLLED_BACK
    assert "gw-1 back on known-good" in seen


@pytest.mark.sweep
async def test_a_hard_signal_goes_back_with_its_own_sentence(world: World) -> None:
    world.judge.says(CRASHING)
    result = await world.upgrade()
    assert (result.outcome, result.reason) == (Outcome.ROLLED_BACK, "the daemon restarted 3 times")


@pytest.mark.sweep
async def test_a_canary_that_dies_before_any_metric_of_it_was_read_goes_back(world: World) -> None:
    world.judge.says(UNDECIDED)
    rollout = await world.start()
    await in_phase(rollout, Phase.OBSERVING)
    world.gateways["gw-1"].crash("b")
    result = await result_of(rollout)
    assert result.outcome is Outcome.ROLLED_BACK
    assert result.reason == "the new instance has ended: nothing runs in slot b of gw-1"
    assert set(world.serving().values()) == {"1.1.6"}


async def test_a_failing_probe_ends_it_before_any_session_has_moved(world: World) -> None:
    world.gateways["gw-1"].bad_releases.add(NEW.digest)
    result = await world.upgrade()
    assert result.outcome is Outcome.ROLLED_BACK
    assert "the probe of gw-1 failed at auth, before any user" in result.reason
    assert not [effect for effect in world.gateways["gw-1"].effects if effect.startswith("steer")]
    assert world.judge.orders == []


@pytest.mark.sweep
@pytest.mark.parametrize("step", ["stage", "start", "start_trial"])
async def test_a_step_that_is_refused_brings_the_wave_back(world: World, step: str) -> None:
    world.gateways["gw-1"].fail(step, Refused("gw-1: the disk is full"))
    result = await world.upgrade()
    assert (result.outcome, result.reason) == (Outcome.ROLLED_BACK, "gw-1: the disk is full")
    assert world.serving()["gw-1"] == "1.1.6"


@pytest.mark.sweep
@pytest.mark.parametrize("step", ["stage", "start", "probe", "start_trial", "make_permanent"])
async def test_a_step_that_fails_once_is_tried_again(world: World, step: str) -> None:
    world.gateways["gw-1"].fail(step, Unavailable("gw-1 does not answer"))
    assert (await world.upgrade(("gw-1",))).outcome is Outcome.PROMOTED
    assert world.gateways["gw-1"].effects.count("start b") == 1


@pytest.mark.sweep
async def test_a_second_wave_that_fails_takes_both_waves_back(world: World) -> None:
    world.judge.says(HEALTHY, wave=1)
    world.judge.says(UNHEALTHY, wave=2)
    result = await world.upgrade(("gw-1",), ("gw-2", "gw-3"))
    assert result.outcome is Outcome.ROLLED_BACK
    assert result.touched == 3
    assert set(world.serving().values()) == {"1.1.6"}


@pytest.mark.sweep
async def test_only_the_gateways_that_were_touched_are_fenced(world: World) -> None:
    world.judge.says(UNHEALTHY)
    await world.upgrade(("gw-1",), ("gw-2",))
    assert world.gateways["gw-1"].owner[0] > 0
    assert world.gateways["gw-2"].owner == (0, "")


@pytest.mark.sweep
async def test_a_gateway_that_cannot_go_back_delays_nobody_and_is_named(world: World) -> None:
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1", "gw-2"))
    await in_phase(rollout, Phase.OBSERVING)
    world.gateways["gw-1"].fail("end_trial", Refused("gw-1: nft says no"), times=10_000)
    world.judge.says(UNHEALTHY)

    async def is_named() -> bool:
        return (await status_of(rollout)).outcome is Outcome.ROLLBACK_INCOMPLETE

    await until(lambda: world.serving()["gw-2"] == "1.1.6")
    await until(is_named)
    status = await status_of(rollout)
    assert status.what == "ROLLBACK INCOMPLETE"
    assert "gw-1: nft says no" in status.why
    world.gateways["gw-1"]._failures.clear()
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK
    assert world.serving()["gw-1"] == "1.1.6"


@pytest.mark.sweep
async def test_a_known_good_that_has_died_is_started_and_probed_before_it_serves(world: World) -> None:
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",))
    await in_phase(rollout, Phase.OBSERVING)
    canary = world.gateways["gw-1"]
    canary.crash("a")
    world.judge.says(UNHEALTHY)
    assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK
    assert world.serving()["gw-1"] == "1.1.6"
    assert canary.slots[canary.target or ""].state == "running"


async def test_a_known_good_that_fails_its_probe_does_not_replace_what_serves(world: World) -> None:
    canary = world.gateways["gw-1"]
    canary.crash("a")
    canary.serve(NEW, "b")
    canary.bad_releases.add(OLD.digest)
    rollback = await world.restore("gw-1")

    async def is_named() -> bool:
        return "fails its probe at auth" in (await rollback.query(Restore.troubles)).get("gw-1", "")

    await until(is_named)
    assert world.serving()["gw-1"] == "1.3.0"
    canary.bad_releases.clear()
    await result_of(rollback)
    assert world.serving()["gw-1"] == "1.1.6"


@pytest.mark.sweep
async def test_steps_of_a_wave_that_was_given_up_are_refused_by_the_gateway(world: World) -> None:
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",))
    await in_phase(rollout, Phase.OBSERVING)
    canary = world.gateways["gw-1"]
    of_the_wave = canary.owner[0]
    world.judge.says(UNHEALTHY)
    await result_of(rollout)
    assert canary.owner[0] > of_the_wave
    late = Operation(rollout=world.newest, epoch=of_the_wave, gateway="gw-1", step="keep", digest=NEW.digest)
    with pytest.raises(Refused, match="obeys rollout"):
        await canary.make_permanent(late, "b")
    assert world.serving()["gw-1"] == "1.1.6"


@pytest.mark.sweep
async def test_a_failing_snapshot_costs_the_evidence_and_not_the_way_back(world: World) -> None:
    world.gateways["gw-1"].fail("snapshot", Unavailable("the disk is full"), times=10_000)
    world.judge.says(UNHEALTHY)
    assert (await world.upgrade(("gw-1",))).outcome is Outcome.ROLLED_BACK
    assert world.serving()["gw-1"] == "1.1.6"


@pytest.mark.sweep
async def test_the_new_instance_empties_by_itself_after_a_rollback(world: World) -> None:
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",))
    await in_phase(rollout, Phase.OBSERVING)
    canary = world.gateways["gw-1"]
    assert canary.login("192.0.2.7") == "b"
    world.judge.says(UNHEALTHY)
    await result_of(rollout)
    assert canary.login("192.0.2.8") == "a"
    assert "stop b" not in canary.effects
    canary.logout("192.0.2.7")
    await until(lambda: "stop b" in canary.effects)
    assert canary.lost == []


@pytest.mark.sweep
async def test_a_hundred_rollbacks_in_a_row_have_one_effect(server: Engine) -> None:
    async with working(World.made(await server.client(), fleet_of("edge"))) as world:
        canary = world.gateways["gw-1"]
        canary.serve(NEW, "b")
        for _ in range(100):
            await result_of(await world.restore("gw-1"))
    assert canary.effects.count("steer a") == 1
    assert [effect for effect in canary.effects if effect.startswith(("start", "keep"))] == ["keep a"]


async def test_two_rollbacks_at_once_have_one_effect(world: World) -> None:
    for fake in world.gateways.values():
        fake.serve(NEW, "b")
    both = [await world.restore(change=name) for name in ("edge-8", "edge-9")]
    for rollback in both:
        await result_of(rollback)
    for fake in world.gateways.values():
        assert fake.effects.count("steer a") == 1
        assert fake.effects.count("keep a") == 1
        assert fake.serving == "a"


@pytest.mark.sweep
async def test_a_rollback_during_another_ends_where_both_want(world: World) -> None:
    for fake in world.gateways.values():
        fake.serve(NEW, "b")
    world.gateways["gw-1"].fail("make_permanent", Refused("gw-1: nft says no"), times=10_000)
    first = await world.restore(change="edge-8")
    await until(lambda: world.serving()["gw-2"] == "1.1.6")
    second = await world.restore(change="edge-9")
    world.gateways["gw-1"]._failures.clear()
    await result_of(first)
    await result_of(second)
    assert set(world.serving().values()) == {"1.1.6"}
    assert all(fake.effects.count("keep a") == 1 for fake in world.gateways.values())


async def test_a_rollback_with_nothing_to_do_does_nothing(world: World) -> None:
    result = await result_of(await world.restore())
    assert result.back == len(world.gateways)
    assert world.effects() == {name: [] for name in world.gateways}


NEVER = timedelta(hours=1)
"""A test waits for none of this length: what goes on meanwhile does so for another reason."""


def of_two_parts(world: World) -> tuple[tuple[PartKey, PartKey], list[str], list[str]]:
    """Have the fleet serve a release that it goes back from; return the parts and who is in each."""
    keys = (PartKey(wave=0, number=1), PartKey(wave=0, number=2))
    plan = world.book.record_return(world.fleet, dict.fromkeys(world.gateways, OLD))
    for fake in world.gateways.values():
        fake.serve(NEW, "b")
    first, second = (members_of(world, plan, key) for key in keys)
    return keys, first, second


@pytest.mark.parametrize(
    ("silent", "moment", "turn"),
    [
        pytest.param(5, NEVER, NEVER, marks=pytest.mark.sweep),
        (12, timedelta(seconds=1), NEVER),
        pytest.param(13, NEVER, timedelta(seconds=2), marks=pytest.mark.sweep),
    ],
    ids=["five", "twelve", "thirteen"],
)
async def test_the_next_part_begins_when_nobody_is_awaited_but_those_who_are_silent(
    server: Engine, monkeypatch: pytest.MonkeyPatch, silent: int, moment: timedelta, turn: timedelta
) -> None:
    """One in ten keeps nobody waiting, one in four for a moment, and more until the turn is over."""
    monkeypatch.setattr(restore, "A_MOMENT", moment)
    monkeypatch.setattr(restore, "TURN_LASTS", turn)
    monkeypatch.setitem(steps.GO_BACK, "schedule_to_close_timeout", NEVER)
    world = World.made(await server.client(), fleet_of("edge", size=81))
    keys, first, second = of_two_parts(world)
    for name in first[:silent]:
        world.gateways[name].fail("restore", Unavailable(f"{name} does not answer"), times=10_000)
    async with working(world):
        rollback = await world.restore(keys=keys, at_once=1)
        back = {*first[silent:], *second}
        await until(
            lambda: all(version == "1.1.6" for name, version in world.serving().items() if name in back)
        )
        begun = [
            (await world.client.get_workflow_handle(f"{rollback.id}/{key.path}").describe()).start_time
            for key in keys
        ]
        for name in first[:silent]:
            world.gateways[name]._failures.clear()
        assert (await result_of(rollback)).back == 81
    if (clock := min(moment, turn)) < NEVER:
        assert begun[1] - begun[0] >= clock


@pytest.mark.sweep
async def test_whom_a_person_gives_up_before_its_turn_is_not_asked_when_that_comes(server: Engine) -> None:
    world = World.made(await server.client(), fleet_of("edge", size=81))
    keys, first, second = of_two_parts(world)
    for name in first[:6]:
        world.gateways[name].fail("restore", Unavailable(f"{name} does not answer"), times=10)
    async with working(world):
        rollback = await world.restore(keys=keys, at_once=1)
        given_up = {keys[1].path: (second[-1],)}
        await rollback.signal(Restore.give_up_in, args=[given_up, "given up by ana: it burns"])
        result = await result_of(rollback)
    assert (result.back, result.given_up) == (80, {second[-1]: "given up by ana: it burns"})
    assert world.gateways[second[-1]].effects == []


async def second_wave_on_trial(world: World) -> Running:
    """Start an upgrade of two waves of a gateway each, and wait until the second one takes users."""
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",), ("gw-2",))
    await in_phase(rollout, Phase.OBSERVING)
    world.judge.says(HEALTHY, UNDECIDED)
    await until(lambda: world.serving()["gw-2"] == "1.3.0")
    return rollout


def let_attempts_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give attempts an hour: no test sees the end of one that is not cancelled."""
    long = timedelta(hours=1)
    patient = steps.GO_BACK | {"schedule_to_close_timeout": long, "start_to_close_timeout": long}
    monkeypatch.setattr(steps, "go_back_within", lambda _: patient)


@pytest.mark.sweep
async def test_gateways_that_are_back_are_shown_while_a_silent_one_of_their_part_is_awaited(
    server: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Screens 15: three healthy gateways were shown back 21 seconds late, when the silent one timed out."""
    let_attempts_last(monkeypatch)
    monkeypatch.setattr(restore, "SHOWN_AFTER", timedelta(milliseconds=100))
    world = World.made(await server.client(), fleet_of("edge", size=4))
    world.judge.says(UNDECIDED)
    async with working(world):
        rollout = await world.start(("gw-1", "gw-2", "gw-3"))
        await in_phase(rollout, Phase.OBSERVING)
        world.gateways["gw-1"].fail("restore", Unavailable("gw-1 does not answer"), times=10_000)
        await say(rollout, CommandKind.ROLL_BACK, "ana", reason="users call")

        async def others_are_shown() -> bool:
            shown = {one.gateway: one.state for one in (await status_of(rollout)).gateways}
            return (shown["gw-2"], shown["gw-3"]) == (BACK, BACK) and shown["gw-1"] != BACK

        await until(others_are_shown)
        world.gateways["gw-1"]._failures.clear()
        assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK


@pytest.mark.sweep
async def test_a_part_that_cannot_be_read_keeps_no_other_waiting_is_named_and_begun_again(
    server: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "PARTS_REMEMBERED", 0)  # as of a worker that has just begun
    world = World.made(await server.client(), fleet_of("edge", size=3))
    read, damaged = world.book.plan_part, list[bool]()

    def plan_part(plan: str, key: PartKey) -> Part:
        if damaged and key.wave == 2:
            raise BadInput("the ledger's part is damaged")
        return read(plan, key)

    monkeypatch.setattr(world.book, "plan_part", plan_part)
    async with working(world):
        rollout = await second_wave_on_trial(world)
        damaged.append(True)
        await say(rollout, CommandKind.ROLL_BACK, "ana", reason="users call")

        async def is_named() -> bool:
            return "part 2/1: " in ((await status_of(rollout)).needs_you or "")

        await until(is_named)
        status = await status_of(rollout)
        assert (status.waits_for, status.outcome) == ((), Outcome.ROLLBACK_INCOMPLETE)
        assert [(offer.verb, offer.force) for offer in status.can_do] == [(Verb.ROLL_BACK, True)]
        assert world.serving()["gw-1"] == "1.1.6"
        damaged.clear()
        assert (await result_of(rollout)).outcome is Outcome.ROLLED_BACK
    assert world.serving()["gw-2"] == "1.1.6"


@pytest.mark.sweep
async def test_a_gateway_of_a_large_fleet_is_given_up_by_a_persons_word_while_it_goes_back_in_turns(
    server: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change, "PARTS_AT_ONCE", 1)
    world = World.made(await server.client(), fleet_of("edge", size=3))
    async with working(world):
        rollout = await second_wave_on_trial(world)
        world.gateways["gw-1"].fail("restore", Unavailable("gw-1 does not answer"), times=10_000)
        await say(rollout, CommandKind.ROLL_BACK, "ana", reason="users call")

        async def is_named() -> bool:
            return "gw-1 does not answer" in ((await status_of(rollout)).needs_you or "")

        await until(is_named)
        await say(rollout, CommandKind.QUARANTINE, "ana", reason="it burns", gateways=("gw-1",))
        result = await result_of(rollout)
    assert result.outcome is Outcome.ROLLBACK_INCOMPLETE
    assert result.incomplete == {"gw-1": "given up by ana: it burns"}
    assert world.serving()["gw-2"] == "1.1.6"
    assert await given_up_by(world, rollout) == [("", ("gw-1",)), ("/001/0001", ("gw-1",))]


@pytest.mark.sweep
async def test_a_rollback_ends_without_the_attempt_that_is_under_way_on_a_gateway_that_is_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_attempts_last(monkeypatch)
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",))
    await in_phase(rollout, Phase.OBSERVING)
    world.gateways["gw-1"].fail("restore", Refused("gw-1: the disk is full"))
    async with blocked(world.gateways["gw-1"], "restore", times=(2,)) as under_way:
        await say(rollout, CommandKind.ROLL_BACK, "ana", reason="users call")
        await under_way.wait()
        await waiting_for(rollout, "gw-1")
        await say(rollout, CommandKind.QUARANTINE, "ana", reason="it burns", gateways=("gw-1",))
        result = await soon(result_of(rollout))
    assert result.outcome is Outcome.ROLLBACK_INCOMPLETE
    assert result.incomplete == {"gw-1": "given up by ana: it burns"}
    told = [row.sentence for row in world.book.events_of_change(world.newest)]
    assert [said for said in told if "INCOMPLETE: gw-1" in said] == [
        "ROLLBACK INCOMPLETE: gw-1: gw-1: the disk is full"
    ]


@pytest.mark.sweep
async def test_known_good_that_is_being_probed_gets_nobody_when_its_gateway_is_given_up(world: World) -> None:
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1",))
    await in_phase(rollout, Phase.OBSERVING)
    fake = world.gateways["gw-1"]
    fake.fail("restore", Refused("gw-1: it boots"))
    fake.crash("a")
    async with blocked(fake, "probe") as probing:
        await say(rollout, CommandKind.ROLL_BACK, "ana", reason="users call")
        await until(lambda: not fake.failing("restore"))
        fake.crash("b")  # nothing serves: no doubt about known-good would keep users from it
        await waiting_for(rollout, "gw-1")
        await probing.wait()
        before = len(fake.effects)
        await say(rollout, CommandKind.QUARANTINE, "ana", reason="it burns", gateways=("gw-1",))
        result = await soon(result_of(rollout))
    assert result.incomplete == {"gw-1": "given up by ana: it burns"}
    assert not [effect for effect in fake.effects[before:] if effect.startswith(("keep", "steer"))]


@pytest.mark.sweep
async def test_who_is_given_up_before_a_history_is_cut_is_not_waited_for_any_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.judge.says(UNDECIDED)
    rollout = await world.start(("gw-1", "gw-2"))
    await in_phase(rollout, Phase.OBSERVING)
    for name in ("gw-1", "gw-2"):
        world.gateways[name].fail("restore", Refused(f"{name}: the disk is full"), times=10_000)
    await say(rollout, CommandKind.ROLL_BACK, "ana", reason="users call")
    await waiting_for(rollout, "gw-1", "gw-2")
    part = world.client.get_workflow_handle(f"{rollout.id}/{world.newest}/restore")
    first, under_way, over = (await part.describe()).run_id, asyncio.Event(), asyncio.Event()

    async def refuses_late(*_: object, **__: object) -> Restored:
        under_way.set()
        await over.wait()
        raise Refused("gw-2: the disk is full")

    monkeypatch.setattr(world.gateways["gw-2"], "restore", refuses_late)
    await under_way.wait()
    await lengthen(part, "pass_on", "2/1")  # which wakes it: gw-1 is not tried again before the cut
    await part.query(Restore.troubles)
    await say(rollout, CommandKind.QUARANTINE, "ana", reason="it burns", gateways=("gw-1",))
    over.set()

    async def is_cut() -> bool:
        return (await part.describe()).run_id != first

    await until(is_cut)
    await waiting_for(rollout, "gw-2", seconds=20)
    await say(rollout, CommandKind.QUARANTINE, "ana", reason="停电" * 60, gateways=("gw-2",))
    result = await soon(result_of(rollout))
    assert result.incomplete["gw-1"] == "given up by ana: it burns"
    assert result.incomplete["gw-2"].startswith("given up by ana: 停电")
    assert len(result.incomplete["gw-2"].encode()) <= REASON_OF_EACH  # a site's thousand fit into one message


@pytest.mark.sweep
async def test_a_part_that_is_begun_again_ends_without_the_attempt_on_a_gateway_that_is_given_up(
    server: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change, "PARTS_AT_ONCE", 1)
    world = World.made(await server.client(), fleet_of("edge", size=3))
    async with working(world):
        rollout, fake = await second_wave_on_trial(world), world.gateways["gw-1"]
        fake.fail("restore", Refused("gw-1: the disk is full"), times=10_000)
        await say(rollout, CommandKind.ROLL_BACK, "ana", reason="users call")
        await waiting_for(rollout, "gw-1")
        let_attempts_last(monkeypatch)
        part = world.client.get_workflow_handle(f"{rollout.id}/{world.newest}/restore/001/0001")
        await part.terminate("by hand")
        fake.recover("restore")
        async with blocked(fake, "restore") as under_way:
            await under_way.wait()
            await say(rollout, CommandKind.QUARANTINE, "ana", reason="it burns", gateways=("gw-1",))
            result = await soon(result_of(rollout))
    assert result.incomplete == {"gw-1": "given up by ana: it burns"}


@pytest.mark.sweep
async def test_a_part_whose_gateways_are_given_up_at_the_same_moment_reports_them_together(
    server: Engine,
) -> None:
    world = World.made(await server.client(), fleet_of("edge", size=12))
    lost = tuple(f"gw-{number}" for number in range(1, 11))
    async with working(world):
        world.judge.says(UNDECIDED)
        rollout = await world.start(lost)
        await in_phase(rollout, Phase.OBSERVING)
        for name in lost:
            world.gateways[name].fail("restore", Refused(f"{name}: the disk is full"), times=10_000)
        await say(rollout, CommandKind.ROLL_BACK, "ana", reason="users call")
        await waiting_for(rollout, *sorted(lost))
        await until(lambda: len(world.book.quarantined("edge")) == len(lost))
        before = await reports_to(rollout)
        await say(rollout, CommandKind.QUARANTINE, "ana", reason="no power", gateways=lost)
        result = await soon(result_of(rollout))
        after = await reports_to(rollout)
    assert result.incomplete == dict.fromkeys(lost, "given up by ana: no power")
    assert after - before <= 3  # two for ten who end at once, and one that may have been on its way


async def reports_to(rollout: Running) -> int:
    """Return how many reports of its parts the change has had."""
    history = await rollout.fetch_history()
    return sum(
        event.workflow_execution_signaled_event_attributes.signal_name == "report_restore"
        for event in history.events
    )


async def given_up_by(world: World, rollout: Running) -> list[tuple[str, tuple[str, ...]]]:
    """Return which of the change's restores were told to give somebody up, and whom, in all of its runs."""
    events = [event for history in await histories(world, rollout) for event in history.events]
    told = [
        event.signal_external_workflow_execution_initiated_event_attributes
        for event in events
        if event.HasField("signal_external_workflow_execution_initiated_event_attributes")
    ]
    return [
        (
            one.workflow_execution.workflow_id.rpartition("/restore")[2],
            names_in(json.loads(one.input.payloads[0].data)),
        )
        for one in told
        if one.signal_name in {"give_up", "give_up_in"}
    ]


async def histories(world: World, rollout: Running) -> list[WorkflowHistory]:
    """Return the history of each run, the newest first: on a busy machine one is long enough to be cut."""
    found: list[WorkflowHistory] = []
    run = None
    while run != "":
        found.append(await world.client.get_workflow_handle(rollout.id, run_id=run).fetch_history())
        run = found[-1].events[0].workflow_execution_started_event_attributes.continued_execution_run_id
    return found


def names_in(told: dict[str, str | list[str]]) -> tuple[str, ...]:
    """Return whom a part, or what begins parts, was told to give up."""
    return tuple(
        name for key, said in told.items() for name in ((key,) if isinstance(said, str) else tuple(said))
    )


@pytest.mark.sweep
async def test_one_word_gives_up_a_site_whose_gateways_are_spread_over_many_parts(
    server: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change, "PARTS_AT_ONCE", 1)
    world = World.made(await server.client(), fleet_of("edge", size=4))
    async with working(world):
        rollout = await second_wave_on_trial(world)
        for name in ("gw-1", "gw-2"):
            world.gateways[name].fail("restore", Unavailable(f"{name} does not answer"), times=10_000)
        await say(rollout, CommandKind.ROLL_BACK, "ana", reason="users call")
        await waiting_for(rollout, "gw-1", "gw-2")
        quarantine = QuarantineService(ChangeService(world.client, world.book))
        said = await quarantine.leave_out(world.fleet, ("gw-1", "gw-2", "gw-3"), "ana", "no power")
        result = await result_of(rollout)
        told = await given_up_by(world, rollout)
        lost = ("gw-1", "gw-2", "gw-3")
        refused = await quarantine.take_in(world.fleet, lost, "ana", "power is back")
        assert [*refused.stays] == ["gw-1", "gw-2"]
        for name in ("gw-1", "gw-2"):  # not before: an attempt that was under way may bring one back
            world.gateways[name].recover("restore")
        receipt = await quarantine.service.roll_back(world.fleet, "ana", "power is back")
        assert receipt.accepted, receipt
        await until(lambda: set(world.serving().values()) == {"1.1.6"})
        await until(lambda: not world.book.quarantined("edge"))
    assert said.startswith(
        "2 gateways (gw-1, gw-2) are given up here, and named until somebody returns them;"
    )
    assert " gw-3 is left out of changes" in said
    assert result.outcome is Outcome.ROLLBACK_INCOMPLETE
    assert result.incomplete == dict.fromkeys(("gw-1", "gw-2"), "given up by ana: no power")
    assert told == [("", ("gw-1", "gw-2")), ("/001/0001", ("gw-1",)), ("/002/0001", ("gw-2",))]


@pytest.mark.sweep
async def test_a_way_back_that_is_ended_by_force_begins_no_part_beside_the_change_that_follows(
    server: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change, "PARTS_AT_ONCE", 1)
    monkeypatch.setattr(restore, "TURN_LASTS", NEVER)
    monkeypatch.setitem(steps.GO_BACK, "schedule_to_close_timeout", NEVER)
    world = World.made(await server.client(), fleet_of("edge", size=3))
    async with working(world):
        rollout = await second_wave_on_trial(world)
        world.gateways["gw-1"].fail("restore", Unavailable("gw-1 does not answer"), times=10_000)
        await say(rollout, CommandKind.ROLL_BACK, "ana", reason="users call")
        turns = world.client.get_workflow_handle(f"{rollout.id}/{world.newest}/restore")
        first = world.client.get_workflow_handle(f"{turns.id}/001/0001")

        async def has_begun() -> bool:
            with suppress(RPCError):
                return (await first.describe()).status is WorkflowExecutionStatus.RUNNING
            return False

        await until(has_begun)
        service = ChangeService(world.client, world.book)
        assert (await service.roll_back(world.fleet, "ana", "it does not end", force=True)).accepted
        assert (await turns.describe()).status is WorkflowExecutionStatus.TERMINATED
        assert (await first.describe()).status is WorkflowExecutionStatus.RUNNING
        world.gateways["gw-1"]._failures.clear()
        await until(lambda: set(world.serving().values()) == {"1.1.6"})
        await first.result()


@pytest.mark.sweep
async def test_a_rollback_that_is_cancelled_goes_back_all_the_same(world: World) -> None:
    world.gateways["gw-1"].serve(NEW, "b")
    world.gateways["gw-1"].fail("make_permanent", Refused("gw-1: nft says no"), times=10_000)
    rollback = await world.restore("gw-1")

    async def is_named() -> bool:
        return "gw-1" in await rollback.query(Restore.troubles)

    await until(is_named)
    await rollback.cancel()
    await until(is_named)
    world.gateways["gw-1"]._failures.clear()
    await result_of(rollback)
    assert world.serving()["gw-1"] == "1.1.6"


@pytest.mark.sweep
@pytest.mark.parametrize("later", [False, True], ids=["first run", "after a history that was cut"])
async def test_whoever_is_back_at_the_first_try_of_a_run_is_frozen_emptied_and_no_longer_left_out(
    world: World, later: bool
) -> None:
    fake = world.gateways["gw-1"]
    fake.serve(NEW, "b")
    silent = Quarantine(
        fleet="edge", gateway="gw-1", reason="silent", person=PENSTOCK, since=datetime.now(UTC)
    )
    world.book.set_quarantine(silent)
    await result_of(await world.restore("gw-1", first_round_over=later))
    assert not world.book.quarantined("edge")
    await until(lambda: "stop b" in fake.effects)
    await until(lambda: "gw-1" in world.book.snapshots)


@pytest.mark.sweep
async def test_evidence_that_hangs_delays_neither_the_way_back_nor_its_result(world: World) -> None:
    for fake in world.gateways.values():
        fake.serve(NEW, "b")
    world.gateways["gw-1"].freezing = 3600
    result = await result_of(await world.restore())
    assert result.back == len(world.gateways)
    assert result.took < timedelta(seconds=2)
    await until(lambda: sorted(world.book.snapshots) == ["gw-2", "gw-3", "gw-4"])
    assert set(world.serving().values()) == {"1.1.6"}


@pytest.mark.sweep
async def test_evidence_is_copied_off_its_host_and_listed(world: World) -> None:
    fake = world.gateways["gw-1"]
    fake.serve(NEW, "b")
    await result_of(await world.restore("gw-1"))
    await until(lambda: bool(world.book.snapshots))
    digest = world.book.snapshots["gw-1"]
    assert world.archive.kept == {digest: fake.frozen[digest]}
    assert b"a person said so" in fake.frozen[digest]


@pytest.mark.sweep
async def test_evidence_in_several_pieces_arrives_whole(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.snapshots.PIECE_BYTES", 100)
    fake = world.gateways["gw-1"]
    await result_of(await world.restore("gw-1"))
    await until(lambda: bool(world.book.snapshots))
    digest = world.book.snapshots["gw-1"]
    assert len(fake.frozen[digest]) > 500
    assert world.archive.kept[digest] == fake.frozen[digest]


def members_of(world: World, plan: str, key: PartKey) -> list[str]:
    """Return the names of the gateways of a part of a plan."""
    return [member.gateway.name for member in world.book.plan_part(plan, key).members]
