"""Commands about one gateway: leave it out of changes by name, and take it in again once it is well."""

import getpass
from typing import Annotated

import typer

from orchestrator.cli.session import Session, in_session
from orchestrator.cli.words import Reason

app = typer.Typer(help="Leave a gateway out, or take it in again.", no_args_is_help=True)

Fleet = Annotated[str, typer.Argument(help="the fleet")]
Named = Annotated[str, typer.Argument(metavar="NAME", help="the gateway")]


@app.command("quarantine")
def quarantine(fleet: Fleet, name: Named, reason: Reason) -> None:
    """Go on without a gateway that refuses or is silent; it is named until it is returned."""

    async def leave_out(session: Session) -> None:
        named, service = session.fleet_named(fleet), await session.quarantine_service()
        typer.echo(await service.leave_out(named, name, getpass.getuser(), reason))

    in_session(leave_out)


@app.command("return")
def take_in(fleet: Fleet, name: Named, reason: Reason) -> None:
    """Let a gateway take part again, once it is seen on its known-good; refused with the reason otherwise."""

    async def take(session: Session) -> None:
        named, service = session.fleet_named(fleet), await session.quarantine_service()
        typer.echo(await service.take_in(named, name, getpass.getuser(), reason))

    in_session(take)
