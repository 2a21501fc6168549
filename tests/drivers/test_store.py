"""Files by digest: written once, hashed at every use, unpacked whole or not at all."""

import gzip
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from activities.drivers.store.blobs import BlobStore
from activities.drivers.store.states import TrustStates
from activities.drivers.store.trees import inspect, is_whole, unpack
from activities.refusals import ArchiveRefused
from policies.model.refusals import DigestMismatch
from policies.model.release import Artifact, ReleaseFile, ReleaseLink
from policies.model.value import digest_of
from policies.model.verification import TrustState
from tests.fakes import archives
from tests.fakes.trees import small_tree


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "store")


def test_the_same_bytes_are_stored_once_and_read_only(store: BlobStore) -> None:
    digest = store.put(b"bytes")
    before = store.path(digest).stat()
    assert store.put(b"bytes") == digest == digest_of(b"bytes")
    assert store.path(digest).stat().st_mtime_ns == before.st_mtime_ns
    assert before.st_mode & 0o777 == 0o444
    assert store.read(digest) == b"bytes"
    assert store.has(digest, 5)
    assert not store.has(digest, 4)


def test_a_file_changed_in_the_store_is_noticed_and_removed(store: BlobStore, tmp_path: Path) -> None:
    digest = store.put(b"bytes")
    store.path(digest).unlink()
    store.path(digest).write_bytes(b"byteZ")
    with pytest.raises(DigestMismatch):
        store.install(digest, tmp_path, "installed")
    assert not (tmp_path / "installed").exists()
    assert not store.has(digest, 5)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_link_in_the_store_is_not_followed(store: BlobStore, tmp_path: Path) -> None:
    digest = store.put(b"bytes")
    (tmp_path / "elsewhere").write_bytes(b"bytes")
    store.path(digest).unlink()
    store.path(digest).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DigestMismatch):
        store.read(digest)


def test_installing_replaces_a_file_as_a_whole_and_sets_its_mode(store: BlobStore, tmp_path: Path) -> None:
    target = tmp_path / "deep/er/file"
    for content in (b"one", b"two"):
        store.install(store.put(content), tmp_path, "deep/er/file", 0o755)
    assert target.read_bytes() == b"two"
    assert target.stat().st_mode & 0o777 == 0o755


def test_collecting_keeps_what_is_named_and_nothing_else(store: BlobStore) -> None:
    kept, gone = store.put(b"kept"), store.put(b"gone")
    assert store.collect([kept]) == (gone,)
    assert store.digests() == {kept}
    store.discard(kept)
    store.discard(kept)
    assert not store.digests()


# --- trees --------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return small_tree(tmp_path)[0]


def described(tree: Path, unpack: str = "tar") -> Artifact:
    files = [path for path in sorted(tree.rglob("*")) if path.is_file() and not path.is_symlink()]
    links = [path for path in sorted(tree.rglob("*")) if path.is_symlink()]
    return Artifact(
        name="root.tar",
        sha256="0" * 64,
        size=0,
        media_type="application/x-tar",
        unpack="tar.gz" if unpack == "tar.gz" else "tar",
        files=tuple(
            ReleaseFile(
                path=path.relative_to(tree).as_posix(),
                sha256=digest_of(path.read_bytes())[7:],
                size=path.stat().st_size,
                mode=path.stat().st_mode & 0o777,
            )
            for path in files
        ),
        links=tuple(
            ReleaseLink(path=path.relative_to(tree).as_posix(), target=str(path.readlink())) for path in links
        ),
    )


def pieces(content: bytes, size: int = 1000) -> Iterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
@pytest.mark.parametrize("size", [7, 512, 1 << 20])
def test_a_tree_is_unpacked_exactly_as_it_is_listed(tree: Path, tmp_path: Path, kind: str, size: int) -> None:
    artifact, into = described(tree, kind), tmp_path / "into"
    archive = archives.archive_of(tree)
    packed = gzip.compress(archive) if kind == "tar.gz" else archive
    inspect(pieces(packed, size), artifact)
    assert unpack(pieces(packed, size), artifact, into)
    assert is_whole(artifact, into)
    assert not unpack(pieces(packed, size), artifact, into)
    assert (into / "usr/sbin/ocserv").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("change", ["content", "mode", "more", "less", "link", "no link", "not a folder"])
def test_a_tree_that_was_changed_is_laid_out_again(tree: Path, tmp_path: Path, change: str) -> None:
    artifact, into = described(tree), tmp_path / "into"
    archive = archives.archive_of(tree)
    unpack(pieces(archive), artifact, into)
    daemon, link = into / "usr/sbin/ocserv", into / "usr/lib/libexample.so"
    match change:
        case "content":
            daemon.write_bytes(b"x" * daemon.stat().st_size)
        case "mode":
            daemon.chmod(0o4755)
        case "more":
            (into / "usr/sbin/more").write_text("more")
        case "less":
            daemon.unlink()
        case "link":
            link.unlink()
            link.symlink_to("/etc/passwd")
        case "no link":
            link.unlink()
            link.write_text("file")
        case _:
            into.rename(tmp_path / "aside")
            into.symlink_to(tmp_path / "aside")
    assert not is_whole(artifact, into)
    assert unpack(pieces(archive), artifact, into)
    assert is_whole(artifact, into)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".into")]


def damaged(archive: bytes, how: str) -> bytes:
    match how:
        case "checksum":
            return archive[:150] + b"0" + archive[151:]
        case "size that is none":
            return archive[:124] + b"not a number" + archive[136:]
        case "name that is none":
            return b"\xff" + archive[1:]
        case "padding":
            return archive[: 512 + 511] + b"x" + archive[1024:]
        case "cut":
            return archive[:600]
        case _:
            return archive[:-10240]


@pytest.mark.parametrize("how", ["checksum", "size that is none", "name that is none", "cut", "no end"])
def test_a_damaged_archive_leaves_no_tree(tree: Path, tmp_path: Path, how: str) -> None:
    with pytest.raises(ArchiveRefused):
        unpack(pieces(damaged(archives.archive_of(tree), how)), described(tree), tmp_path / "into")
    assert not (tmp_path / "into").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".into")]


def test_gzip_that_goes_on_after_its_end_is_refused(tree: Path) -> None:
    packed = gzip.compress(archives.archive_of(tree))
    for more in (b"evil", gzip.compress(b"evil")):
        with pytest.raises(ArchiveRefused):
            inspect(pieces(packed + more), described(tree, "tar.gz"))


def test_a_bomb_is_refused_before_it_is_unpacked(tree: Path) -> None:
    taken = 0

    def counted() -> Iterator[bytes]:
        nonlocal taken
        for piece in pieces(archives.bomb("usr/sbin/ocserv"), 4096):
            taken += len(piece)
            yield piece

    with pytest.raises(ArchiveRefused):
        inspect(counted(), described(tree, "tar.gz"))
    assert taken <= 8192


# --- what was seen ------------------------------------------------------------------------


def test_what_was_seen_outlives_the_process_and_is_kept_apart_by_channel(tmp_path: Path) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)

    def seen(state: TrustState) -> TrustState:
        return state.model_copy(update={"floor": state.floor + 1, "seen_at": moment})

    for _ in range(3):
        TrustStates(tmp_path).change("ocserv-gw", "stable", seen)
    assert TrustStates(tmp_path).read("ocserv-gw", "stable").floor == 3
    assert TrustStates(tmp_path).read("ocserv-gw", "canary") == TrustState()


def test_a_step_that_fails_changes_nothing(tmp_path: Path) -> None:
    states = TrustStates(tmp_path)

    def fails(_: TrustState) -> TrustState:
        raise OSError(os.strerror(28))

    with pytest.raises(OSError, match="No space"):
        states.change("ocserv-gw", "stable", fails)
    assert states.read("ocserv-gw", "stable") == TrustState()
