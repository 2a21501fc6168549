"""Trees of ocserv run anywhere, are always the same, and contain only what was pinned."""

import dataclasses
import stat
import subprocess
from pathlib import Path

import pytest

from deploy.lab import packages, preflight, trees
from orchestrator.publishing import debian
from orchestrator.publishing.tree import MOUNT_POINTS
from policies.model.errors import BadInput, Unavailable
from tests.lab.own_state import SHARED as CACHE

pytestmark = pytest.mark.lab


@pytest.fixture(autouse=True)
def _able() -> None:
    try:
        preflight.examine()
    except BadInput as obstacle:
        pytest.skip(str(obstacle))


def everything(tree: Path) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for path in sorted([tree, *tree.rglob("*")]):
        seen = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(seen.st_mode) else b""
        target = str(path.readlink()) if path.is_symlink() else ""
        rows.append((str(path.relative_to(tree)), seen.st_mode, seen.st_uid, seen.st_mtime, target, content))
    return rows


def test_this_debians_ocserv_runs_from_its_tree_with_nothing_else_of_the_host(tmp_path: Path) -> None:
    said = trees.collect_host_tree(tmp_path / "tree")
    installed = subprocess.run(["ocserv", "--version"], text=True, capture_output=True, check=False)
    assert said in installed.stdout + installed.stderr
    shown = subprocess.run(
        ["chroot", tmp_path / "tree", "/usr/bin/occtl", "--version"], capture_output=True, check=False
    )
    assert b"occtl" in shown.stdout + shown.stderr or shown.returncode == 0


def test_the_next_debians_ocserv_is_newer_and_runs_here(tmp_path: Path) -> None:
    older = trees.collect_host_tree(tmp_path / "host")
    newer = trees.collect_next_tree(tmp_path / "next", CACHE)
    assert [int(part) for part in newer.split(".")] > [int(part) for part in older.split(".")]
    assert trees.version(tmp_path / "next") == newer


def test_the_same_packages_always_give_the_same_tree(tmp_path: Path) -> None:
    for name in ("one", "two"):
        trees.collect_next_tree(tmp_path / name, CACHE)
    assert everything(tmp_path / "one") == everything(tmp_path / "two")


def test_a_tree_has_the_places_penstock_mounts_and_only_two_accounts(tmp_path: Path) -> None:
    trees.collect_host_tree(tmp_path / "tree")
    for place in MOUNT_POINTS:
        assert (tmp_path / "tree" / place).is_dir()
    names = [line.split(":")[0] for line in (tmp_path / "tree/etc/passwd").read_text().splitlines()]
    assert names == ["root", "nobody"]


def test_a_tampered_package_in_the_cache_is_fetched_again(tmp_path: Path) -> None:
    lock = packages.read_lock()
    one = dataclasses.replace(lock, packages=tuple(p for p in lock.packages if p.name == "libtalloc2"))
    (tmp_path / f"{one.packages[0].sha256}.deb").write_bytes(b"something else")
    (file,) = packages.fetch(one, tmp_path)
    assert packages.fetch(one, tmp_path) == [file]
    assert file.stat().st_size > 1000


def test_a_package_with_another_digest_than_pinned_is_refused(tmp_path: Path) -> None:
    lock = packages.read_lock()
    wrong = tuple(dataclasses.replace(p, sha256="0" * 64) for p in lock.packages if p.name == "libtalloc2")
    with pytest.raises(Unavailable, match=r"libtalloc2 .* has SHA-256 [0-9a-f]{64}, not 0{64}"):
        packages.fetch(dataclasses.replace(lock, packages=wrong), tmp_path)
    assert list(tmp_path.glob("*.deb")) == []


def test_a_version_the_archive_no_longer_has_says_how_to_renew_the_lock(tmp_path: Path) -> None:
    lock = packages.read_lock()
    gone = (debian.Package("ocserv", "0.0.1-1", "0" * 64),)
    with pytest.raises(Unavailable, match=r"ocserv.*deploy\.lab\.renew_lock"):
        packages.fetch(dataclasses.replace(lock, packages=gone), tmp_path)


def test_a_version_the_mirror_has_dropped_comes_from_the_archive_of_every_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Today's mirror, reached by another name, stands in for the archive of the day the lock was made.
    parent, name = debian.mirror().rstrip("/").rsplit("/", 1)
    monkeypatch.setattr(packages, "EVERY_DAY", parent)
    monkeypatch.setattr(packages, "mirror", lambda: f"file:{tmp_path}/nothing-here")
    lock = dataclasses.replace(packages.read_lock(), taken=name)
    one = dataclasses.replace(lock, packages=tuple(p for p in lock.packages if p.name == "libtalloc2"))
    (file,) = packages.fetch(one, tmp_path / "cache")
    assert file.stem == one.packages[0].sha256


def test_a_lock_for_another_architecture_is_refused(tmp_path: Path) -> None:
    lock = dataclasses.replace(packages.read_lock(), architecture="s390x")
    with pytest.raises(BadInput, match="pins packages for s390x, this machine is"):
        packages.fetch(lock, tmp_path)


def test_a_malformed_lock_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "packages.lock").write_text("trixie amd64 20261120T100000Z\nocserv 1.3.0-2\n")
    with pytest.raises(BadInput, match=r"packages\.lock: not a list of pinned packages"):
        packages.read_lock(tmp_path / "packages.lock")


def test_writing_a_lock_and_reading_it_gives_the_same(tmp_path: Path) -> None:
    packages.write_lock(packages.read_lock(), tmp_path / "packages.lock")
    assert packages.read_lock(tmp_path / "packages.lock") == packages.read_lock()
    assert (tmp_path / "packages.lock").read_bytes() == packages.LOCK.read_bytes()


def test_what_a_killed_fetch_left_in_the_cache_is_removed_by_the_next(tmp_path: Path) -> None:
    stale, running = tmp_path / "scratch-4194305-x", tmp_path / "scratch-1-x"
    stale.mkdir()
    running.mkdir()
    with packages.scratch(tmp_path) as home:
        assert sorted(tmp_path.iterdir()) == sorted([running, home])
    assert list(tmp_path.iterdir()) == [running]
