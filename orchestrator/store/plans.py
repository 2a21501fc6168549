"""Plans: recorded whole under their digest, and in parts so that nobody has to read all of a large one."""

import json
import zlib
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Connection, Row, insert, select

from orchestrator.store import tables
from orchestrator.store.book import PENSTOCK, Book
from orchestrator.store.database import reading, writing
from orchestrator.store.known_good import MOST
from orchestrator.store.record import append
from policies.words.errors import BadInput
from policies.words.plan import Plan
from policies.words.plan_part import BATCH, PlanGateway, PlanHeader, PlanWave

_GATEWAYS = TypeAdapter(tuple[PlanGateway, ...])


class Plans(Book):
    """What was planned, by digest; a plan is never changed."""

    def record_plan(self, plan: Plan) -> str:
        """Write the plan down and return its digest; one that is there already stays as it is."""
        digest, now = plan.digest, datetime.now(UTC)
        waves = {0: _unchanged(plan)} | {wave.number: wave.gateways for wave in plan.waves}
        with writing(self._engine) as connection:
            if connection.execute(_plan(digest, tables.plans.c.digest)).first():
                return digest
            row = {"digest": digest, "fleet": plan.fleet.name, "at": now}
            body, header = plan.model_dump_json(), _header(plan, digest, waves).model_dump_json()
            connection.execute(
                insert(tables.plans).values(**row, body=_deflated(body), header=_deflated(header))
            )
            connection.execute(insert(tables.plan_batches), list(_batches(plan, digest, waves)))
            said = {"fleet": plan.fleet.name, "release": plan.release.digest, "waves": len(plan.waves)}
            append(connection, PENSTOCK, "plan", "plan recorded", digest, said)
        return digest

    def plan(self, digest: str) -> Plan:
        """Return the whole plan; BadInput when there is none of that digest."""
        with reading(self._engine) as connection:
            row = _known(connection, digest, tables.plans.c.body)
        return Plan.model_validate_json(zlib.decompress(row.body))

    def plan_header(self, digest: str) -> PlanHeader:
        """Return the plan without its gateways.

        Raises:
            BadInput: There is none of that digest, or an older penstock made it: then it is only a record.
        """
        with reading(self._engine) as connection:
            row = _known(connection, digest, tables.plans.c.header)
        if row.header is None:
            raise BadInput(f"plan {digest} was made by an older penstock and is only a record; plan anew")
        return PlanHeader.model_validate_json(zlib.decompress(row.header))

    def plan_wave(self, digest: str, number: int) -> PlanWave:
        """Return how large a wave is and in how many batches it lies; BadInput when there is no such wave."""
        wave = next((wave for wave in self.plan_header(digest).waves if wave.number == number), None)
        if wave is None:
            raise BadInput(f"plan {digest} has no wave {number}")
        return wave

    def plan_batch(self, digest: str, wave: int, batch: int) -> tuple[PlanGateway, ...]:
        """Return one batch of a wave, counted from 1, in the order of the plan.

        Raises:
            BadInput: There is no such plan or batch.
        """
        table = tables.plan_batches
        with reading(self._engine) as connection:
            key = (table.c.plan == digest, table.c.wave == wave, table.c.batch == batch)
            row = connection.execute(select(table.c.body).where(*key)).one_or_none()
        if row is None:
            raise BadInput(f"plan {digest} has no batch {batch} of wave {wave}")
        return _GATEWAYS.validate_json(zlib.decompress(row.body))

    def plan_gateways(self, digest: str, names: Collection[str]) -> tuple[PlanGateway, ...]:
        """Return what the plan says of these gateways, at most 500, in the order of their names.

        Raises:
            BadInput: There is no such plan, it does not know one of them, or they are too many.
        """
        if len(names) > MOST:
            raise BadInput(f"{len(names)} gateways at once; ask for at most {MOST}")
        table, wanted = tables.plan_batches, set(names)
        with reading(self._engine) as connection:
            _known(connection, digest, tables.plans.c.digest)
            index = select(table.c.wave, table.c.batch, table.c.names).where(table.c.plan == digest)
            found = dict[str, Any]()
            for row in connection.execute(index).all():
                batch = json.loads(row.names)
                if wanted.isdisjoint(batch):
                    continue
                key = (table.c.plan == digest, table.c.wave == row.wave, table.c.batch == row.batch)
                body = connection.execute(select(table.c.body).where(*key)).scalar_one()
                told = zip(batch, json.loads(zlib.decompress(body)), strict=True)
                found.update((name, gateway) for name, gateway in told if name in wanted)
        if missing := sorted(wanted - found.keys()):
            raise BadInput(f"plan {digest} knows no gateway {missing[0]}")
        return _GATEWAYS.validate_json(json.dumps([found[name] for name in sorted(wanted)]))


def _header(plan: Plan, digest: str, waves: dict[int, tuple[str, ...]]) -> PlanHeader:
    fleet = plan.fleet
    return PlanHeader(
        digest=digest,
        fleet=fleet.name,
        product=fleet.product,
        channel=fleet.channel,
        limits=fleet.limits,
        rollback=fleet.rollback,
        release=plan.release,
        strategy=plan.strategy,
        waves=tuple(
            PlanWave(number=number, gateways=len(names), batches=-(-len(names) // BATCH))
            for number, names in sorted(waves.items())
        ),
        window=plan.window,
        gates=plan.gates,
        trust_policy=plan.trust_policy,
    )


def _batches(plan: Plan, digest: str, waves: dict[int, tuple[str, ...]]) -> Iterator[dict[str, Any]]:
    gateways = {gateway.name: gateway for gateway in plan.fleet.gateways}
    skipped = {skipped.gateway: skipped.reason for skipped in plan.skipped}
    for number, names in waves.items():
        for start in range(0, len(names), BATCH):
            batch = names[start : start + BATCH]
            body = [
                PlanGateway(
                    gateway=gateways[name],
                    wave=number,
                    known_good=plan.known_good.get(name),
                    sessions=plan.sessions.get(name),
                    skipped=skipped.get(name),
                )
                for name in batch
            ]
            yield {
                "plan": digest,
                "wave": number,
                "batch": start // BATCH + 1,
                "names": json.dumps(batch),
                "body": zlib.compress(_GATEWAYS.dump_json(tuple(body))),
            }


def _unchanged(plan: Plan) -> tuple[str, ...]:
    changed = {name for wave in plan.waves for name in wave.gateways}
    return tuple(gateway.name for gateway in plan.fleet.gateways if gateway.name not in changed)


def _known(connection: Connection, digest: str, column: Any) -> "Row[Any]":
    row = connection.execute(_plan(digest, column)).one_or_none()
    if row is None:
        raise BadInput(f"no plan {digest} in the ledger; make one with penstock plan")
    return row


def _plan(digest: str, column: Any) -> Any:
    return select(column).where(tables.plans.c.digest == digest)


def _deflated(said: str) -> bytes:
    return zlib.compress(said.encode())
