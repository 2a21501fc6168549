"""How commands print: tables for people, versioned documents for machines.

What people wrote is never markup, and control characters of theirs reach no terminal.
"""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.words.text import printable
from orchestrator.words.times import moment

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


def say_as_of(answer: Json) -> None:
    """Print when the gateways of an answer began to be asked, beside its table."""
    if answer.get("as_of"):
        sys.stderr.write(f"As of {moment(answer['as_of'])}.\n")


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
