"""Packages of a Debian release, fetched without touching this machine's own apt, and kept.

apt checks the archive's signature and its index. What came is pinned by digest beside the files: every later
lab of this machine has the same trees and needs no archive, which soon has other versions.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from orchestrator.publishing.debian import Archive, Package, architecture, digest_of_file, mirror

SUITE = "trixie"
DAEMON, SHELL = ("ocserv",), ("busybox-static",)


def lock(cache: Path, wanted: Sequence[str] = DAEMON, suite: str = SUITE) -> Path:
    """Return where a cache says which packages it has: name, version and SHA-256, one in each line."""
    kind = "" if tuple(wanted) == DAEMON else f"-{hashlib.sha256(' '.join(wanted).encode()).hexdigest()[:8]}"
    return cache / f"{suite}-{architecture()}{kind}.lock"


def fetch(cache: Path, wanted: Sequence[str] = DAEMON, suite: str = SUITE) -> list[Path]:
    """Return the files of packages of a Debian and of all they depend on, as they are pinned in the cache.

    Where one is missing or damaged, all are fetched as the archive has them now, and pinned anew.

    Raises:
        BadInput: apt or the archive's keyring is not installed.
        Unavailable: the archive cannot be read, or its signature does not hold.
    """
    cache.mkdir(parents=True, exist_ok=True)
    pinned = _read(lock(cache, wanted, suite))
    if not pinned or any(digest_of_file(_file(cache, one)) != one.sha256 for one in pinned):
        with scratch(cache) as home:
            pinned = _fetch_anew(cache, home, wanted, suite)
    return [_file(cache, one) for one in pinned]


def _fetch_anew(cache: Path, home: Path, wanted: Sequence[str], suite: str) -> list[Package]:
    archive = Archive.read(suite, home / "archive", mirror())
    found = archive.pin(archive.closure(*wanted))
    for package, file in found:
        file.replace(_file(cache, package))
    pinned = [package for package, _ in found]
    lines = "".join(f"{one.name} {one.version} {one.sha256}\n" for one in pinned)
    (home / "lock").write_text(lines)
    (home / "lock").replace(lock(cache, wanted, suite))
    return pinned


def _read(path: Path) -> list[Package]:
    try:
        return [Package(*line.split()) for line in path.read_text().splitlines()]
    except (FileNotFoundError, TypeError, UnicodeDecodeError):
        return []


def _file(cache: Path, package: Package) -> Path:
    return cache / f"{package.sha256}.deb"


@contextmanager
def scratch(cache: Path) -> Iterator[Path]:
    """Give an own folder beside the cached packages for a moment; those of killed processes are removed."""
    cache.mkdir(parents=True, exist_ok=True)
    for old in cache.glob("scratch-*"):
        if not Path("/proc", old.name.split("-")[1]).exists():
            shutil.rmtree(old)
    home = Path(tempfile.mkdtemp(prefix=f"scratch-{os.getpid()}-", dir=cache))
    try:
        yield home
    finally:
        shutil.rmtree(home)
