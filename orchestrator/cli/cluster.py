"""Commands beside a cluster: run the driver of a fleet there, get its certificate, ask what it may do."""

from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli import enrolment
from orchestrator.cli.output import say
from orchestrator.cli.process import loaded
from orchestrator.cli.process import run as run_process
from orchestrator.cli.tree import group
from orchestrator.exit_code import ExitCode

app = group("For a Kubernetes cluster: the driver of a fleet's instances there, and its certificate.")

Config = Annotated[Path, typer.Option("--config", help="the cluster's own file")]


@app.command("run")
def run(config: Config) -> None:
    """Run the driver of a fleet's instances in a cluster until SIGTERM."""
    run_process("cluster", config)


@app.command("enrol")
def enrol(
    config: Config,
    at: enrolment.At = None,
    certificate: enrolment.Certificate = None,
    key: enrolment.Key = None,
    authority: enrolment.Authority = None,
) -> None:
    """Get the driver's certificate for a token of `penstock gateway enrol`, which is read from the input."""
    enrolment.enrol(_room().files_of(_settings(config)), at, certificate, key, authority)


@app.command("renew")
def renew(config: Config) -> None:
    """Get the next certificate now; the driver does so by itself at two thirds of the life of each."""
    settings = _settings(config)
    files = _room().files_of(settings)
    server_name = loaded("enrolled").server_name_of(settings)
    enrolment.renew(files, settings.temporal_address, server_name)


@app.command("check")
def check(config: Config) -> None:
    """Ask the cluster what the driver may do and say each right that is missing; nothing is changed."""
    import asyncio  # noqa: PLC0415 - other commands do without, and come sooner

    settings = _settings(config)
    missing = asyncio.run(_room().api_of(settings).lacking())
    for one in missing:
        say(f"missing: {one}")
    if missing:
        raise typer.Exit(ExitCode.DIFFERENCES)
    say(f"The driver of {settings.fleet} may do all that it needs to in {settings.name}.")


def _room() -> Any:
    return loaded("cluster")


def _settings(config: Path) -> Any:
    from activities.files import load_own  # noqa: PLC0415

    return load_own(config, _room().ClusterSettings)
