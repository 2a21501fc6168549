"""Commands in the safe direction: by the API, and for root also where no API answers any more."""

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from orchestrator.cli.client import Api, Problem
from orchestrator.cli.words import fleet_of
from policies.model.errors import NotOrdered, PenstockError, Unavailable

SUPERUSER = 0
UNAVAILABLE = frozenset({Unavailable.__name__, NotOrdered.__name__})


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
        Problem: It was refused, or neither the API nor the engine answers. The text says whether nothing is
            stored or that is unknown, and how to repeat the same command.
    """
    order = _Order(fleet, key or os.urandom(12).hex(), is_new=key is None)
    try:
        order.fleet = fleet_of(api, fleet)
        before(order.fleet, body)
        order.may_be_sent = True
        return order.fleet, api.stopping().post("fleets", order.fleet, "commands", body=body, key=order.key)
    except Problem as problem:
        order.may_be_sent &= problem.may_be_done
        if problem.code not in UNAVAILABLE:
            raise
        if os.geteuid() != SUPERUSER or not api.is_local:
            raise order.unfinished(problem) from problem
        if order.fleet is None:
            why = f"{problem}; without an API the fleet has to be named"
            raise Problem(problem.code, why, exit_code=problem.exit_code) from problem
        sys.stderr.write(f"{problem}\nroot goes on by itself: the order goes to the engine, audited\n")
        silent = problem
    last_resort = importlib.import_module("orchestrator.processes.last_resort")
    try:
        return order.fleet, last_resort.command(order.fleet, body, order.key)
    except PenstockError as error:
        if isinstance(error, Unavailable):
            order.may_be_sent |= not isinstance(error, NotOrdered)
            raise order.unfinished(error) from error
        if silent.answered:  # the files of this shell are not the API's, which has answered why
            raise order.unfinished(silent) from error
        raise


@dataclass
class _Order:
    """A command that is given, and what is known of it."""

    fleet: str | None
    key: str
    is_new: bool
    """Whether no earlier command had its key: that one may be stored, whatever becomes of this one."""
    may_be_sent: bool = False

    def unfinished(self, why: Exception) -> Problem:
        """Return whether nothing is stored or that is unknown, and what to do."""
        on_the_host = (
            "act on a gateway's host, as root: penstock agent break-glass --config /etc/penstock/agent.yaml "
            "--back --reason TEXT"
        )
        if self.is_new and not self.may_be_sent:
            again = "Repeat the command when the engine is back"
            text = f"NOT DONE, nothing is stored: {why}. {again}, or {on_the_host}"
            return Problem(NotOrdered.__name__, text)
        check = f"Check: penstock status {self.fleet or ''}".rstrip()
        again = f"To repeat the same order, which is carried out once, add --id {self.key}"
        text = (
            f"UNKNOWN whether this is stored: {why}. {check}. {again}. If the engine is away, {on_the_host}"
        )
        return Problem(Unavailable.__name__, text)
