"""Commands about snapshots: the evidence of failures, listed, read and let go."""

import getpass
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from orchestrator.cli.session import Session, in_session
from orchestrator.cli.show import Output, console, print_json
from orchestrator.cli.words import OutputOption, duration

app = typer.Typer(help="The evidence of failures.", no_args_is_help=True)


@app.command("list")
def list_(
    rollout: Annotated[str | None, typer.Argument(help="only this rollout's")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the snapshots that are kept, the newest first."""

    async def ask(session: Session) -> None:
        rows = session.evidence.snapshots(rollout)
        if output is Output.JSON:
            print_json([row.model_dump(mode="json") for row in rows])
            return
        table = Table(box=None, padding=(0, 2), header_style="dim")
        for column in ("SNAPSHOT", "ROLLOUT", "GATEWAY", "TAKEN"):
            table.add_column(column)
        for row in rows:
            taken = row.at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
            table.add_row(row.digest[7:23], row.rollout, row.gateway, taken)
        console().print(table if rows else "No snapshot is kept.")

    in_session(ask)


@app.command("get")
def get(
    name: Annotated[str, typer.Argument(help="the snapshot's digest, or its beginning")],
    to: Annotated[Path | None, typer.Option("--to", help="a file; standard output when left out")] = None,
) -> None:
    """Print a snapshot, its digest checked again: JSON without secrets and without users' names."""

    async def ask(session: Session) -> bytes:
        return session.archive.read(session.evidence.named(name).digest)

    content = in_session(ask)
    if to is None:
        sys.stdout.write(content.decode() + "\n")
    else:
        to.write_bytes(content)


@app.command("expire")
def expire(
    older_than: Annotated[
        str | None, typer.Option("--older-than", help="30d, for example; the fleet's limit when left out")
    ] = None,
) -> None:
    """Remove snapshots that have been kept long enough; the worker does the same every hour."""

    async def ask(session: Session) -> int:
        kept = duration(older_than) if older_than else session.fleet.limits.snapshots_kept
        gone = session.evidence.expire(datetime.now(UTC) - kept, getpass.getuser())
        for digest in gone:
            session.archive.discard(digest)
        return len(gone)

    typer.echo(f"{in_session(ask)} snapshots removed.")
