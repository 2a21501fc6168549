"""Commands about windows and freezes: when waves of a fleet may start, and what people freeze."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.client import Api, Problem
from orchestrator.cli.output import Output, OutputOption, emit, print_table, say
from orchestrator.cli.tree import group
from orchestrator.cli.words import FleetName, Key, Reason, fleet_of
from orchestrator.exit_code import ExitCode
from orchestrator.words.windows import freeze_rows, opening_rows, window_rows

app = group("Patch windows and freezes: when waves may start.")
freezes = group("What people freeze.")
app.add_typer(freezes, name="freeze")

LARGEST = 100_000
"""Characters of a calendar that is sent; a larger one lies beside the fleet's file."""

Name = Annotated[str, typer.Option("--name", help="how the freeze is called")]
Zone = Annotated[str, typer.Option("--tz", help="site for each gateway's own zone, or a zone: Europe/Berlin")]


@app.command("list")
def list_windows(fleet: FleetName = None, output: OutputOption = Output.TABLE) -> None:
    """List the windows and freezes of a fleet, and whether it is open now."""
    api = Api()
    found = _windows(api, fleet)

    def table() -> None:
        say(f"{found['fleet']} is {found['now']['sentence']}. Time zones as of {found['rules']}.")
        print_table(("WINDOW", "DAYS", "OPENS", "FOR"), window_rows(found), "No windows: always open.")
        print_table(("FREEZE", "FROM", "TO", "BY"), freeze_rows(found), "Nothing is frozen.")

    names = [one["name"] for one in found["windows"]]
    emit(output, "Windows", found, table, rows=found["windows"], names=names)


@app.command("next")
def next_openings(fleet: FleetName = None, output: OutputOption = Output.TABLE) -> None:
    """List the next times in which waves may start, without what is frozen, where the fleet is and in UTC."""
    api = Api()
    found = _windows(api, fleet)
    rows = found["openings"]
    always = f"{found['fleet']} is {found['now']['sentence']}."
    emit(
        output,
        "OpeningList",
        rows,
        lambda: print_table(("FROM", "TO"), opening_rows(found), always),
        rows=rows,
        names=[row["opens"] for row in rows],
    )


@app.command("check")
def check(
    fleet: FleetName = None,
    at: Annotated[
        str | None, typer.Option("--at", help="the moment: 2026-11-24T02:00+01:00; now when left out")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Say whether waves may start at a moment, and when next; ends with 0 when they may, with 5 otherwise."""
    api = Api()
    found = api.get("fleets", fleet_of(api, fleet), "windows", "check", at=_moment(at))
    emit(output, "WindowCheck", found, lambda: say(found["sentence"]), names=[found["fleet"]])
    raise typer.Exit(ExitCode.DONE if found["open"] else ExitCode.REFUSED)


@freezes.command("list")
def list_freezes(fleet: FleetName = None, output: OutputOption = Output.TABLE) -> None:
    """List what is frozen: by the fleet's file, by calendars, and by people."""
    api = Api()
    found = _windows(api, fleet)
    rows = found["freezes"]
    emit(
        output,
        "FreezeList",
        rows,
        lambda: print_table(("FREEZE", "FROM", "TO", "BY"), freeze_rows(found), "Nothing is frozen."),
        rows=rows,
        names=[row["name"] for row in rows],
    )


@freezes.command("add")
def add(
    reason: Reason,
    name: Name,
    begins: Annotated[str, typer.Option("--from", help="as clocks there show it: 2026-11-26T00:00")],
    ends: Annotated[str, typer.Option("--to", help="likewise, the moment when it is over")],
    tz: Zone,
    fleet: FleetName = None,
    key: Key = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Freeze a time: no wave starts then, and a change that is under way holds at its next safe point."""
    api = Api()
    body = {"name": name, "begins": begins, "ends": ends, "tz": tz, "reason": reason}
    found = api.post("fleets", fleet_of(api, fleet), "windows", "freezes", body=body, key=key)
    _told(output, found)


@freezes.command("import")
def import_calendar(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="a calendar (.ics)")],
    reason: Reason,
    name: Name,
    tz: Zone,
    fleet: Annotated[
        str | None, typer.Option("--fleet", help="the fleet; the only one when left out")
    ] = None,
    key: Key = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Freeze the events of a calendar, those of the next 400 days."""
    api = Api()
    try:
        with file.open(encoding="utf-8") as opened:
            calendar = opened.read(LARGEST + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise Problem("BadInput", f"{file} cannot be read: {error}", exit_code=2) from error
    if len(calendar) > LARGEST:
        sentence = f"{file} has more than {LARGEST} characters; put it beside the fleet's file (freezes: ics)"
        raise Problem("BadInput", sentence, exit_code=2)
    body = {"name": name, "calendar": calendar, "tz": tz, "reason": reason}
    found = api.post("fleets", fleet_of(api, fleet), "windows", "freezes", "import", body=body, key=key)
    _told(output, found)


@freezes.command("remove")
def remove(
    name: Name,
    reason: Reason,
    fleet: FleetName = None,
    key: Key = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Remove a freeze that somebody added; what it held goes on by itself."""
    api = Api()
    where = fleet_of(api, fleet)
    found = api.post("fleets", where, "windows", "freezes", name, "remove", body={"reason": reason}, key=key)
    emit(output, "Freeze", found, lambda: say(f"{name} is removed."), names=[name])


def _told(output: Output, found: Any) -> None:
    spans = found["spans"]

    def table() -> None:
        first, last = spans[0], spans[-1]
        times = f", {len(spans)} times" if len(spans) > 1 else ""
        say(f"{found['fleet']} is frozen from {first['begins']} to {last['ends']} {first['tz']}{times}.")

    emit(output, "Freeze", found, table, names=[found["name"]])


def _windows(api: Api, fleet: str | None) -> Any:
    return api.get("fleets", fleet_of(api, fleet), "windows")


def _moment(said: str | None) -> str | None:
    """Return a moment as the API takes it; one without an offset is this host's."""
    if said is None:
        return None
    try:
        found = datetime.fromisoformat(said)
    except ValueError as error:
        sentence = f'"{said}" is no moment; write it like 2026-11-24T02:00+01:00'
        raise Problem("BadInput", sentence, exit_code=2) from error
    return (found if found.tzinfo else found.astimezone()).isoformat()
