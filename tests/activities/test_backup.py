"""Backups of the ledger: whole or refused, and the same on either kind of database."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect, make_url

from orchestrator.processes.ledger_files import back_up
from orchestrator.store.backup import backed_up, require_whole, restore
from orchestrator.store.database import open_database, open_existing
from orchestrator.store.ledger import Ledger
from policies.model.change import ChangeEnding, Outcome, Quarantine
from policies.model.errors import BadInput, Conflict
from policies.model.people import Role
from tests.activities.test_drills import report
from tests.activities.test_ledger import NEW, OLD, add, opened, recorded
from tests.activities.test_recorded_plans import plan_of
from tests.fakes.ledgers import new_ledger
from tests.fakes.postgresql import PostgreSQL


def filled(url: str) -> Ledger:
    """Return a ledger with something of each kind in it."""
    ledger = Ledger.open(url)
    for release in (OLD, NEW):
        add(ledger, release)
    plan = plan_of(7, waves=(1, 4))
    ledger.record_plan(plan)
    ledger.approve_plan(plan.digest, "north", "bert", "read it", timedelta(hours=4))
    name = opened(ledger, "one")
    recorded(ledger, name, NEW, "gw-1", "gw-2")
    ledger.close_change(ChangeEnding(change=name, outcome=Outcome.PROMOTED, sentence="on 1.3.0"))
    ledger.make_token("robot", {"north": frozenset({Role.CI})}, timedelta(days=1), "root")
    ledger.add_follow_up(name, "read the changelog", "ada", date(2030, 12, 31), "bert", None)
    ledger.record_drill(report(), "ada")
    left_out = {"fleet": "north", "gateway": "gw-3", "reason": "its disk is full", "person": "ada"}
    ledger.set_quarantine(Quarantine.model_validate(left_out | {"since": datetime.now(UTC)}))
    return ledger


@pytest.fixture(params=["sqlite", "postgresql"])
def other(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of another empty ledger, on each kind of database."""
    if request.param == "sqlite":
        yield new_ledger(tmp_path / "other.db")
        return
    server: PostgreSQL = request.getfixturevalue("postgresql")
    with server.ledger() as address:
        yield address


def lines_of(url: str) -> list[str]:
    engine = open_database(url)
    found = list(backed_up(engine))
    engine.dispose()
    return found


def restored(url: str, lines: list[str]) -> Ledger:
    engine = open_database(url)
    require_whole(lines)
    restore(engine, lines)
    engine.dispose()
    return Ledger.open(url)


def test_a_ledger_comes_back_as_it_was_and_goes_on(url: str, other: str) -> None:
    ledger = filled(url)
    head = ledger.audit_head()
    again = restored(other, lines_of(url))
    assert again.history("north") == ledger.history("north")
    assert again.known_good("north") == ledger.known_good("north")
    assert again.tokens() == ledger.tokens()
    assert again.verify_audit(head) is None
    assert again.drill_pasts(5) == ledger.drill_pasts(5) != {}
    plan = plan_of(7, waves=(1, 4))
    assert again.plan(plan.digest) == plan
    assert again.approvals(plan.digest) == ledger.approvals(plan.digest)
    assert lines_of(other)[1:-1] == lines_of(url)[1:-1]
    name = opened(again, "two")
    assert name == "north-2"
    assert recorded(again, name, OLD, "gw-1") == 1
    ledger.close()
    again.close()


def test_what_was_cut_short_or_changed_is_no_backup(url: str) -> None:
    filled(url).close()
    whole = lines_of(url)
    assert require_whole(whole) == len(whole) - 2
    changed = [line.replace("its disk is full", "its disk is fine") for line in whole]
    assert changed != whole
    for bad in ([], whole[:-1], whole[:5] + whole[6:], [*whole, whole[1]], changed, ["hello\n"], whole[-1:]):
        with pytest.raises(BadInput, match="no whole backup"):
            require_whole(bad)


def test_nothing_is_restored_over_what_is_there(url: str) -> None:
    filled(url).close()
    with pytest.raises(Conflict, match="not empty"):
        restored(url, lines_of(url))


def test_a_backup_of_another_schema_is_refused(url: str, other: str) -> None:
    filled(url).close()
    lines = lines_of(url)
    engine = open_database(other)
    with pytest.raises(BadInput, match="restore it with the penstock that made it"):
        restore(engine, [lines[0].replace('"revision":"', '"revision":"9'), *lines[1:]])
    engine.dispose()
    assert Ledger.open(other).history("north") == ()


def test_a_backup_is_of_one_moment_while_others_write(url: str) -> None:
    ledger = filled(url)
    engine = open_database(url)
    lines = backed_up(engine)
    first = next(lines)
    ledger.audit("ada", "cli", "looked", "north", {"at": datetime.now(UTC).isoformat()})
    rest = list(lines)
    engine.dispose()
    require_whole([first, *rest])
    assert not any('"looked"' in line for line in rest)
    ledger.close()


def test_a_ledger_that_has_to_be_there_already_is_not_made(bare: str) -> None:
    with pytest.raises(BadInput, match=r"there is no ledger at .* Set PENSTOCK_LEDGER_URL"):
        open_existing(bare)
    database = make_url(bare)
    if database.get_backend_name() == "sqlite":
        assert not Path(str(database.database)).exists()
        return
    engine = create_engine(bare)
    assert inspect(engine).get_table_names() == []
    engine.dispose()


def test_no_backup_is_made_of_a_ledger_without_an_audit_entry(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_LEDGER_URL", url)
    to = tmp_path / "backup.jsonl"
    with pytest.raises(BadInput, match=r"no backup was made: the ledger .* is empty"):
        back_up(to)
    assert not to.exists()
    assert Ledger.open(url).audit_head().seq == 0
