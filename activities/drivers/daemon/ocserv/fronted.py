"""What ocserv's configuration says where a HAProxy on the same host carries its users' connections."""

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
    kept = [line for line in config.splitlines() if line.partition("=")[0].strip() not in BEHIND_HAPROXY]
    return "\n".join([*kept, *(f"{key} = {value}" for key, value in BEHIND_HAPROXY.items()), ""])
