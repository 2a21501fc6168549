"""Approvals: who said yes to which plan, until when; one start uses all of a plan's up."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import delete, insert, select

from orchestrator.store import tables
from orchestrator.store.book import Book
from orchestrator.store.database import reading, writing
from orchestrator.store.record import append
from policies.model.approval import PLAN_APPROVED, Approval
from policies.model.people import Via
from policies.model.value import Digest


class Approvals(Book):
    """People's yes to plans."""

    def approve_plan(
        self,
        plan: Digest,
        fleet: str,
        person: str,
        reason: str,
        lasts: timedelta,
        groups: Sequence[str] = (),
        action: str = PLAN_APPROVED,
    ) -> Approval:
        """Write down that the person approves the plan from now on; a repeat renews it.

        What has a digest and is no plan is approved likewise; `action` is what the record says of it.
        `groups` are those by which the person has roles.
        """
        table, now = tables.approvals, datetime.now(UTC)
        given = Approval(
            plan=plan,
            person=person,
            reason=reason,
            given_at=now,
            expires_at=now + lasts,
            groups=tuple(groups),
        )
        with writing(self._engine) as connection:
            connection.execute(delete(table).where(table.c.plan == plan, table.c.person == person))
            values = {"plan": plan, "person": person, "reason": reason, "groups": json.dumps(given.groups)}
            connection.execute(insert(table).values(**values, at=now, expires=given.expires_at))
            said: dict[str, object] = {"reason": reason, "expires": given.expires_at.isoformat()}
            if given.groups:
                said["groups"] = given.groups
            append(connection, person, Via.SYSTEM, action, plan, said, fleet=fleet)
        return given

    def approvals(self, plan: Digest) -> tuple[Approval, ...]:
        """Return who approved the plan since it was last started, in the order in which they did."""
        table = tables.approvals
        wanted = select(table).where(table.c.plan == plan).order_by(table.c.at)
        with reading(self._engine) as connection:
            return tuple(
                Approval(
                    plan=row.plan,
                    person=row.person,
                    reason=row.reason,
                    given_at=row.at,
                    expires_at=row.expires,
                    groups=tuple(json.loads(row.groups)),
                )
                for row in connection.execute(wanted)
            )
