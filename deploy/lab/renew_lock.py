"""`python -m deploy.lab.renew_lock`: pins the next Debian release's newest ocserv, and what it links to."""

import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from deploy.lab import trees
from deploy.lab.packages import LOCK, SUITE, Lock, write_lock
from orchestrator.publishing.debian import Archive, architecture, mirror
from policies.model.errors import PenstockError


def renew() -> Lock:
    """Write the lock anew and return it."""
    with tempfile.TemporaryDirectory(prefix="penstock-lock-") as made:
        home = Path(made)
        archive = Archive.read(SUITE, home / "archive", mirror())
        pinned = archive.pin(archive.closure("ocserv"))
        linked = trees.linked_packages([(package.name, file) for package, file in pinned], home / "roots")
    taken = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    kept = tuple(package for package, _ in pinned if package.name in linked)
    lock = Lock(SUITE, architecture(), taken, kept)
    write_lock(lock)
    return lock


if __name__ == "__main__":
    try:
        print(f"{LOCK}: {len(renew().packages)} packages pinned")
    except PenstockError as problem:
        sys.exit(str(problem))
