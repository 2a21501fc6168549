"""What ocserv's configuration says where a HAProxy on the same host carries its users' connections."""

from activities.drivers.daemon.ocserv.config import without
from activities.drivers.daemon.port import Environment

BEHIND_HAPROXY = {
    "listen-host": "127.0.0.1",
    "udp-listen-host": "0.0.0.0",  # noqa: S104 - users' UDP does not pass HAProxy
    "listen-proxy-proto": "true",
}
"""TCP comes from HAProxy alone, which says by the PROXY protocol from where its user comes."""


def behind_what_steers(config: str, environment: Environment) -> str:
    """Return the configuration as it has to be behind the gateway's steering."""
    if environment.gateway.steering != "haproxy":
        return config
    kept, sections = without(config, frozenset(BEHIND_HAPROXY))
    ours = [f"{key} = {value}" for key, value in BEHIND_HAPROXY.items()]
    return "\n".join([*kept, *ours, *sections]) + "\n"
