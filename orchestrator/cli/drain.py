"""Commands about live sessions: how many there are, what is draining, and waiting longer or no longer."""

import getpass
import secrets
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from orchestrator.cli.session import Session, in_session
from orchestrator.cli.show import Output, console, print_json
from orchestrator.cli.words import FleetName, OutputOption, Reason, duration
from policies.model.drain import DrainEnding, DrainExtension, DrainStatus
from policies.model.instance import InstanceState

if TYPE_CHECKING:
    from orchestrator.service.changes import Surveyed

app = typer.Typer(help="Wait longer for old sessions, or no longer.", no_args_is_help=True)

OneGateway = Annotated[
    str | None, typer.Option("--gateway", help="only this one; all that drain when left out")
]
UNKNOWN = "unknown"


def sessions(fleet: FleetName = None, output: OutputOption = Output.TABLE) -> None:
    """Count the live sessions of every instance, now."""

    async def ask(session: Session) -> "Surveyed":
        named = session.fleet_named(fleet)
        return await (await session.service()).survey(named)

    survey = in_session(ask)
    if output is Output.JSON:
        print_json(survey.model_dump(mode="json"))
        return
    table = _table("GATEWAY", "SLOT", "STATE", "NEW SESSIONS", "SESSIONS")
    for name, state in sorted(survey.states.items()):
        for instance in state.instances:
            if instance.state is not InstanceState.STOPPED:
                takes = "yes" if state.serving is not None and state.serving.slot == instance.slot else "no"
                table.add_row(name, instance.slot, instance.state, takes, _count(instance.sessions))
    for name, why in sorted(survey.silent.items()):
        table.add_row(name, "", f"silent: {why}", "", UNKNOWN)
    console().print(table)


def drains(fleet: FleetName = None, output: OutputOption = Output.TABLE) -> None:
    """Show what is draining: live counts, exempt sessions, deadlines, and what happens next."""

    async def ask(session: Session) -> tuple[DrainStatus, ...]:
        named = session.fleet_named(fleet)
        return await (await session.drain_service()).drains(named)

    found = in_session(ask)
    if output is Output.JSON:
        print_json([status.model_dump(mode="json") for status in found])
        return
    table = _table("GATEWAY", "SLOT", "SESSIONS", "EXEMPT", "ENDED", "LOST", "DEADLINE", "NEXT")
    for status in found:
        for slot in status.slots:
            deadline = slot.deadline.astimezone().strftime("%Y-%m-%d %H:%M:%S")
            counts = (_count(slot.sessions), _count(slot.exempt), str(slot.ended), str(slot.lost))
            table.add_row(slot.gateway, slot.slot, *counts, deadline, f"{slot.step}: {slot.why}")
    console().print(table if found else "Nothing is draining.")


@app.command("extend")
def extend(
    by: Annotated[str, typer.Option("--by", help="how much longer, for example 30m")],
    reason: Reason,
    fleet: FleetName = None,
    gateway: OneGateway = None,
) -> None:
    """Move the deadline of a drain; people are warned before the new one again."""
    extension = DrainExtension(
        id=f"extend-{secrets.token_hex(6)}", by=duration(by), person=getpass.getuser(), reason=reason
    )
    _tell(fleet, extension, gateway)


@app.command("end")
def end(
    reason: Reason,
    fleet: FleetName = None,
    gateway: OneGateway = None,
    exempt_too: Annotated[bool, typer.Option("--exempt-too", help="exempt sessions as well")] = False,
) -> None:
    """End what is left in small batches; its users log in again."""
    ending = DrainEnding(
        id=f"end-{secrets.token_hex(6)}", person=getpass.getuser(), reason=reason, exempt_too=exempt_too
    )
    _tell(fleet, ending, gateway)


def _tell(fleet: str | None, order: DrainExtension | DrainEnding, gateway: str | None) -> None:
    async def give(session: Session) -> None:
        named, service = session.fleet_named(fleet), await session.drain_service()
        for receipt in await service.tell(named, gateway, order):
            typer.echo(receipt.sentence)

    in_session(give)


def _count(sessions: int | None) -> str:
    return UNKNOWN if sessions is None else str(sessions)


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for column in columns:
        table.add_column(column)
    return table
