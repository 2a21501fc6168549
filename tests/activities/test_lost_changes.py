"""A lost change ends once each of its gateways reports that it is back, or a return brings it back (R1, R7).

A change is lost when its workflow is gone and its row in the ledger has no end. It may wait for one dead
gateway for days, and then touches no gateway that has reported that it is back.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.testing import ActivityEnvironment

from activities.facts import NAMED, FactActivities, LeftAlone, ReturnQuery, Strays, TriesEntry
from activities.ledger import LedgerActivities, OthersEntry
from activities.taken_over import taken_over
from policies.model.change import (
    PENSTOCK,
    ChangeEnding,
    ChangeKind,
    ChangeOpening,
    ChangeOrder,
    ChangeRecord,
    GatewayResult,
    KnownGoodBatch,
    Outcome,
    Quarantine,
    RollbackTargets,
)
from policies.model.fleet import Fleet
from policies.model.instance import GatewayState
from policies.model.plan import ReleaseRef
from policies.model.report import TakenOver
from policies.planning.cohorts import BEGUN, KEPT
from policies.rollback import rollback_targets
from policies.status.told import Told
from tests.fakes.control import FakeFleets, ObservedLedger
from tests.unit.fleets import NEW, OLD, facts_of, planned, release, state

ALL = frozenset(f"gw-{number}" for number in range(1, 7))
OLDER = release("1.0.9")
EARLIER = timedelta(minutes=12)
"""Before the upgrade: reconcile asks 10,000 gateways in turns."""


@dataclass
class Lost:
    """Six gateways, an upgrade that died on them, and the return that has the fleet's lock now."""

    ledger: ObservedLedger
    fleet: Fleet
    plan: str
    upgrade: str
    back: str = ""

    @property
    def facts(self) -> FactActivities:
        return FactActivities(self.ledger, FakeFleets(self.fleet))

    def open(self, kind: ChangeKind, key: str, plan: str | None = None) -> str:
        opening = ChangeOpening(
            key=key,
            fleet="edge",
            kind=kind,
            requested_by=PENSTOCK,
            reason="r",
            release="known-good",
            plan=plan,
        )
        return self.ledger.open_change(opening)

    def begin_return(self) -> None:
        self.back = self.open(ChangeKind.GO_BACK, "back")

    def report(self, *names: str, ago: timedelta = timedelta(0)) -> None:
        """Have these gateways report that they are on their known-good."""
        asked = datetime.now(UTC) - ago
        self.ledger.record_states("edge", [state(name) for name in names], {}, dict.fromkeys(names, asked))

    def fall_silent(self, *names: str) -> None:
        self.ledger.record_states("edge", [], dict.fromkeys(names, "does not answer"))

    async def planned(self, locked: datetime | None = None) -> LeftAlone | None:
        """Return what the return finds; `locked` is since when it has the fleet's lock."""
        environment = ActivityEnvironment()
        environment.info = replace(environment.info, started_time=datetime.now(UTC))
        asked = ReturnQuery(fleet="edge", change=self.back, locked=locked)
        return await environment.run(self.facts.plan_return, asked)

    async def found(self) -> Strays:
        return await ActivityEnvironment().run(self.facts.find_strays, "edge")

    async def tried(self, *names: str) -> None:
        """Have the return begin with these gateways, long enough ago that they may be tried again."""
        entry = TriesEntry(fleet="edge", change=self.back, gateways=dict.fromkeys(names, False))
        await ActivityEnvironment().run(self.facts.record_tries, entry)

    async def closed(self, found: LeftAlone | None) -> ChangeRecord:
        """Return the upgrade after the return has brought all of its plan back."""
        completes = found.completes if found is not None else ()
        entry = OthersEntry(fleet="edge", change=self.back, completes=completes)
        await ActivityEnvironment().run(LedgerActivities(self.ledger).close_others, entry)
        return self.ledger.change(self.upgrade)

    def members(self, found: LeftAlone | None) -> frozenset[str]:
        if found is None or found.plan is None:
            return frozenset()
        return frozenset(self.ledger.plan_members(found.plan))


@pytest.fixture
def lost(url: str) -> Lost:
    """All gateways reported before an upgrade that kept its release on each of them and died."""
    facts, ledger = facts_of(len(ALL)), ObservedLedger(url)
    fleet, states, _ = facts
    ledger.begin("edge", OLD, states)
    plan = ledger.record_plan(planned(facts))
    lost = Lost(ledger, fleet, plan, "")
    lost.report(*ALL, ago=EARLIER)
    lost.upgrade = lost.open(ChangeKind.UPGRADE, "upgrade", plan)
    now = datetime.now(UTC)
    kept = [
        GatewayResult(gateway=name, wave=1, state=KEPT, slot="b", started=1.0, at=now) for name in sorted(ALL)
    ]
    ledger.record_gateways(lost.upgrade, kept)
    return lost


async def test_a_return_takes_gateways_along_that_were_not_asked_since_a_dead_upgrade_changed_them(
    lost: Lost,
) -> None:
    """A return asks for 25 seconds; five of these were counted as back by what they had reported before."""
    lost.begin_return()
    lost.ledger.record_states("edge", [state("gw-1", on=NEW)], {})
    found = await lost.planned()
    assert found is not None
    assert (lost.members(found), found.completes) == (ALL, (lost.upgrade,))
    assert (await lost.closed(found)).outcome is Outcome.ROLLED_BACK


async def test_no_change_is_completed_by_a_return_that_names_none(lost: Lost) -> None:
    lost.begin_return()
    assert (await lost.closed(None)).outcome is None


async def test_a_gateway_that_has_reported_since_that_it_is_back_is_not_brought_back_again(
    lost: Lost,
) -> None:
    lost.begin_return()
    lost.report("gw-1", "gw-2", "gw-3", "gw-4")
    found = await lost.planned()
    assert lost.members(found) == {"gw-5", "gw-6"}
    lost.report("gw-5", "gw-6")
    found = await lost.planned()
    assert lost.members(found) == frozenset()
    assert (await lost.closed(found)).sentence.endswith(f"{lost.back} brought its gateways back")


async def test_reports_count_from_the_moment_on_at_which_a_return_has_the_lock(lost: Lost) -> None:
    """A return asks its fleet before it has a name; the upgrade cannot change a gateway after that."""
    locked = datetime.now(UTC) - timedelta(seconds=1)
    lost.report(*ALL)
    lost.begin_return()
    assert lost.members(await lost.planned(locked)) == frozenset()
    assert lost.members(await lost.planned(datetime.now(UTC))) == ALL


async def test_a_report_after_a_batch_began_and_before_its_upgrade_died_is_no_evidence(lost: Lost) -> None:
    """A batch records its gateways before it steers them."""
    begun = GatewayResult(gateway="gw-1", wave=1, state=BEGUN, at=datetime.now(UTC))
    lost.ledger.record_gateways(lost.upgrade, [begun])
    lost.report(*ALL)
    lost.begin_return()
    assert "gw-1" in lost.members(await lost.planned())


async def test_a_silent_gateway_is_tried_once_and_then_keeps_the_upgrade_open_until_it_answers(
    lost: Lost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("policies.returns.pause_after", lambda tries: timedelta(0))
    lost.begin_return()
    lost.report(*ALL - {"gw-3"})
    lost.fall_silent("gw-3")
    assert lost.members(await lost.planned()) == {"gw-3"}
    await lost.tried("gw-3")
    found, strays = await lost.planned(), await lost.found()
    why = f"has not reported since {lost.upgrade} changed it; it is brought back once it answers"
    assert found is not None
    assert (found.plan, found.is_awaited, found.awaited, found.completes) == (None, True, {"gw-3": why}, ())
    assert (await lost.closed(found)).outcome is None
    assert (strays.strays, strays.resting) == ({}, {"gw-3": why})
    lost.report("gw-3")
    found = await lost.planned()
    assert (await lost.closed(found)).outcome is Outcome.ROLLED_BACK


async def test_a_change_without_an_end_rests_only_where_each_such_change_waits_for_a_gateway(
    lost: Lost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade that dies later was never closed while an earlier one waited."""
    monkeypatch.setattr("policies.returns.pause_after", lambda tries: timedelta(0))
    lost.begin_return()
    lost.report(*ALL - {"gw-3"})
    lost.fall_silent("gw-3")
    await lost.tried("gw-3")
    lost.ledger.close_change(_ended(lost.back))
    assert (await lost.found()).is_awaited
    later = lost.open(ChangeKind.UPGRADE, "later", lost.plan)
    assert not (await lost.found()).is_awaited
    lost.back = lost.open(ChangeKind.GO_BACK, "again")
    found = await lost.planned()
    assert found is not None
    assert (found.completes, found.is_awaited) == ((later,), True)
    assert (await lost.closed(found)).outcome is None
    assert lost.ledger.change(later).outcome is Outcome.ROLLED_BACK


async def test_many_silent_gateways_are_counted_and_the_first_of_them_named(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("policies.returns.pause_after", lambda tries: timedelta(0))
    facts, ledger = facts_of(NAMED + 3), ObservedLedger(url)
    fleet, states, _ = facts
    ledger.begin("edge", OLD, states)
    lost = Lost(ledger, fleet, ledger.record_plan(planned(facts)), "")
    lost.upgrade = lost.open(ChangeKind.UPGRADE, "upgrade", lost.plan)
    at = datetime.now(UTC)
    ledger.record_gateways(lost.upgrade, [GatewayResult(gateway=one, state=BEGUN, at=at) for one in states])
    lost.begin_return()
    lost.fall_silent(*states)
    await lost.tried(*states)
    found, strays = await lost.planned(), await lost.found()
    assert found is not None
    assert (len(found.awaited), found.more_awaited) == (NAMED, 3)
    assert (len(strays.resting), strays.more_resting) == (NAMED, 3)


async def test_a_gateway_that_an_operator_left_out_or_that_left_the_file_keeps_no_upgrade_open(
    lost: Lost,
) -> None:
    lost.begin_return()
    lost.report("gw-1", "gw-2", "gw-3", "gw-4")
    lost.fall_silent("gw-5", "gw-6")
    out = Quarantine(fleet="edge", gateway="gw-5", reason="its disk", person="ana", since=datetime.now(UTC))
    lost.ledger.set_quarantine(out)
    there = tuple(gateway for gateway in lost.fleet.gateways if gateway.name != "gw-6")
    lost.fleet = lost.fleet.model_copy(update={"gateways": there})
    found = await lost.planned()
    assert lost.members(found) == frozenset()
    assert (await lost.closed(found)).outcome is not None


async def test_a_dead_upgrade_is_not_rolled_back_while_a_gateway_in_quarantine_may_serve_its_release(
    lost: Lost,
) -> None:
    """It was closed as rolled back. One in quarantine that has reported its known-good since is back."""
    for name in ("gw-5", "gw-6"):
        since = datetime.now(UTC)
        lost.ledger.set_quarantine(
            Quarantine(fleet="edge", gateway=name, reason="its disk", person="ana", since=since)
        )
    lost.begin_return()
    lost.report("gw-1", "gw-2", "gw-3", "gw-4", "gw-6")
    lost.ledger.record_states("edge", [state("gw-5", on=NEW)], {})
    ended = await lost.closed(await lost.planned())
    assert ended.outcome is Outcome.ROLLBACK_INCOMPLETE
    assert ended.sentence.endswith("; not back: gw-5: in quarantine by ana: its disk")


async def test_a_dead_upgrade_whose_rollback_left_a_gateway_is_not_rolled_back(lost: Lost) -> None:
    lost.begin_return()
    lost.report("gw-1", "gw-2", "gw-3", "gw-4", "gw-5")
    entry = OthersEntry(fleet="edge", change=lost.back, completes=(lost.upgrade,), all_back=False)
    await ActivityEnvironment().run(LedgerActivities(lost.ledger).close_others, entry)
    ended = lost.ledger.change(lost.upgrade)
    assert ended.outcome is Outcome.ROLLBACK_INCOMPLETE
    assert ended.sentence.endswith("; not back: gw-6: it has not reported that it is back")


async def test_a_dead_rollback_that_ended_without_a_gateway_is_complete_once_that_is_back(lost: Lost) -> None:
    """It was called incomplete for good, and the next rollback was spent on completing it."""
    ledger, two = lost.ledger, ("gw-1", "gw-2")
    ledger.record_known_good_batch(
        KnownGoodBatch(fleet="edge", change=lost.upgrade, releases=dict.fromkeys(two, NEW))
    )
    ledger.close_change(ChangeEnding(change=lost.upgrade, outcome=Outcome.PROMOTED, sentence="it was"))
    plan = ledger.record_return(lost.fleet, dict.fromkeys(two, OLD))
    lost.upgrade = rollback = lost.open(ChangeKind.GO_BACK, "rollback", plan)
    back = KnownGoodBatch(fleet="edge", change=rollback, releases=dict.fromkeys(two, OLD), back=True)
    ledger.record_known_good_batch(back)
    ledger.set_quarantine(
        Quarantine(fleet="edge", gateway="gw-2", reason="its disk", person="ana", since=datetime.now(UTC))
    )
    lost.begin_return()
    lost.report("gw-1")
    assert (await lost.closed(await lost.planned())).outcome is Outcome.ROLLBACK_INCOMPLETE
    ledger.close_change(_ended(lost.back))
    ledger.clear_quarantines("edge", ["gw-2"], "ana", "it has power")
    ledger.record_states("edge", [state(name, on=OLD) for name in ALL], {})
    await lost.found()
    assert ledger.change(rollback).outcome is Outcome.ROLLED_BACK


async def test_a_promotion_of_which_only_the_end_is_missing_waits_for_no_report(lost: Lost) -> None:
    releases = dict.fromkeys(sorted(ALL), NEW)
    batch = KnownGoodBatch(fleet="edge", change=lost.upgrade, releases=releases)
    lost.ledger.record_known_good_batch(batch)
    lost.begin_return()
    lost.fall_silent(*ALL)
    found = await lost.planned()
    assert lost.members(found) == frozenset()
    assert (await lost.closed(found)).outcome is Outcome.PROMOTED


async def test_a_dead_rollback_ends_only_once_its_silent_gateway_has_reported_since_it_began(
    lost: Lost,
) -> None:
    """What came back during the rollback has reported that, and is not brought back again."""
    lost.ledger.close_change(_ended(lost.upgrade))
    lost.upgrade = lost.open(ChangeKind.GO_BACK, "rollback", lost.plan)
    lost.report("gw-1", "gw-2", "gw-3", "gw-4", "gw-5")
    lost.begin_return()
    found = await lost.planned()
    assert lost.members(found) == {"gw-6"}
    assert (await lost.closed(found)).outcome is Outcome.ROLLED_BACK


async def test_a_gateway_that_falls_silent_after_it_has_reported_that_it_is_back_keeps_no_upgrade_open(
    lost: Lost,
) -> None:
    lost.begin_return()
    lost.report(*ALL)
    lost.fall_silent("gw-3", "gw-4")
    found = await lost.planned()
    assert lost.members(found) == frozenset()
    assert (await lost.closed(found)).outcome is Outcome.ROLLED_BACK


async def test_answers_of_a_clock_that_was_ahead_end_no_dead_upgrade(lost: Lost) -> None:
    """R8: no gateway had reported since the upgrade, and it was closed as rolled back."""
    lost.report(*ALL, ago=-timedelta(minutes=20))
    lost.begin_return()
    assert lost.members(await lost.planned()) == ALL
    entry = OthersEntry(fleet="edge", change=lost.back, completes=(lost.upgrade,), all_back=False)
    await ActivityEnvironment().run(LedgerActivities(lost.ledger).close_others, entry)
    assert lost.ledger.change(lost.upgrade).outcome is Outcome.ROLLBACK_INCOMPLETE


async def waits_for_one(lost: Lost) -> None:
    """Have the upgrade wait for gw-6, which is dead; the others have reported that they are back."""
    lost.begin_return()
    lost.report(*ALL - {"gw-6"})
    lost.fall_silent("gw-6")
    await lost.tried("gw-6")
    found = await lost.planned()
    assert (await lost.closed(found)).outcome is None
    lost.ledger.close_change(_ended(lost.back))


async def test_operators_are_paged_about_gateways_on_another_release_while_a_lost_upgrade_waits_for_one(
    lost: Lost,
) -> None:
    """R7: they were not, for days. While a change is under way it looks after its gateways."""
    await waits_for_one(lost)
    lost.ledger.record_states("edge", [state("gw-1", on=NEW), state("gw-2", on=NEW)], {})
    assert lost.ledger.gateways_astray() == {"edge": ("gw-1", "gw-2")}
    again = lost.open(ChangeKind.GO_BACK, "again")
    assert lost.ledger.gateways_astray() == {}
    lost.ledger.close_change(_ended(again))
    assert lost.ledger.gateways_astray() == {"edge": ("gw-1", "gw-2")}


async def test_a_change_that_waits_is_offered_returns_and_reloads_while_a_lost_upgrade_waits_for_a_gateway(
    lost: Lost,
) -> None:
    """The upgrade died amid a wave, and removed users stayed let in until its dead gateway answered."""
    order = ChangeOrder(fleet="edge", kind=ChangeKind.UPGRADE, key="upgrade", plan=lost.plan, reason="r")
    lost.ledger.record_story(order, Told(name=lost.upgrade, in_wave=True, begun=2), 0, ())
    assert (await lost.found()).lets_nothing_in
    await waits_for_one(lost)
    lost.open(ChangeKind.UPGRADE, "next", lost.plan)
    lost.ledger.record_states("edge", [state("gw-1", on=NEW), state("gw-6", on=NEW)], {})
    found = await lost.found()
    assert (found.lets_nothing_in, found.untouched) == (False, ("gw-1",))
    assert ({*found.strays}, {*found.resting}) == ({"gw-1"}, {"gw-6"})


async def test_a_gateway_that_leaves_its_known_good_rests_and_is_counted_while_a_lost_upgrade_waits(
    lost: Lost,
) -> None:
    """It was brought back in every minute with the fleet's lock, for as long as another one was dead."""
    await waits_for_one(lost)
    lost.ledger.record_states("edge", [state("gw-1", on=NEW)], {})
    assert lost.ledger.touched_by_open_changes("edge") == {"gw-6"}
    lost.back = lost.open(ChangeKind.GO_BACK, "again")
    found = await lost.planned()
    assert found is not None
    assert found.plan is not None
    member = lost.ledger.plan_members(found.plan)["gw-1"]
    entry = TriesEntry(fleet="edge", change=lost.back, gateways={"gw-1": member.drifted})
    await ActivityEnvironment().run(lost.facts.record_tries, entry)
    lost.ledger.record_known_good_batch(
        KnownGoodBatch(fleet="edge", change=lost.back, releases={"gw-1": OLD}, back=True)
    )
    lost.ledger.clear_quarantines("edge", ["gw-1"], PENSTOCK, "it is back")
    lost.ledger.close_change(_ended(lost.back))
    lost.ledger.record_states("edge", [state("gw-1", on=NEW)], {})
    strays = await lost.found()
    assert ("gw-1" in strays.resting, "gw-1" in strays.strays) == (True, False)
    assert lost.ledger.returns("edge")["gw-1"].relapses == 1


def beside(name: str, release: ReleaseRef) -> GatewayState:
    """Return a gateway on its known-good, on which an instance of that release drains."""
    serves = state(name, draining=5)
    first, other = serves.instances
    other = other.model_copy(update={"release": release.digest, "executable": release.executable})
    return serves.model_copy(update={"instances": (first, other)})


async def test_a_return_leaves_drains_alone_that_a_lost_upgrade_has_not_begun(lost: Lost) -> None:
    """Users of an older instance leave over hours, and each return gave that drain a new deadline."""
    await waits_for_one(lost)
    drains = [beside(f"gw-{number}", OLDER) for number in (2, 3, 4)]
    lost.ledger.record_states("edge", [*drains, state("gw-1", on=NEW)], {})
    lost.back = lost.open(ChangeKind.GO_BACK, "again")
    assert lost.members(await lost.planned()) == {"gw-1"}


async def test_the_first_return_alone_empties_the_instances_that_a_lost_upgrade_left_running(
    lost: Lost,
) -> None:
    lost.begin_return()
    lost.report(*ALL - {"gw-6"})
    lost.ledger.record_states("edge", [beside("gw-2", NEW)], {"gw-6": "does not answer"})
    assert lost.members(await lost.planned()) == {"gw-2", "gw-6"}
    await lost.tried("gw-2", "gw-6")
    lost.ledger.close_change(_ended(lost.back))
    lost.ledger.record_states("edge", [state("gw-1", on=NEW)], {})
    lost.back = lost.open(ChangeKind.GO_BACK, "again")
    assert lost.members(await lost.planned()) == {"gw-1"}


async def test_a_bake_judges_a_gateway_that_falls_silent_after_it_was_back_from_a_lost_upgrade(
    lost: Lost,
) -> None:
    """R7: its agent stops, and its daemon and its exporter go on."""
    order = ChangeOrder(fleet="edge", kind=ChangeKind.UPGRADE, key="upgrade", plan=lost.plan, reason="r")
    lost.ledger.record_story(order, Told(name=lost.upgrade, begun=9), 0, ())
    await waits_for_one(lost)
    left_to = TakenOver(change=lost.upgrade)
    assert taken_over(lost.ledger, left_to).now == {"gw-6"}
    lost.fall_silent("gw-1")
    assert taken_over(lost.ledger, left_to).now == {"gw-6"}


async def test_known_good_that_a_dead_upgrade_has_moved_itself_is_no_sign_that_a_gateway_is_back(
    lost: Lost,
) -> None:
    lost.ledger.record_known_good_batch(
        KnownGoodBatch(fleet="edge", change=lost.upgrade, releases={"gw-1": NEW})
    )
    lost.begin_return()
    lost.report(*ALL - {"gw-1"})
    lost.ledger.record_states("edge", [state("gw-1", on=NEW)], {})
    assert lost.ledger.touched_by_open_changes("edge") == {"gw-1"}
    lost.fall_silent("gw-1")
    for change in (lost.back, lost.open(ChangeKind.GO_BACK, "again")):
        back = KnownGoodBatch(fleet="edge", change=change, releases={"gw-1": OLD}, back=True)
        lost.ledger.record_known_good_batch(back)
        assert lost.ledger.touched_by_open_changes("edge") == {"gw-1"}
    lost.report("gw-1")
    assert lost.ledger.touched_by_open_changes("edge") == frozenset()


async def test_a_rollback_takes_a_promotion_back_from_which_a_dead_upgrade_has_each_gateway_back(
    url: str,
) -> None:
    """R1: gw-6 has been back and is dead now. The upgrade stayed open, and a rollback moved no gateway."""
    lost = upgrade_over_a_promotion(url)
    now = datetime.now(UTC)
    lost.ledger.record_states("edge", [state(name, on=NEW) for name in ALL], {}, dict.fromkeys(ALL, now))
    lost.fall_silent("gw-6")
    await lost.tried("gw-6")
    assert (await lost.closed(await lost.planned())).outcome is Outcome.ROLLED_BACK
    lost.ledger.close_change(_ended(lost.back))
    assert back_by_rollback(lost).targets == dict.fromkeys(sorted(ALL), OLD)


async def test_a_rollback_of_a_dead_upgrade_that_waits_for_a_gateway_names_the_one_that_goes_further(
    url: str,
) -> None:
    """A gateway that has not reported since may serve the upgrade's release, which is taken back first."""
    lost = upgrade_over_a_promotion(url)
    others = sorted(ALL - {"gw-6"})
    now = datetime.now(UTC)
    lost.ledger.record_states("edge", [state(one, on=NEW) for one in others], {}, dict.fromkeys(others, now))
    lost.fall_silent("gw-6")
    await lost.tried("gw-6")
    assert (await lost.closed(await lost.planned())).outcome is None
    lost.ledger.close_change(_ended(lost.back))
    found = back_by_rollback(lost)
    assert found.targets == dict.fromkeys(sorted(ALL), NEW)
    assert f"one by name (--to {OLD.version}) does so at once" in found.sentence


def upgrade_over_a_promotion(url: str) -> Lost:
    """Return a return that has the lock after an upgrade died on six gateways whose known-good is NEW."""
    facts, ledger = facts_of(len(ALL)), ObservedLedger(url)
    fleet, states, _ = facts
    ledger.begin("edge", OLD, states)
    lost = Lost(ledger, fleet, ledger.record_plan(planned(facts)), "")
    promoted = lost.open(ChangeKind.UPGRADE, "promoted", lost.plan)
    releases = dict.fromkeys(sorted(ALL), NEW)
    ledger.record_known_good_batch(KnownGoodBatch(fleet="edge", change=promoted, releases=releases))
    ledger.close_change(ChangeEnding(change=promoted, outcome=Outcome.PROMOTED, sentence="promoted"))
    lost.upgrade = lost.open(ChangeKind.UPGRADE, "upgrade", lost.plan)
    at = datetime.now(UTC)
    ledger.record_gateways(
        lost.upgrade,
        [GatewayResult(gateway=one, wave=1, state=KEPT, slot="b", started=1.0, at=at) for one in sorted(ALL)],
    )
    lost.begin_return()
    return lost


def back_by_rollback(lost: Lost) -> RollbackTargets:
    """Return what a rollback without a name takes back."""
    unfinished, moves = lost.ledger.unfinished_change("edge"), lost.ledger.moves("edge")
    return rollback_targets(moves, unfinished, timedelta(hours=24), datetime.now(UTC))


def _ended(change: str) -> ChangeEnding:
    return ChangeEnding(change=change, outcome=Outcome.ROLLED_BACK, sentence="it is back")
