"""Commands on a gateway's own host: run its agent, and get the certificates that relays and users see."""

import os
import pwd
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.output import say
from orchestrator.cli.process import loaded
from orchestrator.cli.tree import group
from policies.model.errors import BadInput

if TYPE_CHECKING:
    from orchestrator.enrolment.host import HostFiles
    from orchestrator.enrolment.names import Certified

app = group("On a gateway's host: its agent, and the certificate by which relays know it.")

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
    at: Annotated[
        str | None, typer.Option("--at", metavar="HOST:PORT", help="the enrolment port of a relay")
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option("--certificate", help="instead of asking a relay: one of your own, in PEM")
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", help="its key")] = None,
    authority: Annotated[Path | None, typer.Option("--authority", help="who vouches for relays")] = None,
) -> None:
    """Get this host's certificate for the token of `penstock gateway enrol`, which is read from the input."""
    from orchestrator.enrolment import host, token  # noqa: PLC0415

    files = _room().files_of(_settings(config))
    own = (certificate, key, authority)
    if at is not None and own == (None, None, None):
        if sys.stdin.isatty():
            sys.stderr.write("token: ")
            sys.stderr.flush()
        _told(host.enrol(files, at, token.carried(sys.stdin.readline())))
        _require_keys(files)
    elif at is None and certificate is not None and key is not None and authority is not None:
        _told(host.take(files, certificate, key, authority))
    else:
        raise BadInput(
            "say --at HOST:PORT of a relay, or --certificate, --key and --authority for one of your own"
        )


@app.command("renew")
def renew(config: Config) -> None:
    """Get the next certificate now; the agent does so by itself at two thirds of the life of each."""
    from orchestrator.enrolment import host  # noqa: PLC0415

    settings = _settings(config)
    files = _room().files_of(settings)
    _told(host.renew(files, settings.temporal_address, _room().server_name_of(settings)))
    _require_keys(files)


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
    from activities.files import load  # noqa: PLC0415

    return load(config, _room().AgentSettings)


def _told(whose: "Certified") -> None:
    say(f"{whose} has certificate {whose.serial}, good until {whose.expires:%Y-%m-%d %H:%M} UTC.")


def _require_keys(files: "HostFiles") -> None:
    """Refuse to be done where the relay handed out no keys, and the agent's file wants some."""
    if files.payload_keys is not None and not files.payload_keys.exists():
        raise BadInput(
            f"{files.payload_keys} is not there, and the relay handed out no keys: it seals nothing. Take "
            "payload_keys out of the agent's file, or set PENSTOCK_PAYLOAD_KEYS at the relay and type "
            "penstock agent renew"
        )
