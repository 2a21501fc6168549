"""What OpenVPN's own log says about logins: lines in, ended attempts out.

Of a server with `verb 3` or more, version 2.4 to 2.6. Every line of a client that is not yet known begins
with its address and port, which tie its lines together; later ones have its name before them. What has a
stamp is read without it, as the log is read when it is written. How long a login took is known where its
first line is there: of 2.6 over UDP only with `verb 4`, since it keeps nothing of a first packet.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from policies.attempts import Attempt, LoginOutcome, key_of

LONGEST = 120.0
"""Seconds after which a connection whose end was never logged is given up; OpenVPN itself takes 60."""
MOST_OPEN = 20_000

_STAMP = r"^(?:\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (?:us=\d+ )?)?"
_BEGINS = ("TLS: Initial packet from", "Re-using SSL/TLS context")
"""The first line of a client as versions before 2.6 have it, and as 2.6 has it with `verb 4`."""
_CLIENT = re.compile(
    _STAMP + r"(?:(?P<user>[^/\s]+)/)?(?P<source>\[?[0-9a-fA-F.:]+\]?):(?P<port>\d+) (?P<what>.+)"
)
_VERSION = re.compile(_STAMP + r"OpenVPN (?P<version>\d\S*) ")
_NAME = re.compile(
    r"VERIFY (?:OK|ERROR): depth=0, .*?CN=(?P<name>[^,/]+)|\[(?P<peer>[^\]]+)\] Peer Connection Initiated"
)
_FAILURES = (
    (
        re.compile(r"TLS Auth Error:|AUTH_FAILED|VERIFY ERROR|VERIFY EKU ERROR|VERIFY KU ERROR"),
        LoginOutcome.AUTH_FAIL,
    ),
    (re.compile(r"TLS Error: TLS key negotiation failed to occur"), LoginOutcome.TIMEOUT),
    (
        re.compile(r"TLS Error: TLS handshake failed|TLS Error: .*incoming plaintext read error"),
        LoginOutcome.TLS_FAIL,
    ),
)


@dataclass
class _Connection:
    source: str
    began: float
    timed: bool
    user: str | None = None
    accepted: float | None = None
    failure: LoginOutcome | None = None


class LoginLog:
    """Reads one instance's log; keeps what is known of connections that have not ended."""

    def __init__(self, ignored: frozenset[str] = frozenset()) -> None:
        """Take the sources to leave out."""
        self._ignored = ignored
        self._open: dict[str, _Connection] = {}
        self.version = ""
        """The daemon's own version, once it has said it."""

    def read(self, line: str, at: float, *, timed: bool = True) -> Iterator[Attempt]:
        """Take in one line read at `at` and yield the attempts it ended; other lines are skipped."""
        if match := _CLIENT.match(line):
            yield from self._client_says(match, at, timed=timed)
        elif match := _VERSION.match(line):
            self.version = match["version"]

    def give_up(self, at: float) -> Iterator[Attempt]:
        """Yield the attempts of connections that were begun too long ago."""
        for key, connection in list(self._open.items()):
            if at - connection.began > LONGEST:
                yield from self._close(key, connection.failure or LoginOutcome.TIMEOUT, at)

    def _client_says(self, match: re.Match[str], at: float, *, timed: bool) -> Iterator[Attempt]:
        source, what = _plain(match["source"]), match["what"]
        key = f"{source} {match['port']}"
        ends = "client-instance" in what and ("restarting" in what or "exiting" in what)
        connection = self._open.get(key)
        if connection is None:
            if match["user"] is not None or ends or source in self._ignored or len(self._open) >= MOST_OPEN:
                return
            timed = timed and what.startswith(_BEGINS)
            connection = self._open[key] = _Connection(source, began=at, timed=timed)
        if named := _NAME.search(what):
            connection.user = named["name"] or named["peer"]
        if "Peer Connection Initiated with" in what and connection.failure is None:
            connection.accepted = at
        for pattern, outcome in _FAILURES:
            if pattern.search(what) and connection.failure is None:
                connection.failure = outcome
        if "MULTI: primary virtual IP" in what:
            yield from self._close(key, LoginOutcome.OK, at)
        elif ends:
            yield from self._close(key, connection.failure or LoginOutcome.INTERNAL, at)

    def _close(self, key: str, outcome: LoginOutcome, at: float) -> Iterator[Attempt]:
        connection = self._open.pop(key)
        seconds = None
        if outcome is LoginOutcome.OK and connection.timed and connection.accepted is not None:
            seconds = max(0.0, connection.accepted - connection.began)
        yield Attempt(
            key=key_of(connection.user, connection.source), outcome=outcome, ended=at, seconds=seconds
        )


def _plain(source: str) -> str:
    """Return an address as it is compared; a mapped IPv4 address is IPv4."""
    bare = source.strip("[]")
    try:
        address = ip_address(bare)
    except ValueError:
        return bare
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)
