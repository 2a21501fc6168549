"""The command `penstock`: runs the command line and turns whatever goes wrong into a sentence and a code."""

import os
import signal
import sys
from io import TextIOWrapper

from orchestrator.exit_code import ExitCode
from orchestrator.umask import keep_to_itself


def main() -> None:
    """Run one command and end the process with its exit code; what it writes is read by nobody else."""
    keep_to_itself()
    signal.signal(
        signal.SIGINT, lambda *_: os._exit(ExitCode.DETACHED)
    )  # what is still being loaded says nothing
    from orchestrator.cli.ending import ended  # noqa: PLC0415
    from orchestrator.processes.leaving import leave  # noqa: PLC0415

    for stream in (sys.stdout, sys.stderr):  # a name that the terminal cannot show must not end the command
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    leave(ended(_command))


def _command() -> None:
    from orchestrator.cli.main import app  # noqa: PLC0415

    signal.signal(signal.SIGINT, signal.default_int_handler)
    app()


if __name__ == "__main__":
    main()
