"""The packages that hosts install: those that `./run package` made."""

from pathlib import Path

import pytest

DIST = Path(__file__).parents[2] / "dist"
ORCHESTRATOR, AGENT = "penstock", "penstock-agent"


def made(name: str) -> Path:
    """Return a package of dist/; skip where nobody has made it."""
    found = list(DIST.glob(f"{name}_*_amd64.deb"))
    if len(found) != 1:
        pytest.skip(f"{DIST} has not one {name}_*_amd64.deb: make it with `./run package`")
    return found[0]
