"""The packages that hosts install: those that `./run package` made, and the same as a newer version."""

import subprocess
import tempfile
from pathlib import Path

import pytest

DIST = Path(__file__).parents[2] / "dist"
ORCHESTRATOR, AGENT = "penstock", "penstock-agent"
NEWER = "9.0.0"


def made(name: str) -> Path:
    """Return a package of dist/; skip where nobody has made it."""
    found = list(DIST.glob(f"{name}_*_amd64.deb"))
    if len(found) != 1:
        pytest.skip(f"{DIST} has not one {name}_*_amd64.deb: make it with `./run package`")
    return found[0]


def newer(package: Path, into: Path) -> Path:
    """Return the same package as version `NEWER`, which it says in its control file and of itself."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
        control = tree / "DEBIAN" / "control"
        own = next(tree.glob("usr/lib/*/lib/python*/site-packages/penstock-*.dist-info/METADATA"))
        for file in (control, own):
            lines = file.read_text().splitlines()
            said = [f"Version: {NEWER}" if line.startswith("Version: ") else line for line in lines]
            file.write_text("\n".join(said) + "\n")
        target = into / f"{package.name.partition('_')[0]}_{NEWER}_amd64.deb"
        # It is read once on this machine: nothing is gained by making it small.
        build = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", str(tree), str(target)]
        subprocess.run(build, check=True, capture_output=True)
    return target
