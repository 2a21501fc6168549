"""Every state of a change that waits or ends is told to people, once, by a look through the ledger."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import insert

from orchestrator.noticing.hearing import MOST_CHANGES
from orchestrator.noticing.looking import Looking
from orchestrator.store import tables
from orchestrator.store.database import writing
from orchestrator.store.ledger import Ledger
from policies.model.change import PENSTOCK_WATCH, ChangeKind, ChangeOrder, Outcome, Phase, Quarantine
from policies.model.errors import Unavailable
from policies.model.notice import NoticeLevel
from policies.model.notice_rules import NoticeRules
from policies.model.people import Role, Via
from policies.model.status import Event
from policies.model.windows import WindowAnswer
from policies.notices.changes import BLIND_FOR, blind_fact, facts_of, is_blind
from policies.notices.states import KINDS, OF_CHANGES, OF_OUTCOMES, NoticeState
from policies.status.sentences import Sentences
from policies.status.told import Told
from tests.service.test_every_state import CONFIRM, HARM, STATES, State, written

RULES = NoticeRules.model_validate(
    {
        "apiVersion": "penstock/v1",
        "sinks": [{"name": "chat", "kind": "chat"}],
        "routes": [{"sinks": ["chat"]}],
    }
)
PASSES = {Phase.STARTING, Phase.SWITCHING, Phase.OBSERVING, Phase.PROMOTING}
"""Phases that go on by themselves, unless the change says that it needs somebody."""

OF_OTHERS = {
    NoticeState.WEDGED,
    NoticeState.UNBEGUN,
    NoticeState.QUARANTINED,
    NoticeState.STEERED_BY_HAND,
    NoticeState.DRAIN_HELD,
    NoticeState.HARM_FOUND,
    NoticeState.UNWATCHED,
    NoticeState.NOT_TAKEN_BACK,
    NoticeState.ASTRAY,
    NoticeState.CERTIFICATES_LATE,
    NoticeState.ROOM_SILENT,
    NoticeState.AUDIT_BROKEN,
    NoticeState.PART_AWAY,
    NoticeState.NOBODY_ACTED,
}
"""What waits and follows from something else than the story of a change."""


def looking(ledger: Ledger, holder: str = "one") -> Looking:
    one = Looking(ledger, lambda: RULES, holder)
    one.look()  # from here on everything is new
    return one


def told(ledger: Ledger) -> dict[str, NoticeLevel]:
    return {row.notice.state: row.notice.level for row in ledger.notice_rows(["edge"], 500)}


def test_every_end_has_what_people_are_told_of_it() -> None:
    assert OF_OUTCOMES.keys() == {*Outcome}
    assert KINDS.keys() == {*NoticeState}


def test_whatever_lasts_of_a_change_is_reached_by_a_state_and_the_rest_is_known() -> None:
    """What else lasts is of gateways, of the fleet, or of parts of penstock."""
    reached = set[NoticeState]()
    for kind, said, _ in STATES.values():
        change = Told.model_validate({"name": "edge-1", **said})
        confirm = CONFIRM if change.waits_until is not None else None
        order = ChangeOrder(fleet="edge", kind=kind, requested_by="ana", reason="CVE", confirm=confirm)
        reached |= {fact.state for fact in facts_of(order, None, change)}
        if is_blind(change):
            reached.add(blind_fact(order, None, change, datetime.now(UTC)).state)
    lasts = {state for state, kind_of in KINDS.items() if kind_of.waits}
    assert lasts & reached == lasts - OF_OTHERS
    assert reached & lasts <= OF_CHANGES
    assert not OF_OTHERS & OF_CHANGES


@pytest.mark.parametrize("name", STATES)
def test_every_state_that_waits_or_ends_is_told_once(ledger: Ledger, name: str) -> None:
    kind, said, outcome = STATES[name]
    looks = looking(ledger)
    written(ledger, (kind, said, outcome))
    looks.look()
    found = told(ledger)
    assert "started" in found
    result = said.get("result")
    if result is not None:
        assert OF_OUTCOMES[result.outcome].value in found
    elif said["phase"] not in PASSES or needs_somebody(ledger):
        assert {state for state in found if state not in {"started", "wave_passed"}}, found
    before = len(ledger.notice_rows(["edge"], 500))
    looks.look()
    looking(ledger, "one").look()  # a worker that begins anew finds the same keys
    assert len(ledger.notice_rows(["edge"], 500)) == before


def needs_somebody(ledger: Ledger) -> bool:
    row = ledger.story("edge-1")
    assert row is not None
    return Sentences(row.order, None, row.told).status().needs_you is not None


@pytest.mark.parametrize("outcome", Outcome)
def test_every_end_is_told_with_its_level(ledger: Ledger, outcome: Outcome) -> None:
    looks = looking(ledger)
    state = next(one for one in STATES.values() if one[2] is outcome)
    written(ledger, state)
    looks.look()
    state_name = OF_OUTCOMES[outcome]
    assert told(ledger)[state_name.value] is KINDS[state_name].level


def test_what_waits_is_settled_by_what_follows(ledger: Ledger) -> None:
    looks = looking(ledger)
    written(ledger, STATES["held by a person"])
    looks.look()
    (held,) = list(ledger.waiting_notices(["edge-1"]))
    again(ledger, STATES["observing health"])
    looks.look()
    assert ledger.waiting_notices(["edge-1"]) == ()
    resumed = next(row.notice for row in ledger.notice_rows(["edge"], 50) if row.notice.state == "resumed")
    assert resumed.resolves == held.notice.key
    again(ledger, STATES["held by a person"])
    looks.look()
    (second,) = ledger.waiting_notices(["edge-1"])
    assert second.notice.key != held.notice.key


def test_a_wait_for_a_window_is_told_and_settled_when_it_opens(ledger: Ledger) -> None:
    looks = looking(ledger)
    kind, said, outcome = STATES["starting"]
    closed = WindowAnswer(fits=False, is_open=False, sentence="closed: next opening Tue 2026-11-24 02:00")
    written(ledger, (kind, {**said, "window": closed}, outcome))
    looks.look()
    (waits,) = ledger.waiting_notices(["edge-1"])
    assert waits.notice.state == "waiting_for_window"
    assert "closed: next opening Tue 2026-11-24 02:00" in waits.notice.headline
    again(ledger, (kind, said, outcome))
    looks.look()
    assert ledger.waiting_notices(["edge-1"]) == ()


def test_what_one_look_finds_is_told_in_the_order_in_which_it_happened(ledger: Ledger) -> None:
    looks = looking(ledger)
    written(ledger, next(one for one in STATES.values() if one[2] is Outcome.PROMOTED))
    looks.look()
    states = [one.notice.state for one in ledger.outbox("chat", 10)]
    assert states == ["started", *["wave_passed"] * (len(states) - 2), "promoted"]


def test_verdicts_without_metrics_page_once_they_have_lasted(ledger: Ledger) -> None:
    looks = looking(ledger)
    now = datetime.now(UTC)
    written(ledger, STATES["observing without metrics"])
    told_next(ledger, "verdict healthy, promote: logins: 12 of 12", now - timedelta(hours=1))
    told_next(ledger, "verdict metrics unavailable, hold: logins: 12 of 12", now)
    told_next(ledger, "gw-1: on trial", now)
    looks.look(now)
    assert "blind" not in told(ledger)
    told_next(ledger, "verdict metrics unavailable, hold for human: logins: 12 of 12", now + BLIND_FOR)
    looks.look(now + BLIND_FOR + timedelta(seconds=1))
    assert told(ledger)["blind"] is NoticeLevel.PAGE
    again(ledger, STATES["observing health"])
    looks.look(now + 2 * BLIND_FOR)
    assert ledger.waiting_notices() == ()


def test_a_thousand_changes_that_end_and_wait_at_the_same_time_are_all_told(ledger: Ledger) -> None:
    """More tell something than one look takes, all of one moment, while as many others end."""
    looks, at = looking(ledger), datetime.now(UTC)
    waits = many(ledger, "waits", at)
    ends = many(ledger, "ends", at + timedelta(seconds=1), ended=True)
    for _ in range(4):
        looks.look()
    told_of = ledger.notice_counts([*waits, *ends])
    assert [name for name in waits if told_of.get((name, "held")) != 1] == []
    assert [name for name in ends if told_of.get((name, "promoted")) != 1] == []


def test_what_a_look_could_not_keep_the_next_one_finds_again(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = looking(ledger)
    written(ledger, STATES["held by a person"])

    def away(*_: Any) -> tuple[str, ...]:
        raise Unavailable("the ledger does not answer")

    with monkeypatch.context() as broken:
        broken.setattr(ledger, "end_notice_look", away)
        with pytest.raises(Unavailable):
            looks.look()
    assert looks.look() == ("edge-1/started", "edge-1/held/1")


def test_what_was_written_late_is_told_though_others_were_told_since(ledger: Ledger) -> None:
    looks, at = looking(ledger), datetime.now(UTC)
    many(ledger, "first", at, count=3)
    looks.look()
    late = many(ledger, "late", at - timedelta(seconds=50), count=3)
    looks.look()
    assert {*late} <= {one.subject for one in ledger.waiting_notices()}


def test_nobody_acting_pages_and_a_page_goes_to_the_next_sink(ledger: Ledger) -> None:
    rules = NoticeRules.model_validate(
        {
            "apiVersion": "penstock/v1",
            "sinks": [{"name": "chat", "kind": "chat"}, {"name": "second", "kind": "chat"}],
            "routes": [{"sinks": ["chat"]}],
            "escalation": {"next": ["second"]},
        }
    )
    looks = Looking(ledger, lambda: rules, "one")
    looks.look()
    written(ledger, STATES["held by a person"])
    looks.look()
    now = datetime.now(UTC)
    assert looks.escalate(now + timedelta(minutes=9)) == ()
    (page,) = looks.escalate(now + timedelta(minutes=11))
    assert ledger.notice(page).level is NoticeLevel.PAGE
    assert looks.escalate(now + timedelta(minutes=11)) == ()
    assert looks.escalate(now + timedelta(minutes=22)) == (page,)
    assert ledger.sinks_told([page])[page] == {"chat", "second"}
    again(ledger, STATES["observing health"])
    looks.look()
    assert ledger.waiting_notices() == ()


def test_who_has_acted_or_acknowledged_is_not_paged(ledger: Ledger) -> None:
    looks = looking(ledger)
    written(ledger, STATES["held by a person"])
    looks.look()
    ledger.audit("ana", "cli", "hold to be lengthened", "edge", {}, fleet="edge")
    later = datetime.now(UTC) + timedelta(minutes=11)
    assert looks.escalate(later) == ()
    written(ledger, STATES["held by two"])
    (held, *_) = ledger.waiting_notices()
    ledger.acknowledge_notice(held.notice.key, "ben", Via.CLI)
    assert looks.escalate(later) == ()


@pytest.mark.parametrize("caller", ["a person", "a machine"])
async def test_an_order_that_is_refused_is_nothing_that_a_person_did(
    api: httpx.AsyncClient, ledger: Ledger, caller: str
) -> None:
    looks = looking(ledger)
    written(ledger, STATES["held by a person"])
    looks.look()
    headers = {"Idempotency-Key": "run-1"}
    if caller == "a machine":
        secret, _ = ledger.make_token("pipeline", {"edge": frozenset({Role.CI})}, timedelta(days=1), "root")
        headers["Authorization"] = f"Bearer {secret}"
    body = {"to": "1.3.0", "reason": "the same as five minutes ago", "fleet": "edge"}
    assert (await api.post("/changes", json=body, headers=headers)).is_error
    assert {"upgrade asked for", "refused"} <= {one.action for one in ledger.audit_entries()}
    assert looks.escalate(datetime.now(UTC) + timedelta(minutes=11)) != ()


@pytest.mark.parametrize(
    ("person", "entries", "acted"),
    [
        ("pipeline", ["hold asked for"], False),
        ("ana", ["hold asked for", "failed"], False),
        ("ana", ["hold asked for", "hold asked for", "refused"], True),
        ("ana", ["hold asked for", "refused", "hold asked for"], True),
    ],
)
def test_only_orders_of_people_that_were_taken_keep_a_page_away(
    ledger: Ledger, person: str, entries: list[str], *, acted: bool
) -> None:
    ledger.make_token("pipeline", {"edge": frozenset({Role.OPERATOR})}, timedelta(days=1), "root")
    seq = ledger.audit_head().seq
    for entry in entries:
        said: dict[str, object] = (
            {"asked": {}} if entry.endswith("asked for") else {"why": "hold asked for: it has ended"}
        )
        ledger.audit(person, "cli", entry, "edge", said, fleet="edge")
    assert ledger.people_acted("edge", seq) == acted


def test_gateways_left_out_and_back_are_told_and_many_at_once_in_one(ledger: Ledger) -> None:
    looks, now = looking(ledger), datetime.now(UTC)

    def leave(name: str) -> None:
        ledger.set_quarantine(
            Quarantine(fleet="edge", gateway=name, reason="silent", person="penstock", since=now)
        )

    leave("gw-1")
    looks.look()
    assert told(ledger)["quarantined"] is NoticeLevel.NEEDS_YOU
    ledger.clear_quarantine("edge", "gw-1", "penstock", "it answers")
    looks.look()
    assert "returned" in told(ledger)
    assert ledger.waiting_notices() == ()
    before = len(ledger.notice_rows(["edge"], 500))
    for number in range(40):
        leave(f"gw-{number}")
    looks.look()
    assert len(ledger.notice_rows(["edge"], 500)) == before + 1


def test_a_drain_at_its_limit_needs_a_person_until_something_is_told_to_it(ledger: Ledger) -> None:
    looks = looking(ledger)
    body = {"sentence": "slot a: 30 of 40 sessions would be ended"}
    ledger.audit("penstock", "workflow", "drain held for a person", "gw-1/edge-1", body, fleet="edge")
    looks.look()
    assert told(ledger)["drain_held"] is NoticeLevel.NEEDS_YOU
    ledger.audit("ana", "workflow", "drain extended", "gw-1/edge-1", body, fleet="edge")
    looks.look()
    assert ledger.waiting_notices() == ()


def test_of_what_was_before_only_what_waits_is_told(ledger: Ledger) -> None:
    written(ledger, STATES["held by a person"])
    looking(ledger)
    assert told(ledger).keys() == {"held"}


def test_two_workers_look_and_nothing_is_told_twice(ledger: Ledger) -> None:
    one = looking(ledger, "one")
    two = Looking(ledger, lambda: RULES, "two")
    written(ledger, STATES["held by a person"])
    assert two.look() == ("edge-1/started", "edge-1/held/1")
    assert one.look() == two.look() == ()


def again(ledger: Ledger, state: State) -> None:
    """Have the change of before tell something else."""
    row = ledger.story("edge-1")
    assert row is not None
    kind, said, _ = state
    values: dict[str, Any] = {"name": "edge-1", **said}
    ledger.record_story(row.order.model_copy(update={"kind": kind}), Told(**values), 0, ())


@pytest.mark.parametrize("before", ["held by a person", "waiting for a person's decision"])
def test_harm_in_a_change_that_is_held_already_is_news_and_takes_the_place_of_the_hold(
    ledger: Ledger, before: str
) -> None:
    looks = looking(ledger)
    written(ledger, STATES[before])
    looks.look()
    (held,) = ledger.waiting_notices()
    ledger.acknowledge_notice(held.notice.key, "ana", Via.CLI)
    kind, said, _ = STATES[before]
    found: dict[str, Any] = {**said, "holds": {**said.get("holds", {}), PENSTOCK_WATCH: HARM}}
    again(ledger, (kind, found, None))
    looks.look()
    (waits,) = ledger.waiting_notices()
    assert (waits.notice.state, waits.acknowledged) == (NoticeState.HARM_TO_DECIDE, False)
    assert (waits.notice.resolves, waits.notice.runbook) == (held.notice.key, "held-decide")
    decide = "edge: edge-1: an operator has to decide about harm: held by penstock.watch:"
    assert waits.notice.headline.startswith(f"{decide} {HARM}")
    assert looks.escalate(datetime.now(UTC) + timedelta(hours=8)) != ()


def test_other_harm_in_a_held_change_is_news_and_so_is_harm_that_comes_back(ledger: Ledger) -> None:
    looks = looking(ledger)
    kind, said, _ = STATES["held by a person"]
    written(ledger, (kind, said, None))
    keys = list[str]()
    for harm in (HARM, HARM, "tunnels pass nothing", None, HARM):
        holds = {**said["holds"], **({PENSTOCK_WATCH: harm} if harm else {})}
        again(ledger, (kind, {**said, "holds": holds}, None))
        looks.look()
        (waits,) = ledger.waiting_notices()
        keys.append(waits.notice.key)
        assert (harm or "calls come in") in waits.notice.headline
    assert (keys[0] == keys[1], len({*keys})) == (True, 4)


def told_next(ledger: Ledger, sentence: str, at: datetime) -> None:
    """Have the change of before write one more event, as its workflow does: beside what it tells."""
    row = ledger.story("edge-1")
    assert row is not None
    number = len(ledger.events_of_change("edge-1"))
    ledger.record_story(row.order, row.told, number, [Event(at=at, sentence=sentence)])


def many(
    ledger: Ledger, group: str, at: datetime, *, count: int = MOST_CHANGES + 1, ended: bool = False
) -> list[str]:
    """Have so many changes told of at the same moment, held, or with their end; return their names."""
    names = [f"{group}-{number}" for number in range(count)]
    order = ChangeOrder(fleet="edge", kind=ChangeKind.UPGRADE, requested_by="ana", reason="CVE")
    base = ledger.newest_number("edge") + 1
    with writing(ledger.engine) as connection:
        change = {"fleet": "edge", "kind": "upgrade", "requested_by": "ana", "reason": "CVE", "run": ""}
        end = {"ended": at, "outcome": "promoted", "sentence": "it was promoted"} if ended else {}
        rows = [
            {"name": name, "number": base + n, "key": name, "release": "1.3.0", "began": at, **change, **end}
            for n, name in enumerate(names)
        ]
        connection.execute(insert(tables.changes), rows)
        held = [Told(name=name, phase=Phase.HELD, holds={"ana": "calls"}).model_dump_json() for name in names]
        stories = [
            {"change": name, "order": order.model_dump_json(), "told": said, "at": at}
            for name, said in zip(names, held, strict=True)
        ]
        if not ended:
            connection.execute(insert(tables.stories), stories)
    return names
