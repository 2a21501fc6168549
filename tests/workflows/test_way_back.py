"""Back after promotion: at once to known-good, elsewhere only with a second person's yes."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from orchestrator.service.changes import ChangeService
from orchestrator.service.drains import DrainService
from orchestrator.store import tables
from policies.model.change import ChangeKind, ChangeOrder, Outcome, Phase
from policies.model.command import Command, CommandKind, CommandReceipt
from policies.model.drain import DrainExtension
from policies.model.errors import BadInput, Conflict, NotAllowed, Refused, Unavailable
from policies.model.fleet import AtDeadline, RollbackRules
from policies.model.offer import Offer, Verb
from policies.model.people import ROOT
from policies.model.way_back import Confirmation
from policies.rollback import confirmation_of, rollback_targets
from tests.patience import answered, until
from tests.workflows.test_reconcile import promoted, service  # noqa: F401 - fixture
from tests.workflows.world import (
    NEW,
    NEXT,
    OLD,
    Running,
    World,
    reconcile,
    refusal_of,
    result_of,
    say,
    status_of,
)

FOR_LONG = 10_000
"""Refusals that no test waits for the end of."""


async def ask_for(world: World, **rules: object) -> Running:
    """Ask for 1.4.0, which runs in slot c, on gateways whose known-good is 1.1.6."""
    for fake in world.gateways.values():
        fake.serve(NEXT, "c")
        fake.serve(NEW, "b")
    asked = RollbackRules.model_validate(rules)
    fleet = world.fleet.model_copy(update={"rollback": asked})
    targets = dict.fromkeys(world.gateways, NEXT)
    known_good = dict.fromkeys(world.gateways, OLD)
    reason = confirmation_of(fleet, targets, known_good, {})
    assert reason is not None
    plan = world.book.record_return(fleet, targets, named=NEXT)
    back = world.book.record_return(fleet, known_good)
    order = ChangeOrder(
        fleet=fleet.name,
        kind=ChangeKind.GO_BACK,
        plan=plan,
        reason="ana: users call",
        requested_by="ana",
        confirm=Confirmation(
            reason=reason,
            within=asked.answer_within,
            change=plan,
            known_good=back,
            by_itself=back if asked.at_deadline is AtDeadline.KNOWN_GOOD else None,
            stays="every gateway serves 1.3.0",
        ),
    )
    return await world.run(order)


async def answer(
    running: Running, kind: CommandKind, person: str, change: str | None = None
) -> CommandReceipt:
    confirm = (await status_of(running)).confirm
    return await say(running, kind, person, approves=change or confirm)


async def is_waiting(running: Running) -> bool:
    return (await status_of(running)).phase is Phase.HELD


async def test_another_release_waits_until_a_second_person_has_approved_it(world: World) -> None:
    running = await ask_for(world)
    await until(lambda: is_waiting(running))
    status = await status_of(running)
    assert status.why == "1.4.0 is not the known-good of gw-1, gw-2, gw-3, gw-4"
    assert (status.version, status.what) == ("1.4.0", "a rollback to 1.4.0 waits for a second person")
    assert Verb.APPROVE in {offer.verb for offer in status.can_do}
    assert set(world.serving().values()) == {"1.3.0"}
    await until(
        lambda: "rollback waits for a person" in [action for action, _, _ in world.book.events.values()]
    )
    await answer(running, CommandKind.APPROVE, "bo")
    await result_of(running)
    assert set(world.serving().values()) == {"1.4.0"}
    assert world.book.known_good(world.fleet.name) == dict.fromkeys(world.gateways, NEXT)
    told = [action for action, _, _ in world.book.events.values()]
    assert [action for action in told if action in {"rollback waits for a person", "approve"}] == [
        "rollback waits for a person",
        "approve",
    ]


async def test_history_and_status_name_the_release_to_which_an_operator_went(world: World) -> None:
    running = await ask_for(world)
    await until(lambda: is_waiting(running))
    await answer(running, CommandKind.APPROVE, "bo")
    assert (await result_of(running)).outcome is Outcome.ROLLED_BACK
    (newest,) = world.book.history(world.fleet.name, 1)
    assert (newest.release, newest.release_digest) == ("1.4.0", NEXT.digest)
    status = await status_of(running)
    assert {one.state for one in status.gateways} == {"on the named release"}
    again = rollback_targets(
        world.book.moves(world.fleet.name), None, world.fleet.limits.kept, datetime.now(UTC)
    )
    assert again.targets == {}
    assert "went back already" not in again.sentence
    assert "took gateways to 1.4.0, which was named" in again.sentence


async def test_history_does_not_name_a_release_to_which_the_deadline_did_not_go(world: World) -> None:
    running = await ask_for(world, answer_within=timedelta(seconds=2))
    await result_of(running)
    (newest,) = world.book.history(world.fleet.name, 1)
    assert (newest.release, newest.release_digest) == ("known-good", None)
    assert (await status_of(running)).version == "known-good"
    assert world.book.newest_to(world.fleet.name, NEXT.digest) is None


async def test_a_rejected_rollback_leads_to_no_release(world: World) -> None:
    running = await ask_for(world)
    await until(lambda: is_waiting(running))
    await answer(running, CommandKind.REJECT, "bo")
    result = await result_of(running)
    assert (result.outcome, result.reason) == (
        Outcome.REFUSED,
        "rejected by bo: because; nothing is changed: every gateway serves 1.3.0",
    )
    (newest,) = world.book.history(world.fleet.name, 1)
    assert newest.release == "1.4.0"
    assert world.book.newest_to(world.fleet.name, NEXT.digest) is None


@pytest.mark.sweep
async def test_nobody_approves_what_they_asked_for(world: World) -> None:
    running = await ask_for(world)
    await until(lambda: is_waiting(running))
    sentence = await refusal_of(answer(running, CommandKind.APPROVE, "ana"))
    assert "somebody else has to approve it" in sentence
    sentence = await refusal_of(answer(running, CommandKind.APPROVE, "bo", change=OLD.digest))
    assert sentence.startswith("the approval names another change")
    assert await is_waiting(running)


@pytest.mark.sweep
async def test_without_an_answer_the_deadline_goes_back_to_known_good_by_itself(world: World) -> None:
    running = await ask_for(world, answer_within=timedelta(seconds=2))
    await result_of(running)
    assert set(world.serving().values()) == {"1.1.6"}
    assert (await status_of(running)).outcome is Outcome.ROLLED_BACK


@pytest.mark.sweep
async def test_a_policy_may_say_that_nothing_happens_at_the_deadline(world: World) -> None:
    running = await ask_for(world, at_deadline=AtDeadline.NOTHING, answer_within=timedelta(seconds=2))
    await result_of(running)
    assert set(world.serving().values()) == {"1.3.0"}
    assert (await status_of(running)).outcome is Outcome.REFUSED


@pytest.mark.sweep
async def test_a_rejected_rollback_changes_nothing(world: World) -> None:
    running = await ask_for(world)
    await until(lambda: is_waiting(running))
    await answer(running, CommandKind.REJECT, "bo")
    assert (await result_of(running)).touched == 0
    assert set(world.serving().values()) == {"1.3.0"}


@pytest.mark.sweep
async def test_known_good_can_be_had_at_once_while_another_release_waits(world: World) -> None:
    running = await ask_for(world)
    await until(lambda: is_waiting(running))
    await answer(running, CommandKind.ROLL_BACK, "ana")
    await result_of(running)
    assert set(world.serving().values()) == {"1.1.6"}


@pytest.mark.sweep
async def test_a_second_person_is_asked_through_the_service(real: World, service: ChangeService) -> None:  # noqa: F811
    await promoted(real, service)
    with pytest.raises(Refused, match=r"1\.4\.0 was never known-good here"):
        await service.roll_back(real.fleet, "ana", "users call", to=NEXT)
    done = await service.roll_back(real.fleet, "ana", "users call", to=OLD)
    assert done.accepted  # 1.1.6 is the earlier known-good, so nobody is asked
    await result_of(service._change("edge"))
    waits = await service.roll_back(real.fleet, "ana", "it was not that", to=NEW)
    assert waits.sentence.startswith(
        "Waiting for a second person (1.3.0 is not the known-good of gw-1, gw-2: edge is pinned against 1.3.0"
    )
    with pytest.raises(Conflict, match="takes it to known-good at once"):
        await service.roll_back(real.fleet, "ana", "again", to=NEW)
    status = await answered(lambda: service.status("edge"))
    yes = Command(id="1", kind=CommandKind.APPROVE, person="bo", reason="seen", approves=status.confirm)
    await service.command("edge", yes)
    await result_of(service._change("edge"))
    assert set(real.serving().values()) == {"1.3.0", "1.1.6"}


@pytest.mark.sweep
async def test_a_rollback_with_nothing_to_do_says_so(real: World, service: ChangeService) -> None:  # noqa: F811
    receipt = await service.roll_back(real.fleet, "ana", "just in case")
    assert not receipt.accepted
    assert receipt.sentence == (
        "Nothing to do: no promotion can be taken back: gw-1, gw-2, gw-3, gw-4 serve 1.1.6."
    )


@pytest.mark.sweep
async def test_after_the_kept_window_the_way_back_has_to_be_named(
    real: World,
    service: ChangeService,  # noqa: F811
) -> None:
    await promoted(real, service)
    limits = real.fleet.limits.model_copy(update={"kept": timedelta(0)})
    with pytest.raises(Refused) as refused:
        await service.roll_back(real.fleet.model_copy(update={"limits": limits}), "ana", "late")
    note = "a second operator approves it"
    assert refused.value.offers == (Offer(verb=Verb.ROLL_BACK, fleet="edge", release="1.1.6", note=note),)


@pytest.mark.sweep
async def test_a_rollback_that_cannot_finish_names_every_gateway_and_goes_on(
    real: World,
    service: ChangeService,  # noqa: F811
) -> None:
    await promoted(real, service)
    real.gateways["gw-1"].fail("make_permanent", Refused("gw-1: nft says no"), times=10_000)
    await service.roll_back(real.fleet, "ana", "users call")

    async def is_incomplete() -> bool:
        return (await service.status("edge")).outcome is Outcome.ROLLBACK_INCOMPLETE

    await until(is_incomplete)
    status = await answered(lambda: service.status("edge"))
    assert status.incomplete == ("gw-1: gw-1: nft says no",)
    real.gateways["gw-1"]._failures.clear()
    await result_of(service._change("edge"))
    assert set(real.serving().values()) == {"1.1.6"}


@pytest.mark.sweep
async def test_a_drain_is_found_counted_and_extended_through_the_service(
    real: World,
    service: ChangeService,  # noqa: F811
) -> None:
    fake = real.gateways["gw-1"]
    fake.login("192.0.2.1")
    await promoted(real, service)
    drains = DrainService(real.client, service)

    async def only_gw_1_is_draining() -> bool:
        found = await drains.drains(real.fleet)
        return [slot.gateway for status in found for slot in status.slots] == ["gw-1"]

    await until(lambda: "stop a" in real.gateways["gw-2"].effects)
    await until(only_gw_1_is_draining)
    [status] = await drains.drains(real.fleet)
    assert (status.slots[0].gateway, status.slots[0].sessions) == ("gw-1", 1)
    longer = DrainExtension(id="1", by=timedelta(hours=1), person="ana", reason="a long call")
    with pytest.raises(BadInput, match="edge has no gateway gw-9"):
        await drains.tell(real.fleet, "gw-9", longer)
    [receipt] = await drains.tell(real.fleet, "gw-1", longer)
    assert receipt.accepted
    [after] = await drains.drains(real.fleet)
    assert after.slots[0].deadline == status.slots[0].deadline + timedelta(hours=1)
    fake.uncountable.add("a")
    [unknown] = await drains.drains(real.fleet)
    assert unknown.slots[0].sessions is None
    fake.uncountable.clear()
    fake.logout("192.0.2.1")

    async def is_over() -> bool:
        return not await drains.drains(real.fleet)

    await until(is_over)
    assert "stop a" in fake.effects
    # The first one is answered as it was, for as long as its drain runs.
    another = longer.model_copy(update={"id": "2"})
    with pytest.raises(Conflict, match=r"nothing (is draining|drains) on gw-1"):
        await drains.tell(real.fleet, "gw-1", another)


@pytest.mark.sweep
async def test_a_rollback_ends_the_return_of_single_gateways_and_takes_everybody_back(
    real: World,
    service: ChangeService,  # noqa: F811
) -> None:
    await promoted(real, service)
    lost = real.gateways["gw-1"]
    lost.crash("b")
    lost.serve(OLD, "a")
    lost.fail("restore", Unavailable("gw-1 does not answer"), times=FOR_LONG)
    found = await reconcile(real)
    assert found.sentence == "bringing back: gw-1"
    receipt = await service.roll_back(real.fleet, "ana", "users call")
    assert receipt.accepted
    assert receipt.sentence.startswith(
        "The return of gateways that strayed ends, and the rollback takes them"
    )
    await until(lambda: real.serving()["gw-2"] == "1.1.6")
    lost.recover("restore")
    await until(lambda: set(real.serving().values()) == {"1.1.6"})


@pytest.mark.sweep
async def test_what_was_before_a_promotion_that_stands_is_another_release_which_a_second_person_confirms(
    real: World,
    service: ChangeService,  # noqa: F811
) -> None:
    await promoted(real, service)
    with real.book.engine.begin() as connection:
        connection.execute(update(tables.known_good).values(since=datetime.now(UTC) - timedelta(days=2)))
    with pytest.raises(Refused, match="name the release to go back to; a second operator approves it"):
        await service.roll_back(real.fleet, "ana", "users call")
    receipt = await service.roll_back(real.fleet, "ana", "users call", to=OLD)
    assert receipt.sentence.startswith("Waiting for a second person (1.1.6 is not the known-good of gw-1")


@pytest.mark.sweep
async def test_root_alone_is_refused_with_what_to_write_and_goes_back_once_it_is_written(
    real: World,
    service: ChangeService,  # noqa: F811
) -> None:
    """The refusal named nothing that root could do, who was the only person there."""
    await promoted(real, service)
    with real.book.engine.begin() as connection:
        connection.execute(update(tables.known_good).values(since=datetime.now(UTC) - timedelta(days=2)))
    written = r"write `rollback: \{confirm_other_release: false\}` into the file of edge and repeat this"
    with pytest.raises(NotAllowed, match=written):
        await service.roll_back(real.fleet, ROOT, "users call", to=OLD)
    rules = RollbackRules(confirm_other_release=False)
    alone = real.fleet.model_copy(update={"rollback": rules})
    with pytest.raises(Refused, match=r"name the release to go back to$"):
        await service.roll_back(alone, ROOT, "users call")
    assert (await service.roll_back(alone, ROOT, "users call", to=OLD)).accepted
    await until(lambda: set(real.serving().values()) == {"1.1.6"})
