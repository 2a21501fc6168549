"""What the audit record says that people are told of: gateways left out and back, drains that wait."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from policies.harm_asked import answers_to_harm
from policies.model.approval import APPROVAL_AWAITED, PLAN_APPROVED
from policies.model.audit import AuditEntry
from policies.model.drain import DRAIN_OVER, DrainEvent
from policies.model.offer import Offer, Verb
from policies.model.verdict import Basis, HarmTold
from policies.notices.changes import Fact
from policies.notices.occurrences import Subject
from policies.notices.states import NoticeState

QUARANTINED, RETURNED = "gateway quarantined", "gateway returned"
HARM, HARM_ACCEPTED = "harm found after the promotion", "harm after the promotion accepted"
TO_DECIDE = "; a person decides whether to go back"
"""How the sentence of such harm ends."""
UNWATCHED, WATCHED = "promoted release not watched", "promoted release watched again"
STEERED_BY_HAND = "gateways steered by hand"
NOT_TAKEN_BACK, TAKEN_BACK = "gateway not taken back", "gateway taken back"
PLANS = frozenset({APPROVAL_AWAITED, PLAN_APPROVED})
ACTIONS = PLANS | {
    QUARANTINED,
    RETURNED,
    HARM,
    HARM_ACCEPTED,
    UNWATCHED,
    WATCHED,
    STEERED_BY_HAND,
    NOT_TAKEN_BACK,
    TAKEN_BACK,
    DRAIN_OVER,
    *(event.value for event in DrainEvent),
}
"""What the entries are called that say something to people."""

_SHORT = len("sha256:") + 12
"""As much of a plan's digest as tells it from others in a sentence."""

TOGETHER = 10
"""Gateways of one fleet that are left out, or return, at the same time: more are told in one notice."""


class Told(NamedTuple):
    """What one entry says: a fact about a subject, and which state of it is over by that."""

    subject: Subject
    fact: Fact | None
    over: NoticeState | None


def told_by(entry: AuditEntry) -> Told | None:
    """Return what people are told by this entry, None when nothing."""
    fleet = entry.fleet
    if fleet is None or entry.action not in ACTIONS:
        return None
    body = _body(entry.body)
    first, _, rest = entry.subject.partition("/")
    if entry.action in {HARM, HARM_ACCEPTED, UNWATCHED, WATCHED, NOT_TAKEN_BACK, TAKEN_BACK}:
        return _of_bake(entry, fleet, rest, str(body.get("sentence", "")))
    if entry.action in {QUARANTINED, RETURNED, STEERED_BY_HAND}:
        return _of_gateway(entry, fleet, rest, body)
    if entry.action in PLANS:
        return _of_plan(entry, fleet, body)
    if entry.action == DRAIN_OVER:
        said = f"{fleet}: what {rest} left behind is drained empty: {first}: {body.get('sentence', '')}"
        return Told(Subject(rest, fleet, rest), Fact(NoticeState.DRAINED, said, mark=str(entry.seq)), None)
    held = entry.action == DrainEvent.HELD
    offers = tuple(Offer(verb=verb, fleet=fleet) for verb in (Verb.DRAINS, Verb.EXTEND, Verb.END))
    said = f"{fleet}: the drain of {first} waits for a person: {body.get('sentence', '')}"
    fact = Fact(NoticeState.DRAIN_HELD, said, offers=offers, gateway=first, mark=str(entry.seq))
    return Told(
        Subject(f"{fleet}/{first}/drain", fleet, rest or None),  # of the fleet where a person said it of all
        fact if held else None,
        None if held else NoticeState.DRAIN_HELD,
    )


def harm_after(before: HarmTold | None, seq: int, action: str, body: Mapping[str, Any]) -> HarmTold:
    """Return what is known of the harm after a promotion by one more entry of it.

    Harm that is found while an operator accepts what was found before is none of what they accept.
    """
    undecided = dict(before.undecided) if before is not None else {}
    bases = before.bases if before is not None else ()
    if action == HARM_ACCEPTED:
        left = {number: said for number, said in undecided.items() if number > body["until"]}
        return HarmTold(undecided=left, bases=bases)
    undecided[seq] = str(body.get("sentence", "")).removesuffix(TO_DECIDE)
    if body.get("basis") is not None and (basis := Basis.model_validate(body["basis"])) not in bases:
        bases = (*bases, basis)
    return HarmTold(undecided=undecided, bases=bases)


def _of_bake(entry: AuditEntry, fleet: str, change: str, reason: str) -> Told:
    """Return that a promoted release does harm, whether it is watched at all, and whom it left behind."""
    if entry.action in {NOT_TAKEN_BACK, TAKEN_BACK}:
        return _of_failed(entry, fleet, change, reason)
    if entry.action == HARM_ACCEPTED:
        return Told(Subject(change, fleet, change), None, NoticeState.HARM_FOUND)
    if entry.action == HARM:
        said = f"{fleet}: harm was found after {change} was promoted: {reason}"
        offers = answers_to_harm(fleet, change, entry.seq)
        fact = Fact(NoticeState.HARM_FOUND, said, offers=offers, mark=str(entry.seq))
        return Told(Subject(change, fleet, change), fact, None)
    subject = Subject(f"{fleet}/{change}/watch", fleet, change)
    if entry.action == WATCHED:
        return Told(subject, None, NoticeState.UNWATCHED)
    said = f"{fleet}: gateways on the release of {change} are not watched: {reason}"
    offers = tuple(Offer(verb=verb, fleet=fleet) for verb in (Verb.ROLL_BACK, Verb.STATUS))
    return Told(subject, Fact(NoticeState.UNWATCHED, said, offers=offers, mark=str(entry.seq)), None)


def _of_gateway(entry: AuditEntry, fleet: str, gateway: str, body: Mapping[str, Any]) -> Told:
    if entry.action == STEERED_BY_HAND:
        said = f"{fleet}: {body.get('sentence', '')}"
        fact = Fact(NoticeState.STEERED_BY_HAND, said, mark=str(entry.seq))
        return Told(Subject(f"{fleet}/several", fleet), fact, None)
    reason = str(body.get("reason", ""))
    subject = Subject(f"{fleet}/{gateway}", fleet)
    if entry.action == QUARANTINED:
        back = Offer(verb=Verb.RETURN, fleet=fleet, gateway=gateway)
        said = f"{fleet}: {gateway} is left out of changes by {entry.person}: {reason}"
        fact = Fact(NoticeState.QUARANTINED, said, offers=(back,), gateway=gateway, mark=str(entry.seq))
        return Told(subject, fact, None)
    said = f"{fleet}: {gateway} takes part in changes again: {reason}"
    fact = Fact(NoticeState.RETURNED, said, gateway=gateway, mark=str(entry.seq))
    return Told(subject, fact, NoticeState.QUARANTINED)


def _of_failed(entry: AuditEntry, fleet: str, gateway: str, sentence: str) -> Told:
    """Return that a gateway still serves the release on which it failed alone, or not any more."""
    subject = Subject(f"{fleet}/{gateway}", fleet)
    if entry.action == TAKEN_BACK:
        return Told(subject, None, NoticeState.NOT_TAKEN_BACK)
    offers = (Offer(verb=Verb.STATUS, fleet=fleet), Offer(verb=Verb.ROLL_BACK, fleet=fleet))
    fact = Fact(
        NoticeState.NOT_TAKEN_BACK,
        f"{fleet}: {sentence}",
        offers=offers,
        gateway=gateway,
        mark=str(entry.seq),
    )
    return Told(subject, fact, None)


def all_drained(told: Told, parts: int) -> Told:
    """Return that of a change nothing drains any more, by the end of the last of so many parts."""
    subject, fact = told.subject, told.fact
    if fact is None or parts < 2:  # noqa: PLR2004 - its only part has said it
        return told
    said = f"{subject.fleet}: what {subject.change} left behind is drained empty, in all {parts} parts"
    once = "all"  # a gateway that was set aside may drain for longer than all parts
    return told._replace(fact=fact._replace(headline=said, mark=once))


def _of_plan(entry: AuditEntry, fleet: str, body: Mapping[str, Any]) -> Told:
    subject, mark = Subject(entry.subject, fleet), str(entry.seq)
    if entry.action == PLAN_APPROVED:
        said = (
            f"{fleet}: {entry.person} has approved the plan {_short(entry.subject)}: {body.get('reason', '')}"
        )
        return Told(subject, Fact(NoticeState.APPROVED, said, mark=mark), None)
    said = f"{fleet}: the plan {_short(entry.subject)} waits for approval: {body.get('sentence', '')}"
    offers = (Offer(verb=Verb.APPROVE, fleet=fleet, plan=entry.subject),)
    return Told(subject, Fact(NoticeState.WAITING_FOR_APPROVAL, said, offers=offers, mark=mark), None)


def _short(digest: str) -> str:
    return digest[:_SHORT]


def together(fleet: str, state: NoticeState, told: list[Told]) -> Told:
    """Return many gateways of one fleet that are left out, or return, at the same time, as one."""
    names = [one.fact.gateway or "" for one in told if one.fact is not None]
    first = f"{', '.join(names[:TOGETHER])} and {len(names) - TOGETHER} more"
    leaves = state is NoticeState.QUARANTINED
    what = "are left out of changes" if leaves else "take part in changes again"
    mark = told[-1].fact.mark if told[-1].fact is not None else ""
    fact = Fact(state, f"{fleet}: {len(names)} gateways {what}: {first}", mark=mark)
    over = None if leaves else NoticeState.QUARANTINED
    return Told(Subject(f"{fleet}/several", fleet), fact, over)


def _body(said: str) -> Mapping[str, Any]:
    try:
        found = json.loads(said)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
