"""Kept evidence: whole or not there, listed, and let go when its time is over."""

import zlib
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from activities.drivers.store.snapshots import SnapshotArchive
from activities.snapshots import PIECE_BYTES, Piece
from orchestrator.store.evidence import EvidenceList
from orchestrator.store.ledger import Ledger
from policies.model.change import ChangeKind, ChangeOpening
from policies.model.errors import BadInput, Unknown
from policies.model.refusals import DigestMismatch
from policies.model.value import digest_of

FROZEN = b"evidence " * 100
DIGEST = digest_of(FROZEN)


def opening(key: str) -> ChangeOpening:
    return ChangeOpening(
        key=key, fleet="edge", kind=ChangeKind.UPGRADE, requested_by="ana", reason="CVE", release="1.3.0"
    )


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
    for fleet, name in (("edge", "sha256:ffff"), ("core", DIGEST)):
        with pytest.raises(Unknown, match="snapshot"):
            listed.snapshot_named(fleet, name)
    assert listed.expire_snapshots(datetime.now(UTC) - timedelta(days=1), "on call") == ()
    assert set(listed.expire_snapshots(datetime.now(UTC) + timedelta(seconds=1), "on call")) == {
        DIGEST,
        other,
    }
    assert listed.kept_snapshots("edge") == ()
    assert ledger.audit_entries()[-1].action == "snapshots expired"
    assert ledger.verify_audit() is None
    ledger.close()
