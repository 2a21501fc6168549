"""Whether a wave may start, asked for real: of the ledger, of the fleet's file, and of whose turn it is."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from activities.windows import WindowActivities, WindowQuery
from orchestrator.store.freezes import kept_now
from orchestrator.store.ledger import Ledger
from policies.model.change import ChangeKind, ChangeOpening
from policies.model.fleet import Fleet
from policies.model.plan import Plan
from policies.model.windows import Freeze, Frozen, WindowAnswer
from tests.unit.fleets import facts_of, planned


class Folder:
    """One fleet, whose file says nothing of windows."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self._fleet, self._folder = fleet, folder

    def fleet(self, name: str) -> Fleet:
        return self._fleet

    def place_of(self, name: str) -> Path:
        return self._folder / f"{name}.yaml"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    yield opened
    opened.close()


@pytest.fixture
def plan(ledger: Ledger) -> Plan:
    made = planned(facts_of(2))
    ledger.record_plan(made)
    return made


def asking(ledger: Ledger, plan: Plan, tmp_path: Path, most: int | None = 1) -> WindowActivities:
    return WindowActivities(ledger, Folder(plan.fleet, tmp_path), most)


def begun(ledger: Ledger, fleet: str) -> str:
    return ledger.open_change(
        ChangeOpening(
            key=fleet,
            fleet=fleet,
            kind=ChangeKind.UPGRADE,
            requested_by="ana",
            reason="CVE",
            release="1.4.1",
        )
    )


def query(plan: Plan, change: str, **more: object) -> WindowQuery:
    return WindowQuery(change=change, plan=plan.digest, wave=1).model_copy(update=more)


def freeze(ledger: Ledger) -> None:
    now = datetime.now(UTC).replace(tzinfo=None)
    span = Frozen(begins=now - timedelta(hours=1), ends=now + timedelta(hours=1), tz="UTC")
    ledger.add_freeze(kept_now("edge", "dns-move", (span,), "ana", "the resolvers move"))


async def asked(one: WindowActivities, what: WindowQuery) -> WindowAnswer:
    from temporalio.testing import ActivityEnvironment  # noqa: PLC0415 - only to be asked as by the engine

    return await ActivityEnvironment().run(one.ask_window, what)


async def test_a_wave_that_began_has_its_turn_though_a_late_answer_took_it_away(
    ledger: Ledger, plan: Plan, tmp_path: Path
) -> None:
    one, edge, core = asking(ledger, plan, tmp_path), begun(ledger, "edge"), begun(ledger, "core")
    assert (await asked(one, query(plan, edge))).fits
    freeze(ledger)
    assert not (await asked(one, query(plan, edge))).fits  # asked before its wave began, answered after
    ledger.remove_freeze("edge", "dns-move", "ana", "over")
    assert (await asked(one, query(plan, edge, under_way=True))).is_open
    assert ledger.take_turn("core", core, 1) == ("edge",)


async def test_a_change_that_has_to_wait_gives_its_turn_to_another_fleet(
    ledger: Ledger, plan: Plan, tmp_path: Path
) -> None:
    one, edge, core = asking(ledger, plan, tmp_path), begun(ledger, "edge"), begun(ledger, "core")
    assert (await asked(one, query(plan, edge))).fits
    freeze(ledger)
    assert not (await asked(one, query(plan, edge))).fits
    assert ledger.take_turn("core", core, 1) == ()
    ledger.remove_freeze("edge", "dns-move", "ana", "over")
    answer = await asked(one, query(plan, edge))
    assert (answer.fits, answer.is_open) == (False, True)
    assert answer.sentence == "core changes now, and at most 1 fleet may at the same time"


async def test_where_nobody_waits_for_others_no_turn_is_taken_or_given_back(
    ledger: Ledger, plan: Plan, tmp_path: Path
) -> None:
    edge, core = begun(ledger, "edge"), begun(ledger, "core")
    assert ledger.take_turn("edge", edge, 1) == ()  # by a worker that has a limit
    one = asking(ledger, plan, tmp_path, most=None)
    assert (await asked(one, query(plan, edge))).fits
    freeze(ledger)
    assert not (await asked(one, query(plan, edge))).fits
    assert ledger.take_turn("core", core, 1) == ("edge",)


async def test_an_emergency_waits_for_no_turn_and_hears_only_of_what_was_frozen_since(
    ledger: Ledger, plan: Plan, tmp_path: Path
) -> None:
    one, edge, core = asking(ledger, plan, tmp_path), begun(ledger, "edge"), begun(ledger, "core")
    assert ledger.take_turn("core", core, 1) == ()
    freeze(ledger)
    at = datetime.now(UTC) + timedelta(seconds=1)
    assert (await asked(one, query(plan, edge, overridden_at=at))).fits
    earlier = at - timedelta(minutes=5)
    answer = await asked(one, query(plan, edge, overridden_at=earlier, under_way=True))
    assert answer.freeze == "dns-move"
    assert ledger.take_turn("core", core, 1) == ()


async def test_a_freeze_of_a_kind_that_is_not_understood_lets_no_wave_start(
    ledger: Ledger, plan: Plan, tmp_path: Path
) -> None:
    strange = Freeze.model_construct(name="moon", tz="UTC", begins=None, ends=None, ics=None)
    described = plan.fleet.model_copy(update={"freezes": (strange,)})
    one = WindowActivities(ledger, Folder(described, tmp_path))
    answer = await asked(one, query(plan, begun(ledger, "edge")))
    assert (answer.fits, answer.is_known) == (False, False)
    assert answer.sentence.startswith("closed: the freeze moon has neither a time nor a calendar")
