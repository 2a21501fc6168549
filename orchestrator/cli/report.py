"""Reports: one change told whole, its cause, and what is to be done about it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.client import Api, Problem
from orchestrator.cli.output import Output, OutputOption, emit, print_table, say
from orchestrator.cli.tree import Tree, group
from orchestrator.cli.words import FleetName, Key, newest_change
from orchestrator.words.reports import follow_up_line, report_line

SHOW = "show"


class ShowGroup(Tree):
    """A group that shows the report of a change where no other command of it is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command before what is no command, and no question for help."""
        first = args[0] if args else ""
        if first not in self.commands and first not in ctx.help_option_names:
            args = [SHOW, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(help="Reports of changes, their causes, and what is to be done about them.", cls=ShowGroup)
follow_up = group("What is to be done because of a change, by whom until when.")
app.add_typer(follow_up, name="follow-up")

ChangeName = Annotated[str, typer.Argument(help="the change")]


@app.command(SHOW)
def show(
    change: Annotated[
        str | None, typer.Argument(help="the change; the newest of the only fleet you see when left out")
    ] = None,
    html: Annotated[
        bool, typer.Option("--html", help="write one file of HTML, which needs no network")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="write Markdown")] = False,
    write: Annotated[
        Path | None,
        typer.Option("--write", metavar="FILE", help="where to; CHANGE.html or .md when left out"),
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Tell a change whole: users, times, what the gates measured, evidence, cause and follow-ups.

    `penstock report CHANGE` is the same.
    """
    if html and markdown:
        raise Problem("BadInput", "say --html or --markdown, not both", exit_code=2)
    api = Api()
    change = change or newest_change(api)
    found = api.get("changes", change, "report")
    from orchestrator.reporting import render  # noqa: PLC0415 - machines do not wait for templates

    if html or (write is not None and not markdown and write.suffix == ".html"):
        _write(write or Path(f"{change}.html"), render.as_html(found), found)
    elif markdown or write is not None:
        _write(write or Path(f"{change}.md"), render.as_markdown(found), found)
    else:
        emit(
            output,
            "Report",
            found,
            lambda: say(*render.as_markdown(found).splitlines()),
            names=[found["record"]["name"]],
        )


def _write(path: Path, text: str, found: Any) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        sentence = f"{path} cannot be written: {error.strerror}; name another file"
        raise Problem("BadInput", sentence, exit_code=2) from error
    say(f"Wrote {path}: {report_line(found)}")


@app.command("cause")
def cause(
    change: ChangeName,
    text: Annotated[str, typer.Option("--text", help="what caused the change to end as it did")],
    key: Key = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Write down the cause of a change's end; a later word replaces the one before."""
    found = Api().post("changes", change, "cause", body={"text": text}, key=key)
    emit(output, "Cause", found, lambda: say(f"Cause of {change}: {found['text']}"), names=[change])


@follow_up.command("add")
def add(
    change: ChangeName,
    text: Annotated[str, typer.Option("--text", help="what is to be done")],
    owner: Annotated[str, typer.Option("--owner", help="by whom")],
    due: Annotated[str, typer.Option("--due", metavar="DATE", help="until the end of which day: 2030-12-31")],
    key: Key = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Write down what is to be done because of a change."""
    body = {"text": text, "owner": owner, "due": due}
    _told(Api().post("changes", change, "follow-ups", body=body, key=key), output)


@follow_up.command("done")
def done(
    change: ChangeName,
    number: Annotated[int, typer.Argument(min=1, help="its number")],
    key: Key = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Write down that it is done."""
    _told(Api().post("changes", change, "follow-ups", str(number), "done", body={}, key=key), output)


@follow_up.command("list")
def list_open(fleet: FleetName = None, output: OutputOption = Output.TABLE) -> None:
    """List what is still to be done, of one fleet or of all you see; what is due first before the others."""
    rows = Api().get("follow-ups", fleet=fleet)["follow_ups"]
    today = _today()

    def table() -> None:
        lines = [
            (
                row["change"],
                str(row["number"]),
                f"{row['due']}{' OVERDUE' if row['due'] < today else ''}",
                row["owner"],
                row["text"],
            )
            for row in rows
        ]
        print_table(("CHANGE", "NUMBER", "DUE", "OWNER", "WHAT"), lines, "Nothing is to be done.")

    names = [f"{row['change']}/{row['number']}" for row in rows]
    emit(output, "FollowUpList", rows, table, rows=rows, names=names)


def _told(found: Any, output: Output) -> None:
    name = f"{found['change']}/{found['number']}"
    emit(output, "FollowUp", found, lambda: say(follow_up_line(found, _today())), names=[name])


def _today() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d}"
