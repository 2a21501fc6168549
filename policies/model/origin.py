"""Origins: scheme, host and port of a place that releases come from, and nothing else."""

from ipaddress import ip_address
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

PORTS = {"http": 80, "https": 443}


def origin_of(url: str) -> str:
    """Return scheme, host and port of a URL, with the port always written; empty if it is no HTTP URL.

    A URL with credentials in it has no origin: secrets do not belong into addresses.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or PORTS.get(parts.scheme)
    except ValueError:
        return ""
    if parts.scheme not in PORTS or not parts.hostname or "@" in parts.netloc:
        return ""
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host.lower()}:{port}"


def keeps_secrets(origin: str) -> bool:
    """Return whether what is sent there is seen by nobody on the way: by TLS, or on this machine."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    try:
        here = ip_address(parts.hostname or "").is_loopback
    except ValueError:
        here = parts.hostname == "localhost"
    return parts.scheme == "https" or here


def _origin(written: str) -> str:
    found = origin_of(written)
    rest = written.partition("://")[2].removesuffix("/")
    if not found or written != written.strip() or any(sign in rest for sign in "/?#@\\ \t\r\n"):
        raise ValueError(
            f"{written!r} is no origin; write scheme, host and, where it is unusual, port, "
            "such as https://repo.corp.example:8443"
        )
    return found


Origin = Annotated[str, AfterValidator(_origin)]
"""Such as `https://repo.corp.example:443`; the port is added where it was left out."""
