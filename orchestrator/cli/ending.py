"""Endings: whatever goes wrong in a command becomes a sentence and an exit code."""

import sys
from collections.abc import Callable

from orchestrator.cli.client import Problem
from orchestrator.exit_code import ExitCode
from orchestrator.words.offers import all_spelled
from orchestrator.words.text import printable

ELSEWHERE = (
    "this is what a gateway's host has: its agent, its exporter, and what asks an orchestrator's API. Type "
    "this on a host that has the whole of penstock: the package penstock, not penstock-agent"
)


def ended(command: Callable[[], object]) -> int:
    """Run the command; return the code that the process ends with."""
    try:
        code = _run(command)
        sys.stdout.flush()
    except BrokenPipeError:
        return ExitCode.DONE  # whoever reads has seen enough
    return code


def _run(command: Callable[[], object]) -> int:
    try:
        command()  # ends in SystemExit, with 2 for bad usage and 130 for Ctrl-C
    except Problem as problem:
        text = f"{problem}. {problem.advice}" if problem.advice else str(problem)
        return _say(problem.code, text, problem.offers, problem.exit_code)
    except KeyboardInterrupt:
        return ExitCode.DETACHED
    except BrokenPipeError:
        raise
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else ExitCode.INTERNAL
    except Exception as error:  # noqa: BLE001 - the one place where nothing may go further
        return _last_resort(error)
    return ExitCode.DONE


def _last_resort(error: Exception) -> int:
    """Say what an offline tool has refused, or where the traceback of an internal error is."""
    code = getattr(error, "exit_code", None)
    if isinstance(code, int):
        offers = [offer.model_dump(mode="json") for offer in getattr(error, "offers", ())]
        return _say(type(error).__name__, str(error), offers, code)
    if isinstance(error, ModuleNotFoundError):
        from orchestrator.installation import is_for_gateways  # noqa: PLC0415 - as below

        if is_for_gateways():
            return _say("BadInput", ELSEWHERE, [], ExitCode.USAGE)
    import tempfile  # noqa: PLC0415 - what goes well does not wait for it
    import traceback  # noqa: PLC0415

    with tempfile.NamedTemporaryFile("w", prefix="penstock-error-", suffix=".txt", delete=False) as file:
        traceback.print_exception(error, file=file)
    return _say("Internal", f"an error of penstock itself; please report {file.name}", [], ExitCode.INTERNAL)


def _say(code: str, sentence: str, offers: list[dict[str, object]], exit_code: int) -> int:
    sys.stdout.flush()
    sys.stderr.write(f"{code}: {printable(sentence)}\n")
    if offers:
        sys.stderr.write(f"Next: {printable(all_spelled(offers))}\n")
    return exit_code
