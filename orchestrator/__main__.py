"""The command `penstock`: runs the command line and turns errors into one sentence and an exit code."""

import sys

import typer

from orchestrator.cli.main import app
from orchestrator.running import leave
from policies.words.errors import PenstockError
from policies.words.exit_code import ExitCode


def main() -> None:
    """Run one command and end the process with its exit code."""
    try:
        app(standalone_mode=False)
        code = 0
    except PenstockError as error:
        print(f"{error.code}: {error}", file=sys.stderr)  # noqa: T201 - the one place that prints errors
        code = error.exit_code
    except typer.Exit as ending:
        code = ending.exit_code
    except typer.Abort:
        code = ExitCode.DETACHED
    except KeyboardInterrupt:
        code = ExitCode.DETACHED
    leave(code)


if __name__ == "__main__":
    main()
