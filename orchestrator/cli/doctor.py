"""The command that examines an installation: what is well, what is doubtful, what is wrong."""

import typer

from orchestrator.cli.client import Api
from orchestrator.cli.output import Output, OutputOption, emit, print_table
from orchestrator.exit_code import ExitCode
from orchestrator.words.offers import all_spelled

SHOWN = {"well": "ok", "doubtful": "LOOK", "wrong": "WRONG"}


def doctor(output: OutputOption = Output.TABLE) -> None:
    """Look at engine, worker, ledger, metrics, disks and gateways; ends with 10 when something is wrong."""
    found = Api().surveying().get("doctor")["findings"]

    def table() -> None:
        rows = [
            (SHOWN[one["health"]], one["about"], one["sentence"], all_spelled(one["next"])) for one in found
        ]
        print_table(("", "WHAT", "FOUND", "NEXT"), rows, "Nothing was looked at.")

    emit(output, "Findings", found, table, rows=found, names=[one["about"] for one in found])
    wrong = any(one["health"] == "wrong" for one in found)
    raise typer.Exit(ExitCode.DIFFERENCES if wrong else ExitCode.DONE)
