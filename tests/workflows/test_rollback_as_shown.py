"""A rollback does to each gateway what was shown of it: before, in its receipt, while it waits."""

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.exit_code import ExitCode, code_of
from orchestrator.service.ways_back import WaysBack
from policies.model.change import Outcome, Phase, Quarantine
from policies.model.command import Command, CommandKind
from policies.model.errors import Conflict, Unavailable
from policies.model.fleet import AtDeadline, Fleet, RollbackRules
from policies.model.offer import Offer, Verb
from policies.model.plan import ReleaseRef
from policies.model.way_back import RollbackAsked, RollbackPreview
from tests.fakes.control import CLOSED, HEALTHY, UNDECIDED
from tests.patience import until
from tests.workflows.recorded import SOON, Recorded, soon
from tests.workflows.world import NEW, NEXT, OLD, in_phase

FOR_LONG = 10_000
PLAIN = RollbackAsked()
ALL = ("gw-1", "gw-2", "gw-3", "gw-4")


def with_rules(fleet: Fleet, **rules: object) -> Fleet:
    return fleet.model_copy(update={"rollback": RollbackRules.model_validate(rules)})


def after_the_kept_window(fleet: Fleet) -> Fleet:
    return fleet.model_copy(update={"limits": fleet.limits.model_copy(update={"kept": timedelta(0)})})


async def shown(recorded: Recorded, fleet: Fleet | None = None) -> RollbackPreview:
    return await recorded.service.rollback_preview(fleet or recorded.world.fleet, PLAIN, None)


async def ask_for(recorded: Recorded, fleet: Fleet, to: ReleaseRef) -> str:
    """Ask for a release by name, which waits for a second operator; return the receipt's sentence."""
    receipt = await recorded.service.roll_back(fleet, "ana", "it hurts", to=to, source="http://repository")
    await until(lambda: waits(recorded), SOON)
    return receipt.sentence


def waits(recorded: Recorded) -> bool:
    story = recorded.ledger.story(recorded.world.newest)
    return story is not None and story.told.waits_until is not None


async def bad_everywhere(recorded: Recorded) -> Fleet:
    """Promote 1.4.0 everywhere; gw-1 and gw-2 have once gone back from 1.3.0, which is pinned."""
    world = recorded.world
    world.judge.says(HEALTHY)
    await recorded.upgrade(("gw-1", "gw-2"))
    await recorded.roll_back()
    world.look()
    await recorded.upgrade(ALL, release=NEXT)
    world.look()
    assert set(world.serving().values()) == {"1.4.0"}
    return world.fleet


async def bad_and_old(recorded: Recorded) -> Fleet:
    """Promote 1.4.0 everywhere, longer ago than a rollback without a name takes it back."""
    await recorded.upgrade(ALL, release=NEXT)
    recorded.world.look()
    return after_the_kept_window(recorded.world.fleet)


# --- beside a rollback by name that waits ----------------------------------------------------


@pytest.mark.sweep
async def test_a_rollback_takes_every_gateway_back_though_one_by_name_waits_for_a_few(
    recorded: Recorded,
) -> None:
    """R1: it said that all four go back, and left two of them on the bad release."""
    fleet = await bad_everywhere(recorded)
    receipt = await ask_for(recorded, fleet, NEW)
    assert receipt.endswith("gateways go back to known-good: gw-1, gw-2 will serve 1.1.6.")
    before = await shown(recorded)
    assert before.sentence == (
        "edge-5 waits no more and goes to known-good: gw-1, gw-2, gw-3, gw-4 will serve 1.1.6"
    )
    receipt = (await recorded.service.roll_back(fleet, "bob", "users call", shown=before.digest)).sentence
    assert receipt.startswith("Rolling back.")
    await recorded.everybody_on(OLD)
    assert recorded.ledger.known_good("edge") == dict.fromkeys(ALL, OLD)


@pytest.mark.sweep
async def test_without_an_answer_those_gateways_go_back_that_were_named_and_no_others(
    recorded: Recorded,
) -> None:
    fleet = with_rules(await bad_everywhere(recorded), answer_within=timedelta(seconds=2))
    await recorded.service.roll_back(fleet, "ana", "it hurts", to=NEW, source="http://repository")
    await until(lambda: waits(recorded), SOON)
    status = await recorded.status()
    assert status.next.endswith("unless somebody answers: gw-1, gw-2 will serve 1.1.6")
    await recorded.nothing_under_way()
    assert recorded.world.serving() == {"gw-1": "1.1.6", "gw-2": "1.1.6", "gw-3": "1.4.0", "gw-4": "1.4.0"}
    assert (await shown(recorded)).sentence == (
        "1.4.0, promoted by edge-4, is taken back: gw-3, gw-4 will serve 1.1.6"
    )


@pytest.mark.sweep
async def test_a_second_rollback_of_a_whole_group_waits_for_no_second_operator(recorded: Recorded) -> None:
    """Known-good is never further away than one more command."""
    await recorded.upgrade(ALL)
    recorded.world.look()
    fleet = with_rules(recorded.world.fleet, confirm_whole_group=True)
    await recorded.service.roll_back(fleet, "ana", "users call")
    await until(lambda: waits(recorded), SOON)
    assert (await shown(recorded, fleet)).confirm is None
    await recorded.service.roll_back(fleet, "ana", "users call")
    await recorded.everybody_on(OLD)


# --- where known-good is what serves ----------------------------------------------------------


@pytest.mark.sweep
async def test_a_rollback_by_name_that_nobody_answers_is_not_called_rolled_back_where_nothing_went_back(
    recorded: Recorded,
) -> None:
    """The bad release was known-good itself by then and served on, and the exit code said safe."""
    fleet = with_rules(await bad_and_old(recorded), answer_within=timedelta(seconds=3))
    serves = "nothing is changed: gw-1, gw-2, gw-3, gw-4 serve 1.4.0"
    receipt = await ask_for(recorded, fleet, OLD)
    assert receipt.endswith(f"If nobody answers within 0:00:03, it is given up, and {serves}.")
    status = await recorded.status()
    assert status.next.endswith(f"unless somebody answers; {serves}")
    assert [offer.verb for offer in status.can_do] == [Verb.APPROVE, Verb.REJECT]
    await recorded.nothing_under_way()
    status = await recorded.status()
    assert (status.outcome, status.what) == (
        Outcome.REFUSED,
        f"no second operator answered in time; {serves}",
    )
    assert code_of(status.outcome) is ExitCode.REFUSED
    assert Offer(verb=Verb.ROLL_BACK, fleet="edge", release=OLD.digest[:19]) in status.can_do
    assert set(recorded.world.serving().values()) == {"1.4.0"}


@pytest.mark.sweep
async def test_a_rollback_by_name_that_is_rejected_does_not_end_as_a_safe_fleet(recorded: Recorded) -> None:
    await ask_for(recorded, await bad_and_old(recorded), OLD)
    confirm = (await recorded.status()).confirm
    no = Command(id="no", kind=CommandKind.REJECT, person="ben", reason="not now", approves=confirm)
    await recorded.service.command("edge", no)
    result = await soon(recorded.service._change("edge").result())
    assert code_of(result.outcome) is ExitCode.REFUSED
    assert result.reason == "rejected by ben: not now; nothing is changed: gw-1, gw-2, gw-3, gw-4 serve 1.4.0"


@pytest.mark.sweep
async def test_a_rollback_with_nothing_to_take_back_leaves_one_by_name_waiting(recorded: Recorded) -> None:
    """It ended the only rollback by which the fleet could leave the bad release, and did nothing else."""
    fleet = await bad_and_old(recorded)
    await ask_for(recorded, fleet, OLD)
    before = await shown(recorded, fleet)
    nothing = (
        "edge-3 waits for a second operator, and a rollback without a name has nothing to take back: "
        "gw-1, gw-2, gw-3, gw-4 serve 1.4.0"
    )
    assert (before.does, before.sentence) == (False, nothing)
    with pytest.raises(Conflict) as refused:
        await recorded.service.roll_back(fleet, "bob", "users call")
    assert str(refused.value) == nothing
    confirm = (await recorded.status()).confirm
    yes = Command(id="yes", kind=CommandKind.APPROVE, person="ben", reason="seen", approves=confirm)
    await recorded.service.command("edge", yes)
    await recorded.everybody_on(OLD)


@pytest.mark.sweep
async def test_a_policy_that_wants_nothing_at_the_deadline_leaves_known_good_one_command_away(
    recorded: Recorded,
) -> None:
    fleet = with_rules(await bad_everywhere(recorded), at_deadline=AtDeadline.NOTHING)
    receipt = await ask_for(recorded, fleet, NEW)
    assert "it is given up, and nothing is changed: gw-1, gw-2 serve 1.4.0" in receipt
    status = await recorded.status()
    assert Verb.ROLL_BACK in {offer.verb for offer in status.can_do}
    await recorded.service.roll_back(fleet, "bob", "users call")
    await recorded.everybody_on(OLD)


@pytest.mark.sweep
async def test_a_rollback_that_waits_and_is_cancelled_goes_nowhere(recorded: Recorded) -> None:
    """It went to the release that nobody had approved."""
    await ask_for(recorded, await bad_everywhere(recorded), NEW)
    await recorded.service._change("edge").cancel()
    result = await soon(recorded.service._change("edge").result())
    assert result.outcome is Outcome.REFUSED
    assert set(recorded.world.serving().values()) == {"1.4.0"}


# --- what ends for a rollback -----------------------------------------------------------------


async def goes_back_without(recorded: Recorded, silent: str) -> None:
    """Roll back, and end that without one gateway, which does not answer and is quarantined."""
    world, service = recorded.world, recorded.service
    world.gateways[silent].fail("restore", Unavailable(f"{silent} does not answer"), times=FOR_LONG)
    await service.roll_back(world.fleet, "ana", "users call")

    async def is_incomplete() -> bool:
        return (await service.status("edge")).waits_for == (silent,)

    await until(is_incomplete, SOON)
    row = Quarantine(fleet="edge", gateway=silent, reason="its disk", person="ana", since=datetime.now(UTC))
    recorded.ledger.set_quarantine(row)
    out = Command(id="out", kind=CommandKind.QUARANTINE, person="ana", reason="its disk", gateways=(silent,))
    await service.command("edge", out)
    await recorded.nothing_under_way()
    world.gateways[silent].recover("restore")
    world.look()


@pytest.mark.sweep
async def test_a_rollback_that_ends_an_upgrade_completes_an_incomplete_one_as_it_is_shown(
    recorded: Recorded,
) -> None:
    """It showed what was under the incomplete one, and then completed that one: another release."""
    world, service = recorded.world, recorded.service
    world.judge.says(HEALTHY)
    await recorded.upgrade(ALL)
    world.judge.says(UNDECIDED)
    await recorded.start(("gw-1",), ("gw-2", "gw-3", "gw-4"), release=NEXT)
    await in_phase(service._change("edge"), Phase.OBSERVING)
    await goes_back_without(recorded, "gw-1")
    world.windows.answer = CLOSED
    waiting = await recorded.start(("gw-2",), ("gw-3", "gw-4"), release=NEXT)
    await in_phase(service._change("edge"), Phase.WAITING, wave=0)
    before = await shown(recorded)
    completed = (
        "edge-3 has an incomplete rollback, which is completed first: gw-1, gw-2, gw-3, gw-4 will serve"
    )
    assert before.sentence.startswith(f"{waiting} has moved no session and ends; then {completed} 1.3.0")
    receipt = await service.roll_back(world.fleet, "bob", "users call", shown=before.digest)
    assert f"{completed} 1.3.0" in receipt.sentence
    await recorded.everybody_on(NEW)


@pytest.mark.sweep
async def test_a_rollback_that_ends_an_upgrade_shows_that_a_second_operator_has_to_approve_the_rest(
    recorded: Recorded,
) -> None:
    world = recorded.world
    await recorded.upgrade(ALL)
    world.windows.answer = CLOSED
    world.look()
    await recorded.start(("gw-1",), ("gw-2",), release=NEXT)
    await in_phase(recorded.service._change("edge"), Phase.WAITING, wave=0)
    before = await shown(recorded, with_rules(world.fleet, confirm_whole_group=True))
    assert before.confirm == "every gateway of main goes back at once"


# --- a canary ---------------------------------------------------------------------------------


@pytest.mark.sweep
async def test_a_rollback_of_a_canary_names_only_gateways_that_it_takes_back_and_where_others_stay(
    recorded: Recorded,
) -> None:
    """It promised known-good for a gateway in quarantine on a bad release, which nothing took there."""
    world, service = recorded.world, recorded.service
    world.judge.says(HEALTHY)
    await recorded.upgrade(ALL)
    await goes_back_without(recorded, "gw-4")
    world.judge.says(UNDECIDED)
    name = await recorded.start(("gw-1",), ("gw-2", "gw-3"), release=NEXT)
    await in_phase(service._change("edge"), Phase.OBSERVING)
    before = await shown(recorded)
    then = "gw-1 will serve 1.1.6; gw-4 is not taken along and stays on 1.3.0"
    assert before.sentence == f"{name} to 1.4.0 is taken back: {then}"
    ways_back = WaysBack(recorded.ledger)
    await service.roll_back(world.fleet, "ana", "users call", shown=before.digest)
    assert ways_back.then(world.fleet, ways_back.taken_back(name)) == then
    await recorded.nothing_under_way()
    assert world.serving() == dict.fromkeys(ALL, "1.1.6") | {"gw-4": "1.3.0"}


@pytest.mark.sweep
async def test_a_wave_that_begins_makes_a_rollback_that_was_shown_no_other_one(recorded: Recorded) -> None:
    """Decision 0052: every gateway serves the same after it, so nobody has to read it again."""
    world, service = recorded.world, recorded.service
    world.judge.says(UNDECIDED)
    name = await recorded.start(("gw-1",), ("gw-2", "gw-3"), release=NEXT)
    await in_phase(service._change("edge"), Phase.OBSERVING)
    first = await shown(recorded)
    world.judge.says(HEALTHY, wave=1)
    await in_phase(service._change("edge"), Phase.OBSERVING, wave=2)
    second = await shown(recorded)
    assert [one.sentence for one in (first, second)] == [
        f"{name} to 1.4.0 is taken back: gw-1 will serve 1.1.6",
        f"{name} to 1.4.0 is taken back: gw-1, gw-2, gw-3 will serve 1.1.6",
    ]
    assert first.digest == second.digest
    await service.roll_back(world.fleet, "ana", "users call", shown=first.digest)
    await recorded.everybody_on(OLD)
