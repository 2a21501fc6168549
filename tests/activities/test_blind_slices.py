"""A slice without metrics names who is silent besides, and who is left out is compared with nobody."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from temporalio.testing import ActivityEnvironment

from activities.observation import ObservationActivities, ObservationOrder, ObservationSlice
from activities.watching import WatchActivities, WatchSlice
from orchestrator.store.ledger import Ledger
from policies.model.change import (
    PENSTOCK,
    ChangeEnding,
    ChangeKind,
    ChangeOpening,
    ChangeOrder,
    GatewayResult,
    KnownGoodBatch,
    Outcome,
    Phase,
    Quarantine,
)
from policies.model.report import TakenOver
from policies.model.verdict import Action, Decision, GateVerdict
from policies.status.told import Told
from tests.fakes.ledgers import new_ledger
from tests.unit.fleets import NEW, OLD, facts_of, planned, state

EVERY_WAVE = 9
"""At least as many as the plans here have."""

BLIND = Decision(
    action=Action.HOLD,
    verdict=GateVerdict.METRICS_UNAVAILABLE,
    reason="vpngw_first_attempts_total is fresh on only 1 control gateways",
)


class Blind(ObservationActivities):
    """Sees nothing, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[ObservationOrder] = []
        self.decision = BLIND

    async def observe_slice(self, order: ObservationOrder) -> ObservationSlice:
        self.asked.append(order)
        nothing = timedelta(0)
        return ObservationSlice(state="", decision=self.decision, observed=nothing, wall=nothing, ticks=1)


async def test_a_hold_without_metrics_names_the_dead_gateway_until_it_is_left_out(tmp_path: Path) -> None:
    """Newcomer 6."""
    ledger = Ledger.open(new_ledger(tmp_path / "ledger.db"))
    facts = facts_of(4)
    plan = planned(facts)
    order: dict[str, str] = {"fleet": "edge", "requested_by": "ana", "reason": "CVE"}
    change = ledger.open_change(ChangeOpening(key="one", kind=ChangeKind.UPGRADE, release="1.3.0", **order))
    first = plan.waves[0].gateways[0]
    now = datetime.now(UTC)
    on_trial = GatewayResult(
        gateway=first, wave=1, state="on trial", slot="b", started=now.timestamp(), at=now
    )
    ledger.record_gateways(change, (on_trial,))
    dead = next(name for name in sorted(plan.wave_of) if plan.wave_of[name] > 1)
    ledger.record_states("edge", [], {dead: "no power"})
    observation = Blind()
    watch = WatchActivities(ledger, observation).watch_wave
    asked = WatchSlice(change=change, plan=ledger.record_plan(plan), wave=1)
    found = await ActivityEnvironment().run(watch, asked)
    assert found.decision.silent == (dead,)
    assert found.decision.reason == f"{BLIND.reason}; {dead} does not answer its agent either"
    ledger.set_quarantine(
        Quarantine(fleet="edge", gateway=dead, reason="no power", person="ana", since=datetime.now(UTC))
    )
    found = await ActivityEnvironment().run(watch, asked)
    target = plan.fleet.gateway(dead).metrics_target
    assert [target in one.cohorts.control for one in observation.asked] == [True, False]
    assert found.decision == BLIND


async def test_a_bake_whose_gateways_are_all_left_out_says_so_and_reads_nothing(tmp_path: Path) -> None:
    ledger = Ledger.open(new_ledger(tmp_path / "ledger.db"))
    plan = planned(facts_of(4))
    order: dict[str, str] = {"fleet": "edge", "requested_by": "ana", "reason": "CVE"}
    change = ledger.open_change(ChangeOpening(key="one", kind=ChangeKind.UPGRADE, release="1.3.0", **order))
    only = plan.waves[0].gateways[0]
    now = datetime.now(UTC)
    kept = GatewayResult(gateway=only, wave=1, state="kept", slot="b", started=now.timestamp(), at=now)
    ledger.record_gateways(change, (kept,))
    ledger.set_quarantine(Quarantine(fleet="edge", gateway=only, reason="no power", person="ana", since=now))
    observation = Blind()
    asked = WatchSlice(change=change, plan=ledger.record_plan(plan), wave=0, complete=True)
    found = await ActivityEnvironment().run(WatchActivities(ledger, observation).watch_wave, asked)
    assert (found.over, found.ticks, observation.asked) == (False, 0, [])
    assert (
        found.decision.reason
        == "no gateway that keeps the release is known yet, or each is left out of changes"
    )


def two_upgrades(ledger: Ledger) -> tuple[WatchSlice, str, list[str]]:
    """Return what the bake of a promotion asks, the next upgrade of its gateways, and these in two waves."""
    plan = planned(facts_of(4))
    digest = ledger.record_plan(plan)
    order: dict[str, str] = {"fleet": "edge", "requested_by": "ana", "reason": "CVE"}
    change = ledger.open_change(
        ChangeOpening(key="one", kind=ChangeKind.UPGRADE, release="1.3.0", plan=digest, **order)
    )
    names = sorted(plan.wave_of, key=lambda name: (plan.wave_of[name], name))
    now = datetime.now(UTC)
    ledger.record_gateways(
        change,
        tuple(
            GatewayResult(
                gateway=name, wave=plan.wave_of[name], state="kept", slot="b", started=now.timestamp(), at=now
            )
            for name in names
        ),
    )
    known_good = KnownGoodBatch(fleet="edge", change=change, releases=dict.fromkeys(names, NEW))
    ledger.record_known_good_batch(known_good)
    following = ledger.open_change(
        ChangeOpening(key="two", kind=ChangeKind.UPGRADE, release="1.4.0", plan=digest, **order)
    )
    return WatchSlice(change=change, plan=digest, wave=0, complete=True), following, names


def left_to_the_next(ledger: Ledger, up_to: int | None = None) -> tuple[WatchSlice, str, list[str]]:
    """Return the same for a bake that has left its gateways to the next upgrade, up to that wave."""
    asked, following, names = two_upgrades(ledger)
    left_to = TakenOver(change=following, up_to=up_to)
    return asked.model_copy(update={"left_to": left_to}), following, names


async def test_a_bake_leaves_to_the_next_upgrade_what_its_waves_have_reached_until_that_ends(
    tmp_path: Path,
) -> None:
    """R7: gateways of its later waves, and of other plans, are watched on."""
    ledger, observation = Ledger.open(new_ledger(tmp_path / "ledger.db")), Blind()
    asked, following, _ = two_upgrades(ledger)
    plan = ledger.plan(asked.plan)
    watch = WatchActivities(ledger, observation).watch_wave
    first = TakenOver(change=following, up_to=1)
    await ActivityEnvironment().run(watch, asked.model_copy(update={"left_to": first}))
    everybody = {plan.fleet.gateway(name).metrics_target for name in plan.wave_of}
    reached = {plan.fleet.gateway(name).metrics_target for name in plan.waves[0].gateways}
    assert {*observation.asked[-1].cohorts.canary} == everybody - reached
    ledger.close_change(ChangeEnding(change=following, outcome=Outcome.ROLLED_BACK, sentence="it went back"))
    await ActivityEnvironment().run(watch, asked.model_copy(update={"left_to": first}))
    assert {*observation.asked[-1].cohorts.canary} == everybody


async def test_a_bake_watches_again_what_the_next_upgrade_has_brought_back(tmp_path: Path) -> None:
    """R3, R7: a rollback that waits for a dead host kept every gateway of its waves from it, for days."""
    ledger, observation = Ledger.open(new_ledger(tmp_path / "ledger.db")), Blind()
    asked, following, names = left_to_the_next(ledger)
    goes_back = Told(name=following, phase=Phase.ROLLING_BACK, begun=EVERY_WAVE)
    waits = goes_back.model_copy(update={"only_waits": True, "not_back": {names[0]: "no power"}})
    assert await watched_by(ledger, observation, asked, goes_back) == set()
    assert await watched_by(ledger, observation, asked, waits) == {*names[1:]}


async def test_a_bake_watches_none_of_many_gateways_that_are_not_back_before_it_knows_each_of_them(
    tmp_path: Path,
) -> None:
    """A change names only the first of them, and the others may run the release that failed."""
    ledger, observation = Ledger.open(new_ledger(tmp_path / "ledger.db")), Blind()
    asked, following, names = left_to_the_next(ledger)
    told = Told(
        name=following,
        phase=Phase.ROLLING_BACK,
        begun=EVERY_WAVE,
        only_waits=True,
        not_back={names[0]: "no power"},
        more_not_back=1,
    )
    assert await watched_by(ledger, observation, asked, told) == set()
    quarantine = Quarantine(
        fleet="edge", gateway=names[1], reason="no power", person=PENSTOCK, since=datetime.now(UTC)
    )
    ledger.set_quarantine(quarantine)
    assert await watched_by(ledger, observation, asked, told) == {*names[2:]}


async def test_a_bake_that_begins_anew_watches_the_waves_that_the_next_upgrade_has_not_begun(
    tmp_path: Path,
) -> None:
    """R7: it left every gateway to that upgrade until its next wave began, perhaps for days."""
    ledger, observation = Ledger.open(new_ledger(tmp_path / "ledger.db")), Blind()
    asked, following, names = left_to_the_next(ledger)
    reached = set(ledger.plan(asked.plan).waves[0].gateways)
    told = Told(name=following, phase=Phase.OBSERVING, begun=1)
    assert await watched_by(ledger, observation, asked, told) == {*names} - reached


async def test_a_bake_watches_again_what_is_back_after_the_next_upgrade_died(tmp_path: Path) -> None:
    """R3, R7: it has no end before its last gateway is back, and nothing of its waves was watched."""
    ledger, observation = Ledger.open(new_ledger(tmp_path / "ledger.db")), Blind()
    asked, following, names = left_to_the_next(ledger, EVERY_WAVE)
    told = Told(name=following, phase=Phase.OBSERVING, begun=EVERY_WAVE)
    ledger.record_states("edge", [state(name, on=NEW) for name in names], {})  # before anything was switched
    assert await watched_by(ledger, observation, asked, told) == set()
    rollback(ledger, "three")
    assert await watched_by(ledger, observation, asked, told) == set()
    first, second, *others = names
    ledger.record_states("edge", [state(first, on=NEW), state(second, on=OLD)], dict.fromkeys(others, "dead"))
    assert await watched_by(ledger, observation, asked, told) == {first}
    ledger.record_states("edge", [state(name, on=NEW) for name in others], {})
    assert await watched_by(ledger, observation, asked, told) == {first, *others}


async def test_a_bake_watches_while_no_agent_answers_what_is_back_after_the_next_upgrade_died(
    tmp_path: Path,
) -> None:
    """R7: the relay is down. A dead host kept that upgrade open, and the bake watched no gateway."""
    ledger, observation = Ledger.open(new_ledger(tmp_path / "ledger.db")), Blind()
    asked, following, names = left_to_the_next(ledger)
    told = Told(name=following, phase=Phase.OBSERVING, begun=EVERY_WAVE)
    rollback(ledger, "three")
    dead, *others = names
    ledger.record_states("edge", [state(name, on=NEW) for name in others], {dead: "no power"})
    ledger.record_states("edge", [], dict.fromkeys(names, "its agent does not answer"))
    assert await watched_by(ledger, observation, asked, told) == {*others}
    found = await ActivityEnvironment().run(WatchActivities(ledger, observation).watch_wave, asked)
    assert found.decision.verdict is GateVerdict.METRICS_UNAVAILABLE


async def test_a_bake_watches_a_gateway_that_falls_silent_after_a_rollback_by_force_brought_it_back(
    tmp_path: Path,
) -> None:
    ledger, observation = Ledger.open(new_ledger(tmp_path / "ledger.db")), Blind()
    asked, following, names = left_to_the_next(ledger)
    told = Told(name=following, phase=Phase.OBSERVING, begun=EVERY_WAVE)
    name = rollback(ledger, "three", asked.plan)
    ledger.record_states("edge", [], dict.fromkeys(names, "its agent does not answer"))
    assert await watched_by(ledger, observation, asked, told) == set()
    waits = Told(name=name, phase=Phase.ROLLING_BACK, only_waits=True, not_back={names[0]: "no power"})
    ledger.record_story(_order(ChangeKind.GO_BACK, "three"), waits, 0, ())
    assert await watched_by(ledger, observation, asked, told) == {*names[1:]}


async def test_a_bake_leaves_gateways_to_an_upgrade_that_lets_a_rollback_in(tmp_path: Path) -> None:
    """What runs beside it has no lock, and proves nothing of it."""
    ledger, observation = Ledger.open(new_ledger(tmp_path / "ledger.db")), Blind()
    asked, following, names = left_to_the_next(ledger, EVERY_WAVE)
    told = Told(name=following, phase=Phase.OBSERVING, begun=EVERY_WAVE)
    rollback(ledger, "three", beside=following)
    ledger.record_states("edge", [state(name, on=NEW) for name in names], {})
    assert await watched_by(ledger, observation, asked, told) == set()


def rollback(ledger: Ledger, key: str, plan: str | None = None, beside: str | None = None) -> str:
    """Have a rollback begin under the fleet's lock, or beside a change; return its name."""
    opening = ChangeOpening(
        key=key,
        kind=ChangeKind.GO_BACK,
        fleet="edge",
        requested_by="ana",
        reason="1.4.0 hangs",
        release="known-good",
        plan=plan,
        beside=beside,
    )
    return ledger.open_change(opening)


def _order(kind: ChangeKind, key: str) -> ChangeOrder:
    return ChangeOrder(fleet="edge", kind=kind, reason="CVE", key=key)


async def watched_by(ledger: Ledger, observation: Blind, asked: WatchSlice, told: Told) -> set[str]:
    """Return the gateways that a bake watches once the next upgrade has reported this."""
    ledger.record_story(_order(ChangeKind.UPGRADE, "two"), told, 0, ())
    observation.asked.clear()
    await ActivityEnvironment().run(WatchActivities(ledger, observation).watch_wave, asked)
    plan = ledger.plan(asked.plan)
    targets = {target for one in observation.asked for target in one.cohorts.canary}
    return {gateway.name for gateway in plan.fleet.gateways if gateway.metrics_target in targets}


async def test_a_bake_that_has_left_every_gateway_to_the_next_upgrade_misses_nothing(tmp_path: Path) -> None:
    """It is not blind: operators are not notified that nothing is watched."""
    ledger, observation = Ledger.open(new_ledger(tmp_path / "ledger.db")), Blind()
    asked, _, _ = left_to_the_next(ledger, EVERY_WAVE)
    found = await ActivityEnvironment().run(WatchActivities(ledger, observation).watch_wave, asked)
    assert (found.over, found.ticks, observation.asked) == (False, 1, [])
    assert (found.decision.action, found.decision.verdict) == (Action.HOLD, GateVerdict.NOT_ENOUGH_DATA)


async def test_a_bake_names_no_failed_gateway_that_the_next_upgrade_has_taken_over(tmp_path: Path) -> None:
    ledger, observation = Ledger.open(new_ledger(tmp_path / "ledger.db")), Blind()
    asked, following, names = two_upgrades(ledger)
    gateways = [ledger.plan(asked.plan).fleet.gateway(name) for name in (names[0], names[-1])]
    observation.decision = BLIND.model_copy(update={"failed": tuple(one.metrics_target for one in gateways)})
    asked = asked.model_copy(update={"left_to": TakenOver(change=following, up_to=1)})
    found = await ActivityEnvironment().run(WatchActivities(ledger, observation).watch_wave, asked)
    assert found.decision.failed == (names[-1],)
