"""Find secrets in files that ocserv reads beside its configuration: the shared keys of its RADIUS servers."""

import re

_SERVERS = re.compile(r"(?:^|[/!])(?:radcli|radiusclient|radiusclient-ng)/servers(?:-tls)?$")
"""Names of the file that the library radcli reads; a line is a server and the key that both know."""
_LINE = re.compile(r"^[ \t]*[^\s#]+[ \t]+(?!#)\S", re.MULTILINE)


def secret_in(name: str, text: str) -> str | None:
    """Return what kind of secret a file of this name has, None for none."""
    return "shared key of RADIUS" if _SERVERS.search(name) and _LINE.search(text) else None
