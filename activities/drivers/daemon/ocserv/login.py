"""Who probes and release tests log in as, and how their client is told to reach one instance."""

from dataclasses import dataclass
from pathlib import Path

from activities.drivers.daemon.ocserv.client import address_of
from activities.drivers.daemon.port import Environment
from policies.model.errors import BadInput


@dataclass(frozen=True)
class ProbeLogin:
    """Who the probe logs in as: a user of its own, whose password stays in a file."""

    user: str
    password: Path
    authority: Path
    """The certificate authority that must have signed the gateway's certificate."""
    name: str | None = None
    """The name in the gateway's certificate, where it is not the address."""
    pings: int = 5
    target: str | None = None
    """What is pinged through the tunnel; the gateway's own end of it unless given."""


def password_of(login: ProbeLogin) -> str:
    """Return the probe's password; BadInput when its file cannot be read."""
    try:
        return login.password.read_text().splitlines()[0]
    except (OSError, IndexError) as error:
        raise BadInput(f"the probe's password cannot be read at {login.password}") from error


def target_of(environment: Environment, login: ProbeLogin) -> str:
    """Return what is pinged through the tunnel."""
    return login.target or str(environment.slot.pool4[1])


def options(environment: Environment, login: ProbeLogin) -> list[str]:
    """Return the options by which openconnect reaches the instance's own port as the probe's user."""
    address = address_of(environment)
    resolve = [f"--resolve={login.name}:{address}"] if login.name else []
    url = f"https://{login.name or address}:{environment.slot.port}"
    return [f"--user={login.user}", f"--cafile={login.authority}", *resolve, url]
