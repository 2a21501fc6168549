"""What OpenVPN's own log says about logins: lines in, ended attempts out.

Of a server with `verb 3` or more, version 2.4 to 2.7. Every line of a client that is not yet known begins
with its address and port, which tie its lines together; later ones have its name before them. A client
without a certificate has no common name: its lines begin with the address as long as it lives, and the name
that it has typed counts once its password is right. What has a stamp is read without it, as the log is read
when it is written. How long a login took is known where its
first line is there: of 2.6 over UDP only with `verb 4`, since it keeps nothing of a first packet. A first
packet is no attempt, as its address may be invented: one begins with what shows that our answers arrive.

A name counts once the gateway has accepted what proves it; until then a client is known by its address.
Where users type names, all of them may show one certificate. So a certificate's name alone proves nothing
there: the typed name counts, too, once its password is right.

OpenVPN asks for a second factor by a refusal (`AUTH_FAILED,CRV1:`, a dynamic challenge), and for a password
by refusing a token. The session that asks is no attempt: the one that brings the answer is.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from activities.drivers.daemon.openvpn.prefix import (
    AFTER_DROP,
    DROPS,
    END,
    FLOATED,
    NAMED,
    SHOWN_NAME,
    STAMP,
    TYPED_NAME,
    VIA,
)
from activities.drivers.daemon.openvpn.sessions import NOBODY
from policies.attempts import Attempt, LoginOutcome, key_of

LONGEST = 120.0
"""Seconds after which a connection whose end was never logged is given up; OpenVPN itself takes 60."""
MOST_OPEN = 20_000
_End = tuple[str, str]

_BEGINS = ("TLS: Initial packet from", "Re-using SSL/TLS context", "MULTI: multi_create_instance called")
"""The first line of a client: of versions before 2.6, of 2.6 with `verb 4`, and of 2.7 with it by TCP."""
_NOBODY_YET = re.compile(rf"{STAMP}?+{VIA}(?P<end>{END}) (?P<what>.+)")
_LET_IN = re.compile(rf"{STAMP}?+{NAMED}(?P<what>.+)")
_DROPS = re.compile(rf"{STAMP}?+{DROPS}")
_AFTER_DROP = re.compile(rf"{STAMP}?+{AFTER_DROP}")
_VERSION = re.compile(rf"{STAMP}?+OpenVPN (?P<version>\d\S*) ")
# Only at the beginning of what is said: behind it are words of the client, also of one that nobody knows.
_PROVEN = re.compile(rf"VERIFY OK: depth=0, (?:.*, )?{SHOWN_NAME}")
"""The last common name of a subject, as OpenVPN takes it: a directory has more, such as `CN=Users`."""
_TYPED = re.compile(TYPED_NAME)
_ASKS_NAMES = re.compile(r"TLS: Username/|TLS (?:Auth )?Error: Auth Username/Password ")
"""What only a server says that has its users type names and passwords."""
_TOKEN_REFUSED = re.compile(r"TLS: Username/auth-token authentication failed ")
_STRANGER = re.compile(r"VERIFY (?:EKU |KU |X509NAME )?ERROR")
_ACCEPTED = re.compile(r"\[(?P<name>.*)\] Peer Connection Initiated with ")
# What only a client that gets our answers has us say; a first packet may come from any address.
_SHOWN = re.compile(
    r"VERIFY |peer info: |OpenSSL: |TLS_ERROR: |TLS Error: .*incoming plaintext read error|TLS Auth Error:"
    r"|TLS: Username/|Control Channel: |SENT CONTROL |\[.*\] Peer Connection Initiated with "
)
_ADDRESSED = (
    (re.compile(r"MULTI: primary virtual IP"), LoginOutcome.OK),
    (
        re.compile(r"MULTI ERROR: primary virtual IP for .* violates tunnel network/netmask constraint "),
        LoginOutcome.INTERNAL,
    ),
)
"""How a login ends, by the address that its client is given: through one outside of the pool nothing goes.

OpenVPN lets such a client in, and says so before it says the address.
"""
_REFUSES = re.compile(r"SENT CONTROL \[.+\]: 'AUTH_FAILED(?P<asks>,(?:CRV1|SESSION):)?")
_AGAIN = re.compile(r"TLS: soft reset ")
"""A server's first line of new keys for a session that lives."""
_FLOATED = re.compile(rf"{STAMP}?+{FLOATED}")
_ENDS = re.compile(r"SIG[A-Z0-9]+\[[^\]]*\] received, client-instance (?:restarting|exiting)")
_FAILURES = (
    (
        re.compile(rf"TLS Auth Error:|SENT CONTROL \[.+\]: 'AUTH_FAILED|{_STRANGER.pattern}"),
        LoginOutcome.AUTH_FAIL,
    ),
    (re.compile(r"TLS Error: TLS key negotiation failed to occur"), LoginOutcome.TIMEOUT),
    (
        re.compile(r"TLS Error: (?:TLS handshake failed|.*incoming plaintext read error)"),
        LoginOutcome.TLS_FAIL,
    ),
)


@dataclass
class _Connection:
    source: str
    began: float
    timed: bool
    certified: str | None = None
    """The name of its certificate; once it is accepted, the common name that OpenVPN settled on."""
    typed: str | None = None
    proven: bool = False
    """Whether it was let in, or its password was right."""
    accepted: float | None = None
    failure: LoginOutcome | None = None
    asked: bool = False
    """Whether its last refusal asks for a second factor or a password, given in another session."""
    token_refused: bool = False

    def user(self, *, names_are_typed: bool) -> str | None:
        """Return the user who is proven: by both names where a certificate may be everybody's."""
        if not self.proven:
            return None if names_are_typed else self.certified
        return " ".join(dict.fromkeys(name for name in (self.certified, self.typed) if name)) or None


class LoginLog:
    """Reads one instance's log; keeps what is known of connections that have not ended."""

    def __init__(self, ignored: frozenset[str] = frozenset()) -> None:
        """Take the sources to leave out."""
        self._ignored = ignored
        self._begun: dict[_End, _Connection] = {}
        """Of whom nothing is known but a first packet, oldest first."""
        self._open: dict[_End, _Connection] = {}
        self._nameless: dict[_End, None] = {}
        """Live sessions without a common name: what their address says now is no login."""
        self._names_are_typed = False
        """Whether the server has its users type names, as far as the log has shown."""
        self._again = ""
        """The user for whose new session previous ones were dropped last."""
        self.version = ""
        """The daemon's own version, once it has said it."""

    def read(self, line: str, at: float, *, timed: bool = True) -> Iterator[Attempt]:
        """Take in one line read at `at` and yield the attempts it ended; other lines are skipped."""
        if (match := _FLOATED.match(line)) and _end(match["from"]) in self._nameless:
            del self._nameless[_end(match["from"])]
            self._lives(_end(match["to"]))
        elif match := _NOBODY_YET.match(line):
            yield from self._stranger_says(_end(match["end"]), match["what"], at, timed=timed)
        elif match := _DROPS.match(line):
            self._again = match["user"]
        elif (match := _AFTER_DROP.match(line)) and match["user"] == self._again:
            yield from self._user_says(self._again, _end(match["end"]), match["what"], at)
        elif match := _LET_IN.match(line):
            yield from self._user_says(match["user"], _end(match["end"]), match["what"], at)
        elif match := _VERSION.match(line):
            self.version = match["version"]
            self._nameless.clear()

    def give_up(self, at: float) -> Iterator[Attempt]:
        """Yield the attempts of connections that were begun too long ago."""
        for end in [end for end, one in self._begun.items() if at - one.began > LONGEST]:
            del self._begun[end]
        for end, connection in list(self._open.items()):
            if at - connection.began > LONGEST:
                yield from self._close(end, connection.failure or LoginOutcome.TIMEOUT, at)

    def _stranger_says(self, end: _End, what: str, at: float, *, timed: bool) -> Iterator[Attempt]:
        self._names_are_typed |= _ASKS_NAMES.match(what) is not None
        ends = _ENDS.match(what) is not None
        if self._is_live(end, what, ends=ends):
            return
        connection = self._open.get(end) or self._shown(end, what, at, timed=timed, ends=ends)
        if connection is None:
            return
        _note(connection, what, at)
        if (outcome := _addressed(what)) is not None:
            connection.proven = True
            self._lives(end)
            yield from self._close(end, outcome, at)
        elif ends:
            yield from self._close(end, connection.failure or LoginOutcome.INTERNAL, at)

    def _is_live(self, end: _End, what: str, *, ends: bool) -> bool:
        """Return whether the line is of a session without a common name that lives."""
        if end in self._nameless:
            if ends:
                del self._nameless[end]
            return True
        if _AGAIN.match(what) and end not in self._open:
            self._begun.pop(end, None)
            self._lives(end)
            return True
        return False

    def _lives(self, end: _End) -> None:
        """Note a session without a common name; beyond a bound the oldest is dropped."""
        self._nameless[end] = None
        if len(self._nameless) > MOST_OPEN:
            del self._nameless[next(iter(self._nameless))]

    def _shown(self, end: _End, what: str, at: float, *, timed: bool, ends: bool) -> _Connection | None:
        """Return the connection that is an attempt from now on; who has shown nothing is kept or let go."""
        if end[0] in self._ignored:
            return None
        connection = self._begun.pop(end, None)
        if connection is None:
            connection = _Connection(end[0], began=at, timed=timed and what.startswith(_BEGINS))
        if _SHOWN.match(what) and len(self._open) < MOST_OPEN:
            self._open[end] = connection
            return connection
        if not ends:
            self._begun[end] = connection
            if len(self._begun) > MOST_OPEN:
                del self._begun[next(iter(self._begun))]
        return None

    def _user_says(self, user: str, end: _End, what: str, at: float) -> Iterator[Attempt]:
        """Take in a line of somebody who is let in; one whose login was not seen is no attempt."""
        if (connection := self._open.get(end)) is None:
            return
        connection.certified = connection.certified or user
        connection.proven = True
        if (outcome := _addressed(what)) is not None:
            yield from self._close(end, outcome, at)
        elif _ENDS.match(what):
            yield from self._close(end, connection.failure or LoginOutcome.INTERNAL, at)

    def _close(self, end: _End, outcome: LoginOutcome, at: float) -> Iterator[Attempt]:
        connection = self._open.pop(end)
        seconds = None
        if outcome is LoginOutcome.OK and connection.timed and connection.accepted is not None:
            seconds = max(0.0, connection.accepted - connection.began)
        if outcome is LoginOutcome.OK or not connection.asked:
            yield Attempt(
                key=key_of(connection.user(names_are_typed=self._names_are_typed), connection.source),
                source=connection.source,
                outcome=outcome,
                ended=at,
                seconds=seconds,
            )


def _addressed(what: str) -> LoginOutcome | None:
    """Return how a login ends by a line that says its address, None for another line."""
    return next((outcome for said, outcome in _ADDRESSED if said.match(what)), None)


def _note(connection: _Connection, what: str, at: float) -> None:
    """Note what a line says of a login that has not ended."""
    if proven := _PROVEN.match(what):
        connection.certified = proven["name"]
    elif typed := _TYPED.match(what):
        connection.typed = typed["typed"]
        connection.proven = typed["how"] == "succeeded"
    elif _TOKEN_REFUSED.match(what):
        connection.token_refused = True
    if refuses := _REFUSES.match(what):
        connection.asked = refuses["asks"] is not None or connection.token_refused
    if connection.failure is None:
        connection.failure = next((outcome for said, outcome in _FAILURES if said.match(what)), None)
    if (accepted := _ACCEPTED.match(what)) and connection.failure is None:
        connection.accepted = at
        if accepted["name"] not in ("", NOBODY):
            connection.certified = accepted["name"]  # whole, also where the subject leaves it open


def _end(said: str) -> _End:
    """Return address and port as they are compared; a mapped IPv4 address is IPv4."""
    host, _, port = said.rpartition(":")
    bare = host.strip("[]")
    try:
        address = ip_address(bare)
    except ValueError:
        return bare, port
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address), port
