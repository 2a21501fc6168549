"""The page's own host name on an installation without TLS: browsers keep its session from other ports.

A cookie of 127.0.0.1 goes to every port of that address (RFC 6265, section 8.5), and any user of the host may
listen there. Browsers lead each name under `.localhost` to their own host (RFC 6761, section 6.3), and keep
the cookies of one name from all others.
"""

import os
import re
import secrets
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from activities.drivers.private_files import make_private, secret_line
from orchestrator.crowd import is_this_host
from policies.model.errors import BadInput

_NAME = re.compile(r"penstock-[0-9a-f]{16}\.localhost")


def own_name(path: Path) -> str:
    """Return this installation's host name under `.localhost`, made when there is none yet.

    Raises:
        BadInput: It cannot be read or made, or is none.
    """
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            make_private(path, f"penstock-{secrets.token_hex(8)}.localhost\n".encode())
            folder = path.parent.stat()
            if os.geteuid() == 0:  # the API reads it, whoever was first
                os.chown(path, folder.st_uid, folder.st_gid, follow_symlinks=False)
    except OSError as error:
        raise BadInput(
            f"the page's name {path} cannot be made: {error.strerror}; check its folder"
        ) from error
    found = secret_line(path, "the page's name")
    if not _NAME.fullmatch(found):
        raise BadInput(f"{path} is no name under .localhost; remove it, and restart the API")
    return found


def named(url: str, path: Path) -> str:
    """Return where browsers reach this page: by its own name where it has an address of this host alone."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not (parts.hostname == "localhost" or is_this_host(parts.hostname or "")):
        return url
    port = f":{parts.port}" if parts.port is not None else ""
    return urlunsplit(parts._replace(netloc=f"{own_name(path)}{port}"))
