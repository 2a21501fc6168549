"""What a package brings to read and to copy: documents, commented examples, gates, alerts and runbooks."""

import shutil
from pathlib import Path

from deploy.debian.contents import Package

ROOT = Path(__file__).parents[2]


def write(package: Package, tree: Path) -> None:
    """Copy the package's documents below this root, each where a link of another one finds it."""
    for name in package.documents:
        place = tree / "usr/share/doc" / package.name / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, place, ignore=shutil.ignore_patterns("decisions"))
        else:
            shutil.copy(ROOT / name, place)
