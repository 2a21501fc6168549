import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError
from temporalio.testing import ActivityEnvironment

from activities.ledger import EventEntry, LedgerActivities, VerdictEntry
from orchestrator.store.database import BUSY_MILLISECONDS, open_database, reading, writing
from orchestrator.store.ledger import Ledger
from orchestrator.store.migrations.versions import approvals_used
from orchestrator.store.tables import metadata
from policies.model.audit import AuditHead
from policies.model.change import ChangeKind, ChangeOpening, KnownGoodBatch
from policies.model.errors import BadInput, Conflict, Refused, Unavailable
from policies.model.plan import ReleaseRef
from policies.model.value import digest_of
from policies.model.verdict import Action, Decision, GateReading, GateVerdict

AT = datetime(2030, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


def release(version: str) -> ReleaseRef:
    return ReleaseRef(
        digest=digest_of(version.encode()),
        product="ocserv",
        version=version,
        executable=digest_of(b"exe" + version.encode()),
    )


OLD, NEW, NEWER = release("1.1.6"), release("1.3.0"), release("1.5.0")


def opened(ledger: Ledger, key: str) -> str:
    """Return the name of an upgrade that begins now."""
    return ledger.open_change(
        ChangeOpening(
            key=key,
            fleet="north",
            kind=ChangeKind.UPGRADE,
            requested_by="ada",
            reason="CVE",
            release="1.3.0",
        )
    )


def recorded(ledger: Ledger, change: str, to: ReleaseRef, *gateways: str) -> int:
    releases = dict.fromkeys(gateways, to)
    return ledger.record_known_good_batch(KnownGoodBatch(fleet="north", change=change, releases=releases))


def decision(action: Action = Action.CONTINUE) -> Decision:
    reading_ = GateReading(
        gate="logins", verdict=GateVerdict.HEALTHY, reason="12 of 12", numbers={"bad": 0.1 + 0.2}
    )
    return Decision(action=action, verdict=GateVerdict.HEALTHY, reason="all well", readings=(reading_,))


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    opened = Ledger.open(url)
    yield opened
    opened.close()


def add(ledger: Ledger, reference: ReleaseRef, signers: tuple[str, ...] = ("build@example",)) -> bool:
    return ledger.add_release(
        reference,
        source="https://releases.example",
        signers=signers,
        manifest_json="{}",
        person="ada",
    )


def actions(ledger: Ledger) -> list[str]:
    return [entry.action for entry in ledger.audit_entries()]


def test_a_release_is_added_once_and_found_by_version_and_by_digest(ledger: Ledger) -> None:
    assert [add(ledger, OLD), add(ledger, OLD), add(ledger, NEW)] == [True, False, True]
    assert [row.release for row in ledger.releases()] == [NEW, OLD]
    names = ("1.1.6", "ocserv 1.1.6", "ocserv@1.1.6", OLD.digest, OLD.digest[7:15])
    assert {ledger.release(name, OLD.product) for name in names} == {OLD}
    assert actions(ledger) == ["release added", "release added"]


def test_a_release_that_others_sign_has_their_names_and_keeps_those_of_its_former_signers(
    ledger: Ledger,
) -> None:
    add(ledger, OLD, ("build", "ana"))
    for signers, former in (
        (("build", "bert"), ("ana",)),
        (("bert", "build"), ("ana",)),
        (("ana", "carol"), ("build", "bert")),
    ):
        assert not add(ledger, OLD, signers)
        row = ledger.release_row(OLD.digest)
        assert row is not None
        assert ({*row.signers}, {*row.former_signers}) == ({*signers}, {*former})
    assert actions(ledger) == ["release added", *["signers of release changed"] * 2]


def test_one_digest_is_never_two_releases(ledger: Ledger) -> None:
    add(ledger, OLD)
    with pytest.raises(Conflict, match=r"1\.1\.6"):
        add(ledger, OLD.model_copy(update={"executable": NEW.executable}))
    assert ledger.release("1.1.6", OLD.product) == OLD


def test_a_name_that_fits_two_releases_is_refused(ledger: Ledger) -> None:
    add(ledger, OLD)
    add(ledger, NEW.model_copy(update={"version": "1.1.6"}))
    with pytest.raises(BadInput, match="give the digest"):
        ledger.release("1.1.6", OLD.product)


def test_a_version_is_looked_for_among_the_releases_of_one_product(ledger: Ledger) -> None:
    add(ledger, OLD)
    add(ledger, NEW.model_copy(update={"version": "1.1.6", "product": "openvpn"}))
    assert ledger.release("1.1.6", OLD.product) == OLD
    with pytest.raises(BadInput, match="no release"):
        ledger.release("1.1.6", "strongswan")


def test_a_withdrawn_release_is_still_listed_but_not_handed_out(ledger: Ledger) -> None:
    add(ledger, OLD)
    assert [ledger.yank(OLD.digest, "leaks", "ada"), ledger.yank(OLD.digest, "again", "bob")] == [True, False]
    assert [row.yanked_reason for row in ledger.releases()] == ["leaks"]
    with pytest.raises(Refused, match="leaks"):
        ledger.release("1.1.6", OLD.product)


def test_an_unknown_release_is_named_in_the_refusal(ledger: Ledger) -> None:
    with pytest.raises(BadInput, match=r"no release 9\.9"):
        ledger.release("9.9", OLD.product)
    with pytest.raises(BadInput, match="no release sha256:0"):
        ledger.yank("sha256:0", "because", "ada")


def test_known_good_moves_per_gateway_and_the_one_before_is_remembered(ledger: Ledger) -> None:
    recorded(ledger, opened(ledger, "one"), OLD, "gw-1", "gw-2")
    change = opened(ledger, "two")
    recorded(ledger, change, NEW, "gw-1")
    assert ledger.known_good("north") == {"gw-1": NEW, "gw-2": OLD}
    assert ledger.targets("north", change) == {"gw-1": OLD}
    assert ledger.known_good("south") == {}


def test_a_late_repeat_of_an_older_change_does_not_bring_its_release_back(ledger: Ledger) -> None:
    first, second = opened(ledger, "one"), opened(ledger, "two")
    told = ((OLD, first), (NEW, second), (OLD, first), (NEW, second))
    assert [recorded(ledger, change, to, "gw-1") for to, change in told] == [1, 1, 0, 0]
    assert ledger.known_good("north") == {"gw-1": NEW}
    assert actions(ledger).count("known-good recorded") == 2


def test_a_decision_comes_back_with_every_number_as_it_was(ledger: Ledger) -> None:
    for _ in range(2):
        ledger.record_verdict("north-1", 1, decision(), AT)
    (row,) = ledger.verdicts("north-1")
    assert (row.wave, row.at, row.decision) == (1, AT, decision())


def test_a_floor_only_rises(ledger: Ledger) -> None:
    assert ledger.floor("ocserv", "stable", "main") == 0
    assert [ledger.raise_floor("ocserv", "stable", "main", index) for index in (5, 3, 5, 7)] == [5, 5, 5, 7]
    assert (ledger.floor("ocserv", "stable", "main"), ledger.floor("ocserv", "beta", "main")) == (7, 0)


def test_evidence_and_snapshots_may_be_told_twice(ledger: Ledger) -> None:
    for _ in range(2):
        ledger.record_snapshot("north-1", "gw-1", OLD.digest)
        ledger.record_evidence(OLD.digest, "bundle", "1.1.6", 100)
    assert actions(ledger) == ["snapshot taken"]


def test_nobody_changes_or_removes_an_audit_entry(url: str, ledger: Ledger) -> None:
    ledger.audit("ada", "cli", "looked", "north", {})
    engine = open_database(url)
    for statement in ("UPDATE audit SET person = 'eve'", "DELETE FROM audit"):
        with pytest.raises(DBAPIError, match="append-only"), writing(engine) as connection:
            connection.execute(text(statement))
    engine.dispose()
    assert ledger.verify_audit() is None


def forger_of(url: str) -> Callable[[str], None]:
    """Return what the database's owner can do, once the triggers are gone."""
    engine = open_database(url)
    on_sqlite = ("audit_no_update", "audit_no_delete")
    triggers = on_sqlite if engine.dialect.name == "sqlite" else ("audit_append_only ON audit",)

    def forge(statement: str) -> None:
        with writing(engine) as connection:
            connection.execute(text(statement))
        engine.dispose()

    for trigger in triggers:
        forge(f"DROP TRIGGER {trigger}")
    return forge


def test_a_forged_removed_or_cut_audit_record_is_named(url: str, ledger: Ledger) -> None:
    for n in range(5):
        ledger.audit("ada", "cli", "looked", f"north {n}", {"n": n})
    head = ledger.audit_head()
    assert (head.seq, ledger.verify_audit(head)) == (5, None)
    forge = forger_of(url)
    forge("DELETE FROM audit WHERE seq = 5")
    assert ledger.verify_audit() is None
    assert ledger.verify_audit(head) == "audit entries 5 to 5 are missing at the end"
    forge("UPDATE audit SET person = 'eve' WHERE seq = 3")
    assert ledger.verify_audit() == "audit entry 3 was changed"
    forge("DELETE FROM audit WHERE seq = 2")
    assert ledger.verify_audit() == "audit entry 2 is missing"


def test_a_record_written_anew_is_not_the_one_noted_elsewhere(ledger: Ledger) -> None:
    ledger.audit("ada", "cli", "looked", "north", {})
    noted = AuditHead(seq=1, hash="f" * 64)
    wrong = "audit entry 1 is not the one noted elsewhere; 1 to 1 were written anew"
    assert ledger.verify_audit(noted) == wrong


def test_the_same_key_is_the_same_entry(ledger: Ledger) -> None:
    heads = {ledger.audit("ada", "cli", "held", "north-1", {}, key="command 1").seq for _ in range(3)}
    assert heads == {1}


def test_opening_again_keeps_everything(url: str, ledger: Ledger) -> None:
    add(ledger, OLD)
    again = Ledger.open(url)
    assert again.release("1.1.6", OLD.product) == OLD
    again.close()


def test_eight_writers_at_once_lose_nothing_and_the_chain_holds(url: str, ledger: Ledger) -> None:
    def write(writer: int) -> None:
        own = Ledger.open(url)
        for n in range(25):
            own.audit("ada", "cli", "looked", f"{writer}/{n}", {})
        own.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert len({entry.subject for entry in ledger.audit_entries()}) == 200
    assert ledger.verify_audit() is None


def test_a_reader_sees_the_ledger_while_somebody_writes(url: str, ledger: Ledger) -> None:
    add(ledger, OLD)
    engine = open_database(url)
    with writing(engine) as connection:
        connection.execute(text("UPDATE releases SET source = 'elsewhere'"))
        assert [row.source for row in ledger.releases()] == ["https://releases.example"]
    engine.dispose()


def test_a_writer_that_hangs_keeps_nobody_from_opening_the_ledger(url: str, ledger: Ledger) -> None:
    add(ledger, OLD)
    engine = open_database(url)
    with writing(engine) as connection:
        connection.execute(text("UPDATE releases SET source = 'elsewhere'"))
        began = time.monotonic()
        again = Ledger.open(url)
        assert again.release("1.1.6", OLD.product) == OLD
        assert time.monotonic() - began < BUSY_MILLISECONDS / 1000
        again.close()
    engine.dispose()


def test_a_killed_writer_leaves_all_or_nothing(url: str, ledger: Ledger) -> None:
    program = (
        "import os, sys; from orchestrator.store import releases as book\n"
        "append = book.append\n"
        "def die(*a, **k): append(*a, **k); os.kill(os.getpid(), 9)\n"
        "book.append = die\n"
        f"book.Releases.open({url!r}).raise_floor('ocserv', 'stable', 'main', 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    assert ledger.floor("ocserv", "stable", "main") == 0
    assert ledger.audit_entries() == ()
    assert ledger.raise_floor("ocserv", "stable", "main", 9) == 9


def test_the_migrations_make_exactly_the_tables_the_queries_use(bare: str) -> None:
    engine = open_database(bare)
    with reading(engine) as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_approvals_that_an_earlier_start_used_up_do_not_count_after_the_migration(
    url: str, ledger: Ledger
) -> None:
    used, unused = digest_of(b"used"), digest_of(b"unused")
    for plan in (used, unused):
        ledger.approve_plan(plan, "north", "ada", "fine", timedelta(hours=1))
    start = ChangeOpening(
        key="run", fleet="north", kind=ChangeKind.UPGRADE, requested_by="ben", reason="CVE", release="1.3.0"
    )
    ledger.open_change(start)
    engine = open_database(url)
    with writing(engine) as connection:  # as starts left it before they deleted approvals
        connection.execute(text("UPDATE changes SET plan = :plan"), {"plan": used})
        with Operations.context(MigrationContext.configure(connection)):
            approvals_used.upgrade()
    engine.dispose()
    assert [len(ledger.approvals(plan)) for plan in (used, unused)] == [0, 1]


def test_a_ledger_of_a_newer_penstock_is_left_alone(url: str, ledger: Ledger) -> None:
    engine = open_database(url)
    with writing(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(BadInput, match="newer penstock"):
        Ledger.open(url)


@pytest.mark.parametrize("address", ["", "nonsense", "sqlite://", "sqlite:///:memory:", "nosuch:///x"])
def test_what_is_no_address_of_a_ledger_is_bad_input(address: str) -> None:
    with pytest.raises(BadInput):
        Ledger.open(address)


def test_a_ledger_that_cannot_be_opened_may_be_tried_again(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").mkdir()
    with pytest.raises(Unavailable):
        Ledger.open(f"sqlite:///{tmp_path}/ledger.db")


def test_a_time_without_a_zone_never_enters_the_ledger(ledger: Ledger) -> None:
    with pytest.raises(Exception, match="without a zone"):
        ledger.record_verdict("north-1", 1, decision(), AT.replace(tzinfo=None))


def test_the_wheel_carries_the_migrations() -> None:
    migrations = files("orchestrator.store") / "migrations"
    assert (migrations / "env.py").is_file()
    assert [path.name for path in (migrations / "versions").iterdir() if "first" in path.name]


async def test_a_decision_and_an_event_may_be_told_twice(ledger: Ledger) -> None:
    book, run = LedgerActivities(ledger), ActivityEnvironment().run
    verdict = VerdictEntry(rollout="north-1", wave=1, at=AT, decision=decision())
    heard = EventEntry(action="hold", subject="north/north-1", sentence="wait", key="command 1", person="ada")
    for _ in range(2):
        await run(book.record_verdict, verdict)
        await run(book.record_event, heard)
    assert actions(ledger) == ["decision", "hold"]
    assert [row.decision for row in ledger.verdicts("north-1")] == [decision()]


def test_what_is_asked_every_minute_reads_no_past(url: str, ledger: Ledger) -> None:
    """An index serves a question only while both say the same condition in the same words."""
    engine, asked = open_database(url), []
    event.listen(
        engine,
        "before_cursor_execute",
        lambda *told: asked.append((told[2], told[3])),  # statement, parameters
    )
    own = Ledger(engine)
    own.known_good("north")
    own.open_changes("north")
    questions = [one for one in asked if one[0].startswith("SELECT") and "pg_catalog" not in one[0]]
    explain = "EXPLAIN" if engine.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"
    with reading(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("SET enable_seqscan = off")  # tables this small need no index
        plans = [
            connection.exec_driver_sql(f"{explain} {statement}", parameters).all()
            for statement, parameters in questions
        ]
    engine.dispose()
    used = [" ".join(str(step[-1]) for step in plan) for plan in plans]
    assert len(used) == 2
    assert "uq_known_good_newest" in used[0]
    assert "ix_changes_open" in used[1]
    assert not any("SCAN" in plan or "Seq Scan" in plan or "TEMP B-TREE" in plan for plan in used)


def test_an_executable_of_several_releases_has_the_version_of_the_newest(ledger: Ledger) -> None:
    again = NEW.model_copy(update={"digest": digest_of(b"again"), "version": "1.3.0-2"})
    for one in (OLD, NEW, again, NEWER):
        ledger.add_release(one, source="http://repository", signers=(), manifest_json="{}")
    asked = {OLD.executable, NEW.executable, digest_of(b"none of ours")}
    assert ledger.versions_of(asked) == {OLD.executable: "1.1.6", NEW.executable: "1.3.0-2"}
