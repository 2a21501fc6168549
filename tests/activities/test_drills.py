"""Drills in the ledger: each run once, the newest of each in one look, on both kinds of database."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event

from orchestrator.store.ledger import Ledger
from policies.model.drill import DrillOutcome, DrillReport, DrillStep
from policies.model.errors import Conflict
from tests.fakes.ledgers import ledger_of

BEGAN = datetime(2026, 11, 1, 2, 0, 0, 123456, tzinfo=UTC)


def report(seconds: float = 12.5, name: str = "crash", day: int = 0, place: str = "lab") -> DrillReport:
    steps = (DrillStep(what="decided", seconds=3.0), DrillStep(what="read back", seconds=seconds))
    began = BEGAN + timedelta(days=day)
    return DrillReport(name=name, place=place, began=began, budget=30.0, steps=steps)


@pytest.fixture
def ledger(url: str) -> Ledger:
    return Ledger.open(url)


def test_a_run_is_recorded_once_whoever_repeats_it(ledger: Ledger) -> None:
    first = ledger.record_drill(report(), "ada")
    assert (first.outcome, first.seconds) == (DrillOutcome.PASSED, 12.5)
    assert ledger.record_drill(report(), "ada") == ledger.record_drill(report(), "bert") == first
    assert ledger.drill_runs(None, 10) == (first,)
    entries = [entry for entry in ledger.audit_entries() if entry.action == "drill recorded"]
    assert [(entry.person, entry.subject) for entry in entries] == [("ada", "crash")]


def test_a_record_stays_as_it_is(ledger: Ledger) -> None:
    first = ledger.record_drill(report(40.0), "ada")
    with pytest.raises(Conflict, match="ada has recorded another result of crash in lab"):
        ledger.record_drill(report(4.0), "bert")
    assert ledger.drill_runs("crash", 10) == (first,)


def test_the_same_moment_in_another_place_or_of_another_drill_is_another_run(ledger: Ledger) -> None:
    for one in (report(), report(place="spare"), report(name="engine-killed")):
        ledger.record_drill(one, "ada")
    assert len(ledger.drill_runs(None, 10)) == 3
    assert len(ledger.drill_runs("crash", 10)) == 2


def test_runs_are_listed_from_the_newest_whenever_they_were_recorded(ledger: Ledger) -> None:
    for day in (3, 1, 2):
        ledger.record_drill(report(day=day), "ada")
    began = [run.report.began for run in ledger.drill_runs(None, 2)]
    assert began == [BEGAN + timedelta(days=3), BEGAN + timedelta(days=2)]


def test_of_hundreds_of_runs_the_newest_are_given_with_how_many_there_are(ledger: Ledger) -> None:
    for day in range(200):
        ledger.record_drill(report(seconds=float(day), day=day), "ada")
    ledger.record_drill(report(name="engine-killed"), "bert")
    found = ledger.drill_pasts(60)
    assert set(found) == {"crash", "engine-killed"}
    assert (found["crash"].count, found["engine-killed"].count) == (200, 1)
    assert [point.seconds for point in found["crash"].points] == [float(day) for day in range(199, 139, -1)]
    assert found["crash"].last.report == report(seconds=199.0, day=199)
    assert found["crash"].last.outcome is DrillOutcome.OVER_BUDGET


def test_how_it_stands_with_every_drill_is_one_question(ledger: Ledger) -> None:
    for name in ("crash", "engine-killed", "disk-full"):
        ledger.record_drill(report(name=name), "ada")
    asked: list[str] = []
    event.listen(ledger.engine, "before_cursor_execute", lambda *known: asked.append(known[2]))
    assert len(ledger.drill_pasts(60)) == 3
    assert len([one for one in asked if "drills" in one]) == 1


def test_what_was_rehearsed_before_there_was_a_record_is_not_known(bare: str) -> None:
    with ledger_of("0016", bare):
        pass
    ledger = Ledger.open(bare)
    assert ledger.drill_pasts(60) == {}
    ledger.record_drill(report(), "ada")
    assert ledger.drill_pasts(60)["crash"].count == 1
