"""The history as people and machines see it: every change, who asked for it and what is left of it."""

import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from orchestrator.cli.main import app
from orchestrator.cli.show import Output, show_last_known, span
from orchestrator.store.ledger import Ledger
from policies.model.change import ChangeEnding, ChangeKind, ChangeOpening, KnownGoodBatch, Outcome
from policies.model.plan import ReleaseRef
from policies.model.value import digest_of

BAKE = "logins fail since 12:04 [bold]see[/bold] [/etc/ocserv]"


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """An install, an upgrade, and the bake's rollback of it, in the ledger that the command reads."""
    monkeypatch.setenv("PENSTOCK_STATE", str(tmp_path))
    monkeypatch.setenv("PENSTOCK_LEDGER_URL", f"sqlite:///{tmp_path}/ledger.db")
    monkeypatch.setenv("PENSTOCK_FLEET", f"{tmp_path}/fleet.yaml")
    opened = Ledger.open(f"sqlite:///{tmp_path}/ledger.db")
    installed = change(opened, ChangeKind.INSTALL, "1.1.6", "ada", "first gateways")
    upgraded = change(opened, ChangeKind.UPGRADE, "1.3.0", "ada", "CVE-2030-1", installed)
    change(opened, ChangeKind.GO_BACK, "1.1.6", "penstock", BAKE, upgraded)
    yield opened
    opened.close()


def change(
    ledger: Ledger, kind: ChangeKind, version: str, person: str, reason: str, cause: str | None = None
) -> str:
    asked = ChangeOpening(
        key=f"{kind} {version}",
        fleet="edge",
        kind=kind,
        requested_by=person,
        reason=reason,
        release=version,
        cause=cause if kind is ChangeKind.GO_BACK else None,
    )
    name = ledger.open_change(asked)
    digest = digest_of(version.encode())
    release = ReleaseRef(digest=digest, product="ocserv", version=version, executable=digest)
    ledger.record_known_good_batch(KnownGoodBatch(fleet="edge", change=name, releases={"gw-1": release}))
    outcome = Outcome.ROLLED_BACK if kind is ChangeKind.GO_BACK else Outcome.PROMOTED
    ledger.close_change(ChangeEnding(change=name, outcome=outcome, sentence="every gateway answers"))
    return name


def ask(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["history", "edge", *arguments])


def test_the_history_shows_every_change_and_what_is_left_of_it(ledger: Ledger) -> None:
    said = ask()
    assert said.exit_code == 0
    lines = [line.strip() for line in said.output.splitlines()]
    heads = [line.split()[:4] for line in lines if line.startswith("edge-")]
    assert heads == [
        ["edge-3", "back", "to", "1.1.6"],
        ["edge-2", "upgrade", "to", "1.3.0"],
        ["edge-1", "install", "of", "1.1.6"],
    ]
    standings = [after for head, after in itertools.pairwise(lines) if head.startswith("edge-")]
    assert standings == ["rolled back", "promoted, taken back by edge-3", "promoted"]
    assert f"penstock after edge-2: {BAKE}" in lines  # no markup of somebody's words
    assert "ada: CVE-2030-1" in lines


def test_the_history_says_in_which_zone_its_times_are(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    zone = datetime.now().astimezone().strftime("%Z")
    heads = [line for line in ask().output.splitlines() if line.startswith("edge-")]
    assert all(line.rstrip().endswith(zone) for line in heads)


def test_a_machine_reads_the_same_fields(ledger: Ledger) -> None:
    rows = json.loads(ask("--output", "json").output)
    assert [row["name"] for row in rows] == ["edge-3", "edge-2", "edge-1"]
    fields = ("kind", "outcome", "standing", "requested_by", "reason", "cause", "release", "moved")
    assert [[row[field] for field in fields] for row in rows[:2]] == [
        ["go_back", "rolled_back", "rolled back", "penstock", BAKE, "edge-2", "1.1.6", 1],
        ["upgrade", "promoted", "promoted, taken back by edge-3", "ada", "CVE-2030-1", None, "1.3.0", 1],
    ]
    assert all(datetime.fromisoformat(row[when]).tzinfo for row in rows for when in ("began", "ended"))


def test_a_long_history_is_read_page_by_page(ledger: Ledger) -> None:
    first = json.loads(ask("--limit", "2", "--output", "json").output)
    rest = json.loads(ask("--before", first[-1]["name"], "--output", "json").output)
    assert [row["name"] for row in [*first, *rest]] == ["edge-3", "edge-2", "edge-1"]


def test_without_a_live_answer_status_tells_what_was_taken_back(
    ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    for row in ledger.history("edge", 2):
        show_last_known(row, "no engine [at all]", Output.TABLE)
    said = capsys.readouterr().out
    assert "edge-2  upgrade to 1.3.0  promoted, taken back by edge-3" in said
    assert "edge-3  back to 1.1.6  ROLLED BACK" in said
    assert "no engine [at all]" in said


def test_a_span_says_the_day_once_when_it_is_one() -> None:
    noon = datetime.now(UTC).astimezone().replace(hour=12, minute=0, second=0, microsecond=0)
    zone = f"{noon:%Z}"
    assert span(noon, None) == f"since {noon:%Y-%m-%d} 12:00:00 {zone}"
    assert span(noon, noon + timedelta(minutes=1)) == f"{noon:%Y-%m-%d} 12:00:00 to 12:01:00 {zone}"
    tomorrow = noon + timedelta(days=1)
    assert span(noon, tomorrow).endswith(f"{tomorrow:%Y-%m-%d} 12:00:00 {tomorrow.astimezone():%Z}")
