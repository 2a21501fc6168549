"""Keys and endpoints of the identity provider: held in memory, and read again beside requests.

A request verifies with the keys that are held. One thread reads the provider's documents, once for all
requests that need them. A provider that hangs takes no thread and no lock from a hold or a rollback.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import jwt

from policies.model.errors import PenstockError, Unavailable

FRESH_SECONDS = 300.0
"""How old keys are when they are read again: a key that the provider has removed ends here then."""

KEYS_LIVE = timedelta(hours=10)
"""How long keys count while the provider does not answer: as long as a session of the page, which counts for
a shift without the provider. A key that was removed meanwhile ends with it at the latest."""

KEYS_AGAIN_SECONDS = 2.0
"""How often tokens that name unknown keys have the documents read again."""

FAILED_SECONDS = 10.0
"""How long a provider that did not answer is left alone."""

UNKNOWN_WAITS_SECONDS = 7.0
"""How long a request waits for a key that is not held: both documents are read by then, or have failed."""

OLD_WAITS_SECONDS = 1.0
"""How long a request waits for new keys whose key is held and old; then the one that is held counts."""

_log = logging.getLogger(__name__)


def _seconds() -> float:
    return time.monotonic()


@dataclass(frozen=True)
class Published:
    """Keys and endpoints that the provider has published."""

    keys: tuple[jwt.PyJWK, ...]
    authorization: str
    """Where browsers are sent to log in; empty where the provider has no such endpoint."""
    token: str
    """Where a code is redeemed."""
    scopes: tuple[str, ...]
    """The scopes that the provider lists."""
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    read: float = field(default_factory=_seconds)
    """When they were read, by the clock that never jumps."""

    def key(self, identifier: str | None) -> jwt.PyJWK | None:
        """Return the key of that identifier, None where the provider has published none."""
        return jwt.PyJWKClient.match_kid([*self.keys], identifier) if identifier is not None else None

    @property
    def until(self) -> datetime:
        """Until when they count if the provider does not answer."""
        return self.at + KEYS_LIVE


class Reading(NamedTuple):
    """A reading under way, and how long a request that needs it waits for it."""

    ends: "Future[None]"
    seconds: float

    async def wait(self) -> None:
        """Wait for it, in no thread."""
        await asyncio.wait([asyncio.wrap_future(self.ends)], timeout=self.seconds)

    def block(self) -> None:
        """Wait for it in this thread."""
        wait([self.ends], self.seconds)


class ProviderKeys:
    """The newest keys and endpoints of one provider."""

    def __init__(self, issuer: str, read: Callable[[], Published]) -> None:
        """Take what reads both documents; it raises a PenstockError where the provider does not answer."""
        self.issuer = issuer
        self._read = read
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="provider-keys")
        self._turn = threading.Lock()
        self._under_way: Future[None] | None = None
        self._not_before = 0.0
        self._published: Published | None = None
        self._failure: str | None = None

    @property
    def failure(self) -> str | None:
        """Why the newest keys are not known, None where they are."""
        held = self._published
        if self._failure is None and held is not None and _age(held) > FRESH_SECONDS:
            return self._silence
        return self._failure

    @property
    def _silence(self) -> str:
        return f"{self.issuer} does not answer in time"

    def held(self) -> Published:
        """Return the newest keys and endpoints.

        Raises:
            Unavailable: None were read, or they are too old.
        """
        found = self._published
        if found is None or _age(found) > KEYS_LIVE.total_seconds():
            raise Unavailable(self._failure or self._silence)
        return found

    def key(self, identifier: str | None) -> jwt.PyJWK:
        """Return the held key of that identifier.

        Raises:
            Unavailable: It is not held, and the newest keys are not known.
            PyJWKClientError: The provider has published no such key.
        """
        if (found := self.held().key(identifier)) is not None:
            return found
        if self._failure is not None or self._under_way is not None:
            raise Unavailable(self._failure or self._silence)
        raise jwt.PyJWKClientError("the provider has published no such key")

    def reading(self, identifier: str | None) -> Reading | None:
        """Have the documents read where a token of that key needs it; return the reading to wait for.

        A token that names no key has them read only while none are held.
        """
        try:
            held = self.held()
        except Unavailable:
            return self._begun(UNKNOWN_WAITS_SECONDS)
        if identifier is not None and held.key(identifier) is None:
            return self._begun(UNKNOWN_WAITS_SECONDS)
        if _age(held) > FRESH_SECONDS:
            return self._begun(OLD_WAITS_SECONDS)
        return None

    def again(self) -> Reading | None:
        """Have the documents read now; None where that is too soon, since they have just been read."""
        return self._begun(OLD_WAITS_SECONDS)

    def _begun(self, seconds: float) -> Reading | None:
        """Return the reading under way, or a new one unless it is too soon for one."""
        with self._turn:  # held for moments: the thread of its own reads
            if self._under_way is None and _seconds() >= self._not_before:
                self._under_way = self._reader.submit(self._read_once)
            return Reading(self._under_way, seconds) if self._under_way is not None else None

    def _read_once(self) -> None:
        pause = FAILED_SECONDS
        try:
            self._published, recovered = self._read(), self._failure is not None
            self._failure, pause = None, KEYS_AGAIN_SECONDS
            if recovered:
                _log.warning("%s answers again; its new keys count", self.issuer)
        except PenstockError as error:
            if self._failure is None:
                _log.warning("%s; %s", error, self._consequence())
            self._failure = str(error)
        finally:
            with self._turn:
                self._under_way, self._not_before = None, _seconds() + pause

    def _consequence(self) -> str:
        try:
            held = self.held()
        except Unavailable:
            return "people who log in there are unknown until it answers"
        return f"its keys of {held.at:%Y-%m-%d %H:%M} UTC count until {held.until:%Y-%m-%d %H:%M} UTC"


def _age(published: Published) -> float:
    """Return how many seconds ago these were read."""
    return _seconds() - published.read
