"""Packages of the next Debian release, pinned by digest, fetched without touching this machine's own apt.

apt checks the archive's signature and its index; we check what came against `packages.lock`.
A version the mirror has dropped since comes from Debian's archive of every day.
`python -m deploy.lab.renew_lock` writes the lock anew when the archive has moved on.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.publishing.debian import Archive, Package, architecture, digest_of_file, mirror
from policies.model.errors import BadInput, Unavailable

LOCK = Path(__file__).with_name("packages.lock")
SUITE = "trixie"
EVERY_DAY = "http://snapshot.debian.org/archive/debian"
_RENEW = "`.venv/bin/python -m deploy.lab.renew_lock` pins what the archive has now"


@dataclass(frozen=True)
class Lock:
    """What may be unpacked: nothing else is."""

    suite: str
    architecture: str
    taken: str
    """When, as the archive of every day names it: 20261120T100000Z."""
    packages: tuple[Package, ...]


def read_lock(path: Path = LOCK) -> Lock:
    """Return the pinned packages.

    Raises:
        BadInput: a line is not `name version sha256`, or the first not `suite architecture time`.
    """
    rows = [line.split() for line in path.read_text().splitlines() if line and not line.startswith("#")]
    try:
        (suite, architecture, taken), *pinned = rows
        return Lock(suite, architecture, taken, tuple(Package(*row) for row in pinned))
    except (TypeError, ValueError):
        raise BadInput(f"{path}: not a list of pinned packages; {_RENEW}") from None


def write_lock(lock: Lock, path: Path = LOCK) -> None:
    """Write the pinned packages, sorted, one per line."""
    lines = [
        "# The next Debian's ocserv and what it links to. First line: suite, architecture, time;",
        "# then name, version and SHA-256 of each package. Made by `python -m deploy.lab.renew_lock`.",
        f"{lock.suite} {lock.architecture} {lock.taken}",
        *(
            f"{each.name} {each.version} {each.sha256}"
            for each in sorted(lock.packages, key=lambda p: p.name)
        ),
    ]
    path.write_text("\n".join(lines) + "\n")


def fetch(lock: Lock, cache: Path) -> list[Path]:
    """Return the pinned packages' files, from the cache or the archive, each with its pinned digest.

    Raises:
        BadInput: this machine's architecture is not the lock's.
        Unavailable: the archive cannot be read, has moved on, or sent other bytes.
    """
    if (here := architecture()) != lock.architecture:
        raise BadInput(f"{LOCK.name} pins packages for {lock.architecture}, this machine is {here}; {_RENEW}")
    cache.mkdir(parents=True, exist_ok=True)
    missing = [each for each in lock.packages if digest_of_file(cache / f"{each.sha256}.deb") != each.sha256]
    if missing:
        with scratch(cache) as home:
            for package, file in _download(lock, missing, home):
                file.replace(cache / f"{package.sha256}.deb")
    return [cache / f"{each.sha256}.deb" for each in lock.packages]


def _download(lock: Lock, missing: list[Package], home: Path) -> list[tuple[Package, Path]]:
    try:
        return Archive.read(lock.suite, home / "now", mirror()).download(missing)
    except Unavailable as today:
        try:
            return Archive.read(lock.suite, home / "then", f"{EVERY_DAY}/{lock.taken}").download(missing)
        except Unavailable as then:
            raise Unavailable(f"{today}; {EVERY_DAY} did not help ({then}); {_RENEW}") from then


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
