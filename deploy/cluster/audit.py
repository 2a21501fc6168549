"""What a cluster's API was asked, as its audit log has it: by whom, which verb on what, and the answer."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

POLICY: dict[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "rules": [
        # A watch is one request, counted when it begins; everything else when it has been answered.
        {"level": "Metadata", "verbs": ["watch"], "omitStages": ["RequestReceived", "ResponseComplete"]},
        {"level": "Metadata", "omitStages": ["RequestReceived", "ResponseStarted"]},
    ],
}
"""As the API server reads it."""


@dataclass(frozen=True)
class Request:
    """One answered request."""

    user: str
    agent: str
    """As the client calls itself."""
    verb: str
    resource: str
    """With its subresource, as `nodes/status`; the path where it is none of the API's."""
    namespace: str
    name: str
    status: int
    at: datetime
    took: float
    """Seconds until it was answered; of a watch, until it began."""


class Audit:
    """The log of one API server, across its restarts."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def position(self) -> int:
        """Return the place of now, for a later `since`."""
        return self._file.stat().st_size if self._file.exists() else 0

    def since(self, position: int = 0) -> list[Request]:
        """Return the requests that were answered after that place.

        One that a client has just been answered may come a moment later: it is written after the answer.
        """
        return list(self._read(position))

    def _read(self, position: int) -> Iterator[Request]:
        if not self._file.exists():
            return
        with self._file.open("rb") as file:
            file.seek(position)
            for line in file:
                if line.endswith(b"\n"):  # the last one is still being written
                    yield _request(json.loads(line))


def counted(requests: Iterable[Request]) -> "Counter[tuple[str, str]]":
    """Return how many there were of each verb and resource."""
    return Counter((request.verb, request.resource) for request in requests)


def _request(said: dict[str, Any]) -> Request:
    about = said.get("objectRef", {})
    parts = [about[key] for key in ("resource", "subresource") if about.get(key)]
    began, ended = (
        datetime.fromisoformat(said[key]) for key in ("requestReceivedTimestamp", "stageTimestamp")
    )
    return Request(
        said["user"].get("username", ""),
        said.get("userAgent", ""),
        said["verb"],
        "/".join(parts) or said["requestURI"].partition("?")[0],
        about.get("namespace", ""),
        about.get("name", ""),
        said.get("responseStatus", {}).get("code", 0),
        began,
        (ended - began).total_seconds(),
    )
