"""Processes behind commands: loaded when one is meant, and without what it never uses of its libraries."""

import importlib
import sys
from typing import Any

COMMAND_LINE_OF_HTTPX = "httpx._main"
"""Loaded by httpx where it finds click; with rich and pygments, 5 MB of every process."""


def loaded(name: str, *without: str) -> Any:
    """Return the module of the process of that name; the engine's client is loaded only here.

    Modules named in `without` are not found while it is being loaded, for libraries that use them where
    they are installed; whoever asks for one later gets it.
    """
    absent = {COMMAND_LINE_OF_HTTPX, *without} - sys.modules.keys()
    # None is what Python takes for "there is no such module" (importlib, `sys.modules`).
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    try:
        return importlib.import_module(f"orchestrator.processes.{name}")
    finally:
        for module in absent:
            del sys.modules[module]


def run(name: str, *arguments: Any) -> None:
    """Run the process of that name until it ends."""
    import asyncio  # noqa: PLC0415 - other commands do without, and come sooner

    from orchestrator.processes import journal  # noqa: PLC0415 - as above

    journal.begin()
    asyncio.run(loaded(name).main(*arguments))
