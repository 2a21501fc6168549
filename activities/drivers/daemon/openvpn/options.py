"""How an openvpn client is told to reach an instance: as whom, by which way, and set up how."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from activities.drivers.daemon.client import address_of
from activities.drivers.daemon.login import ProbeLogin, password_of
from activities.drivers.daemon.port import Environment
from policies.model.client_profiles import FILES, words_of
from policies.model.errors import BadInput

HANDSHAKE_SECONDS = 8
TYPED = "/dev/fd/4"
"""Where a client reads name and password; they are in no file, and in no command line."""
LAST_WORDS = ("process exiting", "Exiting due to fatal error", "Use --help for more information.")
"""How the last line ends of a client that gives up."""


def options(
    environment: Environment,
    login: ProbeLogin,
    transport: str,
    setup: Sequence[str],
    within: int = HANDSHAKE_SECONDS,
    shown: tuple[Path, Path] | None = None,
) -> list[str]:
    """Return the options by which openvpn reaches the instance's own port as the probe's user.

    Args:
        environment: Where the instance is.
        login: Who logs in.
        transport: By `tcp` or `udp`.
        setup: What its client is told beside that, as client profiles have it.
        within: Seconds that its handshake may take.
        shown: Another certificate and key than the login's own.

    Raises:
        BadInput: There is neither certificate nor password, an option is none of a client profile, or a file
            is not named.
    """
    certificate, key = shown or (login.certificate, login.key)
    if (certificate is None or key is None) and login.password is None:
        raise BadInput(
            "the probe was given neither a certificate nor a password; name `certificate` and `key`, or "
            "`password`, under `probe` in agent.yaml"
        )
    address, port = str(address_of(environment)), str(environment.slot.port)
    said = [
        *("--remote", address, port, "tcp-client" if transport == "tcp" else "udp", "--nobind"),
        *("--ca", str(login.authority)),
        *("--remote-cert-tls", "server", "--connect-retry-max", "1"),
        *("--hand-window", str(within), "--connect-timeout", str(within), "--tls-exit"),
    ]
    said += ["--cert", str(certificate), "--key", str(key)] if certificate and key else []
    said += ["--auth-user-pass", TYPED] if login.password is not None else []
    said += [] if transport == "tcp" else ["--explicit-exit-notify", "1"]
    said += ["--verify-x509-name", login.name, "name"] if login.name else []
    return [*said, *_set_up(setup, login)]


def typed(login: ProbeLogin) -> str:
    """Return the probe's password, empty where it logs in by certificate alone; BadInput as `password_of`."""
    return "" if login.password is None else password_of(login)


def _set_up(setup: Sequence[str], login: ProbeLogin) -> Iterator[str]:
    for option in setup:
        try:
            name, *values = words_of(option)
        except ValueError as error:
            raise BadInput(str(error)) from error
        yield f"--{name}"
        if name in FILES:
            file = login.files.get(values[0])
            if file is None:
                raise BadInput(
                    f"`{option}` names a file that this gateway's probe was not given; name {values[0]} "
                    "under probe.files in agent.yaml"
                )
            values[0] = str(file)
        yield from values
