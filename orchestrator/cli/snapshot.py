"""Commands about snapshots: the evidence of failures, listed and read."""

import json
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.client import Api, Problem
from orchestrator.cli.output import Output, OutputOption, emit, print_table, say
from orchestrator.cli.tree import group
from orchestrator.cli.words import FleetName, fleet_of
from orchestrator.words.times import moment

app = group("The evidence of failures.")


@app.command("list")
def list_snapshots(
    fleet: FleetName = None,
    change: Annotated[str | None, typer.Option("--change", help="only this change's")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the snapshots that are kept, the newest first."""
    api = Api()
    rows = api.get("fleets", fleet_of(api, fleet), "snapshots", change=change)["snapshots"]

    def table() -> None:
        lines = [(row["digest"][7:23], row["rollout"], row["gateway"], moment(row["at"])) for row in rows]
        print_table(("SNAPSHOT", "CHANGE", "GATEWAY", "TAKEN"), lines, "No snapshot is kept.")

    emit(output, "SnapshotList", rows, table, rows=rows, names=[row["digest"] for row in rows])


@app.command("get")
def get(
    name: Annotated[str, typer.Argument(help="the snapshot's digest, or its beginning")],
    fleet: FleetName = None,
    to: Annotated[Path | None, typer.Option("--to", help="a file; standard output when left out")] = None,
) -> None:
    """Print a snapshot, its digest checked again: JSON without secrets and without users' names."""
    api = Api()
    content = json.dumps(api.get("fleets", fleet_of(api, fleet), "snapshots", name), indent=2)
    if to is None:
        typer.echo(content)
    else:
        try:
            to.write_text(content + "\n")
        except OSError as error:
            sentence = f"{to} cannot be written: {error.strerror}; name another file"
            raise Problem("BadInput", sentence, exit_code=2) from error
        say(f"Wrote {to}.")
