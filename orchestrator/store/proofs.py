"""Proofs: the decisions of a change with all their readings, and which stored bytes prove what."""

import json
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from sqlalchemy import Connection, func, insert, or_, select

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading, writing
from orchestrator.store.record import append
from policies.model.change import PENSTOCK
from policies.model.sample import Sample
from policies.model.verdict import HARM, Action, Decision, VerdictRow


class Proofs(Book):
    """Why penstock did what it did."""

    def record_verdict(self, rollout: str, wave: int, decision: Decision, at: datetime) -> None:
        """Ensure that a decision and all its readings are in the ledger."""
        table = tables.verdicts
        with writing(self._engine) as connection:
            same = (table.c.rollout == rollout, table.c.wave == wave, table.c.at == at)
            if connection.execute(select(table.c.id).where(*same)).first():
                return
            connection.execute(
                insert(table).values(
                    rollout=rollout,
                    wave=wave,
                    at=at,
                    action=decision.action.value,
                    verdict=decision.verdict.value,
                    decision=decision.model_dump_json(),
                )
            )
            body = {"wave": wave, "action": decision.action.value, "reason": decision.reason}
            append(
                connection,
                PENSTOCK,
                "rollout",
                "decision",
                rollout,
                body,
                fleet=_fleet_of(connection, rollout),
            )

    def verdicts(self, rollout: str, limit: int | None = None, after: int = 0) -> tuple[VerdictRow, ...]:
        """Return the rollout's decisions, the oldest first; with a limit only so many, after that number."""
        table = tables.verdicts
        wanted = select(table).where(table.c.rollout == rollout).order_by(table.c.id)
        if limit is not None:  # ids are in an index: no decision is read to be passed over
            ids = select(table.c.id).where(table.c.rollout == rollout).order_by(table.c.id)
            wanted = wanted.where(table.c.id.in_(ids.limit(limit).offset(after).scalar_subquery()))
        with reading(self._engine) as connection:
            return tuple(
                VerdictRow(wave=row.wave, at=row.at, decision=Decision.model_validate_json(row.decision))
                for row in connection.execute(wanted)
            )

    def newest_harm(self, rollout: str) -> VerdictRow | None:
        """Return the newest decision after the promotion that found harm; None without one.

        The columns say what `finds_harm` says of a decision, so that none is read to be passed over.
        """
        table = tables.verdicts
        harms = or_(table.c.action == Action.ROLL_BACK.value, table.c.verdict.in_(sorted(HARM)))
        wanted = select(table).where(table.c.rollout == rollout, table.c.wave == 0, harms)
        with reading(self._engine) as connection:
            row = connection.execute(wanted.order_by(table.c.id.desc()).limit(1)).one_or_none()
        if row is None:
            return None
        return VerdictRow(wave=row.wave, at=row.at, decision=Decision.model_validate_json(row.decision))

    def count_verdicts(self, rollout: str) -> int:
        """Return how many decisions the rollout has."""
        table = tables.verdicts
        wanted = select(func.count()).select_from(table).where(table.c.rollout == rollout)
        with reading(self._engine) as connection:
            return int(connection.execute(wanted).scalar_one())

    def record_samples(self, rollout: str, wave: int, at: datetime, samples: Sequence[Sample]) -> None:
        """Ensure that what gates had measured at that moment is in the ledger."""
        table, key = tables.samples, {"change": rollout, "wave": wave, "at": at}
        said = [one.model_dump(mode="json", exclude={"at", "wave"}) for one in samples]
        body = zlib.compress(json.dumps(said, separators=(",", ":")).encode())
        with writing(self._engine) as connection:
            if connection.execute(select(table.c.at).filter_by(**key)).first() is None:
                connection.execute(insert(table).values(**key, body=body))

    def samples(
        self, rollout: str, after: datetime | None = None, most: int | None = None
    ) -> tuple[Sample, ...]:
        """Return what the gates measured after that moment, the oldest first; with a limit the newest."""
        table = tables.samples
        newest = table.c.at.desc(), table.c.wave.desc()
        wanted = select(table).where(table.c.change == rollout).order_by(*newest).limit(most)
        if after is not None:
            wanted = wanted.where(table.c.at > after)
        with reading(self._engine) as connection:
            rows = connection.execute(wanted)
            found = (
                Sample(at=row.at, wave=row.wave, **said) for row in rows for said in _backwards(row.body)
            )
            return tuple(islice(found, most))[::-1]

    def record_snapshot(self, rollout: str, gateway: str, digest: str) -> None:
        """Ensure that the digest of a gateway's frozen evidence is in the ledger."""
        table = tables.snapshots
        key = {"rollout": rollout, "gateway": gateway, "digest": digest}
        with writing(self._engine) as connection:
            if connection.execute(select(table.c.at).filter_by(**key)).first():
                return
            connection.execute(insert(table).values(**key, at=datetime.now(UTC)))
            append(
                connection, PENSTOCK, "rollout", "snapshot taken", f"{rollout}/{gateway}", {"digest": digest}
            )

    def record_evidence(self, digest: str, kind: str, subject: str, size: int) -> None:
        """Note which stored bytes prove what about whom; the bytes stay in the content store."""
        table = tables.evidence
        key = {"digest": digest, "kind": kind, "subject": subject}
        with writing(self._engine) as connection:
            if not connection.execute(select(table.c.at).filter_by(**key)).first():
                connection.execute(insert(table).values(**key, size=size, at=datetime.now(UTC)))


def _backwards(body: bytes) -> list[dict[str, Any]]:
    """Return what gates had measured at one moment, the last of them first."""
    said: list[dict[str, Any]] = json.loads(zlib.decompress(body))
    return said[::-1]


def _fleet_of(connection: Connection, change: str) -> str | None:
    table = tables.changes
    return connection.execute(select(table.c.fleet).where(table.c.name == change)).scalar_one_or_none()
