"""What commands share of the command line: their options, and durations as people write them."""

from datetime import timedelta
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from orchestrator.cli.show import Output
from policies.model.errors import BadInput
from policies.model.value import Duration


def _not_empty(text: str) -> str:
    """Return the text; BadInput when nobody could read anything in it."""
    if not text.strip():
        raise BadInput("--reason is empty: say why, for whoever reads the history")
    return text


FleetName = Annotated[str | None, typer.Argument(help="the fleet; the only one there is when left out")]
Reason = Annotated[
    str, typer.Option("--reason", callback=_not_empty, help="why, for whoever reads the history")
]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="for people or for machines")]
Wait = Annotated[bool, typer.Option("--wait", help="follow it to its end; the exit code says which")]


def duration(text: str) -> timedelta:
    """Return a length of time written like 90s, 30m or 8h; BadInput for anything else."""
    try:
        return TypeAdapter[timedelta](Duration).validate_python(text)
    except ValidationError as error:
        raise BadInput(f'"{text}" is not a duration; write it like 90s, 30m or 8h') from error
