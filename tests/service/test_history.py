"""The history as people and machines see it: every change, who asked for it and what is left of it."""

import itertools
import json
from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.store.ledger import Ledger
from orchestrator.words.times import span
from policies.model.change import ChangeEnding, ChangeKind, ChangeOpening, KnownGoodBatch, Outcome
from policies.model.plan import ReleaseRef
from policies.model.value import digest_of
from tests.service.command_line import CommandLine

BAKE = "logins fail since 12:04 [bold]see[/bold] [/etc/ocserv]"


@pytest.fixture
def past(ledger: Ledger) -> Ledger:
    """An install, an upgrade, and the bake's rollback of it."""
    installed = change(ledger, ChangeKind.INSTALL, "1.1.6", "ada", "first gateways")
    upgraded = change(ledger, ChangeKind.UPGRADE, "1.3.0", "ada", "CVE-2030-1", installed)
    change(ledger, ChangeKind.GO_BACK, "1.1.6", "penstock", BAKE, upgraded)
    return ledger


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
        release_digest=digest_of(version.encode()),
        cause=cause if kind is ChangeKind.GO_BACK else None,
    )
    name = ledger.open_change(asked)
    digest = digest_of(version.encode())
    release = ReleaseRef(digest=digest, product="ocserv", version=version, executable=digest)
    ledger.record_known_good_batch(KnownGoodBatch(fleet="edge", change=name, releases={"gw-1": release}))
    outcome = Outcome.ROLLED_BACK if kind is ChangeKind.GO_BACK else Outcome.PROMOTED
    ledger.close_change(ChangeEnding(change=name, outcome=outcome, sentence="every gateway answers"))
    return name


async def test_the_history_shows_every_change_and_what_is_left_of_it(
    penstock: CommandLine, past: Ledger
) -> None:
    del past
    said = await penstock("history", "edge")
    assert said.code == 0
    lines = [line.strip() for line in said.out.splitlines()]
    heads = [line.split()[:4] for line in lines if line.startswith("edge-")]
    assert heads == [
        ["edge-3", "back", "to", "1.1.6"],
        ["edge-2", "upgrade", "to", "1.3.0"],
        ["edge-1", "install", "of", "1.1.6"],
    ]
    assert all(line.rstrip().endswith("UTC") for line in lines if line.startswith("edge-"))
    standings = [after for head, after in itertools.pairwise(lines) if head.startswith("edge-")]
    assert standings == ["rolled back", "promoted, taken back by edge-3", "promoted"]
    assert f"penstock after edge-2: {BAKE}" in lines  # no markup of somebody's words
    assert "ada: CVE-2030-1" in lines


async def test_the_history_says_in_a_line_what_a_release_changed(penstock: CommandLine, past: Ledger) -> None:
    digest = digest_of(b"1.3.0")
    release = ReleaseRef(digest=digest, product="ocserv", version="1.3.0", executable=digest)
    said = json.dumps({"changelog": "# 1.3.0\n\n* CVE-2030-1 is [closed]\n* faster\n"})
    past.add_release(release, source="http://repository", signers=(), manifest_json=said)
    shown = (await penstock("history", "edge")).out
    assert shown.count("Changes: CVE-2030-1 is [closed]") == 1
    assert "faster" not in shown


async def test_a_machine_reads_the_same_fields(penstock: CommandLine, past: Ledger) -> None:
    del past
    rows = json.loads((await penstock("history", "edge", "-o", "json")).out)["data"]
    assert [row["name"] for row in rows] == ["edge-3", "edge-2", "edge-1"]
    fields = ("kind", "outcome", "standing", "requested_by", "reason", "cause", "release", "moved")
    assert [[row[field] for field in fields] for row in rows[:2]] == [
        ["go_back", "rolled_back", "rolled back", "penstock", BAKE, "edge-2", "1.1.6", 1],
        ["upgrade", "promoted", "promoted, taken back by edge-3", "ada", "CVE-2030-1", None, "1.3.0", 1],
    ]
    assert all(datetime.fromisoformat(row[when]).tzinfo for row in rows for when in ("began", "ended"))


async def test_a_long_history_is_read_page_by_page(penstock: CommandLine, past: Ledger) -> None:
    del past
    first = json.loads((await penstock("history", "edge", "--limit", "2", "-o", "json")).out)["data"]
    more = await penstock("history", "edge", "--before", first[-1]["name"], "-o", "json")
    assert [row["name"] for row in [*first, *json.loads(more.out)["data"]]] == ["edge-3", "edge-2", "edge-1"]


async def test_what_never_told_its_story_has_its_line_in_the_history(
    penstock: CommandLine, past: Ledger
) -> None:
    del past
    said = await penstock("status", "edge")
    assert said.code == 3
    assert "edge-3" in said.out
    assert "ROLLED BACK" in said.out.upper()


def test_a_span_says_the_day_once_when_it_is_one() -> None:
    noon = datetime.now(UTC).astimezone().replace(hour=12, minute=0, second=0, microsecond=0)
    zone = f"{noon:%Z}"
    began = noon.isoformat()
    assert span(began, None) == f"since {noon:%Y-%m-%d} 12:00:00 {zone}"
    ended = (noon + timedelta(minutes=1)).isoformat()
    assert span(began, ended) == f"{noon:%Y-%m-%d} 12:00:00 to 12:01:00 {zone}"
    tomorrow = noon + timedelta(days=1)
    said = span(began, tomorrow.isoformat())
    assert said.endswith(f"{tomorrow:%Y-%m-%d} 12:00:00 {tomorrow.astimezone():%Z}")
