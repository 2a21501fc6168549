"""Commands with which people hand a fleet over to each other; nobody has it who has not accepted it."""

from typing import Annotated, Any

import typer

from orchestrator.cli.client import Api
from orchestrator.cli.output import Output, OutputOption, emit, print_table, say
from orchestrator.cli.tree import group
from orchestrator.cli.words import FleetName, Key, fleet_of
from orchestrator.words.handovers import handover_line
from orchestrator.words.times import moment

app = group("Hand a fleet over to somebody else, who accepts it.")


@app.command("begin")
def begin(
    to: Annotated[str, typer.Option("--to", help="who is to take it, by the name that penstock knows")],
    fleet: FleetName = None,
    note: Annotated[str, typer.Option("--note", help="what they ought to know, in a line")] = "",
    key: Key = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Ask somebody to take the fleet; until they accept, you are still on duty, and they are not."""
    api = Api()
    name = fleet_of(api, fleet)
    found = api.post("fleets", name, "handovers", body={"to": to, "note": note}, key=key)
    _told(found, output, f"{to} takes {name} with: penstock handover accept {name}")


@app.command("accept")
def accept(fleet: FleetName = None, key: Key = None, output: OutputOption = Output.TABLE) -> None:
    """Take the fleet that somebody hands over to you: from now on you are on duty."""
    _answer(fleet, "accepted", key, output)


@app.command("decline")
def decline(fleet: FleetName = None, key: Key = None, output: OutputOption = Output.TABLE) -> None:
    """Say that you do not take it; whoever asked you is still on duty."""
    _answer(fleet, "declined", key, output)


@app.command("withdraw")
def withdraw(fleet: FleetName = None, key: Key = None, output: OutputOption = Output.TABLE) -> None:
    """Take back what you asked somebody, as long as they have not accepted."""
    _answer(fleet, "withdrawn", key, output)


@app.command("list")
def list_handovers(
    fleet: FleetName = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=200, help="so many at most")] = 50,
    output: OutputOption = Output.TABLE,
) -> None:
    """List who handed the fleet over to whom, and how long it took to be accepted."""
    api = Api()
    rows = api.get("fleets", fleet_of(api, fleet), "handovers", limit=limit)["handovers"]

    def table() -> None:
        lines = [(moment(row["began"]), handover_line(row), row["change"] or "") for row in rows]
        print_table(("BEGAN", "HAND-OVER", "DURING"), lines, "Nobody has handed it over yet.")

    emit(output, "HandoverList", rows, table, rows=rows, names=[str(row["id"]) for row in rows])


def _answer(fleet: str | None, end: str, key: str | None, output: Output) -> None:
    api = Api()
    found = api.post("fleets", fleet_of(api, fleet), "handovers", "answer", body={"end": end}, key=key)
    _told(found, output, f"on duty: {found['taker' if end == 'accepted' else 'giver']}")


def _told(found: Any, output: Output, then: str) -> None:
    emit(
        output,
        "Handover",
        found,
        lambda: say(f"{found['fleet']}: {handover_line(found)}", then),
        names=[str(found["id"])],
    )
