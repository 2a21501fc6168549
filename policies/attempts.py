"""First attempts: which logins count when a release is judged, and which are only repeats.

Users' first attempts are nearly independent of each other; attempts are not. One client that
retries every five seconds makes a healthy release look broken under every statistical rule,
so a key (the user where known, else the source) counts once in ten minutes, with the outcome
of its first attempt. A user who mistypes, hangs up and then succeeds counts as mistyped.
"""

import hashlib
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Network, ip_address
from math import floor

from pydantic import Field

from policies.model.mirror import ClientKind, Family
from policies.model.value import Value

BUCKET_SECONDS = 600
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
    outcome: LoginOutcome
    ended: float = Field(description="seconds of the epoch")
    seconds: float | None = Field(default=None, description="without the time a person took to answer")
    family: Family | None = None
    """Which kind of address it came from, None where its daemon's reader does not say."""
    client: ClientKind = ClientKind.OTHER


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

    Beyond `most` keys further new ones do not count: evidence that is missing, never wrong.
    """

    def __init__(self, seen: RememberedKeys | None = None, most: int = MOST_KEYS) -> None:
        seen = seen or RememberedKeys()
        self._bucket, self._keys, self._most = seen.bucket, set(seen.keys), most

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
        mark = hashlib.blake2b(attempt.key.encode(), digest_size=8).hexdigest()
        if mark in self._keys or len(self._keys) >= self._most:
            return False
        self._keys.add(mark)
        return True
