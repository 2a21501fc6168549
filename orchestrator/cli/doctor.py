"""The command that examines an installation, or the way through one gateway: what is well, what is wrong."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from orchestrator.cli.client import Api
from orchestrator.cli.output import Output, OutputOption, emit, print_table, say, say_as_of
from orchestrator.cli.words import fleet_of
from orchestrator.exit_code import ExitCode
from orchestrator.words.offers import all_spelled

SHOWN = {"well": "ok", "doubtful": "LOOK", "wrong": "WRONG"}
PAGE = "tunnel-passes-nothing"


def doctor(
    fleet: Annotated[
        str | None,
        typer.Argument(
            help="a fleet, with a gateway of it; the only one you see when just a gateway is named"
        ),
    ] = None,
    gateway: Annotated[
        str | None, typer.Argument(help="a gateway: the way that users' packets take through it is walked")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Look at engine, worker, ledger, metrics, disks and gateways; ends with 10 when something is wrong.

    Each line is ok, LOOK or WRONG. LOOK: it works, or its state is not known, and an operator should look.
    Only WRONG ends the command with 10; LOOK counts as 0.

    Of one gateway: whether packets of users pass through it, and if not, what keeps them.
    """
    if fleet is not None:
        named = (fleet, gateway) if gateway is not None else (None, fleet)
        _walk(named[0], named[1], output)
    found = Api().surveying().get("doctor")["findings"]

    def table() -> None:
        rows = [
            (SHOWN[one["health"]], one["about"], one["sentence"], all_spelled(one["next"]) or one["mend"])
            for one in found
        ]
        print_table(("", "WHAT", "FOUND", "NEXT"), rows, "Nothing was looked at.")

    emit(output, "Findings", found, table, rows=found, names=[one["about"] for one in found])
    wrong = any(one["health"] == "wrong" for one in found)
    raise typer.Exit(ExitCode.DIFFERENCES if wrong else ExitCode.DONE)


def _shown(finding: Mapping[str, Any]) -> str:
    """Return how a finding of a path is marked: LOOK where the probe does not test it."""
    if not finding["well"]:
        return SHOWN["wrong"]
    return SHOWN["well" if finding["tested"] else "doubtful"]


def _walk(fleet: str | None, gateway: str, output: Output) -> None:
    """Show what was found on the way through one gateway, and end with 10 when anything is wrong."""
    api = Api().walking()
    found: dict[str, Any] = api.get("fleets", fleet_of(api, fleet), "gateways", gateway, "path")
    wrong = [one for one in found["findings"] if not one["well"]]

    def table() -> None:
        rows = [(_shown(one), one["about"], one["sentence"], one["mend"]) for one in found["findings"]]
        print_table(("", "WHAT", "FOUND", "DO"), rows, "Nothing was looked at.")
        say_as_of(found)
        if wrong:
            say(f"Runbook: {PAGE}")

    names = [one["about"] for one in wrong]
    emit(output, "PathWalked", found, table, rows=found["findings"], names=names)
    raise typer.Exit(ExitCode.DIFFERENCES if wrong else ExitCode.DONE)
