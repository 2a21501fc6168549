"""The ledger's steps: what a rollout writes down and looks up; each entry has a natural key."""

import asyncio
from datetime import datetime
from typing import Protocol

from temporalio import activity

from activities.failures import as_application_errors
from policies.words.plan import ReleaseRef
from policies.words.rollout import RolloutOrder, RolloutResult
from policies.words.verdict import Decision
from policies.words.word import Name, Word, digest_of


class VerdictEntry(Word):
    """A decision of a wave, with every reading behind it; one per rollout, wave and time."""

    rollout: Name
    wave: int
    at: datetime
    decision: Decision


class KnownGoodEntry(Word):
    """A gateway's new known-good, and the rollout that proved it."""

    fleet: Name
    gateway: Name
    release: ReleaseRef
    rollout: Name


class EventEntry(Word):
    """Something people have to know of, for the audit record; one per key."""

    action: str
    """What happened, in the past tense."""
    subject: str
    sentence: str
    key: str
    person: str = "penstock"


class LedgerBook(Protocol):
    """The database of what was, is allowed and is good; every write may be repeated."""

    def open_rollout(self, order: RolloutOrder) -> None:
        """Write down that the rollout began."""
        ...

    def close_rollout(self, result: RolloutResult) -> None:
        """Write down how the rollout ended."""
        ...

    def open_rollouts(self, fleet: str) -> tuple[str, ...]:
        """Return the fleet's rollouts that began and have not ended, the oldest first."""
        ...

    def record_verdict(self, rollout: str, wave: int, decision: Decision, at: datetime) -> None:
        """Write down a decision with its evidence."""
        ...

    def known_good(self, fleet: str) -> dict[str, ReleaseRef]:
        """Return what each gateway of the fleet goes back to."""
        ...

    def record_known_good(self, fleet: str, gateway: str, reference: ReleaseRef, rollout: str) -> None:
        """Write down what the gateway goes back to from now on."""
        ...

    def audit(
        self, person: str, via: str, action: str, subject: str, body: object, key: str | None = None
    ) -> object:
        """Append to the audit record, once for each key."""
        ...


class LedgerActivities:
    """Writes to the ledger; each is tried until it is written."""

    def __init__(self, book: LedgerBook) -> None:
        self._book = book

    @activity.defn(name="open_rollout")
    async def open_rollout(self, order: RolloutOrder) -> None:
        """Have the rollout's beginning in the ledger."""
        with as_application_errors():
            await asyncio.to_thread(self._book.open_rollout, order)

    @activity.defn(name="close_rollout")
    async def close_rollout(self, result: RolloutResult) -> None:
        """Have the rollout's end in the ledger."""
        with as_application_errors():
            await asyncio.to_thread(self._book.close_rollout, result)

    @activity.defn(name="read_open_rollouts")
    async def read_open_rollouts(self, fleet: str) -> tuple[str, ...]:
        """Return the fleet's rollouts that began and have not ended, the oldest first."""
        with as_application_errors():
            return await asyncio.to_thread(self._book.open_rollouts, fleet)

    @activity.defn(name="record_verdict")
    async def record_verdict(self, entry: VerdictEntry) -> None:
        """Have a decision and its evidence in the ledger."""
        with as_application_errors():
            await asyncio.to_thread(
                self._book.record_verdict, entry.rollout, entry.wave, entry.decision, entry.at
            )

    @activity.defn(name="record_known_good")
    async def record_known_good(self, entry: KnownGoodEntry) -> None:
        """Have the gateway's new known-good in the ledger."""
        with as_application_errors():
            await asyncio.to_thread(
                self._book.record_known_good, entry.fleet, entry.gateway, entry.release, entry.rollout
            )

    @activity.defn(name="read_known_good")
    async def read_known_good(self, fleet: str) -> dict[str, ReleaseRef]:
        """Return what each gateway of the fleet goes back to."""
        with as_application_errors():
            return await asyncio.to_thread(self._book.known_good, fleet)

    @activity.defn(name="record_event")
    async def record_event(self, entry: EventEntry) -> None:
        """Have the event in the audit record, from which notices are sent."""
        body = {"sentence": entry.sentence}
        with as_application_errors():
            await asyncio.to_thread(
                self._book.audit,
                entry.person,
                "workflow",
                entry.action,
                entry.subject,
                body,
                digest_of(entry.key.encode()),
            )
