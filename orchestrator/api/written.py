"""How digests and names are written in what people ask, and what they hear where something else is."""

from collections.abc import Mapping
from typing import Any

from orchestrator.api.texts import TEXT
from policies.model.value import DIGEST, NAME

PLAN = r"^(?:sha256:|p-)?[0-9a-f]{8,64}$"
"""How a plan is written: its digest, or enough of the beginning."""

SNAPSHOT = r"^(?:sha256:)?[0-9a-f]{4,64}$"
"""How a snapshot is written: its digest, or enough of the beginning."""

_HOW = {
    SNAPSHOT: "no digest of a snapshot; write what it is listed with, or 4 or more of its first digits",
    DIGEST: "no digest; write sha256: and its 64 digits 0-9a-f, whole",
    PLAN: "no digest of a plan; write what it was printed with, or 8 or more of its first digits",
    TEXT: "blank, or has a NUL character in it; write a text that can be read",
    NAME: "no name; one has small letters a-z, digits, and dots and hyphens between them",
}
"""What else is, by the pattern that it does not match."""


def wrong(error: Mapping[str, Any]) -> str:
    """Return what is wrong with what was asked: where, what was written there, and how it is written."""
    place = ".".join(str(part) for part in error["loc"])
    how = _HOW.get(error.get("ctx", {}).get("pattern", ""))
    return f"{place}: {error['msg']}" if how is None else f"{place}: {error['input']!r} is {how}"
