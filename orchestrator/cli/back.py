"""Commands that take a fleet back, and the second person's answer where the fleet's rules ask for one."""

import getpass
import secrets
from datetime import timedelta
from typing import Annotated

import typer

from orchestrator.cli.session import Session, in_session
from orchestrator.cli.show import Output, show_incomplete, watch_until_ended
from orchestrator.cli.words import FleetName, OutputOption, Reason, Wait, duration
from orchestrator.exit_code import ExitCode, code_of
from policies.model.command import Command, CommandKind
from policies.model.errors import Conflict

Within = Annotated[str, typer.Option("--timeout", help="how long --wait waits, for example 90s or 5m")]
Force = Annotated[bool, typer.Option("--force", help="end a change first that no worker can go on with")]
To = Annotated[str | None, typer.Option("--to", help="an earlier release instead of known-good")]


def rollback(
    reason: Reason,
    fleet: FleetName = None,
    to: To = None,
    wait: Wait = False,
    timeout: Within = "5m",
    force: Force = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Send every touched gateway back to its known-good, at any moment, any number of times."""
    within = duration(timeout)

    async def go_back(session: Session) -> int:
        receipt = await session.roll_back(fleet, getpass.getuser(), reason, to, force=force, tell=_progress)
        typer.echo(receipt.sentence)
        return await _follow(session, fleet, within, output) if wait and receipt.accepted else ExitCode.DONE

    raise typer.Exit(in_session(go_back))


def _progress(sentence: str) -> None:
    typer.echo(sentence, err=True)


def approve(reason: Reason, fleet: FleetName = None) -> None:
    """Say yes to a rollback that waits for a second person; nobody approves what they asked for."""
    in_session(lambda session: _answer(session, fleet, CommandKind.APPROVE, reason))


def reject(reason: Reason, fleet: FleetName = None) -> None:
    """Say no to a rollback that waits for a second person; nothing is changed."""
    in_session(lambda session: _answer(session, fleet, CommandKind.REJECT, reason))


async def _answer(session: Session, fleet: str | None, kind: CommandKind, reason: str) -> None:
    name, service = session.fleet_name(fleet), await session.service()
    status = await service.status(name)
    if status.confirm is None:
        raise Conflict(f"nothing waits for an answer in {name}")
    typer.echo(f"{kind.capitalize()}: {status.why}; {status.users}; to {status.version}")
    command = Command(
        id=f"{kind}-{secrets.token_hex(6)}",
        kind=kind,
        person=getpass.getuser(),
        reason=reason,
        approves=status.confirm,
    )
    typer.echo((await service.command(name, command)).sentence)


async def _follow(session: Session, fleet: str | None, within: timedelta, output: Output) -> int:
    """Wait until every gateway is back; what is not when the time is over is listed, and goes on."""
    name = session.fleet_name(fleet)
    outcome = await watch_until_ended(session, name, output, within)
    code = code_of(outcome)
    if code is ExitCode.ROLLBACK_INCOMPLETE:
        show_incomplete(await session.status(name))
    return code
