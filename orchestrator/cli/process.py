"""Processes behind commands: loaded when one is meant, and without what it never uses of its libraries."""

import gc
import importlib
import sys
from typing import Any

NOT_ASKED_FOR = {"httpx._main", "mako.ext.pygmentplugin"}
"""Loaded by httpx where it finds click, and by alembic's templates where they find pygments.

With rich and pygments that is 5 MB of every process, and 0.15 s of each start.
"""


def loaded(name: str, *without: str) -> Any:
    """Return the module of the process of that name; the engine's client is loaded only here.

    Modules named in `without` are not found while it is being loaded, for libraries that use them where
    they are installed; whoever asks for one later gets it.
    """
    absent = {*NOT_ASKED_FOR, *without} - sys.modules.keys()
    # None is what Python takes for "there is no such module" (importlib, `sys.modules`).
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]
    gc.disable()  # what is loaded stays: to look through it for cycles again and again is a fifth of the time
    try:
        return importlib.import_module(f"orchestrator.processes.{name}")
    finally:
        gc.freeze()
        gc.enable()
        for module in absent:
            del sys.modules[module]


def run(name: str, *arguments: Any) -> None:
    """Run the process of that name until it ends.

    One without arguments is told by the settings. They are read before it is loaded, which takes seconds:
    who has written one wrongly is told at once.
    """
    import asyncio  # noqa: PLC0415 - other commands do without, and come sooner

    from orchestrator.processes import journal  # noqa: PLC0415 - as above

    journal.begin()
    if not arguments:
        from orchestrator.settings import read_settings  # noqa: PLC0415 - as above

        read_settings()
    asyncio.run(loaded(name).main(*arguments))
