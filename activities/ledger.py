"""The ledger's steps: what a change writes down and looks up; each entry has a natural key.

Answers are small whatever the size of the fleet: a header, counts, or at most 500 named gateways.
"""

import asyncio
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Protocol

from pydantic import Field
from temporalio import activity

from activities.failures import as_application_errors
from policies.words.change import (
    ChangeEnding,
    ChangeOpening,
    ChangeRecord,
    GatewayResult,
    KnownGoodBatch,
    Quarantine,
    WayBack,
)
from policies.words.plan import ReleaseRef
from policies.words.plan_part import PlanGateway, PlanHeader, PlanWave
from policies.words.change import ChangeOrder, ChangeResult
from policies.words.verdict import Decision
from policies.words.word import Digest, Name, Word, digest_of


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


class GatewayResults(Word):
    """How a few gateways fare in a change."""

    change: Name
    results: tuple[GatewayResult, ...] = Field(max_length=500)


class GatewayQuestion(Word):
    """Which results of a change are asked for: all or those in one state, by name, page after page."""

    change: Name
    state: str | None = None
    after: str = ""
    limit: int = Field(default=100, ge=1, le=500)


class KnownGoodQuestion(Word):
    """Of which gateways the known-good is asked for."""

    fleet: Name
    gateways: tuple[Name, ...] = Field(max_length=500)


class TargetsQuestion(KnownGoodQuestion):
    """What these gateways had before a change; see `WayBack` for `finished`."""

    change: Name
    finished: bool = True


class PlanQuestion(Word):
    """Of which gateways the plan's part is asked for."""

    digest: Digest
    gateways: tuple[Name, ...] = Field(max_length=500)


class BatchQuestion(Word):
    """Which batch of a wave is asked for; batches are counted from 1, wave 0 is whom no wave changes."""

    digest: Digest
    wave: int = Field(ge=0)
    batch: int = Field(default=1, ge=1)


class ReturnEntry(Word):
    """A gateway that takes part in changes again, and who said so."""

    fleet: Name
    gateway: Name
    person: str
    reason: str


class LedgerBook(Protocol):
    """The database of what was, is allowed and is good; every write may be repeated."""

    def open_rollout(self, order: ChangeOrder) -> None:
        """Write down that the rollout began."""
        ...

    def close_rollout(self, result: ChangeResult) -> None:
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

    def open_change(self, opening: ChangeOpening) -> str:
        """Write down that a change began; return its name, the same for the same key."""
        ...

    def close_change(self, ending: ChangeEnding) -> None:
        """Write down how a change ended."""
        ...

    def open_changes(self, fleet: str) -> tuple[str, ...]:
        """Return the names of the fleet's changes that have not ended, the oldest first."""
        ...

    def last_change(self, fleet: str) -> ChangeRecord | None:
        """Return the fleet's newest change."""
        ...

    def way_back(self, fleet: str) -> WayBack:
        """Return what going back means for the fleet now."""
        ...

    def targets(
        self, fleet: str, change: str, gateways: Collection[str] | None = None, *, finished: bool = True
    ) -> dict[str, ReleaseRef]:
        """Return what gateways had before this change."""
        ...

    def known_good_of(self, fleet: str, gateways: Collection[str]) -> dict[str, ReleaseRef]:
        """Return what these gateways go back to."""
        ...

    def record_known_good_batch(self, batch: KnownGoodBatch) -> int:
        """Write down what these gateways go back to from now on; return for how many that is new."""
        ...

    def record_gateways(self, change: str, results: Sequence[GatewayResult]) -> None:
        """Write down how these gateways fare in the change."""
        ...

    def gateways_of(
        self, change: str, state: str | None = None, *, after: str = "", limit: int = 500
    ) -> tuple[GatewayResult, ...]:
        """Return how gateways fare in the change, by name."""
        ...

    def counts_of(self, change: str) -> dict[str, int]:
        """Return how many gateways of the change are in each state."""
        ...

    def set_quarantine(self, quarantine: Quarantine) -> bool:
        """Leave a gateway out of changes; return whether that is new."""
        ...

    def clear_quarantine(self, fleet: str, gateway: str, person: str, reason: str) -> bool:
        """Let a gateway take part again; return whether it was left out."""
        ...

    def quarantined(self, fleet: str) -> tuple[Quarantine, ...]:
        """Return the gateways that are left out now."""
        ...

    def plan_header(self, digest: str) -> PlanHeader:
        """Return a plan without its gateways."""
        ...

    def plan_wave(self, digest: str, number: int) -> PlanWave:
        """Return how large a wave is."""
        ...

    def plan_batch(self, digest: str, wave: int, batch: int) -> tuple[PlanGateway, ...]:
        """Return one batch of a wave."""
        ...

    def plan_gateways(self, digest: str, names: Collection[str]) -> tuple[PlanGateway, ...]:
        """Return what the plan says of these gateways."""
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
    async def open_rollout(self, order: ChangeOrder) -> None:
        """Ensure that the rollout's beginning is in the ledger."""
        with as_application_errors():
            await asyncio.to_thread(self._book.open_rollout, order)

    @activity.defn(name="close_rollout")
    async def close_rollout(self, result: ChangeResult) -> None:
        """Ensure that the rollout's end is in the ledger."""
        with as_application_errors():
            await asyncio.to_thread(self._book.close_rollout, result)

    @activity.defn(name="read_open_rollouts")
    async def read_open_rollouts(self, fleet: str) -> tuple[str, ...]:
        """Return the fleet's rollouts that began and have not ended, the oldest first."""
        with as_application_errors():
            return await asyncio.to_thread(self._book.open_rollouts, fleet)

    @activity.defn(name="record_verdict")
    async def record_verdict(self, entry: VerdictEntry) -> None:
        """Ensure that a decision and its evidence are in the ledger."""
        with as_application_errors():
            await asyncio.to_thread(
                self._book.record_verdict, entry.rollout, entry.wave, entry.decision, entry.at
            )

    @activity.defn(name="record_known_good")
    async def record_known_good(self, entry: KnownGoodEntry) -> None:
        """Ensure that the gateway's new known-good is in the ledger."""
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
        """Ensure that the event is in the audit record, from which notices are sent."""
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

    @activity.defn(name="open_change")
    async def open_change(self, opening: ChangeOpening) -> str:
        """Ensure that the change's beginning is in the ledger; return its name, the same for the same key."""
        with as_application_errors():
            return await asyncio.to_thread(self._book.open_change, opening)

    @activity.defn(name="close_change")
    async def close_change(self, ending: ChangeEnding) -> None:
        """Ensure that the change's end is in the ledger."""
        with as_application_errors():
            await asyncio.to_thread(self._book.close_change, ending)

    @activity.defn(name="read_open_changes")
    async def read_open_changes(self, fleet: str) -> tuple[str, ...]:
        """Return the names of the fleet's changes that have not ended, the oldest first."""
        with as_application_errors():
            return await asyncio.to_thread(self._book.open_changes, fleet)

    @activity.defn(name="read_last_change")
    async def read_last_change(self, fleet: str) -> ChangeRecord | None:
        """Return the fleet's newest change, None when there never was one."""
        with as_application_errors():
            return await asyncio.to_thread(self._book.last_change, fleet)

    @activity.defn(name="read_way_back")
    async def read_way_back(self, fleet: str) -> WayBack:
        """Return what going back means for the fleet now; `read_targets` says where its gateways go."""
        with as_application_errors():
            return await asyncio.to_thread(self._book.way_back, fleet)

    @activity.defn(name="read_targets")
    async def read_targets(self, asked: TargetsQuestion) -> dict[str, ReleaseRef]:
        """Return what these gateways had before the change; without those that it did not concern."""
        with as_application_errors():
            return await asyncio.to_thread(
                self._book.targets, asked.fleet, asked.change, asked.gateways, finished=asked.finished
            )

    @activity.defn(name="read_known_good_of")
    async def read_known_good_of(self, asked: KnownGoodQuestion) -> dict[str, ReleaseRef]:
        """Return what these gateways go back to; without those that have no known-good."""
        with as_application_errors():
            return await asyncio.to_thread(self._book.known_good_of, asked.fleet, asked.gateways)

    @activity.defn(name="record_known_good_batch")
    async def record_known_good_batch(self, batch: KnownGoodBatch) -> int:
        """Ensure that the gateways' new known-good is in the ledger; return for how many it is new."""
        with as_application_errors():
            return await asyncio.to_thread(self._book.record_known_good_batch, batch)

    @activity.defn(name="record_gateways")
    async def record_gateways(self, told: GatewayResults) -> None:
        """Ensure that the ledger says how these gateways fare."""
        with as_application_errors():
            await asyncio.to_thread(self._book.record_gateways, told.change, told.results)

    @activity.defn(name="read_gateways")
    async def read_gateways(self, asked: GatewayQuestion) -> tuple[GatewayResult, ...]:
        """Return a page of the gateways of a change."""
        with as_application_errors():
            return await asyncio.to_thread(
                self._book.gateways_of, asked.change, asked.state, after=asked.after, limit=asked.limit
            )

    @activity.defn(name="count_gateways")
    async def count_gateways(self, change: str) -> dict[str, int]:
        """Return how many gateways of the change are in each state."""
        with as_application_errors():
            return await asyncio.to_thread(self._book.counts_of, change)

    @activity.defn(name="quarantine_gateway")
    async def quarantine_gateway(self, quarantine: Quarantine) -> bool:
        """Ensure that the gateway is left out of changes; return whether that is new."""
        with as_application_errors():
            return await asyncio.to_thread(self._book.set_quarantine, quarantine)

    @activity.defn(name="return_gateway")
    async def return_gateway(self, entry: ReturnEntry) -> bool:
        """Ensure that the gateway takes part in changes; return whether it was left out."""
        with as_application_errors():
            return await asyncio.to_thread(
                self._book.clear_quarantine, entry.fleet, entry.gateway, entry.person, entry.reason
            )

    @activity.defn(name="read_quarantine")
    async def read_quarantine(self, fleet: str) -> tuple[Quarantine, ...]:
        """Return the gateways of the fleet that are left out now."""
        with as_application_errors():
            return await asyncio.to_thread(self._book.quarantined, fleet)

    @activity.defn(name="read_plan_header")
    async def read_plan_header(self, digest: str) -> PlanHeader:
        """Return the plan without its gateways."""
        with as_application_errors():
            return await asyncio.to_thread(self._book.plan_header, digest)

    @activity.defn(name="read_plan_wave")
    async def read_plan_wave(self, asked: BatchQuestion) -> PlanWave:
        """Return how large a wave of the plan is."""
        with as_application_errors():
            return await asyncio.to_thread(self._book.plan_wave, asked.digest, asked.wave)

    @activity.defn(name="read_plan_batch")
    async def read_plan_batch(self, asked: BatchQuestion) -> tuple[PlanGateway, ...]:
        """Return one batch of a wave of the plan."""
        with as_application_errors():
            return await asyncio.to_thread(self._book.plan_batch, asked.digest, asked.wave, asked.batch)

    @activity.defn(name="read_plan_gateways")
    async def read_plan_gateways(self, asked: PlanQuestion) -> tuple[PlanGateway, ...]:
        """Return what the plan says of these gateways."""
        with as_application_errors():
            return await asyncio.to_thread(self._book.plan_gateways, asked.digest, asked.gateways)
