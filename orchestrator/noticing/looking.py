"""Looking: what is new in the ledger becomes notices, whatever the look before was killed at.

A look reads what was told, ended or entered since the one before it, and keeps what it has found together
with how far it came. One worker looks at a time; the others find that out and do nothing.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from orchestrator.service.telling import order_of
from orchestrator.store.addressed import Addressed
from orchestrator.store.ledger import Ledger
from orchestrator.store.notices import Waiting
from policies.model.change import ChangeOrder, ChangeRecord, ChangeResult
from policies.model.errors import BadInput
from policies.model.notice import Notice, NoticeLevel
from policies.model.notice_rules import NoticeRules
from policies.model.plan_part import PlanHeader
from policies.notices.addressing import addressed
from policies.notices.changes import BLIND_FOR, Fact, blind_fact, blind_since, facts_of
from policies.notices.entries import ACTIONS, TOGETHER, Told, together, told_by
from policies.notices.escalation import ENDING, next_sink, page_of, wants_page
from policies.notices.occurrences import Lasting, Subject, notices_of
from policies.notices.states import FINAL, GOOD_ENDS, KINDS, LEFT, OF_CHANGES, NoticeState
from policies.status.told import Told as Telling

LASTS = timedelta(seconds=30)
"""How long a look keeps the others away when its worker has died."""
OVERLAP = timedelta(seconds=60)
"""What was told so long before the last look is read again: its writer's clock or commit may be late."""
MOST_CHANGES, MOST_ENTRIES = 500, 2_000
"""What one look takes; the next one goes on there."""

_NAME = "ledger"
_log = logging.getLogger(__name__)


class Looking:
    """One worker's looks through the ledger; it may block."""

    def __init__(self, ledger: Ledger, rules: Callable[[], NoticeRules | None], holder: str) -> None:
        """Take the ledger, what tells who gets what, and this worker's own name."""
        self._ledger = ledger
        self._rules = rules
        self._holder = holder
        self._heard: dict[str, datetime] = {}
        self._again: set[str] = set()
        self._headers: dict[str, PlanHeader | None] = {}

    def look(self, now: datetime | None = None) -> tuple[str, ...]:
        """Keep what is new as notices; return their keys.

        Raises:
            Unavailable: The ledger does not answer.
            Conflict: Another worker looks since; nothing was kept.
        """
        rules, now = self._rules(), now or datetime.now(UTC)
        if rules is None:
            return ()
        cursor = self._ledger.begin_notice_look(_NAME, self._holder, LASTS)
        if cursor is None:
            return ()
        if not cursor:
            return self._first_look(rules, now)
        known = json.loads(cursor)
        seq, since = int(known["seq"]), datetime.fromisoformat(known["at"])
        found, since = self._of_changes(rules, since, now, datetime.fromisoformat(known["from"]))
        of_entries, seq = self._of_entries(rules, seq, now)
        ends = json.dumps({"seq": seq, "at": since.isoformat(), "from": known["from"]})
        return self._ledger.end_notice_look(_NAME, self._holder, ends, [*found, *of_entries])

    def _first_look(self, rules: NoticeRules, now: datetime) -> tuple[str, ...]:
        """Begin here: of what was before, people are told only what still waits."""
        seq = self._ledger.audit_head().seq
        found = list[Addressed]()
        for change in self._ledger.every_open_change():
            found += self._of_change(rules, change.name, now, waits_only=True)
        ends = json.dumps({"seq": seq, "at": now.isoformat(), "from": now.isoformat()})
        return self._ledger.end_notice_look(_NAME, self._holder, ends, found)

    # --- changes -------------------------------------------------------------------------

    def _of_changes(
        self, rules: NoticeRules, since: datetime, now: datetime, begun: datetime
    ) -> tuple[list[Addressed], datetime]:
        heard = self._ledger.changes_heard_since(since - OVERLAP, MOST_CHANGES)
        fresh = [one for one in heard if self._heard.get(one.change) != one.at]
        found = list[Addressed]()
        again, self._again = self._again, set()
        for name in [one.change for one in fresh] + sorted(again - {one.change for one in fresh}):
            found += self._of_change(rules, name, now, begun=begun)
        recent = now - 2 * OVERLAP
        self._heard = {one.change: one.at for one in heard if one.at >= recent} | {
            one.change: one.at for one in fresh
        }
        newest = max((one.at for one in heard), default=since)
        if len(heard) >= MOST_CHANGES:  # the next look goes on exactly there
            return found, newest + OVERLAP
        return found, max(since, min(newest, now))

    def _of_change(
        self,
        rules: NoticeRules,
        name: str,
        now: datetime,
        *,
        begun: datetime | None = None,
        waits_only: bool = False,
    ) -> list[Addressed]:
        record = self._ledger.change(name)
        try:
            order, told = self._told(record)
            facts = list(facts_of(order, self._header(order), told))
        except (ValidationError, BadInput) as error:  # an earlier penstock wrote what does not fit any more
            _log.warning("people are told nothing of %s: %s", name, error)
            return []
        if since := blind_since(told):
            if now - since >= BLIND_FOR:
                facts.append(blind_fact(order, self._header(order), told, since))
            else:
                self._again.add(name)
        if waits_only or (begun is not None and record.began < begun):
            # Of what happened before penstock told anybody, only what still waits, and the end.
            facts = [one for one in facts if KINDS[one.state].waits or (begun and one.state in FINAL)]
        subject = Subject(name, record.fleet, name)
        return self.addressed(rules, subject, facts, OF_CHANGES | {NoticeState.BLIND}, now)

    def _told(self, record: ChangeRecord) -> tuple[ChangeOrder, Telling]:
        row = self._ledger.story(record.name)
        order = row.order if row is not None else order_of(record)
        told = row.told if row is not None else Telling(name=record.name)
        unlike = told.result is None or told.result.outcome is not record.outcome
        if record.outcome is not None and unlike:  # it ended without telling so, or an end followed its end
            end = ChangeResult(rollout=record.name, outcome=record.outcome, reason=record.sentence)
            told = told.model_copy(update={"result": end})
        return order, told

    def _header(self, order: ChangeOrder) -> PlanHeader | None:
        if order.plan is None:
            return None
        if order.plan not in self._headers:
            if len(self._headers) >= MOST_CHANGES:
                self._headers.clear()
            self._headers[order.plan] = self._ledger.plan_header(order.plan)
        return self._headers[order.plan]

    def addressed(
        self,
        rules: NoticeRules,
        subject: Subject,
        facts: Sequence[Fact],
        scope: Collection[NoticeState],
        now: datetime,
    ) -> list[Addressed]:
        """Return the notices that follow from what is so of a subject, each with whom it goes to."""
        waiting = self._ledger.waiting_notices([subject.name])
        counts = {state: count for (_, state), count in self._ledger.notice_counts([subject.name]).items()}
        lasting = [Lasting(one.notice.key, one.notice.state) for one in waiting]
        made = notices_of(subject, facts, lasting, counts, scope, now)
        left = self._left(subject, made)
        return [self._one(rules, subject, one, [*waiting, *left], left) for one in made]

    def _left(self, subject: Subject, made: Sequence[Notice]) -> list[Waiting]:
        """Return what earlier changes of the fleet have left, where this one has ended well."""
        if subject.change is None or not any(one.state in GOOD_ENDS for one in made):
            return []
        fleets = self._ledger.waiting_notices_of(subject.fleet)
        return [one for one in fleets if one.notice.state in LEFT and one.subject != subject.name]

    def _one(
        self,
        rules: NoticeRules,
        subject: Subject,
        notice: Notice,
        waiting: Sequence[Waiting],
        left: Sequence[Waiting],
    ) -> Addressed:
        over = [key for key in (notice.resolves, *notice.also_resolves) if key]
        if notice.state in GOOD_ENDS:
            over += [one.notice.key for one in left]
        louder = {one.notice.key for one in waiting if one.notice.state == NoticeState.NOBODY_ACTED}
        over += [key for key in (f"{key[:180]}{ENDING}" for key in over) if key in louder]
        if over:
            notice = notice.model_copy(
                update={"resolves": over[0], "also_resolves": tuple(dict.fromkeys(over[1:]))}
            )
        by_key = {one.notice.key: one.notice for one in waiting}
        told = self._ledger.sinks_told(over) if over else {}
        sinks = {sink for names in told.values() for sink in names}
        paged = any(by_key[key].level is NoticeLevel.PAGE for key in over if key in by_key)
        goes = addressed(rules, notice, sinks, at_once=paged)
        return Addressed(notice, subject.name, KINDS[NoticeState(notice.state)].waits, goes)

    # --- the audit record ----------------------------------------------------------------

    def _of_entries(self, rules: NoticeRules, seq: int, now: datetime) -> tuple[list[Addressed], int]:
        head = self._ledger.audit_head().seq
        entries = self._ledger.entries_of(seq, ACTIONS, MOST_ENTRIES)
        found = list[Addressed]()
        for told in _grouped([one for entry in entries if (one := told_by(entry)) is not None]):
            found += self._of_entry(rules, told, found, now)
        return found, (entries[-1].seq if len(entries) == MOST_ENTRIES else head)

    def _of_entry(
        self, rules: NoticeRules, told: Told, before: Sequence[Addressed], now: datetime
    ) -> list[Addressed]:
        subject, fact, over = told
        waiting = list(self._ledger.waiting_notices([subject.name]))
        settled = {key for one in before for key in (one.notice.resolves, *one.notice.also_resolves)}
        waiting += [
            Waiting(one.notice, one.subject, 0, acknowledged=False, escalations=0, escalated=None)
            for one in before
            if one.subject == subject.name and one.waits
        ]
        if over is NoticeState.QUARANTINED and not self._ledger.quarantined(subject.fleet):
            waiting += self._ledger.waiting_notices([f"{subject.fleet}/several"])
        waiting = [one for one in waiting if one.notice.key not in settled]
        lasting = [Lasting(one.notice.key, one.notice.state) for one in waiting]
        if over is None and fact is not None and fact.state.value in {one.state for one in lasting}:
            return []
        facts, scope = [fact] if fact is not None else [], {over} if over is not None else set()
        made = notices_of(subject, facts, lasting, {}, scope, now)
        return [self._one(rules, subject, one, waiting, ()) for one in made]

    # --- what becomes louder -------------------------------------------------------------

    def escalate(self, now: datetime | None = None) -> tuple[str, ...]:
        """Page for what nobody acted on, and tell the next sink of a page that nobody acknowledged.

        Returns:
            The keys of the notices that became louder.
        """
        rules, now, ledger = self._rules(), now or datetime.now(UTC), self._ledger
        if rules is None or ledger.begin_notice_look("escalation", self._holder, LASTS) is None:
            return ()
        louder, waiting = list[str](), ledger.waiting_notices()
        there = {one.notice.key for one in waiting}
        for one in waiting:
            notice = one.notice
            if one.acknowledged:
                continue
            if wants_page(rules, notice, now) and f"{notice.key[:180]}{ENDING}" not in there:
                if not ledger.people_acted(notice.fleet, one.seq):
                    page = page_of(rules, notice, now)
                    goes = addressed(rules, page, ())
                    louder += ledger.add_notices([Addressed(page, one.subject, waits=True, sinks=goes)])
            elif sink := next_sink(rules, notice, one.escalations, one.escalated, now):
                ledger.escalate_notice(notice.key, sink, now)
                louder.append(notice.key)
        return tuple(louder)


def _grouped(told: Sequence[Told]) -> list[Told]:
    """Return what entries told, what many gateways of a fleet have in common in one."""
    by_fleet: Mapping[tuple[str, NoticeState], list[Told]] = defaultdict(list)
    for one in told:
        if one.fact is not None and one.fact.state in {NoticeState.QUARANTINED, NoticeState.RETURNED}:
            by_fleet[one.subject.fleet, one.fact.state].append(one)
    many = {key: ones for key, ones in by_fleet.items() if len(ones) > TOGETHER}
    alone = [one for one in told if one.fact is None or (one.subject.fleet, one.fact.state) not in many]
    return [*alone, *(together(fleet, state, ones) for (fleet, state), ones in many.items())]
