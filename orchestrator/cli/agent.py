"""Commands on a gateway's own host: run its agent, and get the certificates that relays and users see."""

import os
import pwd
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli import enrolment
from orchestrator.cli.output import Output, OutputOption, emit, print_table, say
from orchestrator.cli.process import loaded
from orchestrator.cli.tree import group
from policies.model.errors import BadInput

app = group("On a gateway's host: its agent, and the certificate by which relays know it.")

FLOW = ("user", "from", "slot", "vpn_address", "began", "ended")
Config = Annotated[Path, typer.Option("--config", help="the agent's own file")]


@app.command("run")
def run(config: Config) -> None:
    """Run a gateway's agent until SIGTERM."""
    import asyncio  # noqa: PLC0415 - other commands do without, and come sooner

    from orchestrator.processes import journal  # noqa: PLC0415 - as above

    journal.begin()
    asyncio.run(_room().main(config))


@app.command("enrol")
def enrol(
    config: Config,
    at: enrolment.At = None,
    certificate: enrolment.Certificate = None,
    key: enrolment.Key = None,
    authority: enrolment.Authority = None,
) -> None:
    """Get this host's certificate for the token of `penstock gateway enrol`, which is read from the input."""
    enrolment.enrol(_room().files_of(_settings(config)), at, certificate, key, authority)


@app.command("renew")
def renew(config: Config) -> None:
    """Get the next certificate now; the agent does so by itself at two thirds of the life of each."""
    settings = _settings(config)
    files = _room().files_of(settings)
    server_name = loaded("enrolled", "grpc").server_name_of(settings)
    enrolment.renew(files, settings.temporal_address, server_name)


@app.command("certify")
def certify(
    config: Config,
    now: Annotated[
        bool, typer.Option("--now", help="also where the one that is there is good for long")
    ] = False,
    even_if_older: Annotated[
        bool, typer.Option("--even-if-older", help="also one that ends sooner than the one in use")
    ] = False,
) -> None:
    """Get the certificate that users see, where it is due; the agent does so by itself.

    What came is proved before it counts, and what runs gets it by `penstock credentials reload`.
    """
    from orchestrator.processes.certificate import certificate_renewal  # noqa: PLC0415

    settings = _settings(config)
    renewal, whose = certificate_renewal(settings), settings.gateway.name
    if not (now or even_if_older) and renewal.ends is not None and not renewal.is_due(datetime.now(UTC)):
        say(f"{whose} has a certificate that is good until {renewal.ends:%Y-%m-%d %H:%M} UTC.")
        if renewal.failing:
            say(f"It is not renewed {renewal.failing}; --now asks at once.")
        return
    ends = renewal.renew(older=even_if_older)
    say(f"{whose} has a new certificate, good until {ends:%Y-%m-%d %H:%M} UTC.")
    say(f"What runs gets it by `penstock credentials reload {settings.gateway.fleet} --if-changed`.")


@app.command("flows")
def flows(config: Config, output: OutputOption = Output.TABLE) -> None:
    """Tell whose the sessions in this host's logs are: user, where the user really came from, and slot.

    Behind a proxy that is nginx its logs have to be named in the file. Nothing is asked and nothing changed.
    """
    from orchestrator.processes.flows import flows_of, row  # noqa: PLC0415

    rows = [row(flow) for flow in flows_of(_settings(config))]

    def table() -> None:
        lines = [[str(one[name] or "-") for name in FLOW] for one in rows]
        print_table([name.upper() for name in FLOW], lines, "No session.")

    emit(output, "FlowList", rows, table, rows=rows, names=[one["user"] for one in rows])


@app.command("break-glass")
def break_glass(
    config: Config,
    reason: Annotated[str, typer.Option("--reason", help="why, for the host's own record")],
    back: Annotated[
        bool, typer.Option("--back", help="send new sessions to the instance that they went to before")
    ] = False,
    slot: Annotated[str | None, typer.Option("--slot", help="send new sessions to this slot")] = None,
) -> None:
    """Let nobody own this gateway, and send new sessions back if told; needs no engine, ends no session."""
    import asyncio  # noqa: PLC0415

    from orchestrator.processes import break_glass as glass  # noqa: PLC0415

    if back and slot is not None:
        raise BadInput("say --back or --slot, not both")
    person = pwd.getpwuid(os.getuid()).pw_name
    host = _room().compose_host(_settings(config))
    done = asyncio.run(glass.break_glass(host, person, reason, back=back, slot=slot))
    steering = done.state.steering
    say(f"The fence of {done.state.gateway} is reset: orders from before {_moment(done.epoch)} are refused.")
    say(f"New sessions go to slot {steering.trial or steering.serving or 'none'}; no session was ended.")
    say("An orchestrator is obeyed again from its next order on; stop the agent if it is not to be.")


def _moment(epoch: int) -> str:
    return f"{datetime.fromtimestamp(epoch / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _room() -> Any:
    """Return the agent's process, without the stubs for which the engine's client loads gRPC: 10 MB."""
    return loaded("agent", "grpc")


def _settings(config: Path) -> Any:
    from activities.files import load_own  # noqa: PLC0415

    return load_own(config, _room().AgentSettings)
