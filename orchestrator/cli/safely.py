"""Commands in the safe direction: by the API, and for root also where no API answers any more."""

import importlib
import os
import sys
from typing import Any

from orchestrator.cli.client import Api, Problem
from orchestrator.cli.words import fleet_of

SUPERUSER = 0


def command(api: Api, fleet: str | None, body: dict[str, Any], key: str | None) -> tuple[str, Any]:
    """Give the command; return which fleet it was for, and its receipt.

    Raises:
        Problem: It was refused, or nobody answers and this is not root on the orchestrator's own host.
    """
    key = key or os.urandom(12).hex()
    try:
        name = fleet_of(api, fleet)
        return name, api.stopping().post("fleets", name, "commands", body=body, key=key)
    except Problem as problem:
        if problem.code != "Unavailable" or os.geteuid() != SUPERUSER or not api.is_local:
            raise
        if fleet is None:
            raise Problem(problem.code, f"{problem}; without an API the fleet has to be named") from problem
        sys.stderr.write(f"{problem}\nroot goes on by itself: the order goes to the engine, audited\n")
        return fleet, importlib.import_module("orchestrator.processes.last_resort").command(fleet, body, key)
