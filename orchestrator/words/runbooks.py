"""What a site adds to a runbook: whom to wake, and where to look."""

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.words.text import printable

Json = Mapping[str, Any]


def site_lines(site: Json, called: Sequence[Json]) -> list[str]:
    """Return the call chain of a fleet and the site's logs and boards, as lines; none of what is unknown."""
    parts = {
        "Who to wake here, in this order:": [
            f"{number}. {one['name']} ({one['role']}): {one['reach']}" for number, one in enumerate(called, 1)
        ],
        "Where logs are here:": [f"- {one['what']}: {one['where']}" for one in site["logs"]],
        "Boards:": [f"- {one['what']}: {one['link']}" for one in site["boards"]],
    }
    return [printable(line) for head, lines in parts.items() if lines for line in (head, *lines)]
