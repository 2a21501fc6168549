"""Commands that show what people were told without asking, test a sink, and end an escalation."""

from typing import Annotated, Any

import typer

from orchestrator.cli.client import Api
from orchestrator.cli.output import Output, OutputOption, emit, print_table, say
from orchestrator.cli.tree import group
from orchestrator.cli.words import Key
from orchestrator.words.notices import row_state, sink_line
from orchestrator.words.times import moment

app = group("What people are told without asking: what was sent, what waits, what failed.")

RECEIVER_SECONDS = 60.0
"""How long a test is waited for: the API gives a receiver up after 17 s, and what settles it after 34."""


@app.command("list")
def list_notices(
    undelivered: Annotated[
        bool, typer.Option("--undelivered", help="only what waits, or was given up")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=500, help="so many at most")] = 100,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show what was sent to which sink, the newest first, what waits there, and what failed."""
    found = Api().get("notices", limit=limit, undelivered=str(undelivered).lower())

    def table() -> None:
        lines = [_line(row) for row in found["notices"]]
        print_table(("AT", "LEVEL", "SINK", "", "KEY", "SAID"), lines, "Nobody was told of anything yet.")
        say(*(sink_line(one) for one in found["sinks"] if one["failing"] or one["given_up"]))

    names = [row["notice"]["key"] for row in found["notices"]]
    emit(output, "NoticeList", found, table, rows=found["notices"], names=names)


@app.command("test")
def try_sink(
    sink: Annotated[str, typer.Argument(help="a sink's name in notices.yaml")],
    key: Key = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Send a test to a sink, and say what its receiver answered; nothing is left open there."""
    found = Api(patience=RECEIVER_SECONDS).post("notices", "sinks", sink, "test", body={}, key=key)
    emit(output, "NoticeTest", found, lambda: say(f"{sink}: {found['said']}"), names=[sink])


@app.command("acknowledge")
def acknowledge(
    notice: Annotated[str, typer.Argument(metavar="KEY", help="a notice's key, as `notice list` has it")],
    key: Key = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Say that you have it: nobody else is woken for it. What it is about goes on waiting."""
    found = Api().post("notices", "acknowledge", body={"key": notice}, key=key)
    said = f"{notice} is with {found['acknowledged_by']} since {moment(found['acknowledged'])}."
    emit(output, "Notice", found, lambda: say(said), names=[notice])


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    notice = row["notice"]
    return (
        moment(notice["at"]),
        notice["level"].replace("_", " "),
        row["sink"],
        row_state(row),
        notice["key"],
        notice["headline"],
    )
