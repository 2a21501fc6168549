"""How openconnect is told to reach one instance as the probe's user, and why it does not."""

import re

from activities.drivers.daemon.client import address6_of, address_of
from activities.drivers.daemon.login import ProbeLogin
from activities.drivers.daemon.port import Environment
from activities.drivers.private_files import secret_line
from policies.model.errors import BadInput
from policies.model.mirror import ClientKind, ShadowLogin

_SAYS = {
    ClientKind.OPENCONNECT: [],
    ClientKind.ANYCONNECT: ["--useragent=AnyConnect Windows 4.10.08029", "--os=win"],
    ClientKind.OTHER: [],
}
"""What openconnect says that it is; by itself it is taken for what it is."""

CAUSES = (
    (
        re.compile(r"certificate verify failed: certificate does not match hostname", re.IGNORECASE),
        "name the certificate's name as probe.name in the agent's file",
    ),
    (
        re.compile(r"certificate verify failed: ", re.IGNORECASE),
        "name the authority that signed the gateway's certificate as probe.authority in the agent's file",
    ),
)
"""Lines of openconnect that name the cause, each with what to do; it ends with a line that does not."""


def options(environment: Environment, login: ProbeLogin) -> list[str]:
    """Return the options by which openconnect reaches the instance's own port as the probe's user."""
    return _options(environment, login, str(address_of(environment)))


def shadow_options(environment: Environment, login: ProbeLogin, how: ShadowLogin) -> list[str]:
    """Return the same as one of its users' clients would be told, over the same kind of address."""
    address = address6_of(environment) if how.family == 6 else None  # noqa: PLR2004 - IPv6
    dialled = str(address or address_of(environment))
    return [*_SAYS[how.client], *([] if how.udp else ["--no-dtls"]), *_options(environment, login, dialled)]


def _options(environment: Environment, login: ProbeLogin, address: str) -> list[str]:
    shown = f"[{address}]" if ":" in address else address
    resolve = [f"--resolve={login.name}:{address}"] if login.name else []
    url = f"https://{login.name or shown}:{environment.slot.port}{_behind(login)}"
    return [f"--user={login.user}", f"--cafile={login.authority}", *resolve, url]


def _behind(login: ProbeLogin) -> str:
    """Return what users dial behind the port; without it an ocserv with `camouflage` answers 404.

    Raises:
        BadInput: The file cannot be read, others can read it, or it is no part of an address.
    """
    if login.camouflage is None:
        return ""
    secret = secret_line(login.camouflage, "the camouflage secret of the probe,")
    if set(secret) & set(" #\"'<>\\"):
        raise BadInput(
            f"the camouflage secret of the probe, {login.camouflage}, has characters that no address has; "
            "write the value of camouflage_secret there"
        )
    return f"/?{secret}"


def cause_in(line: str) -> str:
    """Return the cause that a line of openconnect names, with what to do; empty where it names none."""
    return next((f"{line}; {mend}" for cause, mend in CAUSES if cause.search(line)), "")
