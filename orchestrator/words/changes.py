"""What a change is, in a line."""

from collections.abc import Mapping
from typing import Any

from orchestrator.words.text import printable

Json = Mapping[str, Any]

KINDS = {
    "upgrade": "upgrade to",
    "go_back": "back to",
    "install": "install of",
    "reload": "reload of",
    "configure": "change of",
    "adopt": "adoption of",
}
"""How a change of each kind is called before the name of its release."""


UNNAMED = "The order is stored, and begins when a worker is back"

NOT_IN_FORCE = "Not in force yet: the order is stored"
"""The beginning of what is answered to a command that no worker has carried out yet."""


def begun(change: str | None, waits: str | None = None) -> str:
    """Return what became of a start: the name of the change, and what it waits for."""
    return printable(f"{change} {f'is {waits}' if waits else 'started'}" if change else UNNAMED)


def what(row: Json) -> str:
    """Return what a change does, as people say it."""
    release = row["release"] or "known-good"
    return printable(f"{KINDS[row['kind']]} {release}")
