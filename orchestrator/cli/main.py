"""The command line's tree: fleets, upgrades and the way back; releases and the judge are beside it."""

import getpass
import secrets
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli import back, drain, drill, gateway, judge, release, snapshot
from orchestrator.cli.session import Session, in_session
from orchestrator.cli.show import (
    Output,
    show_history,
    show_last_known,
    show_plan,
    show_standing,
    show_start_command,
    show_status,
    watch_until_ended,
)
from orchestrator.cli.words import FleetName, OutputOption, Reason, Wait
from orchestrator.exit_code import ExitCode, code_of
from policies.model.change import ChangeKind, Outcome
from policies.model.command import Command, CommandKind
from policies.model.errors import BadInput, Conflict, Unavailable
from policies.model.plan import Strategy

app = typer.Typer(
    name="penstock",
    help="Upgrade fleets of VPN gateways without their users noticing.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
upgrade = typer.Typer(help="Start an upgrade.", no_args_is_help=True)
app.add_typer(upgrade, name="upgrade")
fleet_verbs = typer.Typer(help="Begin a fleet.", no_args_is_help=True)
app.add_typer(fleet_verbs, name="fleet")
app.add_typer(release.app, name="release")
app.add_typer(release.audit, name="audit")
app.add_typer(judge.app, name="judge")
app.add_typer(gateway.app, name="gateway")
app.add_typer(drain.app, name="drain")
app.add_typer(drill.app, name="drill")
app.add_typer(snapshot.app, name="snapshot")
app.command("verify-bundle")(release.verify_bundle)
app.command("rollback")(back.rollback)
app.command("approve")(back.approve)
app.command("reject")(back.reject)
app.command("sessions")(drain.sessions)
app.command("drains")(drain.drains)

Release = Annotated[str, typer.Option("--to", help="the release: digest, its beginning, or version")]


@app.command()
def status(fleet: FleetName = None, output: OutputOption = Output.TABLE) -> None:
    """Say what is happening, to how many users, why, what comes next and what you can do."""

    async def ask(session: Session) -> None:
        session.fleet_name(fleet)
        try:
            live = await session.status(fleet)
        except (BadInput, Unavailable) as silence:
            row = session.last_known(fleet)
            standing = None if row else await session.standing(fleet)
            if standing:
                show_standing(standing, output)
            else:
                show_last_known(row, str(silence), output)
        else:
            installed = live.kind is ChangeKind.INSTALL and live.outcome is Outcome.PROMOTED
            standing = await session.standing(fleet) if installed and output is Output.TABLE else None
            if standing:
                show_standing(standing, output, since=live.rollout)
            else:
                show_status(live, output)

    in_session(ask)


@app.command()
def watch(fleet: FleetName = None, output: OutputOption = Output.TABLE) -> None:
    """Follow a change live until it ends; Ctrl-C detaches and changes nothing."""

    async def follow(session: Session) -> int:
        return code_of(await watch_until_ended(session, session.fleet_name(fleet), output))

    raise typer.Exit(in_session(follow))


@app.command()
def plan(
    to: Release,
    fleet: FleetName = None,
    strategy: Strategy = Strategy.CANARY,
    output: OutputOption = Output.TABLE,
) -> None:
    """Print what an upgrade would do, to whom, and how long it takes; nothing is changed."""

    async def ask(session: Session) -> None:
        made = await session.plan(fleet, to, strategy)
        show_plan(made, output, await session.predict(made))
        if output is Output.TABLE:
            show_start_command(made)

    in_session(ask)


@fleet_verbs.command("install")
def install(to: Release, fleet: FleetName = None) -> None:
    """Bring up gateways that serve nobody yet; those that serve are left alone."""

    async def bring_up(session: Session) -> int:
        result = await session.install(fleet, to, getpass.getuser())
        typer.echo(result.reason)
        return code_of(result.outcome)

    raise typer.Exit(in_session(bring_up))


@upgrade.command("start")
def start(
    to: Release,
    reason: Reason,
    fleet: FleetName = None,
    strategy: Strategy = Strategy.CANARY,
    plan_digest: Annotated[str | None, typer.Option("--plan", help="start only this plan")] = None,
    wait: Wait = False,
    even_if_unusual: Annotated[
        bool, typer.Option("--even-if-unusual", help="also in an hour that is not like those of past weeks")
    ] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Start an upgrade of the fleet; one change of a fleet at a time."""

    async def begin(session: Session) -> int:
        plan = await session.plan(fleet, to, strategy)
        if plan_digest is not None and not plan.digest.removeprefix("sha256:").startswith(
            plan_digest.removeprefix("sha256:")
        ):
            raise Conflict(f"the fleet has changed since plan {plan_digest}: the plan is now {plan.digest}")
        show_plan(plan, output)
        name = await session.start(plan, getpass.getuser(), reason, even_if_unusual=even_if_unusual)
        typer.echo(f"{name} started. Follow it: penstock watch {plan.fleet.name}", err=True)
        return code_of(await watch_until_ended(session, plan.fleet.name, output)) if wait else ExitCode.DONE

    raise typer.Exit(in_session(begin))


def _order(
    fleet: str | None, kind: CommandKind, reason: str, command_id: str | None, hold_of: str | None = None
) -> None:
    async def give(session: Session) -> None:
        command = Command(
            id=command_id or f"{kind}-{secrets.token_hex(6)}",
            kind=kind,
            person=getpass.getuser(),
            reason=reason,
            hold_of=hold_of,
        )
        receipt = await session.command(session.fleet_name(fleet), command)
        typer.echo(receipt.sentence)

    in_session(give)


HoldOf = Annotated[
    str | None, typer.Option("--hold-of", metavar="PERSON", help="whose hold, when it is not your own")
]
CommandId = Annotated[str | None, typer.Option("--id", help="the same id is the same order, given once")]


@app.command()
def hold(reason: Reason, fleet: FleetName = None, command_id: CommandId = None) -> None:
    """Hold a change where it is; harm is still looked for and rolled back."""
    _order(fleet, CommandKind.HOLD, reason, command_id)


@app.command()
def resume(
    reason: Reason, fleet: FleetName = None, hold_of: HoldOf = None, command_id: CommandId = None
) -> None:
    """Lift your own hold, or somebody else's by name; the change goes on when none is left."""
    _order(fleet, CommandKind.RESUME, reason, command_id, hold_of)


@app.command()
def promote(reason: Reason, fleet: FleetName = None, command_id: CommandId = None) -> None:
    """Pass the wave without proof; it takes two people to say so."""
    _order(fleet, CommandKind.PROMOTE, reason, command_id)


@app.command()
def abort(reason: Reason, fleet: FleetName = None, command_id: CommandId = None) -> None:
    """Stop before any session has moved; refused afterwards."""
    _order(fleet, CommandKind.ABORT, reason, command_id)


@app.command()
def history(
    fleet: FleetName = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="how many changes")] = 20,
    before: Annotated[str | None, typer.Option("--before", help="only changes older than this one")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the fleet's changes and what is left of each today, the newest first."""

    async def ask(session: Session) -> None:
        show_history(session.history(fleet, limit, before), output)

    in_session(ask)


@app.command()
def serve() -> None:
    """Run an engine of your own and its worker until Ctrl-C; for one person on one machine."""
    import asyncio  # noqa: PLC0415 - the engine is loaded only where it is needed

    from orchestrator.processes import serve as room  # noqa: PLC0415

    asyncio.run(room.main())


@app.command()
def worker() -> None:
    """Run the orchestrator's worker until SIGTERM."""
    import asyncio  # noqa: PLC0415 - the engine is loaded only where it is needed

    from orchestrator.processes import worker as room  # noqa: PLC0415

    asyncio.run(room.main())


@app.command()
def agent(config: Annotated[Path, typer.Option("--config", help="the agent's own file")]) -> None:
    """Run a gateway's agent until SIGTERM."""
    import asyncio  # noqa: PLC0415 - the engine is loaded only where it is needed

    from orchestrator.processes import agent as room  # noqa: PLC0415

    asyncio.run(room.main(config))
