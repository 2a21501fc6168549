"""The command `penstock`: runs the command line and turns errors into one sentence and an exit code."""

import sys
from io import TextIOWrapper

from orchestrator.cli.main import app
from orchestrator.cli.spelling import all_spelled
from orchestrator.exit_code import ExitCode
from orchestrator.processes.process import leave
from policies.model.errors import PenstockError


def main() -> None:
    """Run one command and end the process with its exit code."""
    code: int = ExitCode.DONE
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal cannot show must not end the command
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()  # ends in SystemExit, with 2 for bad usage and 130 for Ctrl-C
    except PenstockError as error:
        print(f"{error.code}: {error}", file=sys.stderr)  # noqa: T201 - the one place that prints errors
        if error.offers:
            print(f"Next: {all_spelled(error.offers)}", file=sys.stderr)  # noqa: T201
        code = error.exit_code
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else ExitCode.INTERNAL
    leave(code)


if __name__ == "__main__":
    main()
