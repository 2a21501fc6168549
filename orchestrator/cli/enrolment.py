"""How a process of somebody's own host gets the certificate by which relays know it, and the next one."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.output import say
from policies.model.errors import BadInput

if TYPE_CHECKING:
    from orchestrator.enrolment.host import HostFiles
    from orchestrator.enrolment.names import Certified

At = Annotated[str | None, typer.Option("--at", metavar="HOST:PORT", help="the enrolment port of a relay")]
"""The relay that is asked for a certificate."""
Certificate = Annotated[
    Path | None, typer.Option("--certificate", help="instead of asking a relay: one of your own, in PEM")
]
"""A certificate that somebody has made, in place of asking."""
Key = Annotated[Path | None, typer.Option("--key", help="its key")]
"""The key of such a certificate."""
Authority = Annotated[Path | None, typer.Option("--authority", help="who vouches for relays")]
"""Whose word on relays counts, beside such a certificate."""


def enrol(
    files: "HostFiles",
    at: str | None,
    certificate: Path | None,
    key: Path | None,
    authority: Path | None,
) -> None:
    """Get the certificate for a token that is read from the input, or take one that somebody has made.

    Raises:
        BadInput: Both are asked for, or neither, or a file is not as it must be.
        NotAllowed: The relay refuses the token.
        Unavailable: It does not answer.
    """
    from orchestrator.enrolment import host, token  # noqa: PLC0415 - who only runs an agent does without

    if at is not None and (certificate, key, authority) == (None, None, None):
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


def renew(files: "HostFiles", relay: str, server_name: str) -> None:
    """Get the next certificate from this relay now.

    Raises:
        NotAllowed: The relay refuses it.
        Unavailable: It does not answer.
        BadInput: A file is not as it must be.
    """
    from orchestrator.enrolment import host  # noqa: PLC0415 - as above

    _told(host.renew(files, relay, server_name))
    _require_keys(files)


def _told(whose: "Certified") -> None:
    say(f"{whose} has certificate {whose.serial}, good until {whose.expires:%Y-%m-%d %H:%M} UTC.")


def _require_keys(files: "HostFiles") -> None:
    """Refuse to be done where the relay handed out no keys, and the file wants some."""
    if files.payload_keys is not None and not files.payload_keys.exists():
        raise BadInput(
            f"{files.payload_keys} is not there, and the relay handed out no keys: it seals nothing. Take "
            f"payload_keys out of the {files.whose}'s file, or set PENSTOCK_PAYLOAD_KEYS at the relay and "
            f"type penstock {files.whose} renew"
        )
