"""When the index of each channel ends, as the repository has it now and then.

The answer is for an alert and decides nothing, so no signature is verified: whoever holds the repository back
can hide a late index here, and is still refused where releases are admitted.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import timedelta

from policies.model.errors import PenstockError
from policies.trust.statements import parse_index

EVERY = timedelta(hours=1)
AGAIN = timedelta(minutes=10)
"""How long until a channel that could not be read is tried again."""

Channel = tuple[str, str]
"""Product and channel."""

Fetch = Callable[[str, str], Awaitable[bytes]]
"""Returns the index statement of a product's channel."""

_log = logging.getLogger(__name__)


class IndexEnds:
    """The end of the newest index that was fetched of each channel."""

    def __init__(self, fetch: Fetch, clock: Callable[[], float] = time.monotonic) -> None:
        """Know none yet."""
        self._fetch = fetch
        self._clock = clock
        self._due: dict[Channel, float] = {}
        self._ends: dict[Channel, float] = {}

    @property
    def known(self) -> Mapping[Channel, float]:
        """When each ends, in seconds of the epoch; one that never could be read is missing."""
        return self._ends

    async def refresh(self, channels: Collection[Channel]) -> None:
        """Fetch those of these channels whose turn it is; what cannot be read stays as it was last."""
        self._ends = {one: end for one, end in self._ends.items() if one in channels}
        for channel in sorted(channels):
            if self._clock() < self._due.get(channel, float("-inf")):
                continue
            try:
                end = parse_index(await self._fetch(*channel)).expires_at.timestamp()
            except (PenstockError, OSError, ValueError) as error:
                _log.warning("the index of %s/%s cannot be read: %s", *channel, error)
                self._due[channel] = self._clock() + AGAIN.total_seconds()
            else:
                self._ends = {**self._ends, channel: end}
                self._due[channel] = self._clock() + EVERY.total_seconds()
