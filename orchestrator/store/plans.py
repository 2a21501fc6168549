"""Plans: recorded whole under their digest, and in parts so that nobody has to read all of a large one."""

import threading
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, Row, insert, select

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading, writing
from orchestrator.store.record import append
from policies.model.change import PENSTOCK, ChangeKind, Outcome
from policies.model.errors import BadInput, Unknown
from policies.model.fleet import Fleet
from policies.model.offer import Offer, Verb
from policies.model.people import Via
from policies.model.plan import Plan, ReleaseRef
from policies.model.plan_part import Member, Part, PartKey, PlanHeader
from policies.model.settings import Setting
from policies.model.value import Digest
from policies.planning.outline import PlanOutline, outlined
from policies.planning.parts import PartedPlan, parted, parted_adoption, parted_first, parted_return
from policies.planning.reload import parted_reload, parted_repeat, parted_settings
from policies.planning.settings import ALL_INCLUDED, Changing, PassedOver


class Plans(Book):
    """What was planned, by digest; a plan is never changed."""

    def record_plan(self, plan: Plan, person: str = PENSTOCK) -> str:
        """Write down the plan that somebody made; return its digest. One that is there stays as it is."""
        return self._record(parted(plan), plan.model_dump_json(), person, outlined(plan).model_dump_json())

    def record_return(
        self,
        fleet: Fleet,
        targets: Mapping[str, ReleaseRef],
        departed: Mapping[str, Member] | None = None,
        named: ReleaseRef | None = None,
        drifted: Collection[str] = (),
    ) -> str:
        """Write down which gateways go back to what; return the digest.

        Args:
            fleet: As its file describes it now.
            targets: Where each gateway goes.
            departed: Those that the file does not have any more, as a plan had them; looked up when left out.
            named: The release that the operator named, None where each goes to its known-good.
            drifted: Those that no change took from their known-good.

        Raises:
            Unknown: Neither the file nor a plan has one of them.
        """
        if departed is None:
            names = {gateway.name for gateway in fleet.gateways}
            departed = self.departed(fleet.name, targets.keys() - names)
        return self._record(parted_return(fleet, targets, departed, named, drifted), "")

    def departed(
        self,
        fleet: str,
        gateways: Collection[str],
        *,
        since: datetime | None = None,
        plan: Digest | None = None,
    ) -> dict[str, Member]:
        """Return these gateways as the newest plan by which known-good moved had them, where one did.

        Args:
            fleet: Whose gateways they were.
            gateways: Their names, which the fleet's file does not have any more.
            since: Only those that moved from then on.
            plan: A plan that counts before all others, whenever it was.
        """
        changes, known_good = tables.changes, tables.known_good
        found, missing = dict[str, Member](), sorted(gateways)
        with reading(self._engine) as connection:
            if plan is not None:
                found |= _members_of(connection, plan, gateways)
            while missing:
                some, missing = missing[:_ASKED], missing[_ASKED:]
                wanted = (
                    select(known_good.c.gateway, changes.c.plan)
                    .join(changes, changes.c.name == known_good.c.change)
                    .where(known_good.c.fleet == fleet, known_good.c.gateway.in_(some))
                    .where(changes.c.plan.is_not(None))
                    .order_by(known_good.c.id.desc())
                )
                planned = defaultdict[str, set[str]](set)
                if since is not None:
                    wanted = wanted.where(known_good.c.since >= since)
                for row in connection.execute(wanted):
                    planned[row.plan].add(row.gateway)
                for digest, names in planned.items():
                    found |= _members_of(connection, digest, names - found.keys())
        return found

    def record_first(
        self,
        fleet: Fleet,
        release: ReleaseRef,
        settings: Mapping[str, tuple[Setting, ...]] = MappingProxyType({}),
    ) -> str:
        """Write down that the fleet's empty gateways begin with this release and these settings.

        Return the digest.
        """
        return self._record(parted_first(fleet, release, settings), "")

    def record_reload(
        self, fleet: Fleet, names: tuple[str, ...], *, at_once: bool = False, only_changed: bool = False
    ) -> str:
        """Write down that these gateways get their hosts' present credentials; return the digest."""
        return self._record(parted_reload(fleet, names, at_once=at_once, only_changed=only_changed), "")

    def record_settings(
        self, fleet: Fleet, names: tuple[str, ...], changing: Changing, without: PassedOver = ALL_INCLUDED
    ) -> str:
        """Write down that these gateways get the settings of the fleet's file; return the digest."""
        return self._record(parted_settings(fleet, names, changing, without), "")

    def record_repeat(self, header: PlanHeader, members: Sequence[Member]) -> str:
        """Write down that these gateways get what that plan had for them; return the digest."""
        return self._record(parted_repeat(header, members), "")

    def record_adoption(self, fleet: Fleet, names: Collection[str]) -> str:
        """Write down which gateways keep what serves them; return the digest."""
        return self._record(parted_adoption(fleet, names), "")

    def plan(self, digest: str) -> Plan:
        """Return the whole plan of an upgrade; BadInput when there is none of that digest."""
        with _ONE_READS:
            return _read_plan(self, digest)

    def outline(self, digest: str) -> PlanOutline | PlanHeader:
        """Return the outline of an upgrade's plan; of what leads to no release, and has none, its header.

        Raises:
            BadInput: There is none of that digest, or it is of a change that nobody approves by its plan.
        """
        if (found := _read_outline(self, digest)) is not None:
            return found
        header = self.plan_header(digest)
        if any(wave.number == 0 for wave in header.waves):
            raise BadInput(
                f"plan {digest} is a way back, an installation or an adoption: it waits for nobody"
            )
        return header

    def fleet_as_planned(self, fleet: str) -> Fleet | None:
        """Return the fleet as it was when an upgrade of it was last planned, None when none ever was."""
        table = tables.plans
        whole = select(table.c.digest, table.c.body).where(table.c.fleet == fleet).order_by(table.c.at.desc())
        with reading(self._engine) as connection:
            for row in connection.execute(whole):
                if zlib.decompress(row.body):  # ways back and installations have no body
                    return self.plan(row.digest).fleet
        return None

    def plan_named(self, name: str, fleets: Collection[str]) -> tuple[str, str]:
        """Return the digest of the plan that somebody wrote, or wrote the beginning of, and its fleet.

        Args:
            name: What they wrote.
            fleets: Whose plans are looked through.

        Raises:
            Unknown: There is none.
            BadInput: Several begin like this.
        """
        table = tables.plans
        beginning = f"sha256:{name.removeprefix('sha256:').removeprefix('p-')}"
        wanted = select(table.c.digest, table.c.fleet).where(
            table.c.fleet.in_(fleets), table.c.digest.startswith(beginning, autoescape=True)
        )
        with reading(self._engine) as connection:
            rows = connection.execute(wanted.limit(2)).all()
        if not rows:
            raise Unknown(f"no plan {name} in the ledger", Offer(verb=Verb.PLAN))
        if len(rows) > 1:
            raise BadInput(f"several plans begin with {name}: write more of the digest")
        return rows[0].digest, rows[0].fleet

    def plan_header(self, digest: str) -> PlanHeader:
        """Return the plan without its gateways.

        Raises:
            BadInput: There is none of that digest, or an older penstock made it: then it is only a record.
        """
        with reading(self._engine) as connection:
            row = _known(connection, digest, tables.plans.c.header)
        if row.header is None:
            raise BadInput(f"plan {digest} was made by an older penstock and is only a record; plan anew")
        return _read_header(row.header)

    def plan_headers(self, digests: Collection[str]) -> dict[str, PlanHeader]:
        """Return these plans without their gateways, by digest; without those that are only records."""
        table = tables.plans
        wanted = select(table.c.digest, table.c.header).where(table.c.digest.in_(sorted(digests)))
        with reading(self._engine) as connection:
            rows = connection.execute(wanted.where(table.c.header.is_not(None))).all()
        return {row.digest: _read_header(row.header) for row in rows}

    def last_trust_policy(self, fleet: str) -> Digest | None:
        """Return by which trust policy the fleet was upgraded last; None when it never was."""
        plans, changes = tables.plans, tables.changes
        wanted = (
            select(plans.c.header)
            .join(changes, changes.c.plan == plans.c.digest)
            .where(changes.c.fleet == fleet, changes.c.outcome == Outcome.PROMOTED.value)
            .where(changes.c.kind == ChangeKind.UPGRADE.value, plans.c.header.is_not(None))
            .order_by(changes.c.number.desc())
            .limit(1)
        )
        with reading(self._engine) as connection:
            header = connection.execute(wanted).scalar_one_or_none()
        if header is None:
            return None
        return PlanHeader.model_validate_json(zlib.decompress(header)).trust_policy

    def plan_part(self, digest: str, key: PartKey) -> Part:
        """Return one part in the order of the plan; BadInput when there is no such plan or part."""
        table = tables.plan_parts
        with reading(self._engine) as connection:
            which = (table.c.plan == digest, table.c.wave == key.wave, table.c.number == key.number)
            row = connection.execute(select(table.c.body).where(*which)).one_or_none()
        if row is None:
            raise _no_part(digest, key)
        return _read_part(row.body)

    def plan_parts(self, digest: str, up_to: int | None = None) -> list[Part]:
        """Return all parts in the order of the plan, by one question for all of them.

        Args:
            digest: Of the plan.
            up_to: The last wave whose parts are returned; None for all waves.

        Raises:
            BadInput: There is no such plan, or it is only a record, or lacks a part.
        """
        keys = [key for key in self.plan_header(digest).keys if up_to is None or key.wave <= up_to]
        with reading(self._engine) as connection:
            parts = {part.key: part for part in _parts_of(connection, digest, up_to)}
        if missing := [key for key in keys if key not in parts]:
            raise _no_part(digest, missing[0])
        return [parts[key] for key in keys]

    def plan_members(self, digest: str, up_to: int | None = None) -> dict[str, Member]:
        """Return the gateways of the plan by name, in its order; `up_to` and BadInput as `plan_parts`."""
        return {one.gateway.name: one for part in self.plan_parts(digest, up_to) for one in part.members}

    def _record(self, plan: PartedPlan, body: str, person: str = PENSTOCK, outline: str = "") -> str:
        header, now = plan.header, datetime.now(UTC)
        with writing(self._engine) as connection:
            if connection.execute(_plan(header.digest, tables.plans.c.digest)).first():
                return header.digest
            row = {"digest": header.digest, "fleet": header.fleet, "at": now}
            texts = {"body": body, "header": header.model_dump_json(), "outline": outline}
            deflated = {name: _deflated(text) for name, text in texts.items()}
            connection.execute(insert(tables.plans).values(**row, **deflated))
            if plan.parts:
                connection.execute(insert(tables.plan_parts), [_part(header.digest, p) for p in plan.parts])
            said = {"fleet": header.fleet, "gateways": header.changing, "waves": len(header.waves)}
            append(connection, person, Via.SYSTEM, "plan recorded", header.digest, said, fleet=header.fleet)
        return header.digest

    def _body(self, digest: str) -> bytes:
        with reading(self._engine) as connection:
            row = _known(connection, digest, tables.plans.c.body)
        return zlib.decompress(row.body)

    def _outline(self, digest: str) -> bytes | None:
        with reading(self._engine) as connection:
            row = _known(connection, digest, tables.plans.c.outline)
        return zlib.decompress(row.outline) if row.outline is not None else None


_ASKED = 500
"""Gateways of one question."""


def _members_of(connection: Connection, plan: str, gateways: Collection[str]) -> dict[str, Member]:
    """Return these gateways as the plan has them, of those that it has."""
    parts, found = _parts_of(connection, plan), dict[str, Member]()
    while len(found) < len(gateways) and (part := next(parts, None)) is not None:
        found |= {one.gateway.name: one for one in part.members if one.gateway.name in gateways}
    return found


def _parts_of(connection: Connection, plan: str, up_to: int | None = None) -> Iterator[Part]:
    """Return the parts of a plan, in any order, of its waves up to that one."""
    table = tables.plan_parts
    wanted = select(table.c.body).where(table.c.plan == plan)
    wanted = wanted if up_to is None else wanted.where(table.c.wave <= up_to)
    return map(_read_part, connection.execute(wanted).scalars())


def _read_part(deflated: bytes) -> Part:
    return Part.model_validate_json(zlib.decompress(deflated))


def _no_part(plan: str, key: PartKey) -> BadInput:
    return BadInput(f"plan {plan} has no part {key.number} of wave {key.wave}")


_ONE_READS = threading.Lock()
"""The batches of a wave ask for their plan at once, and a plan of 10,000 gateways takes 80 MB to read."""


@lru_cache(maxsize=4)
def _read_plan(book: Plans, digest: str) -> Plan:
    """Return a whole plan; it never changes, and of a large fleet it takes a while to read."""
    return Plan.model_validate_json(book._body(digest))  # noqa: SLF001 - its own module


@lru_cache(maxsize=16)
def _read_outline(book: Plans, digest: str) -> PlanOutline | None:
    """Return what is shown of a plan; of one that an older penstock made, as it follows from the whole."""
    try:
        if (written := book._outline(digest)) is not None:  # noqa: SLF001 - its own module
            return PlanOutline.model_validate_json(written) if written else None
    except ValidationError:
        pass
    return outlined(book.plan(digest)) if book._body(digest) else None  # noqa: SLF001 - its own module


def header_of(connection: Connection, digest: Digest) -> PlanHeader | None:
    """Return the plan without its gateways in the caller's transaction, None where there is none."""
    header = connection.execute(_plan(digest, tables.plans.c.header)).scalar()
    return _read_header(header) if header is not None else None


@lru_cache(maxsize=512)
def _read_header(deflated: bytes) -> PlanHeader:
    """Return a plan's header; whoever looks at a fleet asks for the same one every second."""
    return PlanHeader.model_validate_json(zlib.decompress(deflated))


def _part(digest: str, part: Part) -> dict[str, Any]:
    key = {"plan": digest, "wave": part.key.wave, "number": part.key.number}
    return key | {"body": _deflated(part.model_dump_json())}


def _known(connection: Connection, digest: str, column: Any) -> "Row[Any]":
    row = connection.execute(_plan(digest, column)).one_or_none()
    if row is None:
        raise Unknown(f"no plan {digest} in the ledger", Offer(verb=Verb.PLAN))
    return row


def _plan(digest: str, column: Any) -> Any:
    return select(column).where(tables.plans.c.digest == digest)


def _deflated(said: str) -> bytes:
    return zlib.compress(said.encode())
