"""Commands that rehearse failures; never on a fleet with users, only on a lab made for it."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.client import Api, Problem
from orchestrator.cli.output import Output, OutputOption, emit, print_table, say
from orchestrator.cli.tree import group
from orchestrator.cli.words import Key
from orchestrator.words.drills import row_line, run_line
from orchestrator.words.text import printable
from orchestrator.words.times import moment
from policies.model.drill import MOST_PEOPLE
from policies.model.errors import BadInput

app = group("Rehearse failures on a lab, with the seconds of every step; see who did when.")

_DRILLS = "deploy.lab.drills"
_MOST_BYTES = 64 * 1024
"""Of a file with a result; the API takes no more either."""


With = Annotated[
    list[str] | None, typer.Option("--with", help="somebody who took part; repeat it for each of them")
]
HandedOver = Annotated[
    str | None,
    typer.Option("--handovers", help="a fleet: what was accepted of its hand-overs meanwhile is told, too"),
]


@dataclass(frozen=True)
class _Party:
    """Who took part in a drill, and the fleet whose hand-overs belong to it."""

    people: Sequence[str] | None
    fleet: str | None

    def added_to(self, report: dict[str, Any], api: Api) -> dict[str, Any]:
        """Return the result with the people, and with what they handed over since it began."""
        said = report | ({"people": list(self.people)} if self.people else {})
        if self.fleet is None:
            return said
        began = datetime.fromisoformat(str(report.get("began", "")))
        rows = api.get("fleets", self.fleet, "handovers", limit=MOST_PEOPLE)["handovers"]
        told = []
        for row in reversed(rows):
            asked = datetime.fromisoformat(row["began"])
            if row["end"] == "accepted" and asked >= began:
                seconds = (datetime.fromisoformat(row["ended"]) - asked).total_seconds()
                told.append({"giver": row["giver"], "taker": row["taker"], "seconds": round(seconds, 1)})
        return said | {"handovers": told}


@app.command("list")
def list_drills() -> None:
    """Say what can be rehearsed, and within which time users must be safe."""
    raise typer.Exit(_hand_over("list"))


@app.command("run")
def run(
    name: Annotated[str, typer.Argument(help="which one, as `drill list` names it")],
    file: Annotated[Path | None, typer.Option("--json", help="write the seconds to this file")] = None,
    recorded: Annotated[bool, typer.Option("--record", help="have the result in the ledger")] = False,
    people: With = None,
    handed_over: HandedOver = None,
) -> None:
    """Build a lab, let it happen there, show how many seconds each step took, and remove the lab.

    Ends as the drill does, also where its result could not be recorded: that is said, and how to do it later.
    """
    if not recorded:
        raise typer.Exit(_hand_over("run", name, *(["--json", str(file)] if file else [])))
    folder = Path(tempfile.mkdtemp(prefix="penstock-drill-"))
    result = folder / f"{_plain(name)}.json"
    code = _hand_over("run", name, "--json", str(result))
    if not result.exists():
        sys.stderr.write("the drill left no result, and nothing is recorded\n")
        shutil.rmtree(folder)
        raise typer.Exit(code)
    is_copied = file is not None and _copied(result, file)
    taking_part = _Party(people, handed_over)
    is_recorded = _record_or_say(result, taking_part, later=file if is_copied and file else result)
    if is_copied or (is_recorded and file is None):
        shutil.rmtree(folder)
    raise typer.Exit(code)


@app.command("record")
def record(
    file: Annotated[Path, typer.Argument(help="what `drill run NAME --json FILE` has written")],
    people: With = None,
    handed_over: HandedOver = None,
    key: Key = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Have the result of a drill in the ledger; a repeat changes nothing."""
    api = Api()
    found = api.post("drills", body=_Party(people, handed_over).added_to(_read(file), api), key=key)
    name = found["report"]["name"]
    emit(output, "DrillRun", found, lambda: say(f"Recorded {name}: {run_line(found)}"), names=[name])


@app.command("history")
def history(
    name: Annotated[str | None, typer.Argument(help="only the runs of this one")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=200, help="so many runs at most")] = 50,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show how it stands with each drill, what needs somebody first, and what was rehearsed by whom."""
    found = Api().get("drills", drill=name, limit=limit)
    rows = [row for row in found["drills"] if name in {None, row["name"]}]

    def table() -> None:
        say(*(f"{row['name']}: {row_line(row)}" for row in rows))
        lines = [
            (
                moment(one["report"]["began"]),
                one["report"]["name"],
                run_line(one),
                one["report"]["place"],
                one["person"],
            )
            for one in found["runs"]
        ]
        print_table(("BEGAN", "DRILL", "CAME TO", "WHERE", "BY"), lines, "None was recorded yet.")

    names = [f"{one['report']['name']}/{one['report']['began']}" for one in found["runs"]]
    emit(output, "DrillHistory", found, table, rows=found["runs"], names=names)


def _plain(name: str) -> str:
    """Return a name as a file has it; what is no drill's is refused by the lab."""
    return "".join(one if one.isalnum() or one == "-" else "_" for one in name)[:63]


def _copied(result: Path, file: Path) -> bool:
    try:
        shutil.copyfile(result, file)
    except OSError as error:
        sys.stderr.write(f"{file} cannot be written: {error.strerror}; the result stays in {result}\n")
        return False
    return True


def _record_or_say(result: Path, party: "_Party", later: Path) -> bool:
    """Have a result in the ledger; where that fails say why and how to do it later, and return False."""
    try:
        api = Api()
        found = api.post("drills", body=party.added_to(_read(result), api))
    except Problem as problem:
        sys.stderr.write(
            f"the drill is not recorded: {printable(str(problem))}; later: penstock drill record {later}\n"
        )
        return False
    say(f"Recorded by {found['person']}: penstock drill history")
    return True


def _read(file: Path) -> Any:
    """Return a result as the API takes it; what it came to, the API decides by itself."""
    try:
        with file.open("rb") as opened:
            said = opened.read(_MOST_BYTES + 1)
    except OSError as error:
        sentence = f"{file} cannot be read: {error.strerror}; name a file that drill run --json has written"
        raise Problem("BadInput", sentence, exit_code=2) from error
    try:
        document = json.loads(said) if len(said) <= _MOST_BYTES else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        sentence = f"{file} is no result of a drill; name a file that drill run --json has written"
        raise Problem("BadInput", sentence, exit_code=2)
    return {field: value for field, value in document.items() if field != "passed"}


def _hand_over(*arguments: str) -> int:
    """Let the lab's own process do it; the lab comes with a checkout, not with the wheel.

    Raises:
        BadInput: there is no lab in this installation.
    """
    if find_spec("deploy") is None or find_spec(_DRILLS) is None:
        raise BadInput("drills need the lab, which is in a checkout only: ./run penstock drill list")
    return subprocess.run([sys.executable, "-m", _DRILLS, *arguments], check=False).returncode
