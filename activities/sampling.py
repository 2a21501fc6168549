"""Sampling: what gates measured goes into the ledger beside the watching, which never waits for it."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Protocol

from activities.observation import ObservationOrder
from policies.model.sample import Sample
from policies.model.verdict import GateReading

_log = logging.getLogger(__name__)


class SampleBook(Protocol):
    """Where samples are kept."""

    def record_samples(self, rollout: str, wave: int, at: datetime, samples: Sequence[Sample]) -> None:
        """Ensure that these are kept."""
        ...


class LedgerSampler:
    """Keeps samples; while the ledger takes none, those of that time are lost and nothing else is."""

    def __init__(self, book: SampleBook) -> None:
        self._book = book
        self._under_way: dict[tuple[str, int], asyncio.Task[None]] = {}

    def sample(self, order: ObservationOrder, at: float, readings: Sequence[GateReading]) -> None:
        """Have what was measured kept, unless the sample before is not yet."""
        key = (order.rollout, order.wave)
        found = [
            Sample(
                at=datetime.fromtimestamp(at, UTC),
                wave=order.wave,
                gate=reading.gate,
                verdict=reading.verdict,
                numbers=reading.numbers,
            )
            for reading in readings
            if reading.numbers
        ]
        if found and key not in self._under_way:
            self._under_way[key] = asyncio.create_task(self._keep(key, found))

    async def _keep(self, key: tuple[str, int], found: Sequence[Sample]) -> None:
        try:
            await asyncio.to_thread(self._book.record_samples, *key, found[0].at, found)
        except Exception as error:  # noqa: BLE001 - a curve for people must never end a watch
            _log.warning("what %s measured in wave %s is not kept: %s", *key, error)
        finally:
            del self._under_way[key]
