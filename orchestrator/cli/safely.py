"""Commands in the safe direction: by the API, and for root also where no API answers any more."""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

from orchestrator.cli.client import Api, Problem
from orchestrator.cli.words import fleet_of
from policies.model.errors import PenstockError, Unavailable

SUPERUSER = 0
UNAVAILABLE = Unavailable.__name__


def command(
    api: Api,
    fleet: str | None,
    body: dict[str, Any],
    key: str | None,
    before: Callable[[str, dict[str, Any]], None] = lambda _fleet, _body: None,
) -> tuple[str, Any]:
    """Give the command; return which fleet it was for, and its receipt.

    Args:
        api: Which API is asked first.
        fleet: Which fleet, where there is more than one.
        body: The command.
        key: Of the request.
        before: Called with the fleet and the command before it is given.

    Raises:
        Problem: It was refused, or neither the API nor the engine answers: then nothing is stored.
    """
    key, name = key or os.urandom(12).hex(), fleet
    try:
        name = fleet_of(api, fleet)
        before(name, body)
        return name, api.stopping().post("fleets", name, "commands", body=body, key=key)
    except Problem as problem:
        if problem.code != UNAVAILABLE:
            raise
        if os.geteuid() != SUPERUSER or not api.is_local:
            raise _not_done(problem) from problem
        if name is None:
            why = f"{problem}; without an API the fleet has to be named"
            raise Problem(problem.code, why, exit_code=problem.exit_code) from problem
        sys.stderr.write(f"{problem}\nroot goes on by itself: the order goes to the engine, audited\n")
        silent = problem
    try:
        return name, importlib.import_module("orchestrator.processes.last_resort").command(name, body, key)
    except PenstockError as error:
        if isinstance(error, Unavailable):
            raise _not_done(error) from error
        if silent.answered:  # the files of this shell are not the API's, which has answered why
            raise _not_done(silent) from error
        raise


def _not_done(why: Exception) -> Problem:
    """Return that nothing was ordered, and what to do."""
    return Problem(
        UNAVAILABLE,
        f"NOT DONE, nothing is stored: {why}. Repeat the command when the engine is back, or act on a "
        "gateway's host, as root: penstock agent break-glass --config /etc/penstock/agent.yaml --back "
        "--reason TEXT",
    )
