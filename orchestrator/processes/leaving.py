"""How a process ends; apart, so that a command that asks nobody loads no event loop for it."""

import os
import sys
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """End the process without the interpreter's own shutdown, which can abort after using the engine.

    sdk-python issue 300; temporal.md section 15 has the counts.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # whoever read it has gone
            continue
    os._exit(code)
