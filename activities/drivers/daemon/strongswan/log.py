"""What charon's own log says about logins: lines in, ended attempts out.

Of charon 5.9 and 6.0 with `ike_name = yes`, by which each line of an IKE_SA has its number, at level 1 or
more of the parts that `template` names. With `log_level = yes` each line has its level behind its part.
A user is let in when the tunnel is there (CHILD_SA), not when charon knows who it is: who gets no address, or
asks for networks that are not given, has no use of that. A first packet (IKE_SA_INIT) is no attempt, as its
address may be invented: one begins with IKE_AUTH. Logins by IKEv1 are not read: a template whose connections
answer IKEv1 is refused when its release is built. A name counts once charon has taken what proves it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from activities.drivers.daemon.strongswan.sessions import name_of
from policies.attempts import Attempt, LoginOutcome, key_of

LONGEST = 120.0
"""Seconds after which a login whose end was never logged is given up; charon's half-open timeout is 30."""
MOST_OPEN = 20_000

_LINE = re.compile(r"^(?:[^\[<]*\s)?\d+\[[A-Z]{3}\d?\] <(?:[^>|]*\|)?(?P<number>\d+)> (?P<what>.*)")
_VERSION = re.compile(r"Starting IKE charon daemon \(strongSwan (?P<version>[^,)]+)")
_BEGINS = re.compile(r"(?P<source>\S+) is initiating an IKE_SA")
# Whoever sends it knows what we answered to the first packet, whose source may be invented.
_SHOWN = re.compile(
    r"parsed IKE_AUTH request |looking for peer configs matching "
    r"|IKE_AUTH request with message ID \d+ processing"
)
_PROVEN = re.compile(r"authentication of '.+' with .+ successful$")
_NAMED = re.compile(r"looking for peer configs matching .*\.\.\.\S+?\[(?P<name>.+)\]$")
_EAP = re.compile(r"received EAP identity '(?P<name>.+)'")
_LET_IN = re.compile(r"CHILD_SA \S+ established with SPIs")
_HALF_OPEN = re.compile(r"deleting half open IKE_SA with (?P<source>\S+) after timeout")
_FAILURES = (
    (
        re.compile(
            r"\[ N\(AUTH_FAILED\) \]|EAP/FAIL|no matching peer config found|no trusted \S+ public key"
        ),
        LoginOutcome.AUTH_FAIL,
    ),
    (
        re.compile(
            r"received proposals unacceptable|key derivation failed|\[ N\(NO_PROP\) \]|\[ N\(INVAL_SYN\) \]"
        ),
        LoginOutcome.TLS_FAIL,
    ),
    (
        re.compile(r"no virtual IP found|failed to establish CHILD_SA|traffic selectors .* unacceptable"),
        LoginOutcome.INTERNAL,
    ),
)
_ENDS = re.compile(
    r"generating \w+ response \d+ \[ (?:.*N\((?:AUTH_FAILED|NO_PROP|INVAL_SYN|TS_UNACCEPT|INT_ADDR_FAIL)\)"
    r"|EAP/FAIL \])"
)
"""The last line of a login that fails: after `EAP/FAIL`, charon destroys the IKE_SA without a word."""


@dataclass
class _Login:
    source: str
    began: float
    timed: bool
    user: str | None = None
    proven: bool = False
    """Whether charon has taken what its user showed; until then a name is only claimed."""
    failure: LoginOutcome | None = None


class LoginLog:
    """Reads one instance's log; keeps what is known of logins that have not ended."""

    def __init__(self, ignored: frozenset[str] = frozenset()) -> None:
        """Take the sources to leave out."""
        self._ignored = ignored
        self._begun: dict[str, _Login] = {}
        """Of which nothing is known but a first packet, oldest first."""
        self._open: dict[str, _Login] = {}
        self.version = ""
        """The daemon's own version, once it has said it."""

    def read(self, line: str, at: float, *, timed: bool = True) -> Iterator[Attempt]:
        """Take in one line read at `at` and yield the attempts it ended; other lines are skipped."""
        if match := _LINE.search(line):
            yield from self._said(match["number"], match["what"], at, timed=timed)
        elif match := _VERSION.search(line):
            self.version = match["version"]
            self._begun.clear()
            self._open.clear()  # numbers begin again

    def give_up(self, at: float) -> Iterator[Attempt]:
        """Yield the attempts of logins that were begun too long ago."""
        for number in [number for number, one in self._begun.items() if at - one.began > LONGEST]:
            del self._begun[number]
        for number, login in list(self._open.items()):
            if at - login.began > LONGEST:
                yield self._close(number, login.failure or LoginOutcome.TIMEOUT, at)

    def _said(self, number: str, what: str, at: float, *, timed: bool) -> Iterator[Attempt]:
        if begins := _BEGINS.match(what):
            self._begin(number, begins["source"], at, timed=timed)
            return
        login = self._open.get(number) or self._shown(number, what)
        if login is None:
            return
        if named := _EAP.match(what) or _NAMED.match(what):
            login.user, login.proven = name_of(named["name"]), False
        login.proven |= _PROVEN.match(what) is not None
        if login.failure is None:
            login.failure = next((outcome for said, outcome in _FAILURES if said.search(what)), None)
        if _LET_IN.match(what):
            yield self._close(number, LoginOutcome.OK, at)
        elif _ENDS.match(what):
            yield self._close(number, login.failure or LoginOutcome.INTERNAL, at)
        elif _HALF_OPEN.match(what):
            yield self._close(number, login.failure or LoginOutcome.TIMEOUT, at)

    def _begin(self, number: str, source: str, at: float, *, timed: bool) -> None:
        if source not in self._ignored:
            self._begun[number] = _Login(source, began=at, timed=timed)
            if len(self._begun) > MOST_OPEN:
                del self._begun[next(iter(self._begun))]

    def _shown(self, number: str, what: str) -> _Login | None:
        """Return the login that is an attempt from now on; one that ends before that is let go."""
        if number not in self._begun:
            return None
        if _SHOWN.match(what) and len(self._open) < MOST_OPEN:
            login = self._open[number] = self._begun.pop(number)
            return login
        if _ENDS.match(what) or _HALF_OPEN.match(what):
            del self._begun[number]
        return None

    def _close(self, number: str, outcome: LoginOutcome, at: float) -> Attempt:
        login = self._open.pop(number)
        let_in = outcome is LoginOutcome.OK
        return Attempt(
            key=key_of(login.user if let_in or login.proven else None, login.source),
            source=login.source,
            outcome=outcome,
            ended=at,
            seconds=max(0.0, at - login.began) if let_in and login.timed else None,
        )
