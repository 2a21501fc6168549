"""What commands share of the command line: their options, and how people write times and fleets."""

import re
from typing import Annotated

import typer

from orchestrator.cli.client import Answers, Api, Problem

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_WRITTEN = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ms|s|m|h|d)")


def _not_empty(text: str) -> str:
    """Return the text; Problem when nobody could read anything in it."""
    if not text.strip():
        raise Problem("BadInput", "--reason is empty: say why, for whoever reads the history", exit_code=2)
    return text


def _fleets(incomplete: str) -> list[str]:
    """Return the fleets that begin like this, for the shell; none when nobody answers at once."""
    try:
        names = Api(patience=COMPLETION_SECONDS).get("fleets")["fleets"]
    except Problem:
        return []
    return [name for name in names if name.startswith(incomplete)]


def completed_releases(incomplete: str) -> list[str]:
    """Return the versions that begin like this, for the shell; none when nobody answers at once."""
    try:
        rows = Api(patience=COMPLETION_SECONDS).get("releases")["releases"]
    except Problem:
        return []
    versions = [row["release"]["version"] for row in rows if row["yanked_reason"] is None]
    return [version for version in dict.fromkeys(versions) if version.startswith(incomplete)]


COMPLETION_SECONDS = 1.0
"""How long whoever presses the tab key may wait."""

FleetName = Annotated[
    str | None,
    typer.Argument(help="the fleet; the only one you see when left out", autocompletion=_fleets),
]
Reason = Annotated[
    str, typer.Option("--reason", callback=_not_empty, help="why, for whoever reads the history")
]
Wait = Annotated[bool, typer.Option("--wait", help="follow it to its end; the exit code says which")]
Key = Annotated[str | None, typer.Option("--id", help="the same id is the same request, carried out once")]


def fleet_of(api: Api, name: str | None) -> str:
    """Return the fleet that is meant; Problem when several might be."""
    if name is not None:
        return name
    names = api.get("fleets")["fleets"]
    if len(names) == 1:
        return str(names[0])
    seen = ", ".join(names) or "none that you may see"
    raise Problem("BadInput", f"say which fleet; there is {seen}", exit_code=2)


def newest_change(answers: Answers, fleet: str | None = None) -> str:
    """Return the newest change of this or the only fleet; Problem when there are several, or none."""
    fleets = [fleet] if fleet is not None else answers.get("fleets")["fleets"]
    if len(fleets) != 1:
        seen = ", ".join(fleets) or "none that you may see"
        raise Problem("BadInput", f"say which change; there are the fleets {seen}", exit_code=2)
    changes = answers.get("fleets", fleets[0], "changes", limit=1)["changes"]
    if not changes:
        raise Problem("Unknown", f"{fleets[0]} has had no change yet", exit_code=2)
    return str(changes[0]["name"])


def seconds(text: str) -> float:
    """Return a length of time written like 90s, 30m or 8h, in seconds; Problem for anything else."""
    written = _WRITTEN.fullmatch(text)
    if written is None:
        raise Problem("BadInput", f'"{text}" is not a duration; write it like 90s, 30m or 8h', exit_code=2)
    return float(written[1]) * _UNITS[written[2]]
