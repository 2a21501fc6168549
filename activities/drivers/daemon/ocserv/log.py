"""What ocserv's own log says about logins: lines in, ended attempts out.

Measured with 1.1.6 and 1.3.0, which have to log at level 3 (`log_level`): below that, neither a rejected
password nor the user of a failed login is in the log. Every connection has its own worker process, so
`ocserv[PID]` ties its lines together. `received auth reply message (value: N)` is the answer
of the authenticator: 1 accepted, 2 asks for (another) answer, 3 refused for good. No line says
that a person gave up; the connection just ends. Its end is a line of the main process that
names the source but not the worker, hence `alive`.

A worker writes its first line only after the authenticator has signed for it (1.3.0), so that a
slow authenticator is not in the log at all. The connection began when its worker did: hence `age`.

Behind a HAProxy every connection comes from loopback. 1.3.0 names the user's own address in the worker's
lines once it has read the PROXY header; 1.1.6 only in a line of the main process, by the port at loopback,
which an earlier line gives to the worker.

A login is good once its tunnel has lived for `PROVEN_SECONDS`. A worker that ends in order reports its
figures to the security module first, whether its user, a broken network, a timeout or SIGTERM ends it. A
worker that a fault kills reports nothing. The main process then logs "unspecified, rx: 0, tx: 0", as it does
for some orderly ends, so the missing report is the sign. The port tells the sessions of one user apart. Some
clients log in on one connection and open the tunnel on another, by a cookie.

Clients write into the log, line feeds included. `own_lines` returns the lines that ocserv itself wrote.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from activities.drivers.daemon.ocserv.own_lines import Line, OwnLines
from policies.attempts import (
    PROVEN_SECONDS,
    Attempt,
    HeldAttempt,
    InOrder,
    LoginOutcome,
    family_of,
    key_of,
)
from policies.model.mirror import ClientKind

PATIENCE = 5.0
"""Seconds after which a connection that ended without an answer counts as timed out."""
LONGEST = 600.0
"""Seconds after which a connection whose end was never logged is given up."""
MOST_OPEN = 20_000

_ACCEPTED, _PROMPT = 1, 2
_AGENT = "User-agent: '"
_KINDS = (
    ("Open AnyConnect VPN Agent", ClientKind.OPENCONNECT),
    ("OpenConnect", ClientKind.OPENCONNECT),
    ("AnyConnect", ClientKind.ANYCONNECT),
    ("Cisco AnyConnect", ClientKind.ANYCONNECT),
    ("Cisco Secure Client", ClientKind.ANYCONNECT),
)
"""How clients begin to say what they are; what follows, versions and names of machines, is not kept."""

_WORKER = re.compile(
    r"^ocserv\[(?P<pid>\d+)\]: worker(?:\[(?P<user>.*?)\])?: (?P<source>[0-9a-f.:]+) (?P<what>.*)"
)
_ENDED = re.compile(r"^ocserv\[\d+\]: main:\[?(?P<source>[0-9a-f.:]+?)\]?:\d+ worker terminated$")
_OF_SESSION = re.compile(
    r"^ocserv\[\d+\]: main\[(?P<user>.*)\]:\[?(?P<source>[0-9a-f.:]+?)\]?:(?P<port>\d+) "
    r"(?P<what>new user session|worker terminated)$"
)
_REPORTS = ("sending message 'sm: worker cli stats'", "error connecting to sec-mod socket")
"""The report of a worker that ends in order; the second where the security module has ended before it."""
_BREAKS = re.compile(
    r"(?:[\w.-]+:\d+: )?(?:could not write data to tun|received corrupt data from tun|libev fatal error)"
)
"""Errors for which a worker ends a session that its user still wants; it reports first."""
_TLS_ERROR = re.compile(r"^ocserv\[(?P<pid>\d+)\]: GnuTLS error \(at worker-vpn")
_RUNS = re.compile(
    r"^ocserv\[\d+\]: main: (?:initialized (?:OpenConnect VPN Server|ocserv) (?P<version>\S+)"
    r"|termination request received; [a-z ]{17,}$)"
)
"""The second has 64 bytes or more, which no name has: no client can write it."""
_ACCEPTS = ("accepted connection", "accepted proxy protocol connection")
_SERVES = re.compile(
    r"^ocserv\[(?P<pid>\d+)\]: main: map worker serving remote address (?P<at>127\.0\.0\.1:\d+) to secmod"
)
_CARRIED = re.compile(
    r"^ocserv\[\d+\]: main:(?P<at>127\.0\.0\.1:\d+) updating remote IP to (?P<source>[0-9a-f.:]+)$"
)
_REPLY = re.compile(r"^received auth reply message \(value: (?P<value>\d+)\)")


def process_runs(pid: int) -> bool:
    """Return whether a process of this number runs here; one that only waits to be reaped does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def process_age(pid: int) -> float | None:
    """Return for how many seconds the process has been there, to a hundredth; None when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    began = int(stat.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - began)


def nobody_knows(pid: int) -> None:
    """Say nothing of a process that is in a namespace of its own, where another one has its number."""
    del pid


@dataclass
class _Connection:
    """One client connection, from its worker's first line on; times in seconds."""

    pid: int
    source: str
    began: float
    timed: bool
    user: str | None = None
    client: ClientKind = ClientKind.OTHER
    encrypted: bool = False
    asked: float | None = None
    """Since when the authenticator owes an answer."""
    prompted: float | None = None
    """Since when the person owes one."""
    waited: float = 0.0
    tried: bool = False
    """A login was begun here, unlike where a cookie only resumes a session."""
    submitted: bool = False
    """The person has answered a prompt."""
    accepted: float | None = None
    opening: bool = False
    opened: float | None = None
    """Since when it carries a tunnel."""
    port: str = ""
    """The user's own port, by which the main process names the session."""
    reported: bool = False
    """It has reported its figures, as a worker does that ends in order."""
    broken: bool = False
    """It ended a session that its user wanted."""
    held: HeldAttempt | None = None
    """The login whose tunnel it carries; None where a cookie resumes an older session."""
    failure: LoginOutcome | None = None
    probe: bool = False
    handed_on: bool = False
    """Its login is that of a tunnel on another connection."""
    carried: bool = False
    """It came by HAProxy, which says from where."""
    gone: bool = False

    @property
    def waits_for_tunnel(self) -> bool:
        """Whether its user is let in and has not asked for a tunnel."""
        return self.tried and self.accepted is not None and not self.opening and not self.handed_on

    @property
    def undecided(self) -> bool:
        """Whether its last lines may still be to come."""
        return self.asked is not None or (self.accepted is None and self.failure is None)


class LoginLog:
    """Reads one instance's log; keeps what is known of connections that have not ended."""

    def __init__(
        self,
        ignored: frozenset[str] = frozenset(),
        alive: Callable[[int], bool | None] = process_runs,
        age: Callable[[int], float | None] = lambda _: None,
    ) -> None:
        """Take the sources to leave out, and how to ask whether a worker lives and for how many seconds.

        Where nobody can say whether it lives, the oldest connection of a source that is decided is the one
        that ended.
        """
        self._ignored = ignored
        self._alive = alive
        self._age = age
        self._open: dict[int, _Connection] = {}
        self._carried: dict[str, int] = {}
        """The worker of each connection at loopback whose user's address is not known yet."""
        self._ports: dict[tuple[str, str], str] = {}
        """The port of the newest session of each user and source, until its worker logs that it is open."""
        self._let_in: dict[str, tuple[HeldAttempt, float]] = {}
        """Users who have a cookie and no tunnel yet, and since when."""
        self._order = InOrder()
        self._lines = OwnLines()
        self._stopping = False
        self.version = ""
        """The daemon's own version, once it has said it."""

    def read(self, line: str, at: float, *, timed: bool = True) -> Iterator[Attempt]:
        """Take in one line read at `at` and yield the attempts that are certain now.

        A line counts once the next one shows that ocserv wrote it, or once `give_up` finds none behind it.

        Args:
            line: As the daemon wrote it; lines of other shapes are skipped.
            at: Seconds of the epoch; the log has no stamps of its own.
            timed: False for a backlog, whose reading times say nothing about durations.
        """
        self._understand(self._lines.take(Line(line, at, timed)), at)
        yield from self._order.certain()

    def _understand(self, line: Line | None, now: float) -> None:
        if line is None:
            return
        if match := _WORKER.match(line.text):
            self._worker_says(match, line, now)
        else:
            self._daemon_says(line.text, line.at)

    def _daemon_says(self, line: str, at: float) -> None:
        if match := _TLS_ERROR.match(line):
            connection = self._open.get(int(match["pid"]))
            if connection and not connection.user:
                connection.failure = LoginOutcome.TLS_FAIL
        elif match := _SERVES.match(line):
            if len(self._carried) < MOST_OPEN:
                self._carried[match["at"]] = int(match["pid"])
        elif match := _CARRIED.match(line):
            if carried := self._open.get(self._carried.pop(match["at"], 0)):
                self._comes_from(carried, match["source"])
        elif match := _ENDED.match(line):
            self._connection_ended(match["source"], at)
        elif match := _OF_SESSION.match(line):
            self._main_says(match["user"], match["source"], match["port"], match["what"], at)
        elif match := _RUNS.match(line):
            self.version = self.version or match["version"] or ""
            self._stopping = match["version"] is None

    def give_up(self, at: float) -> Iterator[Attempt]:
        """Yield the attempts that time has made certain, once all lines were read that are there.

        These are logins whose tunnel has lived long enough, connections open for too long, and those whose
        workers were gone last time too: the main process may have died before it could log their end. The
        second look makes sure that the worker's last lines have been read.
        """
        self._understand(self._lines.flush(), at)
        for connection in list(self._open.values()):
            if connection.opened is not None and _is_proven(connection.opened, at):
                self._proven(connection)
            elif connection.gone or (connection.opened is None and at - connection.began > LONGEST):
                self._close(connection, at)
            else:
                connection.gone = self._alive(connection.pid) is False
        for user, (held, since) in list(self._let_in.items()):
            if _is_proven(since, at):
                held.settle()
                del self._let_in[user]
        yield from self._order.certain()

    def _worker_says(self, match: re.Match[str], line: Line, now: float) -> None:
        pid, source, what, at = int(match["pid"]), match["source"], match["what"], line.at
        if what in _ACCEPTS:
            if pid in self._open:
                self._replaced(self._open[pid], at)
            if source not in self._ignored and len(self._open) < MOST_OPEN:
                age = self._age(pid) if line.timed else None
                began = at if age is None else now - age
                self._open[pid] = _Connection(pid, source, began=began, timed=line.timed)
                self._open[pid].carried = what != _ACCEPTS[0]
            return
        connection = self._open.get(pid)
        if connection is None or not self._is_from(connection, source):
            return
        connection.user = match["user"] or connection.user
        _note(connection, what, at)
        if connection.opened is not None and connection.held is None and pid in self._open:
            self._tunnel_opened(connection, at)

    def _tunnel_opened(self, connection: _Connection, at: float) -> None:
        """Hold the login until its tunnel has lived; of a cookie's user the name comes with the next line."""
        if connection.tried:
            connection.held = self._order.hold(self._attempt(connection, LoginOutcome.OK, at))
        elif connection.user:
            connection.held = self._login_of(connection.user, at)
        else:
            return
        connection.port = self._ports.pop((connection.user or "", connection.source), "")
        if connection.held is None:
            self._proven(connection)

    def _login_of(self, user: str, at: float) -> HeldAttempt | None:
        """Return the login of a moment ago by which this user got the cookie, None where it only resumes."""
        if let_in := self._let_in.pop(user, None):
            return let_in[0]
        for one in self._open.values():
            if one.user == user and one.waits_for_tunnel:
                one.handed_on = True
                return self._order.hold(self._attempt(one, LoginOutcome.OK, at))
        return None

    def _proven(self, connection: _Connection) -> None:
        """Let go of a connection whose tunnel has lived long enough."""
        del self._open[connection.pid]
        if connection.held is not None:
            connection.held.settle()

    def _replaced(self, connection: _Connection, at: float) -> None:
        """Let go of a connection whose worker's number is another one's now: its end was not read."""
        if connection.opened is None:
            self._close(connection, at)
        else:
            self._forget(connection)

    def _forget(self, connection: _Connection) -> None:
        del self._open[connection.pid]
        if connection.held is not None:
            connection.held.drop()

    def _is_from(self, connection: _Connection, source: str) -> bool:
        """Return whether a line with this source is the connection's; a carried one may get its own now."""
        if source == connection.source or (connection.carried and source.startswith("127.")):
            return True
        if not connection.carried or not connection.source.startswith("127."):
            return False
        self._comes_from(connection, source)
        return True

    def _comes_from(self, connection: _Connection, source: str) -> None:
        """Know from where a carried connection comes; one from here is none of a user's."""
        connection.source = source
        if source in self._ignored:
            self._forget(connection)

    def _connection_ended(self, source: str, at: float) -> None:
        """Close the one connection without a tunnel from this source whose end this most likely is."""
        candidates = [c for c in self._open.values() if c.source == source and c.opened is None]
        known = [(c, self._alive(c.pid)) for c in candidates]
        ended = [c for c, lives in known if lives is False]
        if not ended and (len(candidates) == 1 or all(lives is None for _, lives in known)):
            ended = candidates
        if ended:
            self._close(min(ended, key=lambda c: (c.undecided, c.began)), at)

    def _main_says(self, user: str, source: str, port: str, what: str, at: float) -> None:
        """Take in a line of the main process about a session, which has its user's address and port."""
        if what == "new user session":
            self._ports[user, source] = port
            if len(self._ports) > MOST_OPEN:
                del self._ports[next(iter(self._ports))]
            return
        begun = self._ports.get((user, source)) == port
        for one in list(self._open.values()):
            is_it = one.port == port if one.opened is not None and one.user else begun and one.opening
            if one.source == source and one.user in (user, None) and is_it:
                one.user = user
                self._close(one, at)
                return

    def _close(self, connection: _Connection, at: float) -> None:
        del self._open[connection.pid]
        if connection.opened is not None or (connection.opening and not connection.tried):
            self._tunnel_ended(connection, at)
            return
        outcome = _outcome(connection, at)
        if outcome is None:
            return
        attempt = self._attempt(connection, outcome, at)
        if outcome is not LoginOutcome.OK or connection.user is None:
            self._order.take(attempt)
            return
        if before := self._let_in.pop(connection.user, None):
            before[0].settle()
        self._let_in[connection.user] = (self._order.hold(attempt), at)

    def _tunnel_ended(self, connection: _Connection, at: float) -> None:
        """Settle the login whose tunnel ended so soon: what a fault of the daemon ends is no good login."""
        held = connection.held
        if held is None and connection.user:
            held = self._login_of(connection.user, at)
        if held is None:
            return
        if connection.reported and not connection.broken:
            held.settle()
        elif self._stopping:
            held.drop()
        else:
            held.settle(LoginOutcome.INTERNAL)

    def _attempt(self, connection: _Connection, outcome: LoginOutcome, at: float) -> Attempt:
        seconds = None
        if outcome is LoginOutcome.OK and connection.timed and connection.accepted is not None:
            seconds = max(0.0, connection.accepted - connection.began - connection.waited)
        return Attempt(
            key=key_of(connection.user, connection.source),
            source=connection.source,
            outcome=outcome,
            ended=at,
            seconds=seconds,
            family=family_of(connection.source),
            client=connection.client,
        )


def _is_proven(since: float, at: float) -> bool:
    """Return whether it has lived long enough; a clock that was set back lets nobody wait."""
    return not 0 <= at - since < PROVEN_SECONDS


def _note(connection: _Connection, what: str, at: float) -> None:
    """Remember what one more line of a connection's worker means."""
    if connection.opened is not None:
        connection.reported |= any(words in what for words in _REPORTS)
        connection.broken |= _BREAKS.match(what) is not None
    elif what == "TLS handshake completed":
        connection.encrypted = True
    elif what.startswith(_AGENT):
        said = what.removeprefix(_AGENT)
        connection.client = next(
            (kind for begins, kind in _KINDS if said.startswith(begins)), ClientKind.OTHER
        )
    elif what.startswith("Received TCP health probe"):
        connection.probe = True
    elif what.startswith(("sending message 'sm: auth init'", "sending message 'sm: auth cont'")):
        if connection.prompted is not None:
            connection.waited += at - connection.prompted
        connection.tried, connection.submitted = True, "auth cont" in what
        connection.asked, connection.prompted = at, None
    elif what.startswith("sending message 'auth cookie request'"):
        connection.opening, connection.asked = True, at
    elif match := _REPLY.match(what):
        _answer(connection, int(match["value"]), at)


def _answer(connection: _Connection, value: int, at: float) -> None:
    """Remember the authenticator's or, for a tunnel, the main process's answer."""
    connection.asked = None
    if value == _ACCEPTED:
        connection.accepted, connection.failure = at, None
        connection.opened = at if connection.opening else None
    elif connection.opening:
        connection.failure = LoginOutcome.INTERNAL
    else:
        connection.prompted = at
        if value != _PROMPT or connection.submitted:
            connection.failure = LoginOutcome.AUTH_FAIL


def _outcome(connection: _Connection, at: float) -> LoginOutcome | None:
    """Return how a connection that ended counts; None when nobody tried to log in.

    Somebody who leaves at a prompt within `PATIENCE` has not tried; a load balancer's
    check has not either. A cookie that resumes a session is no login.
    """
    slow = at - connection.began >= PATIENCE
    if connection.probe or connection.handed_on:
        return None
    if connection.failure is not None:
        return connection.failure
    if connection.accepted is not None and not connection.opening:
        return LoginOutcome.OK
    if connection.asked is not None:
        return LoginOutcome.TIMEOUT if slow else LoginOutcome.INTERNAL
    if not connection.encrypted and not slow:
        return LoginOutcome.TLS_FAIL
    return LoginOutcome.TIMEOUT if slow else None
