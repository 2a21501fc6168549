"""First attempts: which logins count when a release is judged, and which are only repeats.

Users' first attempts are nearly independent of each other; attempts are not. One client that
retries every five seconds makes a healthy release look broken under every statistical rule,
so a key (the user where known, else the source) counts once in ten minutes, with the outcome
of its first attempt. A user who mistypes, hangs up and then succeeds counts as mistyped.
A failure before any name was given is its source's. Behind one address there may be an office: as many of
its failures count as users came from there before, while nobody from there gets further.

A login is good once its tunnel has lived for `PROVEN_SECONDS`. Until then neither it nor any attempt that
ended later is counted: failures without the good logins beside them would condemn a good release.
"""

import hashlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Network, ip_address
from math import floor

from pydantic import Field

from policies.model.mirror import ClientKind, Family
from policies.model.value import Value

BUCKET_SECONDS = 600
PROVEN_SECONDS = 5.0
"""How long a tunnel has to live until its login counts as good."""
MOST_KEYS = 100_000


class LoginOutcome(StrEnum):
    """How a login ended."""

    OK = "ok"
    AUTH_FAIL = "auth_fail"
    TLS_FAIL = "tls_fail"
    TIMEOUT = "timeout"
    INTERNAL = "internal"


class Attempt(Value):
    """One login that ended: whose, when and how it ended, and how long it took if that is known."""

    key: str
    source: str = ""
    """The address that it came from; empty where its daemon's reader does not say."""
    outcome: LoginOutcome
    ended: float = Field(description="seconds of the epoch; of a good login when its user was let in")
    seconds: float | None = Field(default=None, description="without the time a person took to answer")
    family: Family | None = None
    """Which kind of address it came from, None where its daemon's reader does not say."""
    client: ClientKind = ClientKind.OTHER


@dataclass
class HeldAttempt:
    """An attempt whose outcome may still change; it ended when its user was let in."""

    attempt: Attempt
    certain: bool = False
    counts: bool = True

    def settle(self, outcome: LoginOutcome | None = None) -> None:
        """Make its outcome certain; None leaves it as it is. What was settled before stays so."""
        if self.certain:
            return
        self.certain = True
        if outcome is not None and outcome is not self.attempt.outcome:
            self.attempt = self.attempt.model_copy(update={"outcome": outcome, "seconds": None})

    def drop(self) -> None:
        """Have it count neither as good nor as bad."""
        self.certain, self.counts = True, False


class InOrder:
    """Attempts in the order in which they ended; none leaves before those that ended earlier are certain."""

    def __init__(self) -> None:
        self._waiting: deque[HeldAttempt] = deque()

    def hold(self, attempt: Attempt) -> HeldAttempt:
        """Take an attempt whose outcome is not certain yet."""
        held = HeldAttempt(attempt)
        self._waiting.append(held)
        return held

    def take(self, attempt: Attempt) -> None:
        """Take an attempt whose outcome is certain."""
        self._waiting.append(HeldAttempt(attempt, certain=True))

    def certain(self) -> Iterator[Attempt]:
        """Yield the attempts that wait for nothing any more."""
        while self._waiting and self._waiting[0].certain:
            if (first := self._waiting.popleft()).counts:
                yield first.attempt


def key_of(user: str | None, source: str) -> str:
    """Return who attempts: the user if the log names one, else the source, an IPv6 one by its /64."""
    if user:
        return f"user {user}"
    try:
        address = ip_address(source)
    except ValueError:
        return f"source {source}"
    whose = address if isinstance(address, IPv4Address) else IPv6Network((int(address), 64), strict=False)
    return f"source {whose}"


def family_of(source: str) -> Family | None:
    """Return which kind of address a source is."""
    try:
        return 4 if isinstance(ip_address(source), IPv4Address) else 6
    except ValueError:
        return None


class RememberedKeys(Value):
    """Which keys had their first attempt in which ten minutes, for keeping over a restart."""

    bucket: int = -1
    keys: tuple[str, ...] = ()


class FirstAttempts:
    """Tells first attempts from repeats; remembers one bucket, and at most `most` short hashes in it.

    Beyond `most` keys further new ones do not count: evidence that is missing, never wrong. Instances of one
    gateway share what is known of `sources`.
    """

    def __init__(
        self, seen: RememberedKeys | None = None, most: int = MOST_KEYS, sources: "Sources | None" = None
    ) -> None:
        seen = seen or RememberedKeys()
        self._bucket, self._keys, self._most = seen.bucket, set(seen.keys), most
        self._sources = sources or Sources()

    @property
    def seen(self) -> RememberedKeys:
        """What must be kept so that a restart does not count a key twice."""
        return RememberedKeys(bucket=self._bucket, keys=tuple(sorted(self._keys)))

    def counts(self, attempt: Attempt) -> bool:
        """Return whether this is its key's first attempt in its ten minutes, and remember it.

        A clock that steps back stays in the newest bucket: an attempt can be lost, not counted twice.
        """
        bucket = floor(attempt.ended / BUCKET_SECONDS)
        if bucket > self._bucket:
            self._bucket, self._keys = bucket, set()
        for number in range(self._sources.take(attempt)):
            mark = _mark(f"{attempt.key} {number}" if number else attempt.key)
            if len(self._keys) >= self._most:
                return False
            if mark not in self._keys:
                self._keys.add(mark)
                return True
        return False


class Sources:
    """How many users come from each source lately, on all instances of one gateway.

    A source whose failures are one client's is told from an office that is refused by what else comes from
    there: a login that names its user ends the suspicion for the rest of its ten minutes.
    """

    def __init__(self, most: int = MOST_KEYS) -> None:
        """Remember at most so many users of ten minutes, and how many came from where before."""
        self._bucket, self._most, self._known = -1, most, 0
        self._users: dict[str, set[str]] = {}
        self._before: dict[str, int] = {}
        self._got_further: set[str] = set()
        self._failed: set[str] = set()

    def take(self, attempt: Attempt) -> int:
        """Return as how many first attempts of its key attempts like this may count; take note of it."""
        self._begin(floor(attempt.ended / BUCKET_SECONDS))
        source = key_of(None, attempt.source)
        if attempt.key != source:
            self._get_further(source, attempt.key)
            return 1
        self._failed.add(source)
        return 1 if source in self._got_further else max(1, self._before.get(source, 0))

    def _begin(self, bucket: int) -> None:
        if bucket <= self._bucket:
            return
        recent = bucket == self._bucket + 1
        refused = {source: self._before[source] for source in self._failed & self._before.keys()}
        came = {source: len(users) for source, users in self._users.items()}
        self._before = refused | came if recent else {}
        self._bucket, self._users, self._known = bucket, {}, 0
        self._got_further, self._failed = set(), set()

    def _get_further(self, source: str, user: str) -> None:
        if source in self._failed:
            self._got_further.add(source)
        users = self._users.setdefault(source, set()) if self._known < self._most else set()
        self._known += _mark(user) not in users
        users.add(_mark(user))


def _mark(key: str) -> str:
    return hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
