"""Looking: what is new in the ledger becomes notices, whatever the look before was killed at.

A look reads what was told, ended or entered since the one before it, and keeps what it has found together
with how far it came. One worker looks at a time; the others find that out and do nothing.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from pydantic import ValidationError

from activities.undecided_harm import undecided_harm
from orchestrator.noticing.hearing import MOST_CHANGES, Hearing
from orchestrator.service.telling import as_ended, order_of
from orchestrator.store.addressed import Addressed
from orchestrator.store.ledger import Ledger
from orchestrator.store.notices import Waiting
from orchestrator.store.stories import StoryRow
from policies.model.change import PENSTOCK, ChangeOrder, ChangeRecord, Outcome
from policies.model.errors import BadInput
from policies.model.notice import Notice, NoticeLevel
from policies.model.notice_rules import NoticeRules
from policies.model.plan_part import PlanHeader
from policies.notices.addressing import addressed
from policies.notices.changes import BLIND_FOR, Fact, blind_fact, blind_since, facts_of, is_blind
from policies.notices.entries import ACTIONS, TO_DECIDE, TOGETHER, Told, all_drained, together, told_by
from policies.notices.escalation import ENDING, next_sink, page_of, wants_page
from policies.notices.occurrences import Lasting, Subject, notices_of
from policies.notices.states import FINAL, KINDS, LEFT, NOT_BACK, OF_CHANGES, NoticeState, settling_end
from policies.returns import is_known
from policies.status.told import Told as Telling

LASTS = timedelta(seconds=30)
"""How long a look keeps the others away when its worker has died."""
MOST_ENTRIES = 2_000
"""Entries of the audit record that one look takes; the next one goes on there."""
MOST_VERDICTS = 50
"""Verdicts of one change that are looked through for the first without metrics."""

_NAME = "ledger"
_log = logging.getLogger(__name__)


class Before(NamedTuple):
    """What people were told of one subject."""

    waiting: Sequence[Waiting]
    """What nothing has settled yet."""
    counts: Mapping[str, int]
    """How often they were told of each state."""


class Looking:
    """One worker's looks through the ledger; it may block."""

    def __init__(self, ledger: Ledger, rules: Callable[[], NoticeRules | None], holder: str) -> None:
        """Take the ledger, what tells who gets what, and this worker's own name."""
        self._ledger = ledger
        self._rules = rules
        self._holder = holder
        self._hearing = Hearing(ledger)
        self._again: set[str] = set()
        self._plans: dict[str, PlanHeader] = {}

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
        fresh = self._hearing.fresh(since, now)
        names = [*fresh.changes, *sorted(self._again - {*fresh.changes})]
        found, again = self._of_changes(rules, names, now, begun=datetime.fromisoformat(known["from"]))
        of_entries, seq = self._of_entries(rules, seq, now)
        ends = json.dumps({"seq": seq, "at": fresh.since.isoformat(), "from": known["from"]})
        new = self._ledger.end_notice_look(_NAME, self._holder, ends, [*found, *of_entries])
        self._hearing.took(fresh)  # not before it is kept: what failed is found again
        self._again = again
        return new

    def _first_look(self, rules: NoticeRules, now: datetime) -> tuple[str, ...]:
        """Begin here: of what was before, people are told only what still waits."""
        seq = self._ledger.audit_head().seq
        found = list[Addressed]()
        names = [change.name for change in self._ledger.every_open_change()]
        for first in range(0, len(names), MOST_CHANGES):
            found += self._of_changes(rules, names[first : first + MOST_CHANGES], now, waits_only=True)[0]
        ends = json.dumps({"seq": seq, "at": now.isoformat(), "from": now.isoformat()})
        return self._ledger.end_notice_look(_NAME, self._holder, ends, found)

    # --- changes -------------------------------------------------------------------------

    def _of_changes(
        self,
        rules: NoticeRules,
        names: Sequence[str],
        now: datetime,
        *,
        begun: datetime | None = None,
        waits_only: bool = False,
    ) -> tuple[list[Addressed], set[str]]:
        """Return what people are told of these changes, and which are to be looked at again."""
        if not names:
            return [], set()
        records, stories = self._ledger.changes_named(names), self._ledger.stories_of(names)
        plans = {row.order.plan for row in stories.values()} | {one.plan for one in records.values()}
        headers = self._headers({plan for plan in plans if plan is not None})
        before = self._before(names)
        found, again = list[Addressed](), set[str]()
        for name in names:
            if name not in records:
                continue
            record = records[name]
            try:
                order, told = _told(record, stories.get(name))
                header = headers.get(order.plan) if order.plan is not None else None
                facts = list(facts_of(order, header, told))
            except (
                ValidationError,
                BadInput,
                KeyError,
            ) as error:  # an earlier penstock wrote what fits no more
                _log.warning("people are told nothing of %s: %s", name, error)
                continue
            if is_blind(told):
                since = blind_since(self._ledger.verdicts_told(name, MOST_VERDICTS))
                if since is not None and now - since >= BLIND_FOR:
                    facts.append(blind_fact(order, header, told, since))
                else:
                    again.add(name)
            if order.bakes_on and order.requested_by == PENSTOCK and self._are_known(record, told):
                facts = [one for one in facts if one.state not in NOT_BACK]
            if waits_only or (begun is not None and record.began < begun):
                # Of what happened before penstock told anybody, only what still waits, and the end.
                facts = [one for one in facts if KINDS[one.state].waits or (begun and one.state in FINAL)]
            subject = Subject(name, record.fleet, name)
            found += self.addressed(rules, subject, facts, OF_CHANGES, now, before[name], order)
        return found, again

    def _are_known(self, record: ChangeRecord, told: Telling) -> bool:
        """Return whether all gateways that a change tried in vain were known before not to be back."""
        ended = told.result
        names = told.not_back.keys() if ended is None else ended.incomplete.keys()
        more = told.more_not_back if ended is None else ended.more_incomplete
        if not names or more:
            return False
        returns = self._ledger.returns(record.fleet)
        known = {
            one.gateway
            for one in self._ledger.quarantined(record.fleet)
            if is_known(one, returns.get(one.gateway), record.began)
        }
        return names <= known

    def _headers(self, plans: Collection[str]) -> Mapping[str, PlanHeader]:
        """Return these plans without their gateways; each is read once, since a plan never changes."""
        if len(self._plans) + len(plans) > 2 * MOST_CHANGES:
            self._plans.clear()
        if missing := {*plans} - self._plans.keys():
            self._plans |= self._ledger.plan_headers(missing)
        return self._plans

    def _before(self, subjects: Collection[str]) -> Mapping[str, Before]:
        """Return what people were told of each of these."""
        waiting: dict[str, list[Waiting]] = {name: [] for name in subjects}
        for one in self._ledger.waiting_notices(subjects):
            waiting[one.subject].append(one)
        counts: dict[str, dict[str, int]] = {name: {} for name in subjects}
        for (name, state), count in self._ledger.notice_counts(subjects).items():
            counts[name][state] = count
        return {name: Before(waiting[name], counts[name]) for name in subjects}

    def addressed(
        self,
        rules: NoticeRules,
        subject: Subject,
        facts: Sequence[Fact],
        scope: Collection[NoticeState],
        now: datetime,
        before: Before | None = None,
        order: ChangeOrder | None = None,
    ) -> list[Addressed]:
        """Return the notices that follow from what is so of a subject, each with whom it goes to.

        The end of a change may settle what earlier changes have left; `order` is what was asked of it.
        """
        waiting, counts = before or self._before([subject.name])[subject.name]
        lasting = [Lasting(one.notice.key, one.notice.state) for one in waiting]
        made = notices_of(subject, facts, lasting, counts, scope, now)
        settles = settling_end(order) if order is not None else None
        left = self._left(subject) if settles in {one.state for one in made} else []
        return [
            self._one(rules, subject, one, [*waiting, *left], left if one.state == settles else ())
            for one in made
        ]

    def _left(self, subject: Subject) -> list[Waiting]:
        """Return what earlier changes of the fleet have left, but no harm that waits for a decision."""
        left = self._ledger.waiting_notices_of(subject.fleet, LEFT)
        records = self._ledger.changes_named({subject.name, *(one.notice.change or "" for one in left)})
        later = {name for name, record in records.items() if record.number >= records[subject.name].number}
        undecided = {one.change for one in undecided_harm(self._ledger, subject.fleet)}
        return [
            one
            for one in left
            if one.notice.change not in later
            and (one.notice.state != NoticeState.HARM_FOUND or one.notice.change not in undecided)
        ]

    def _one(
        self,
        rules: NoticeRules,
        subject: Subject,
        notice: Notice,
        waiting: Sequence[Waiting],
        left: Sequence[Waiting],
    ) -> Addressed:
        over = [key for key in (notice.resolves, *notice.also_resolves) if key]
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
        said = [one for entry in entries if (one := told_by(entry)) is not None]
        for told in _grouped([one for told in said if (one := self._whole(told)) is not None]):
            found += self._of_entry(rules, told, found, now)
        return found, (entries[-1].seq if len(entries) == MOST_ENTRIES else head)

    def _whole(self, told: Told) -> Told | None:
        """Return what was told, None for a part of a change that drains on elsewhere.

        A promotion is written down part by part: first ones may be empty before the change has its outcome.
        """
        subject, fact = told.subject, told.fact
        if fact is None or fact.state is not NoticeState.DRAINED or subject.change is None:
            return told
        record = self._ledger.changes_named([subject.change]).get(subject.change)
        if record is None or record.plan is None or record.outcome not in (None, Outcome.PROMOTED):
            return told
        header = self._headers([record.plan]).get(record.plan)
        parts = len(header.keys) if header is not None else 1
        over = self._ledger.drains_over(subject.fleet, subject.change, int(fact.mark))
        return all_drained(told, parts) if over >= parts else None

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
        if over is NoticeState.DRAIN_HELD:  # a person may have said it of all gateways that drain
            held = self._ledger.waiting_notices_of(subject.fleet, {over})
            every = subject.name == f"{subject.fleet}/{subject.fleet}/drain"
            waiting += [one for one in held if every and one.notice.change == subject.change]
        if over is NoticeState.QUARANTINED and not self._ledger.quarantined(subject.fleet):
            waiting += self._ledger.waiting_notices([f"{subject.fleet}/several"])
        waiting = [one for one in waiting if one.notice.key not in settled]
        if fact is not None and fact.state is NoticeState.HARM_FOUND:
            return self._harm_found(rules, subject, fact, waiting, now)
        lasting = [Lasting(one.notice.key, one.notice.state) for one in waiting]
        if over is None and fact is not None and fact.state.value in {one.state for one in lasting}:
            return []
        facts, scope = [fact] if fact is not None else [], {over} if over is not None else set()
        if over is NoticeState.QUARANTINED:  # gateways that are steered by hand are left out, too
            scope |= {NoticeState.STEERED_BY_HAND, NoticeState.NOT_TAKEN_BACK}
        made = notices_of(subject, facts, lasting, {}, scope, now)
        return [self._one(rules, subject, one, waiting, ()) for one in made]

    def _harm_found(
        self, rules: NoticeRules, subject: Subject, fact: Fact, waiting: Sequence[Waiting], now: datetime
    ) -> list[Addressed]:
        """Return the notice of harm after a promotion, in the place of one that was before it.

        Other harm is news, whoever has acknowledged what was found first; it names all that waits.
        """
        for one in undecided_harm(self._ledger, subject.fleet):
            if one.change == subject.change:
                said = (
                    f"{subject.fleet}: harm was found after {one.change} was promoted: {one.harm}{TO_DECIDE}"
                )
                fact = fact._replace(headline=said, offers=one.next)
        before = [one for one in waiting if one.notice.state == NoticeState.HARM_FOUND]
        keys = tuple(one.notice.key for one in before)
        [made] = notices_of(subject, [fact], [], {}, (), now)
        if keys:
            made = made.model_copy(update={"resolves": keys[0], "also_resolves": keys[1:]})
        return [self._one(rules, subject, made, waiting, ())]

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


def _told(record: ChangeRecord, row: StoryRow | None) -> tuple[ChangeOrder, Telling]:
    order = row.order if row is not None else order_of(record)
    told = row.told if row is not None else Telling(name=record.name)
    return order, as_ended(record, told)


def _grouped(told: Sequence[Told]) -> list[Told]:
    """Return what entries told, what many gateways of a fleet have in common in one."""
    by_fleet: Mapping[tuple[str, NoticeState], list[Told]] = defaultdict(list)
    for one in told:
        if one.fact is not None and one.fact.state in {NoticeState.QUARANTINED, NoticeState.RETURNED}:
            by_fleet[one.subject.fleet, one.fact.state].append(one)
    many = {key: ones for key, ones in by_fleet.items() if len(ones) > TOGETHER}
    alone = [one for one in told if one.fact is None or (one.subject.fleet, one.fact.state) not in many]
    return [*alone, *(together(fleet, state, ones) for (fleet, state), ones in many.items())]
