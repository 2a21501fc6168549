"""Reports: one change told whole from the ledger, for people who were not there."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from typing import TypeVar

from orchestrator.service.acting import Acting
from orchestrator.service.background import LOOKS
from orchestrator.service.fleets import Fleets, record_for
from orchestrator.service.signals import signals_about
from orchestrator.service.telling import as_ended
from orchestrator.store.ends import Planned
from orchestrator.store.ledger import Ledger
from policies.access import Action as Asked
from policies.access import may
from policies.history import standing
from policies.model.approval import PLAN_APPROVED
from policies.model.change import MOVES_NOBODY, ChangeRecord, ChangeResult, HistoryRow, label_without_release
from policies.model.changelog import headline
from policies.model.drain import SESSIONS_TAKEN
from policies.model.errors import BadInput
from policies.model.follow_up import Afterwards, Cause, FollowUp
from policies.model.people import Caller
from policies.model.plan_part import PlanHeader
from policies.model.release_tests import RELEASE_TESTED
from policies.model.status import ChangeStatus, Event
from policies.model.verdict import VerdictRow
from policies.reporting.deciding import decisive_of
from policies.reporting.measured import measured_of, shown_of
from policies.reporting.report import MOST_NAMED, AuditLine, ChangeReport, DecisionLine, TestLine, Totals
from policies.reporting.steps import split_of
from policies.reporting.users import may_drain, users_of

T = TypeVar("T")

MOST_OPEN = 500
"""Follow-ups that are listed at once."""
MOST_EVENTS = 100
"""Events that are shown of the beginning, and of the end."""
MOST_DECISIONS = 20
"""The same of decisions."""


@dataclass(frozen=True)
class ReportService:
    """Tells changes whole, and keeps what people write down about them.

    `told` says what a change tells of itself.
    """

    ledger: Ledger
    fleets: Fleets
    acts: Acting
    told: Callable[[ChangeRecord], ChangeStatus]

    async def report(self, caller: Caller, change: str) -> ChangeReport:
        """Return the report of one change of whatever fleet the caller may look at."""
        record = await self._record(caller, Asked.READ, change)
        return await LOOKS.run(partial(self.of, record), caller.person, key=("report", record.name))

    async def follow_ups(self, caller: Caller, fleet: str | None = None) -> tuple[FollowUp, ...]:
        """Return what is still to be done, of one fleet or of all that the caller may look at.

        What is due first stands before the others, so what is overdue is at the top.
        """
        if fleet is not None:
            await asyncio.to_thread(self.fleets.for_action, caller, Asked.READ, fleet)
            mine: tuple[str, ...] = (fleet,)
        else:
            known = await asyncio.to_thread(self.fleets.names, caller)
            mine = tuple(name for name in known if may(caller, Asked.READ, name))
        return await asyncio.to_thread(self.ledger.open_follow_ups, mine, MOST_OPEN)

    async def afterwards(self, caller: Caller, change: str) -> Afterwards:
        """Return what people wrote down about a change since."""
        record = await self._record(caller, Asked.READ, change)
        return await asyncio.to_thread(self._afterwards, record.name)

    def _afterwards(self, change: str) -> Afterwards:
        return Afterwards(cause=self.ledger.cause(change), follow_ups=self.ledger.follow_ups_of(change))

    async def write_cause(self, caller: Caller, change: str, text: str) -> Cause:
        """Write down what the caller found to be the cause; a later word replaces the one before."""
        record = await self._record(caller, Asked.FOLLOW_UP, change)

        async def write() -> Cause:
            return await asyncio.to_thread(self.ledger.write_cause, record.name, text, caller.person)

        asked = {"text": text}
        return await self._audited(caller, "cause to be written down", record, asked, write)

    async def add_follow_up(
        self, caller: Caller, change: str, text: str, owner: str, due: date, key: str | None = None
    ) -> FollowUp:
        """Write down what is to be done because of the change, by whom, until the end of which day."""
        record = await self._record(caller, Asked.FOLLOW_UP, change)
        add = partial(self.ledger.add_follow_up, record.name, text, owner, due, caller.person)

        async def write() -> FollowUp:
            return await asyncio.to_thread(add, caller.request(key))

        asked = {"text": text, "owner": owner, "due": due.isoformat()}
        return await self._audited(caller, "follow-up to be written down", record, asked, write)

    async def finish_follow_up(self, caller: Caller, change: str, number: int) -> FollowUp:
        """Write down that it is done; whoever says so may be somebody else than its owner."""
        record = await self._record(caller, Asked.FOLLOW_UP, change)

        async def write() -> FollowUp:
            return await asyncio.to_thread(self.ledger.finish_follow_up, record.name, number, caller.person)

        return await self._audited(caller, "follow-up to be marked done", record, {"number": number}, write)

    async def _record(self, caller: Caller, action: Asked, change: str) -> ChangeRecord:
        return await asyncio.to_thread(record_for, self.ledger, self.fleets, caller, action, change)

    async def _audited(
        self,
        caller: Caller,
        action: str,
        record: ChangeRecord,
        asked: object,
        work: Callable[[], Awaitable[T]],
    ) -> T:
        return await self.acts.audited(caller, action, record.fleet, asked, work, about=record.name)

    def ended_since(self, moment: datetime) -> tuple[str, ...]:
        """Return the names of the changes of every fleet that ended since then, the newest first."""
        return self.ledger.ended_since(moment)

    def of_change(self, change: str) -> ChangeReport:
        """Return the report of the change of that name, for penstock itself."""
        return self.of(self.ledger.change(change))

    def is_final(self, change: str) -> bool:
        """Return whether nothing that happens by itself changes the report of that change any more.

        Old sessions go on after a change has ended, until every one of its gateways was seen since with
        nothing but the instance that takes users.

        Raises:
            Unknown: There is no such change.
            Unavailable: The ledger does not answer.
        """
        record = self.ledger.change(change)
        return self._is_final(record, self._header(record))

    def _is_final(self, record: ChangeRecord, header: PlanHeader | None) -> bool:
        if record.ended is None:
            return False
        if header is None or record.kind in MOVES_NOBODY:
            return True
        after = ""
        while page := self.ledger.gateways_of(record.name, after=after):
            rows = self.ledger.gateway_rows(record.fleet, [one.gateway for one in page])
            if any(may_drain(row.state, row.at, record.ended) for row in rows):
                return False
            after = page[-1].gateway
        return True

    def of(self, record: ChangeRecord) -> ChangeReport:
        """Return the report of a change, of one that goes on as far as it has come."""
        ledger, status = self.ledger, self.told(record)
        head, now = ledger.audit_head(), datetime.now(UTC)
        header, result = self._header(record), self._result(record)
        final, planned = self._is_final(record, header), self._planned(record.plan)
        verdicts = ledger.verdicts(record.name)
        decisive = decisive_of(verdicts)
        measured = measured_of(ledger.samples(record.name), verdicts)
        timeline = self._timeline(record.name)
        release = ledger.release_row(record.release_digest) if record.release_digest is not None else None
        changelog = self._changelog(record.release_digest)
        incomplete = result.incomplete if result is not None else {}
        return ChangeReport(
            made_at=now,
            final=final,
            record=HistoryRow(**dict(record), standing=standing(record), headline=headline(changelog)),
            label=_label(record, header),
            what=status.what,
            touched=status.users,
            why=status.why,
            banner=status.banner,
            users=users_of(
                record,
                header,
                result,
                verdicts,
                now,
                planned=planned.sessions,
                final=final,
                losses=self._entries(record.fleet, SESSIONS_TAKEN, record.name, exactly=False),
            ),
            counts=status.counts,
            aside=_few(status.aside),
            incomplete=_few(incomplete),
            split=split_of(record, verdicts, measured, timeline, result),
            timeline=timeline,
            signals=signals_about(ledger, record, self._gateways(record.fleet, status)),
            handovers=ledger.handovers_of(record.name, MOST_NAMED),
            decisions=tuple(map(DecisionLine.of, _both_ends(verdicts))),
            decided=decisive.wave if decisive is not None else None,
            readings=decisive.decision.readings if decisive is not None else (),
            samples=shown_of(measured.samples, verdicts),
            sampled=measured.source,
            margins=dict(planned.margins),
            signers=release.signers if release is not None else (),
            source=release.source if release is not None else "",
            changelog=changelog,
            trust_policy=header.trust_policy if header is not None else None,
            approvals=self._entries(record.fleet, {PLAN_APPROVED}, record.plan) if record.plan else (),
            tests=self._tests(record),
            snapshots=ledger.kept_snapshots(record.fleet, record.name, limit=MOST_NAMED),
            audit=head,
            cause=ledger.cause(record.name),
            follow_ups=ledger.follow_ups_of(record.name),
            of=Totals(
                events=ledger.event_count(record.name),
                decisions=len(verdicts),
                aside=len(status.aside) + status.more_aside,
                incomplete=len(incomplete) + (result.more_incomplete if result is not None else 0),
                snapshots=ledger.snapshot_count(record.name),
            ),
        )

    def _gateways(self, fleet: str, status: ChangeStatus) -> int:
        described = self.fleets.described(fleet)
        return len(described.gateways) if described is not None else sum(status.counts.values())

    def _header(self, record: ChangeRecord) -> PlanHeader | None:
        try:
            return self.ledger.plan_header(record.plan) if record.plan is not None else None
        except BadInput:  # made by an older penstock, or lost with a ledger that was built anew
            return None

    def _planned(self, plan: str | None) -> Planned:
        """Return what the plan counted and allows; of a change without one, nothing is known."""
        found = self.ledger.planned(plan) if plan is not None else None
        return found or Planned(sessions=None, margins={})

    def _result(self, record: ChangeRecord) -> ChangeResult | None:
        story = self.ledger.story(record.name)
        return as_ended(record, story.told).result if story is not None else None

    def _timeline(self, change: str) -> tuple[Event, ...]:
        """Return the first events and the newest ones."""
        first = self.ledger.events_of_change(change, limit=MOST_EVENTS)
        known = {row.id for row in first}
        newest = (row for row in self.ledger.newest_events(change, MOST_EVENTS) if row.id not in known)
        return tuple(Event(at=row.at, sentence=row.sentence) for row in (*first, *newest))

    def _changelog(self, release: str | None) -> str:
        """Return what the signers of the release say that it changes."""
        return self.ledger.changelogs([release]).get(release, "") if release else ""

    def _tests(self, record: ChangeRecord) -> tuple[TestLine, ...]:
        entries = self.ledger.newest_below(record.fleet, RELEASE_TESTED, record.name, MOST_NAMED)
        return tuple(map(TestLine.of, entries))

    def _entries(
        self, fleet: str, actions: Collection[str], subject: str, *, exactly: bool = True
    ) -> tuple[AuditLine, ...]:
        return tuple(map(AuditLine.of, self.ledger.entries_about(fleet, actions, subject, exactly=exactly)))


def _label(record: ChangeRecord, header: PlanHeader | None) -> str:
    """Return what the change leads to, with the product's name where its plan says it."""
    if header is not None and header.release is not None and header.release.version == record.release:
        return f"{header.product} {header.release.version}"
    return record.release or label_without_release(record.kind)


def _both_ends(verdicts: Sequence[VerdictRow]) -> tuple[VerdictRow, ...]:
    """Return the first verdicts and the last ones, each once."""
    return (*verdicts[:MOST_DECISIONS], *verdicts[MOST_DECISIONS:][-MOST_DECISIONS:])


def _few(reasons: Mapping[str, str]) -> dict[str, str]:
    return dict(sorted(reasons.items())[:MOST_NAMED])
