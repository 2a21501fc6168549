"""How openconnect is told to reach one instance as the probe's user."""

from activities.drivers.daemon.client import address_of
from activities.drivers.daemon.login import ProbeLogin
from activities.drivers.daemon.port import Environment


def options(environment: Environment, login: ProbeLogin) -> list[str]:
    """Return the options by which openconnect reaches the instance's own port as the probe's user."""
    address = address_of(environment)
    resolve = [f"--resolve={login.name}:{address}"] if login.name else []
    url = f"https://{login.name or address}:{environment.slot.port}"
    return [f"--user={login.user}", f"--cafile={login.authority}", *resolve, url]
