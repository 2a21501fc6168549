"""Following a change to its end: one frame on a terminal, one line per event elsewhere."""

import sys
import time
from typing import Any

from orchestrator.cli.client import Api, Problem
from orchestrator.cli.output import Output, console, emit
from orchestrator.exit_code import OF_OUTCOMES, ExitCode, code_of_order
from orchestrator.words.changes import UNNAMED, begun
from orchestrator.words.standing import idle_line, needs_operator, stored_line
from orchestrator.words.text import printable

EVERY_SECONDS = 0.5
Json = Any


def code_of_fleet(status: Json) -> ExitCode:
    """Return the exit code of a fleet: 6 when its status needs an operator; 7 takes precedence over that."""
    code = code_of_change(status)
    if code is not ExitCode.ROLLBACK_INCOMPLETE and needs_operator(status):
        return ExitCode.HELD
    return code


def code_of_change(status: Json) -> ExitCode:
    """Return how the fleet's newest change stands, or has ended, as an exit code."""
    change = status["change"]
    if change is None:
        return ExitCode.DONE
    if change["outcome"] is not None:
        return OF_OUTCOMES[change["outcome"]]
    return ExitCode.HELD if change["phase"] == "held" or change["needs_you"] else ExitCode.DONE


def follow(
    api: Api, fleet: str, output: Output, within: float | None = None, change: str | None = None
) -> ExitCode:
    """Follow a change to its end, and return how it ended.

    Without a time limit an incomplete rollback ends it at once; with one it has until then to become
    complete. What has not ended then goes on without us.

    Args:
        api: Which API is asked.
        fleet: The fleet of the change.
        output: In which form its events are printed.
        within: How many seconds it is followed.
        change: Its name; the fleet's newest one by default, or the stored order after that.
    """
    deadline = None if within is None else time.monotonic() + within
    if output is Output.TABLE and sys.stdout.isatty():
        return _on_a_terminal(api, fleet, change, deadline)
    return _line_by_line(api, fleet, change, output, deadline)


def watch_fleet(api: Api, fleet: str, output: Output) -> ExitCode:
    """Follow the fleet's change to its end; without one report what the fleet is on, and end at once."""
    status = _asked(api, fleet, None)
    idle = None if isinstance(status, Problem) else idle_line(status)
    code = follow(api, fleet, output)
    if idle is not None:
        (sys.stdout if output is Output.TABLE else sys.stderr).write(f"{idle}\n")
    return code


def begun_line(fleet: str, found: Json) -> str:
    """Return what is said of a change that somebody has started and does not follow."""
    said = f"{begun(found['change'], found.get('waits'))}. Follow it: penstock watch {fleet}"
    return printable(" ".join(filter(None, (found.get("ended"), said))))


def code_of_begun(found: Json) -> ExitCode:
    """Return the exit code of a change that was ordered and is not followed; without a name it is stored."""
    return code_of_order(is_stored=found["change"] is None)


def follow_begun(api: Api, fleet: str, found: Json, output: Output) -> ExitCode:
    """Follow a change that has begun to its end; one that no worker has named cannot be told from others."""
    change, waits = found["change"], found.get("waits")
    if found.get("ended"):
        sys.stderr.write(printable(found["ended"]) + "\n")
    if change is None:
        return not_named(fleet)
    state = f"is {waits}" if waits else "has begun"
    sys.stderr.write(printable(f"{change} {state}; it is followed to its end") + "\n")
    return follow(api, fleet, output, change=change)


def not_named(fleet: str) -> ExitCode:
    """Print that no worker has named a change yet, and return the exit code of one that is not followed."""
    sys.stderr.write(f"{UNNAMED}. Follow it then: penstock watch {fleet}\n")
    return code_of_order(is_stored=True)


def _on_a_terminal(api: Api, fleet: str, change: str | None, deadline: float | None) -> ExitCode:
    from rich.live import Live  # noqa: PLC0415 - only a terminal needs it

    from orchestrator.cli.screens import fitted_frame  # noqa: PLC0415

    with Live(console=console(), auto_refresh=False) as live:
        while True:
            status = _asked(api, fleet, change)
            if not isinstance(status, Problem):
                change = change or _name_of(status)
                live.update(fitted_frame(status, live.console), refresh=True)
                if (code := _ended(status, deadline)) is not None:
                    return code
            elif _is_late(deadline):
                return _given_up(fleet)
            time.sleep(EVERY_SECONDS)


def _line_by_line(
    api: Api, fleet: str, change: str | None, output: Output, deadline: float | None
) -> ExitCode:
    told, hears_nothing, stored = 0, False, ""
    while True:
        status = _asked(api, fleet, change)
        if isinstance(status, Problem) and not hears_nothing:
            sys.stderr.write(_not_shown(status))
        hears_nothing = isinstance(status, Problem)
        if not isinstance(status, Problem):
            change = change or _name_of(status)
            if change is not None:
                told = _print_events(api, fleet, change, told, output)
            elif status["unbegun"] and stored != (stored := stored_line(status["unbegun"])):
                sys.stderr.write(printable(stored) + "\n")
            if (code := _ended(status, deadline)) is not None:
                return code
        elif _is_late(deadline):
            return _given_up(fleet)
        time.sleep(EVERY_SECONDS)


def _given_up(fleet: str) -> ExitCode:
    sys.stderr.write(
        f"The wait is over, and how it goes on was not shown since; see penstock status {fleet}\n"
    )
    return ExitCode.TIMED_OUT


def _print_events(api: Api, fleet: str, change: str, told: int, output: Output) -> int:
    """Print what happened in the change after the event of that number; return the newest number."""
    while True:
        try:
            page = api.get("fleets", fleet, "events", after=told)
        except Problem:
            return told
        for event in page["events"]:
            if event["change"] != change:
                continue
            stamp = event["at"][:19] + "Z"
            if output is Output.TABLE:
                sys.stdout.write(f"{stamp} {printable(event['sentence'])}\n")
            else:
                emit(Output.JSONL, "Event", event, lambda: None)
        sys.stdout.flush()
        if not page["events"]:
            return told
        told = page["after"]


def _asked(api: Api, fleet: str, change: str | None) -> Json | Problem:
    """Return how the fleet and its change stand, or what keeps that from being shown: it goes on.

    Nobody answers, or a person writes into the fleet's file just then. A change that is followed by its name
    is shown also where it is not the fleet's newest any more.
    """
    try:
        status = api.get("fleets", fleet)
        if change is None:
            return status
        if status["change"] is None or status["change"]["rollout"] != change:
            status["change"] = api.get("changes", change)["status"]
        return status | {"unbegun": None}
    except Problem as problem:
        if problem.code not in {"Unavailable", "BadInput"}:
            raise
        return problem


def _name_of(status: Json) -> str | None:
    """Return the name of the change to follow, None while an order after it has not begun."""
    if status["unbegun"] or status["change"] is None:
        return None
    name: str = status["change"]["rollout"]
    return name


def _not_shown(problem: Problem) -> str:
    if problem.code == "Unavailable":
        return "The API does not answer; it is asked again until it does.\n"
    return f"How it goes on is not shown: {printable(str(problem))}. It is asked again until it is.\n"


def _ended(status: Json, deadline: float | None) -> ExitCode | None:
    change, late = status["change"], _is_late(deadline)
    if status["unbegun"]:
        return ExitCode.TIMED_OUT if late else None
    if change is None:
        return ExitCode.DONE
    incomplete = change["outcome"] == "rollback_incomplete"
    if change["phase"] == "ended" or (incomplete and (late or deadline is None)):
        return code_of_change(status)
    if late:
        return ExitCode.HELD if change["phase"] == "held" else ExitCode.TIMED_OUT
    return None


def _is_late(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline
