"""Whether this process traces: where an address is set and the packages for it are there."""

import atexit
import importlib
from functools import lru_cache
from typing import TYPE_CHECKING

from orchestrator.tracing.interceptor import RunOf, Tracing
from policies.model.errors import BadInput

if TYPE_CHECKING:
    from orchestrator.tracing.exporting import Spans

EXPORTING = "orchestrator.tracing.exporting"
"""Needs the extra `tracing`; loaded where an address is set."""


def tracing_at(url: str, process: str, run_of: RunOf | None = None) -> Tracing:
    """Return what traces what a client and its workers do, told to the collector at this address.

    Raises:
        BadInput: The packages for it are not installed.
    """
    tell = _spans(url, process).tell
    return Tracing(tell) if run_of is None else Tracing(tell, run_of)


@lru_cache
def _spans(url: str, process: str) -> "Spans":
    """Return the one way to a collector; agents connect anew with each certificate and keep it."""
    try:
        exporting = importlib.import_module(EXPORTING)
    except ModuleNotFoundError as missing:
        raise BadInput(
            f"tracing_url is set, and {missing.name} is not installed: pip install 'penstock[tracing]', or "
            "take tracing_url out"
        ) from missing
    spans: Spans = exporting.Spans(url, process)
    atexit.register(spans.close)
    return spans
