"""Who probes and release tests log in as: a user of its own, whose secrets stay in files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from activities.drivers.daemon.port import Environment
from policies.lines import lines_in
from policies.model.errors import BadInput


@dataclass(frozen=True)
class ProbeLogin:
    """Who the probe logs in as: a user of its own, known by a password or by a certificate."""

    user: str
    password: Path | None
    authority: Path
    """The certificate authority that must have signed the gateway's certificate."""
    name: str | None = None
    """The name in the gateway's certificate, where it is not the address."""
    pings: int = 5
    target: str | None = None
    """What is pinged through the tunnel; the gateway's own end of it unless given, or what is inside."""
    certificate: Path | None = None
    key: Path | None = None
    """Of that certificate."""
    camouflage: Path | None = None
    """File with what ocserv's camouflage wants behind the `?` of the address."""
    options: tuple[str, ...] = ()
    """How its client is set up beside what every client has, as client profiles say it."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """Files that these options and client profiles name."""


def no_login(environment: Environment) -> str:
    """Say that nobody can log in at the gateway to probe it, and what to do."""
    return f"{environment.gateway.name} was given no probe login; add one to its credentials"


def password_of(login: ProbeLogin) -> str:
    """Return the probe's password; BadInput when its file has none that can be read, or none is named."""
    if login.password is None:
        raise BadInput("the probe was given no password; name its file under `probe` in the agent's file")
    try:
        lines = lines_in(login.password.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise BadInput(f"the probe's password cannot be read at {login.password}") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"the probe's password at {login.password} is no UTF-8; write it again") from error
    password = lines[0].removesuffix("\r") if lines else ""
    if not password:
        raise BadInput(f"the first line of {login.password} is empty; write the probe's password there")
    return password


def target_of(environment: Environment, login: ProbeLogin | None) -> str:
    """Return what is pinged through the tunnel: the first thing that is met inside, unless it is named."""
    inside = environment.slot.host_end if environment.gateway.inside is not None else None
    return (login.target if login else None) or str(inside or environment.slot.pool4[1])
