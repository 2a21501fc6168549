"""When the newest index that this installation has seen of each channel ends."""

from collections.abc import Collection, Mapping
from pathlib import Path

from activities.drivers.store.blobs import BlobStore
from activities.drivers.store.states import TrustStates
from policies.model.errors import PenstockError
from policies.trust.statements import parse_index


class IndexEnds:
    """Reads them from the store of verified releases; a statement is read once."""

    def __init__(self, store: Path) -> None:
        self._states = TrustStates(store / "states")
        self._evidence = BlobStore(store / "evidence")
        self._known: dict[str, float] = {}

    def read(self, channels: Collection[tuple[str, str]]) -> Mapping[tuple[str, str], float]:
        """Return the ends of these channels' indexes, in seconds of the epoch, by product and channel.

        A channel of which none was seen, or none can be read, is missing.
        """
        found = {}
        for product, channel in channels:
            try:
                if (end := self._end(product, channel)) is not None:
                    found[product, channel] = end
            except (PenstockError, OSError, ValueError):
                continue
        return found

    def _end(self, product: str, channel: str) -> float | None:
        seen = self._states.read(product, channel).index
        if seen is None:
            return None
        if seen.statement not in self._known:
            index = parse_index(self._evidence.read(seen.statement))
            self._known = {**self._known, seen.statement: index.expires_at.timestamp()}
        return self._known[seen.statement]
