"""How commands print: tables for people, versioned documents for machines.

What people wrote is never markup, and control characters of theirs reach no terminal.
"""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

API_VERSION = "penstock/v1"
WIDTH = 100
Json = Any


class Output(StrEnum):
    """How a command prints what it found."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    JSONL = "jsonl"
    NAME = "name"


OutputOption = Annotated[Output, typer.Option("--output", "-o", help="for people or for machines")]


def emit(
    output: Output,
    kind: str,
    document: Json,
    table: Callable[[], None],
    *,
    rows: Sequence[Json] | None = None,
    names: Iterable[str] = (),
) -> None:
    """Print one document in the form that was asked for.

    Args:
        output: The form.
        kind: What the document is, for machines.
        document: What the API answered.
        table: Prints it for people.
        rows: What makes a line each in `jsonl`; the document itself when left out.
        names: What makes a line each in `name`.
    """
    match output:
        case Output.TABLE:
            table()
        case Output.NAME:
            sys.stdout.writelines(f"{printable(name)}\n" for name in names)
        case Output.JSONL:
            for row in [document] if rows is None else rows:
                sys.stdout.write(json.dumps(_headed(kind, row)) + "\n")
        case Output.YAML:
            import yaml  # noqa: PLC0415 - only who asks for it waits for it

            yaml.safe_dump(_headed(kind, document), sys.stdout, sort_keys=False, allow_unicode=True)
        case Output.JSON:
            sys.stdout.write(json.dumps(_headed(kind, document), indent=2) + "\n")
    sys.stdout.flush()


def _headed(kind: str, document: Json) -> Json:
    return {"apiVersion": API_VERSION, "kind": kind, "data": document}


def console() -> "Console":
    """Return the console for people: as wide as the terminal, at most a comfortable width."""
    from rich.console import Console  # noqa: PLC0415 - machines do not wait for it

    found = Console(highlight=False, markup=False, emoji=False)
    width = min(found.width, WIDTH) if found.is_terminal else WIDTH
    return Console(highlight=False, markup=False, emoji=False, width=width)


def say(*sentences: str) -> None:
    """Print sentences for people, a line each."""
    for sentence in sentences:
        sys.stdout.write(printable(sentence) + "\n")
    sys.stdout.flush()


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], empty: str) -> None:
    """Print rows under their columns, or what is said when there is none."""
    from rich.table import Table  # noqa: PLC0415 - machines do not wait for it
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*[Text(printable(cell)) for cell in row])
    if table.row_count:
        console().print(table)
    else:
        say(empty)


def printable(text: str) -> str:
    """Return the text without control characters, which could move a terminal's cursor or worse."""
    return "".join(one if one.isprintable() else "�" for one in text)


def moment(at: str | None) -> str:
    """Return a time as people read it here, with its zone; empty for none."""
    return f"{datetime.fromisoformat(at).astimezone():%Y-%m-%d %H:%M:%S %Z}" if at else ""


def span(began: str, ended: str | None) -> str:
    """Return from when to when as people read it here, with the zone; the day is said once if it is one."""
    if ended is None:
        return f"since {moment(began)}"
    start, stop = moment(began).split(" "), moment(ended).split(" ")
    if start[0] == stop[0] and start[2] == stop[2]:
        return f"{start[0]} {start[1]} to {stop[1]} {stop[2]}"
    return f"{' '.join(start)} to {' '.join(stop)}"
