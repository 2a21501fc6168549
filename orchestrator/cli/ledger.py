"""Commands about the ledger itself: kept elsewhere, brought back, and rebuilt from what gateways serve."""

import importlib
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.client import Api
from orchestrator.cli.output import Output, OutputOption, emit, say
from orchestrator.cli.tree import group
from orchestrator.cli.words import FleetName, Key, Reason, fleet_of
from orchestrator.exit_code import ExitCode

app = group("The ledger: backed up, restored, rebuilt.")
FILES = "orchestrator.processes.ledger_files"
"""Works on the database itself, with or without an API; loaded when it is meant."""


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="the new file")], output: OutputOption = Output.TABLE
) -> None:
    """Write the whole ledger into a file, on the orchestrator's host; nothing needs to stop."""
    rows = importlib.import_module(FILES).back_up(file)
    sentence = f"{rows} rows are in {file}. Keep it on another host; it holds no secrets in the clear."
    emit(output, "LedgerBackup", {"file": str(file), "rows": rows}, lambda: say(sentence), names=[str(file)])


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="a backup")], output: OutputOption = Output.TABLE
) -> None:
    """Bring a backup back into an empty ledger; changes since it was made are not in it.

    Ends with 10 when its audit record is not whole.
    """
    rows, fault, parted, to_repeat = importlib.import_module(FILES).bring_back(file)
    lines = [f"{rows} rows are back."]
    lines.append(
        f"BROKEN: {fault}" if fault else "Its audit record is whole; compare it: penstock audit verify"
    )
    if parted is not None:
        lines.append(
            f"audit entries {parted.first} to {parted.last} are not in the backup; keep {parted.file}, which "
            "has their checkpoints"
        )
    lines += to_repeat
    missing = [parted.first, parted.last] if parted else None
    found = {"file": str(file), "rows": rows, "fault": fault, "missing": missing}
    found["checkpoints"] = str(parted.file) if parted else None
    found["to_repeat"] = to_repeat
    emit(output, "LedgerRestore", found, lambda: say(*lines), names=[str(file)])
    raise typer.Exit(ExitCode.DIFFERENCES if fault else ExitCode.DONE)


@app.command()
def rebuild(
    reason: Reason, fleet: FleetName = None, key: Key = None, output: OutputOption = Output.TABLE
) -> None:
    """Write down again what each gateway goes back to, from what it serves; for a ledger that is lost."""
    api = Api()
    name = fleet_of(api, fleet)
    found = api.surveying().post("fleets", name, "rebuild", body={"reason": reason}, key=key)

    def table() -> None:
        say(f"{found['change']}: {name}: {found['sentence']}.")
        for gateway, why in found["lost"].items():
            say(f"  without a known-good: {gateway}: {why}")
        say(*found["to_repeat"])

    emit(output, "LedgerRebuild", found, table, names=[found["change"]])
    raise typer.Exit(ExitCode.DIFFERENCES if found["lost"] else ExitCode.DONE)
