"""Kept evidence: whole or not there, listed, and let go when its time is over."""

import zlib
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from activities.drivers.store.snapshots import SnapshotArchive
from activities.snapshots import PIECE_BYTES, Piece
from orchestrator.processes.worker import expire_snapshots
from orchestrator.store.evidence import EvidenceList
from orchestrator.store.ledger import Ledger
from policies.model.change import ChangeEnding, ChangeKind, ChangeOpening, Outcome
from policies.model.errors import BadInput, Unknown
from policies.model.fleet import Fleet, Limits
from policies.model.refusals import DigestMismatch
from policies.model.value import digest_of
from tests.unit.fleets import fleet, gateway

FROZEN = b"evidence " * 100
DIGEST = digest_of(FROZEN)


def opening(key: str) -> ChangeOpening:
    return ChangeOpening(
        key=key, fleet="edge", kind=ChangeKind.UPGRADE, requested_by="ana", reason="CVE", release="1.3.0"
    )


def ending(change: str) -> ChangeEnding:
    return ChangeEnding(change=change, outcome=Outcome.ROLLED_BACK, sentence="worse")


@pytest.fixture
def archive(tmp_path: Path) -> SnapshotArchive:
    return SnapshotArchive(tmp_path)


def test_pieces_become_a_snapshot_only_when_the_last_has_come(archive: SnapshotArchive) -> None:
    assert archive.add(DIGEST, 0, FROZEN[:500], 900) == 500
    with pytest.raises(DigestMismatch):
        archive.read(DIGEST)
    assert archive.add(DIGEST, 0, FROZEN[:500], 900) == 500
    assert archive.add(DIGEST, 500, FROZEN[500:], 900) == 900
    assert archive.read(DIGEST) == FROZEN
    assert archive.add(DIGEST, 0, FROZEN[:500], 900) == 900


@pytest.mark.parametrize(
    "content",
    [b64encode(zlib.compress(bytes(PIECE_BYTES + 1))).decode(), b64encode(b"no deflate").decode(), "!"],
    ids=["more than a piece", "not compressed", "not base64"],
)
def test_a_piece_that_does_not_open_to_a_piece_is_refused(content: str) -> None:
    """A host may send a thousand times as much as it seems."""
    with pytest.raises(BadInput, match="the piece at 0"):
        _ = Piece(digest=DIGEST, offset=0, size=1, content=content).bytes


def test_a_piece_without_the_one_before_it_is_refused(archive: SnapshotArchive) -> None:
    with pytest.raises(BadInput, match="does not fit"):
        archive.add(DIGEST, 500, FROZEN[500:], 900)


def test_a_snapshot_that_was_changed_on_its_way_is_not_kept(archive: SnapshotArchive) -> None:
    with pytest.raises(DigestMismatch):
        archive.add(DIGEST, 0, FROZEN.upper(), 900)
    with pytest.raises(DigestMismatch):
        archive.read(DIGEST)


def test_snapshots_are_listed_named_and_expired(url: str) -> None:
    ledger, listed = Ledger.open(url), EvidenceList.open(url)
    other = digest_of(b"other")
    first, second = (ledger.open_change(opening(key)) for key in ("one", "two"))
    ledger.record_snapshot(first, "gw-1", DIGEST)
    ledger.record_snapshot(first, "gw-2", DIGEST)
    ledger.record_snapshot(second, "gw-1", other)
    assert {row.digest for row in listed.kept_snapshots("edge")} == {DIGEST, other}
    assert [row.digest for row in listed.kept_snapshots("edge", second)] == [other]
    assert listed.kept_snapshots("core") == ()
    assert listed.snapshot_named("edge", DIGEST[7:20]).rollout == first
    for of, name in (("edge", "sha256:ffff"), ("core", DIGEST)):
        with pytest.raises(Unknown, match="snapshot"):
            listed.snapshot_named(of, name)
    assert listed.expire_snapshots(datetime.now(UTC) - timedelta(days=1), "on call") == ()
    assert listed.expire_snapshots(datetime.now(UTC) + timedelta(seconds=1), "on call") == ()
    assert listed.listed_digests() == {DIGEST, other}, "what is known of open changes stays"
    for change in (first, second):
        ledger.close_change(ending(change))
    assert set(listed.expire_snapshots(datetime.now(UTC) + timedelta(seconds=1), "on call")) == {
        DIGEST,
        other,
    }
    assert listed.kept_snapshots("edge") == ()
    assert ledger.audit_entries()[-1].action == "snapshots expired"
    assert ledger.verify_audit() is None
    ledger.close()


def test_each_fleet_keeps_its_evidence_as_long_as_its_own_file_says(url: str, tmp_path: Path) -> None:
    ledger, archive = Ledger.open(url), SnapshotArchive(tmp_path)
    now, digests = datetime.now(UTC), dict[str, str]()
    for name in ("edge", "core", "gone"):
        content = name.encode()
        digests[name] = digest_of(content)
        change = ledger.open_change(opening(name).model_copy(update={"fleet": name}))
        archive.add(digests[name], 0, content, len(content))
        ledger.record_snapshot(change, "gw-1", digests[name])
        ledger.close_change(ending(change))
    unlisted = digest_of(b"nobody knows")
    archive.add(unlisted, 0, b"nobody knows", 12)
    archive.add(digest_of(b"half"), 0, b"ha", 4)

    def left() -> set[str]:
        return {path.name for path in (*tmp_path.glob("sha256/*/*"), *tmp_path.glob("partial/*"))}

    def hexadecimal(*names: str) -> set[str]:
        return {digests[name].removeprefix("sha256:") for name in names}

    fleets = [fleet_that_keeps("edge", days=90), fleet_that_keeps("core", days=7)]
    expire_snapshots(ledger, archive, fleets, now + timedelta(hours=1))
    assert len(left()) == 5, "what may be on its way stays"
    expire_snapshots(ledger, archive, fleets, now + timedelta(days=8))
    assert left() == hexadecimal("edge", "gone")
    expire_snapshots(ledger, archive, fleets, now + timedelta(days=31))
    assert left() == hexadecimal("edge")
    expire_snapshots(ledger, archive, fleets, now + timedelta(days=91))
    assert left() == set()
    assert ledger.verify_audit() is None
    ledger.close()


def fleet_that_keeps(name: str, *, days: int) -> Fleet:
    kept = Limits(snapshots_kept=timedelta(days=days))
    return fleet(gateway("gw-1")).model_copy(update={"name": name, "limits": kept})
