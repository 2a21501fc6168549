"""Trees of ocserv run anywhere, are always the same, and come from packages that stay the same."""

import shutil
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


@pytest.mark.sweep
def test_the_next_debians_ocserv_is_newer_and_runs_here(tmp_path: Path) -> None:
    older = trees.collect_host_tree(tmp_path / "host")
    newer = trees.collect_next_tree(tmp_path / "next", CACHE)
    assert [int(part) for part in newer.split(".")] > [int(part) for part in older.split(".")]
    assert trees.version(tmp_path / "next") == newer


@pytest.mark.sweep
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


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with the packages that this machine has already."""
    for file in packages.fetch(CACHE):
        shutil.copy(file, tmp_path)
    shutil.copy(packages.lock(CACHE), tmp_path)
    return tmp_path


def test_what_a_cache_has_needs_no_archive(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "mirror", lambda: f"file:{cache}/nothing-here")
    assert [file.name for file in packages.fetch(cache)] == [file.name for file in packages.fetch(CACHE)]


@pytest.mark.sweep
def test_a_tampered_package_in_the_cache_is_fetched_again(cache: Path) -> None:
    tampered = packages.fetch(cache)[0]
    tampered.write_bytes(b"something else")
    assert all(f"{debian.digest_of_file(file)}.deb" == file.name for file in packages.fetch(cache))


@pytest.mark.sweep
@pytest.mark.parametrize("lock", [b"libc6 2.41-12 " + b"0" * 64, b"cut off in a li"])
def test_a_version_that_the_archive_no_longer_has_is_not_asked_for(tmp_path: Path, lock: bytes) -> None:
    packages.lock(tmp_path).write_bytes(lock)
    kept = packages.fetch(tmp_path)
    names = {debian.described(file).name for file in kept}
    assert {"libc6", "ocserv"} <= names
    assert packages.fetch(tmp_path) == kept


def test_an_archive_that_is_away_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "mirror", lambda: f"file:{tmp_path}/nothing-here")
    with pytest.raises(Unavailable, match=r"apt-get update failed: .*nothing-here"):
        packages.fetch(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_a_killed_fetch_left_in_the_cache_is_removed_by_the_next(tmp_path: Path) -> None:
    stale, running = tmp_path / "scratch-4194305-x", tmp_path / "scratch-1-x"
    stale.mkdir()
    running.mkdir()
    with packages.scratch(tmp_path) as home:
        assert sorted(tmp_path.iterdir()) == sorted([running, home])
    assert list(tmp_path.iterdir()) == [running]
