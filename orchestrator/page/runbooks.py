"""Runbooks on the page: the sentence that names one, and the link where the site publishes them."""

import re
from collections.abc import Callable

from orchestrator.words.standing import RUNBOOK
from policies.runbooks import PAGES

Runbooks = Callable[[str], str | None]
"""Where a runbook's page opens, None where that is not known."""

_NAMED = re.compile(rf"(?s)(?P<said>.*) {RUNBOOK}: (?P<page>[a-z-]+)")


def named_only(_: str) -> str | None:
    """Return where a runbook's page opens for a site that publishes none: nowhere."""
    return None


def parted(said: str) -> tuple[str, str | None]:
    """Return a sentence without the runbook at its end, and that page; None where no page is named."""
    found = _NAMED.fullmatch(said)
    if found is None or found["page"] not in PAGES:
        return said, None
    return found["said"], found["page"]
