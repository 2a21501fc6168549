"""Plans as workflows read them: a header, and one part at a time; and what promoting a part writes."""

from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Protocol

from pydantic import Field
from temporalio import activity

from activities.liveness import in_a_thread
from policies.model.change import KnownGoodBatch
from policies.model.errors import BadInput
from policies.model.plan import ReleaseRef
from policies.model.plan_part import MOST_MEMBERS, Member, Part, PartKey, PlanHeader
from policies.model.value import Digest, Name, Value

PARTS_REMEMBERED = 512
"""Parts of plans that are kept after they were read: of two fleets of 10,000 gateways all."""


class PartQuery(Value):
    """Which part of which plan."""

    plan: Digest
    key: PartKey


class PartsQuery(Value):
    """Which parts of which plan."""

    plan: Digest
    keys: tuple[PartKey, ...]


class Members(Value):
    """The first gateways of some parts by name, and how many more they have."""

    gateways: tuple[Name, ...]
    more: int


class GatewaysQuery(Value):
    """Which gateways of a plan."""

    plan: Digest
    gateways: tuple[Name, ...]


class PartEntry(PartQuery):
    """A part whose known-good moves, and the change that moves it; `without` names who is left out."""

    change: Name
    fleet: Name
    only: tuple[Name, ...] = ()
    without: tuple[Name, ...] = ()
    served: tuple[Name, ...] = ()
    """Those that served the release before: only one without a known-good has it from now on."""


class Moved(Value):
    """What has changed since the plan was made of what a part's gateways go back to."""

    gateways: dict[str, str] = {}
    """Those whose known-good is not what the plan would go back to, and how."""
    given_up: tuple[Name, ...] = ()
    """Those whose known-good somebody has withdrawn since: no way back to it is asked for."""


class AdoptedEntry(Value):
    """What was found running on gateways and is their known-good from now on, as nobody has signed it."""

    fleet: Name
    change: Name
    releases: dict[str, ReleaseRef] = Field(max_length=MOST_MEMBERS)


class PlanBook(Protocol):
    """Plans by digest, and what every gateway goes back to; every write may be repeated."""

    def plan_header(self, digest: str) -> PlanHeader:
        """Return a plan without its gateways."""
        ...

    def plan_part(self, digest: str, key: PartKey) -> Part:
        """Return one part of a plan."""
        ...

    def plan_parts(self, digest: str) -> Sequence[Part]:
        """Return all parts of a plan, in its order."""
        ...

    def known_good_of(self, fleet: str, gateways: Collection[str]) -> dict[str, ReleaseRef]:
        """Return what these gateways go back to now."""
        ...

    def withdrawn(self, digests: Collection[str]) -> frozenset[str]:
        """Return which of these releases somebody has withdrawn."""
        ...

    def record_known_good_batch(self, batch: KnownGoodBatch) -> int:
        """Write down what these gateways go back to from now on; return for how many that is new."""
        ...


class PlanActivities:
    """Reading plans; and moving known-good, part by part, in one transaction each."""

    def __init__(self, book: PlanBook) -> None:
        self._book = book
        self._part = lru_cache(PARTS_REMEMBERED)(book.plan_part)

    @activity.defn(name="read_header")
    async def read_header(self, digest: str) -> PlanHeader:
        """Return the plan without its gateways."""
        return await in_a_thread(self._book.plan_header, digest)

    @activity.defn(name="read_part")
    async def read_part(self, asked: PartQuery) -> Part:
        """Return one part of the plan; a part that was read before is known without the ledger."""
        return await in_a_thread(self._part, asked.plan, asked.key)

    @activity.defn(name="find_members")
    async def find_members(self, asked: PartsQuery) -> Members:
        """Return which gateways these parts of the plan have."""
        return await in_a_thread(self._find_members, asked)

    @activity.defn(name="find_parts")
    async def find_parts(self, asked: GatewaysQuery) -> dict[str, PartKey]:
        """Return the part of the plan that each of these gateways is in."""
        return await in_a_thread(self._find_parts, asked)

    @activity.defn(name="find_moved")
    async def find_moved(self, asked: PartQuery) -> Moved:
        """Return what has changed of the known-good of the part's gateways."""
        return await in_a_thread(self._find_moved, asked)

    @activity.defn(name="promote_part")
    async def promote_part(self, entry: PartEntry) -> None:
        """Ensure that the plan's release is known-good on the part's gateways."""
        await in_a_thread(self._promote, entry)

    @activity.defn(name="take_back_part")
    async def take_back_part(self, entry: PartEntry) -> None:
        """Ensure that what the part's gateways go back to is their known-good."""
        await in_a_thread(self._take_back, entry)

    @activity.defn(name="record_adopted")
    async def record_adopted(self, entry: AdoptedEntry) -> None:
        """Ensure that what was found running on these gateways is what they go back to."""
        batch = KnownGoodBatch(fleet=entry.fleet, change=entry.change, releases=entry.releases)
        await in_a_thread(self._book.record_known_good_batch, batch)

    def _find_members(self, asked: PartsQuery) -> Members:
        parts = [self._part(asked.plan, key) for key in asked.keys]
        names = sorted(member.gateway.name for part in parts for member in part.members)
        return Members(gateways=tuple(names[:MOST_MEMBERS]), more=len(names[MOST_MEMBERS:]))

    def _find_parts(self, asked: GatewaysQuery) -> dict[str, PartKey]:
        return {
            member.gateway.name: part.key
            for part in self._book.plan_parts(asked.plan)
            for member in part.members
            if member.gateway.name in asked.gateways
        }

    def _find_moved(self, asked: PartQuery) -> Moved:
        members = self._book.plan_part(asked.plan, asked.key).members
        names = [member.gateway.name for member in members]
        now = self._book.known_good_of(self._book.plan_header(asked.plan).fleet, names)
        moved = {
            name: f"the known-good of {name} is {_version(now.get(name))} now and was "
            f"{_version(member.back)} when the plan was made; plan anew"
            for name, member in zip(names, members, strict=True)
            if now.get(name) != member.back
        }
        withdrawn = self._book.withdrawn({release.digest for release in now.values()})
        given_up = tuple(name for name in names if name in now and now[name].digest in withdrawn)
        return Moved(gateways=moved, given_up=given_up)

    def _promote(self, entry: PartEntry) -> None:
        release = self._book.plan_header(entry.plan).release
        if release is None:
            raise BadInput(f"plan {entry.plan} leads to no release that could be promoted")
        known = self._book.known_good_of(entry.fleet, entry.served) if entry.served else {}
        names = {member.gateway.name for member in self._members(entry)} - known.keys()
        self._record(entry, dict.fromkeys(sorted(names), release), back=False)

    def _take_back(self, entry: PartEntry) -> None:
        releases = {m.gateway.name: m.back for m in self._members(entry) if m.back is not None}
        self._record(entry, releases, back=True)

    def _members(self, entry: PartEntry) -> list[Member]:
        return [
            member
            for member in self._book.plan_part(entry.plan, entry.key).members
            if member.gateway.name not in entry.without
            and (not entry.only or member.gateway.name in entry.only)
        ]

    def _record(self, entry: PartEntry, releases: dict[str, ReleaseRef], *, back: bool) -> None:
        if releases:
            batch = KnownGoodBatch(fleet=entry.fleet, change=entry.change, releases=releases, back=back)
            self._book.record_known_good_batch(batch)


def _version(release: ReleaseRef | None) -> str:
    return release.version if release is not None else "unknown"
