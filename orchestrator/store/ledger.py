"""The ledger: what was, what is allowed and what is good; the engine is the truth only for what runs.

Every write has a natural key, so a repeat after a lost answer changes nothing, and every
change stands in the audit record in the same transaction.
"""

import json
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

from sqlalchemy import Engine, Row, and_, insert, select, update

from orchestrator.store import tables
from orchestrator.store.database import open_database, reading, writing
from orchestrator.store.record import append, head_of
from policies.known_good import is_way_back
from policies.words.audit import AuditEntry, AuditHead, broken
from policies.words.errors import BadInput, Conflict, Refused
from policies.words.plan import ReleaseRef
from policies.words.rollout import Outcome, RolloutOrder, RolloutResult
from policies.words.verdict import Decision
from policies.words.word import Digest, Name, Word, digest_of

PENSTOCK = "penstock"
"""Who acts when no person does."""


class ReleaseRow(Word):
    """A release as the ledger knows it."""

    release: ReleaseRef
    source: str
    signers: tuple[str, ...]
    added_at: datetime
    added_by: str
    yanked_reason: str | None = None


class RolloutRow(Word):
    """One rollout in the history of its fleet; `outcome` is None while it is under way."""

    rollout: Name
    fleet: Name
    plan: Digest
    release: ReleaseRef
    version: str
    requested_by: str
    started: datetime
    ended: datetime | None
    outcome: Outcome | None
    reason: str
    """Why it ended so, or while it is under way why it was asked for."""


class VerdictRow(Word):
    """One decision of a wave."""

    wave: int
    at: datetime
    decision: Decision


class _Proof(NamedTuple):
    release: ReleaseRef
    rollout: str
    since: datetime


class Ledger:
    """The database behind every door; safe to use from several threads and processes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, url: str) -> Self:
        """Return the ledger at this address with the newest schema.

        Raises:
            BadInput: The address is not one, or a newer penstock wrote the ledger.
            Unavailable: The database cannot be reached now.
        """
        return cls(open_database(url))

    def close(self) -> None:
        """Let go of every connection."""
        self._engine.dispose()

    def add_release(
        self,
        reference: ReleaseRef,
        *,
        source: str,
        signers: tuple[str, ...],
        manifest_json: str,
        person: str = PENSTOCK,
    ) -> bool:
        """Have the verified release in the ledger; return whether it is new.

        Raises:
            Conflict: The same manifest digest is there as another release.
        """
        row = {
            "digest": reference.digest,
            "product": reference.product,
            "version": reference.version,
            "executable": reference.executable,
            "source": source,
            "signers": json.dumps(signers),
            "manifest": manifest_json,
            "added_at": datetime.now(UTC),
            "added_by": person,
        }
        with writing(self._engine) as connection:
            found = connection.execute(
                select(tables.releases).where(tables.releases.c.digest == reference.digest)
            ).one_or_none()
            if found is not None:
                if _release(found) != reference:
                    raise Conflict(f"{reference.digest} is in the ledger as {found.product} {found.version}")
                return False
            connection.execute(insert(tables.releases).values(row))
            append(connection, person, "release", "release added", reference.digest, {"signers": signers})
            return True

    def releases(self) -> tuple[ReleaseRow, ...]:
        """Return every release, the newest first, withdrawn ones too."""
        with reading(self._engine) as connection:
            found = connection.execute(select(tables.releases).order_by(tables.releases.c.added_at.desc()))
            return tuple(
                ReleaseRow(
                    release=_release(row),
                    source=row.source,
                    signers=json.loads(row.signers),
                    added_at=row.added_at,
                    added_by=row.added_by,
                    yanked_reason=row.yanked_reason,
                )
                for row in found
            )

    def release(self, name: str) -> ReleaseRef:
        """Return the release of that digest (or its beginning), version, or product and version.

        Raises:
            BadInput: There is none, or the name fits several.
            Refused: It was withdrawn.
        """
        rows = [row for row in self.releases() if _is_named(row.release, name)]
        usable = [row for row in rows if row.yanked_reason is None]
        if len(usable) > 1:
            fits = ", ".join(row.release.digest[:19] for row in usable)
            raise BadInput(f"{name} fits several releases ({fits}); give the digest")
        if usable:
            return usable[0].release
        if rows:
            raise Refused(f"release {name} was withdrawn: {rows[0].yanked_reason}")
        raise BadInput(f"no release {name} in the ledger; see penstock release list")

    def yank(self, digest: str, reason: str, person: str) -> bool:
        """Withdraw a release: it may not be rolled out any more. Return whether that is new."""
        table = tables.releases
        with writing(self._engine) as connection:
            row = connection.execute(select(table).where(table.c.digest == digest)).one_or_none()
            if row is None:
                raise BadInput(f"no release {digest} in the ledger; see penstock release list")
            if row.yanked_at is not None:
                return False
            values = {"yanked_at": datetime.now(UTC), "yanked_reason": reason, "yanked_by": person}
            connection.execute(update(table).where(table.c.digest == digest).values(values))
            append(connection, person, "release", "release withdrawn", digest, {"reason": reason})
            return True

    def known_good(self, fleet: str) -> dict[str, ReleaseRef]:
        """Return what each gateway of the fleet goes back to."""
        return {gateway: proofs[0].release for gateway, proofs in self._proofs(fleet).items()}

    def known_good_since(self, fleet: str) -> dict[str, datetime]:
        """Return when each gateway's known-good became so."""
        return {gateway: proofs[0].since for gateway, proofs in self._proofs(fleet).items()}

    def ever_known_good(self, fleet: str) -> dict[str, tuple[ReleaseRef, ...]]:
        """Return every release that was a gateway's known-good once, the newest first."""
        return {gateway: tuple(p.release for p in proofs) for gateway, proofs in self._proofs(fleet).items()}

    def previous_known_good(self, fleet: str) -> dict[str, ReleaseRef]:
        """Return what gateways went back to before; without those that had no other or are back already."""
        return {
            gateway: earlier
            for gateway, proofs in self._proofs(fleet).items()
            if not is_way_back(fleet, proofs[0].rollout)
            and (earlier := next((p.release for p in proofs if p.release != proofs[0].release), None))
        }

    def record_known_good(self, fleet: str, gateway: str, reference: ReleaseRef, rollout: str) -> None:
        """Have this release as what the gateway goes back to; earlier ones stay in the history.

        A late repeat for an older rollout does not bring its release back.
        """
        table = tables.known_good
        of_rollout = and_(table.c.fleet == fleet, table.c.gateway == gateway, table.c.rollout == rollout)
        text_of = reference.model_dump_json()
        with writing(self._engine) as connection:
            last = connection.execute(
                select(table.c.release).where(of_rollout).order_by(table.c.id.desc()).limit(1)
            ).scalar_one_or_none()
            if last == text_of:
                return
            connection.execute(
                insert(table).values(
                    fleet=fleet, gateway=gateway, rollout=rollout, release=text_of, since=datetime.now(UTC)
                )
            )
            body = {"release": reference.digest, "version": reference.version, "rollout": rollout}
            append(connection, PENSTOCK, "rollout", "known-good recorded", f"{fleet}/{gateway}", body)

    def open_rollout(self, order: RolloutOrder) -> None:
        """Have the rollout's beginning in the ledger.

        Raises:
            Conflict: Another rollout has this name.
        """
        table, text_of = tables.rollouts, order.model_dump_json()
        with writing(self._engine) as connection:
            found = connection.execute(
                select(table.c.order).where(table.c.rollout == order.rollout)
            ).scalar_one_or_none()
            if found is not None:
                if found != text_of:
                    raise Conflict(f"{order.rollout} is the name of another rollout")
                return
            connection.execute(
                insert(table).values(
                    rollout=order.rollout,
                    fleet=order.plan.fleet.name,
                    plan=order.plan.digest,
                    release=order.plan.release.model_dump_json(),
                    order=text_of,
                    requested_by=order.requested_by,
                    requested_because=order.reason,
                    started=datetime.now(UTC),
                )
            )
            body = {
                "plan": order.plan.digest,
                "release": order.plan.release.digest,
                "reason": order.reason,
                "users": sum(count or 0 for count in order.plan.sessions.values()),
            }
            append(connection, order.requested_by, "rollout", "rollout began", order.rollout, body)

    def close_rollout(self, result: RolloutResult) -> None:
        """Have the rollout's end in the ledger; a later, different end replaces an earlier one."""
        table, text_of = tables.rollouts, result.model_dump_json()
        with writing(self._engine) as connection:
            connection.execute(
                update(table)
                .where(table.c.rollout == result.rollout, table.c.result.is_distinct_from(text_of))
                .values(ended=datetime.now(UTC), outcome=result.outcome.value, result=text_of)
            )
            body = {"outcome": result.outcome.value, "reason": result.reason, "touched": result.touched}
            key = f"end of {result.rollout}: {digest_of(text_of.encode())}"
            append(connection, PENSTOCK, "rollout", "rollout ended", result.rollout, body, key)

    def rollouts(self, fleet: str) -> tuple[RolloutRow, ...]:
        """Return the fleet's rollouts, the newest first."""
        table = tables.rollouts
        with reading(self._engine) as connection:
            rows = connection.execute(
                select(table).where(table.c.fleet == fleet).order_by(table.c.number.desc())
            )
            return tuple(_rollout(row) for row in rows)

    def open_rollouts(self, fleet: str) -> tuple[str, ...]:
        """Return the fleet's rollouts that began and have not ended, the oldest first."""
        return tuple(row.rollout for row in reversed(self.rollouts(fleet)) if row.outcome is None)

    def record_verdict(self, rollout: str, wave: int, decision: Decision, at: datetime) -> None:
        """Have a decision and all its readings in the ledger."""
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
            append(connection, PENSTOCK, "rollout", "decision", rollout, body)

    def verdicts(self, rollout: str) -> tuple[VerdictRow, ...]:
        """Return the rollout's decisions, the oldest first."""
        table = tables.verdicts
        with reading(self._engine) as connection:
            rows = connection.execute(select(table).where(table.c.rollout == rollout).order_by(table.c.id))
            return tuple(
                VerdictRow(wave=row.wave, at=row.at, decision=Decision.model_validate_json(row.decision))
                for row in rows
            )

    def record_snapshot(self, rollout: str, gateway: str, digest: str) -> None:
        """Have the digest of a gateway's frozen evidence in the ledger."""
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
        """Have noted which stored bytes prove what about whom; the bytes stay in the content store."""
        table = tables.evidence
        key = {"digest": digest, "kind": kind, "subject": subject}
        with writing(self._engine) as connection:
            if not connection.execute(select(table.c.at).filter_by(**key)).first():
                connection.execute(insert(table).values(**key, size=size, at=datetime.now(UTC)))

    def floor(self, product: str, channel: str, group: str) -> int:
        """Return the least rollback index that may still be rolled out there; 0 when none was set."""
        table = tables.floors
        key = {"product": product, "channel": channel, "group": group}
        with reading(self._engine) as connection:
            found = connection.execute(select(table.c.rollback_index).filter_by(**key)).scalar_one_or_none()
            return int(found or 0)

    def raise_floor(self, product: str, channel: str, group: str, index: int, person: str = PENSTOCK) -> int:
        """Have the floor at least there and return it; it never falls."""
        table = tables.floors
        key = {"product": product, "channel": channel, "group": group}
        with writing(self._engine) as connection:
            found = connection.execute(select(table.c.rollback_index).filter_by(**key)).scalar_one_or_none()
            if found is not None and found >= index:
                return int(found)
            values = {"rollback_index": index, "at": datetime.now(UTC)}
            if found is None:
                connection.execute(insert(table).values(**key, **values))
            else:
                connection.execute(update(table).filter_by(**key).values(values))
            append(
                connection, person, "release", "floor raised", f"{product}/{channel}/{group}", {"to": index}
            )
            return index

    def audit(
        self, person: str, via: str, action: str, subject: str, body: object, key: str | None = None
    ) -> AuditHead:
        """Append to the audit record; return its head.

        Args:
            person: Who acted.
            via: Through which door: cli, api, web, chat, schedule, system.
            action: What was done, in the past tense.
            subject: To what.
            body: Anything JSON can say about it; never the name of a VPN user.
            key: Makes a repeat the same entry.
        """
        with writing(self._engine) as connection:
            append(connection, person, via, action, subject, body, key)
            return head_of(connection)

    def audit_entries(self, after: int = 0) -> tuple[AuditEntry, ...]:
        """Return the audit record from the entry after that number on, the oldest first."""
        table = tables.audit
        with reading(self._engine) as connection:
            rows = connection.execute(select(table).where(table.c.seq > after).order_by(table.c.seq))
            return tuple(AuditEntry.model_validate(dict(row._mapping)) for row in rows)  # noqa: SLF001 - public

    def audit_head(self) -> AuditHead:
        """Return the newest entry's number and hash, to be noted outside the ledger."""
        with reading(self._engine) as connection:
            return head_of(connection)

    def verify_audit(self, noted: AuditHead | None = None) -> str | None:
        """Return what is wrong with the audit record, None when it is whole.

        Without a head noted earlier elsewhere, entries cut off at the end are not noticed.
        """
        return broken(self.audit_entries(), noted)

    def _proofs(self, fleet: str) -> dict[str, list[_Proof]]:
        """Return each gateway's known-goods with the change that made them so, the newest first."""
        table, proofs = tables.known_good, dict[str, list[_Proof]]()
        with reading(self._engine) as connection:
            for row in connection.execute(
                select(table).where(table.c.fleet == fleet).order_by(table.c.id.desc())
            ):
                release = ReleaseRef.model_validate_json(row.release)
                proofs.setdefault(row.gateway, []).append(_Proof(release, row.rollout, row.since))
        return dict(sorted(proofs.items()))


def _release(row: "Row[Any]") -> ReleaseRef:
    return ReleaseRef(digest=row.digest, product=row.product, version=row.version, executable=row.executable)


def _is_named(release: ReleaseRef, name: str) -> bool:
    """Whether a person may call the release so; a digest needs eight digits at least."""
    digest = name if name.startswith("sha256:") else f"sha256:{name}"
    names = (release.version, f"{release.product} {release.version}", f"{release.product}@{release.version}")
    return name in names or (len(digest) >= len("sha256:") + 8 and release.digest.startswith(digest))


def _rollout(row: "Row[Any]") -> RolloutRow:
    release = ReleaseRef.model_validate_json(row.release)
    result = RolloutResult.model_validate_json(row.result) if row.result else None
    return RolloutRow(
        rollout=row.rollout,
        fleet=row.fleet,
        plan=row.plan,
        release=release,
        version=release.version,
        requested_by=row.requested_by,
        started=row.started,
        ended=row.ended,
        outcome=result.outcome if result else None,
        reason=result.reason if result else row.requested_because,
    )
