"""Every state of which people are told comes to pass here, and is told: a state without a scene fails."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert, update

from activities.undecided_harm import undecided_harm
from orchestrator.noticing.around import ASTRAY_FOR, LookingAround, Wrong
from orchestrator.noticing.folding import FEW, fold_old
from orchestrator.store import tables
from orchestrator.store.addressed import Addressed
from orchestrator.store.chat import SilentRoomOf
from orchestrator.store.database import writing
from orchestrator.store.ledger import Ledger
from policies.model.approval import APPROVAL_AWAITED
from policies.model.change import (
    PENSTOCK,
    ChangeEnding,
    ChangeKind,
    ChangeOpening,
    ChangeOrder,
    ChangeResult,
    KnownGoodBatch,
    Outcome,
    Phase,
    Quarantine,
)
from policies.model.drain import DRAIN_OVER, DrainEvent
from policies.model.notice import Notice, NoticeLevel, Occasion
from policies.model.offer import Verb
from policies.model.plan import Plan
from policies.model.status import Event
from policies.model.windows import WindowAnswer
from policies.notices.changes import BLIND_FOR
from policies.notices.entries import (
    ACTIONS,
    HARM,
    HARM_ACCEPTED,
    NOT_TAKEN_BACK,
    STEERED_BY_HAND,
    TAKEN_BACK,
    TO_DECIDE,
    UNWATCHED,
    WATCHED,
)
from policies.notices.states import KINDS, LEFT, NoticeState
from policies.planning.parts import parted
from policies.status.told import Told
from tests.service.test_every_state import PLAN, STATES, State, written
from tests.service.test_notices_of_states import RULES, looking
from tests.unit.fleets import facts_of, planned
from tests.workflows.world import NEW, OLD

CLOSED = WindowAnswer(fits=False, is_open=False, sentence="closed: next opening Tue 2026-11-24 02:00")


UNBEGUN = {"edge": "No worker has begun the rollback that ana ordered"}


class Stage:
    """A ledger, and who looks through it."""

    def __init__(self, ledger: Ledger) -> None:
        self.now = datetime.now(UTC)  # of this test: minutes may pass between its import and its turn
        self.ledger = ledger
        self.looks = looking(ledger)
        self.around = LookingAround(ledger, self.looks)

    def change(self, state: State) -> None:
        """Have a change that is in this state, and look."""
        written(self.ledger, state)
        self.looks.look()

    def entry(self, action: str, subject: str, sentence: str = "slot a: 30 of 40 are left") -> None:
        """Have an entry in the record, and look."""
        said = {"sentence": sentence, "reason": "CVE"}
        self.ledger.audit("penstock", "workflow", action, subject, said, fleet="edge")
        self.looks.look()

    def look_around(self, wrong: Wrong | None = None, *, after: timedelta = timedelta(0)) -> None:
        """Look for what no change tells."""
        self.around.look(RULES, wrong or Wrong({}, {}), self.now + after)

    def told(self) -> dict[str, NoticeLevel]:
        rows = self.ledger.notice_rows(["edge", "installation"], 500)
        return {row.notice.state: row.notice.level for row in rows}


def of_state(name: str, **more: Any) -> Callable[[Stage], None]:
    kind, said, outcome = STATES[name]
    return lambda stage: stage.change((kind, {**said, **more}, outcome))


def of_end(outcome: Outcome) -> Callable[[Stage], None]:
    return of_state(next(name for name, one in STATES.items() if one[2] is outcome))


def of_entry(action: str, subject: str) -> Callable[[Stage], None]:
    return lambda stage: stage.entry(action, subject)


def resumed(stage: Stage) -> None:
    stage.change(STATES["held by a person"])
    goes_on(stage)


def over(stage: Stage) -> None:
    stage.entry(DrainEvent.HELD, "gw-1/edge-1")
    stage.entry(DrainEvent.EMPTIED, "gw-1/edge-1")


def blind(stage: Stage) -> None:
    written(stage.ledger, STATES["observing without metrics"])
    row = stage.ledger.story("edge-1")
    assert row is not None
    said = "verdict metrics unavailable, hold: logins: 12 of 12"
    stage.ledger.record_story(row.order, row.told, 1, [Event(at=stage.now - 2 * BLIND_FOR, sentence=said)])
    stage.looks.look()


def wave_passed(stage: Stage) -> None:
    with_plan(stage.ledger, planned(facts_of(120)), "promoted")
    stage.looks.look()


def approved(stage: Stage) -> None:
    stage.ledger.approve_plan(PLAN, "edge", "ben", "read it", timedelta(hours=1))
    stage.looks.look()


def left_out(stage: Stage) -> None:
    said = Quarantine(fleet="edge", gateway="gw-1", reason="silent", person="penstock", since=stage.now)
    stage.ledger.set_quarantine(said)
    stage.looks.look()


def steered_by_hand(stage: Stage) -> None:
    stage.entry(STEERED_BY_HAND, "edge/several")


def is_returned(stage: Stage) -> None:
    left_out(stage)
    is_back(stage)


def returned(stage: Stage) -> None:
    left_out(stage)
    stage.ledger.clear_quarantine("edge", "gw-1", "penstock", "it answers")
    stage.looks.look()


def nobody_acted(stage: Stage) -> None:
    stage.change(STATES["held by a person"])
    stage.looks.escalate(stage.now + timedelta(minutes=15))


def astray(stage: Stage) -> None:
    written(stage.ledger, STATES["promoted"])
    of_gateway = {"fleet": "edge", "gateway": "gw-1"}
    with writing(stage.ledger.engine) as connection:
        good = {"change": "edge-1", "release": "sha256:good", "since": stage.now}
        connection.execute(insert(tables.known_good).values(**of_gateway, **good))
        connection.execute(
            insert(tables.gateway_states).values(**of_gateway, takes="sha256:other", at=stage.now)
        )
    stage.look_around()
    stage.look_around(after=ASTRAY_FOR)


def certificates_late(stage: Stage) -> None:
    life = {"issued_at": stage.now - timedelta(days=30), "expires": stage.now + timedelta(minutes=1)}
    with writing(stage.ledger.engine) as connection:
        row = {"serial": "1", "fleet": "edge", "gateway": "gw-1", **life}
        connection.execute(insert(tables.gateway_certificates).values(**row))
    stage.look_around()


def room_silent(stage: Stage) -> None:
    found = SilentRoomOf(workspace="chat", channel="!room", fleet="edge", why="penstock cannot join !room")
    stage.ledger.keep_silent_rooms("chat", [found], [])
    stage.look_around()


def room_heard(stage: Stage) -> None:
    stage.ledger.keep_silent_rooms("chat", [], [])
    stage.look_around()


def earlier(stage: Stage) -> None:
    then = stage.now - timedelta(hours=3)
    for number in range(FEW + 1):
        notice = Notice(
            key=f"k{number}", fleet="edge", state="started", level=NoticeLevel.INFO, headline="it", at=then
        )
        goes = {"chat": (Occasion.SAID, then)}
        stage.ledger.add_notices([Addressed(notice, "edge-1", waits=False, sinks=goes)])
    fold_old(stage.ledger, stage.now)


def goes_on(stage: Stage) -> None:
    """Have the change say that it waits for nothing."""
    row = stage.ledger.story("edge-1")
    assert row is not None
    told = row.told.model_validate({"name": "edge-1", **STATES["observing health"][1]})
    stage.ledger.record_story(row.order, told, 1, ())
    stage.looks.look()


def another_is_promoted(stage: Stage) -> None:
    if stage.ledger.story("edge-1") is None:
        stage.change(STATES["promoted"])
    another_ends(stage, ChangeKind.UPGRADE, Outcome.PROMOTED)


def another_ends(stage: Stage, kind: ChangeKind, outcome: Outcome, **more: Any) -> None:
    """Have a later change of the fleet end so, and look; `more` is of its order."""
    of_order: dict[str, Any] = {"fleet": "edge", "kind": kind, "requested_by": "ana", "reason": "CVE"}
    name = stage.ledger.open_change(ChangeOpening(key=f"another {outcome}", release="1.3.1", **of_order))
    result = ChangeResult(rollout=name, outcome=outcome, reason="it was")
    told = Told(name=name, phase=Phase.ENDED, moved=True, result=result)
    stage.ledger.record_story(ChangeOrder(**of_order, **more), told, 0, ())
    stage.ledger.close_change(ChangeEnding(change=name, outcome=outcome, sentence="it was"))
    stage.looks.look()


def is_back(stage: Stage) -> None:
    stage.ledger.clear_quarantine("edge", "gw-1", "penstock", "it answers")
    stage.looks.look()


def brought_back(stage: Stage) -> None:
    with writing(stage.ledger.engine) as connection:
        connection.execute(update(tables.gateway_states).values(takes="sha256:good"))
    stage.look_around(after=2 * ASTRAY_FOR)


def renewed(stage: Stage) -> None:
    with writing(stage.ledger.engine) as connection:
        connection.execute(update(tables.gateway_certificates).values(expires=stage.now + timedelta(days=60)))
    stage.look_around()


ENDINGS: dict[NoticeState, Callable[[Stage], None]] = {
    NoticeState.ENDED_INCOMPLETE: another_is_promoted,
    NoticeState.ENDED_HELD: another_is_promoted,
    NoticeState.HARM_FOUND: another_is_promoted,
    NoticeState.UNWATCHED: of_entry(WATCHED, "edge/edge-1"),
    NoticeState.NOT_TAKEN_BACK: of_entry(TAKEN_BACK, "edge/gw-1"),
    NoticeState.WEDGED: Stage.look_around,
    NoticeState.UNBEGUN: lambda stage: stage.look_around(Wrong({}, {}, {"edge": None})),
    NoticeState.QUARANTINED: is_back,
    NoticeState.STEERED_BY_HAND: is_returned,
    NoticeState.DRAIN_HELD: of_entry(DrainEvent.EMPTIED, "gw-1/edge-1"),
    NoticeState.ASTRAY: brought_back,
    NoticeState.CERTIFICATES_LATE: renewed,
    NoticeState.ROOM_SILENT: room_heard,
    NoticeState.AUDIT_BROKEN: Stage.look_around,
    NoticeState.PART_AWAY: Stage.look_around,
    NoticeState.NOBODY_ACTED: goes_on,
}
"""How what waits ends, where it is not by its change saying so no more."""

SCENES: dict[NoticeState, Callable[[Stage], None]] = {
    NoticeState.STARTED: of_state("switching"),
    NoticeState.WAITING_FOR_WINDOW: of_state("starting", window=CLOSED),
    NoticeState.WAITING_FOR_CAPACITY: of_state("waiting for capacity"),
    NoticeState.NOT_SWITCHED: of_state("a host refuses the switch"),
    NoticeState.WAITING_FOR_TESTS: of_state("waiting for tests"),
    NoticeState.WAITING_FOR_SECOND_PERSON: of_state("waiting for a second person"),
    NoticeState.WAITING_FOR_APPROVAL: of_entry(APPROVAL_AWAITED, PLAN),
    NoticeState.APPROVED: approved,
    NoticeState.WAVE_PASSED: wave_passed,
    NoticeState.HELD: of_state("held by a person"),
    NoticeState.HARM_TO_DECIDE: of_state("held after harm where its waves have passed"),
    NoticeState.ONLY_OBSERVED: of_state("going on against its verdict"),
    NoticeState.RESUMED: resumed,
    NoticeState.BLIND: blind,
    NoticeState.ROLLING_BACK: of_state("rolling back"),
    NoticeState.ROLLBACK_INCOMPLETE: of_state("rolling back, one missing"),
    NoticeState.WEDGED: lambda stage: stage.look_around(
        Wrong({}, {("edge", "edge-1"): "it does not answer"})
    ),
    NoticeState.UNBEGUN: lambda stage: stage.look_around(Wrong({}, {}, UNBEGUN)),
    NoticeState.PROMOTED: of_end(Outcome.PROMOTED),
    NoticeState.ROLLED_BACK: of_end(Outcome.ROLLED_BACK),
    NoticeState.ENDED_INCOMPLETE: of_end(Outcome.ROLLBACK_INCOMPLETE),
    NoticeState.REFUSED: of_end(Outcome.REFUSED),
    NoticeState.ABORTED: of_end(Outcome.ABORTED),
    NoticeState.ENDED_HELD: of_end(Outcome.HELD),
    NoticeState.QUARANTINED: left_out,
    NoticeState.STEERED_BY_HAND: steered_by_hand,
    NoticeState.RETURNED: returned,
    NoticeState.DRAIN_HELD: of_entry(DrainEvent.HELD, "gw-1/edge-1"),
    NoticeState.DRAINED: of_entry(DRAIN_OVER, "part 001-0001/edge-1"),
    NoticeState.HARM_FOUND: of_entry(HARM, "edge/edge-1"),
    NoticeState.UNWATCHED: of_entry(UNWATCHED, "edge/edge-1"),
    NoticeState.NOT_TAKEN_BACK: of_entry(NOT_TAKEN_BACK, "edge/gw-1"),
    NoticeState.ASTRAY: astray,
    NoticeState.CERTIFICATES_LATE: certificates_late,
    NoticeState.ROOM_SILENT: room_silent,
    NoticeState.AUDIT_BROKEN: lambda stage: stage.look_around(Wrong({NoticeState.AUDIT_BROKEN: "it is"}, {})),
    NoticeState.PART_AWAY: lambda stage: stage.look_around(Wrong({NoticeState.PART_AWAY: "it is"}, {})),
    NoticeState.OVER: over,
    NoticeState.NOBODY_ACTED: nobody_acted,
    NoticeState.EARLIER: earlier,
}
TOLD_ON_REQUEST = {NoticeState.TEST}
"""What `penstock notice test` sends, which has its own test."""


@pytest.mark.parametrize("state", [one for one in NoticeState if one not in TOLD_ON_REQUEST])
def test_each_state_is_told_as_loud_as_it_is_and_for_as_long_as_it_lasts(
    ledger: Ledger, state: NoticeState
) -> None:
    stage = Stage(ledger)
    SCENES[state](stage)
    assert stage.told().get(state.value) is KINDS[state].level
    waits = {one.notice.state for one in ledger.waiting_notices()}
    assert (state.value in waits) == KINDS[state].waits


@pytest.mark.parametrize("state", [state for state, kind in KINDS.items() if kind.waits])
def test_each_state_that_waits_ends_and_wakes_nobody_afterwards(ledger: Ledger, state: NoticeState) -> None:
    stage = Stage(ledger)
    SCENES[state](stage)
    assert state.value in {one.notice.state for one in ledger.waiting_notices()}
    ends = ENDINGS.get(state, goes_on)
    ends(stage)
    assert [one.notice.key for one in ledger.waiting_notices()] == []
    assert stage.looks.escalate(stage.now + timedelta(days=1)) == ()


def test_nothing_that_the_engine_reports_ends_while_it_does_not_answer(ledger: Ledger) -> None:
    """The engine was restarted, and everybody was told that the stuck change went on."""
    stage = Stage(ledger)
    stage.look_around(Wrong({}, {("edge", "edge-1"): "STUCK"}, UNBEGUN))
    stage.look_around(Wrong({NoticeState.PART_AWAY: "the engine does not answer"}, {}))
    waits = {one.notice.state for one in ledger.waiting_notices()}
    assert waits == {NoticeState.WEDGED, NoticeState.UNBEGUN, NoticeState.PART_AWAY}


def test_harm_after_a_promotion_needs_nobody_any_more_once_it_is_accepted(
    ledger: Ledger,
) -> None:
    stage = Stage(ledger)
    stage.entry(HARM, "edge/edge-1")
    (waits,) = ledger.waiting_notices()
    assert [(offer.verb, offer.hold_of) for offer in waits.notice.offers] == [
        (Verb.ROLL_BACK, None),
        (Verb.RESUME, "edge-1.harm-1"),
    ]
    stage.entry(HARM_ACCEPTED, "edge/edge-1")
    assert ledger.waiting_notices() == ()


def harm_after_a_promotion(stage: Stage, *, undecided: bool = True) -> None:
    """Have harm found after a promotion, whose release gateways still have as known-good where undecided."""
    for kind, release in ((ChangeKind.INSTALL, OLD), (ChangeKind.UPGRADE, NEW)):
        of_order: dict[str, Any] = {"fleet": "edge", "kind": kind, "requested_by": "ana", "reason": "CVE"}
        name = stage.ledger.open_change(ChangeOpening(key=kind, release=release.version, **of_order))
        if undecided:
            moved = KnownGoodBatch(fleet="edge", change=name, releases={"gw-1": release})
            stage.ledger.record_known_good_batch(moved)
        stage.ledger.close_change(ChangeEnding(change=name, outcome=Outcome.PROMOTED, sentence="it was"))
    stage.looks.look()
    stage.entry(HARM, f"edge/{name}", f"9 of 10 logins fail{TO_DECIDE}")


def leave_all(stage: Stage) -> None:
    """Have changes end that leave each of the states behind which a later change may settle."""
    harm_after_a_promotion(stage, undecided=False)
    stage.entry(UNWATCHED, "edge/edge-2")
    tried_in_vain(stage, 0)
    another_ends(stage, ChangeKind.UPGRADE, Outcome.HELD)


OF_THE_WHOLE: dict[str, tuple[ChangeKind, Outcome, dict[str, Any]]] = {
    "promoted": (ChangeKind.UPGRADE, Outcome.PROMOTED, {}),
    "rolled back": (ChangeKind.GO_BACK, Outcome.ROLLED_BACK, {}),
}
OF_SOMETHING_ELSE: dict[str, tuple[ChangeKind, Outcome, dict[str, Any]]] = {
    "credentials": (ChangeKind.RELOAD, Outcome.PROMOTED, {}),
    "settings": (ChangeKind.CONFIGURE, Outcome.PROMOTED, {}),
    "settings went back": (ChangeKind.CONFIGURE, Outcome.ROLLED_BACK, {"cause": "edge-1"}),
    "adopted": (ChangeKind.ADOPT, Outcome.PROMOTED, {}),
    "installed": (ChangeKind.INSTALL, Outcome.PROMOTED, {}),
    "a canary went back": (ChangeKind.UPGRADE, Outcome.ROLLED_BACK, {}),
    "one gateway returned": (ChangeKind.GO_BACK, Outcome.ROLLED_BACK, {"bakes_on": True, "alone": ("gw-9",)}),
}


@pytest.mark.parametrize("end", [*OF_THE_WHOLE, *OF_SOMETHING_ELSE])
def test_only_a_promoted_upgrade_or_a_rollback_of_the_fleet_settles_what_earlier_changes_have_left(
    ledger: Ledger, end: str
) -> None:
    stage = Stage(ledger)
    leave_all(stage)
    assert {one.notice.state for one in ledger.waiting_notices()} >= LEFT
    kind, outcome, more = (OF_THE_WHOLE | OF_SOMETHING_ELSE)[end]
    another_ends(stage, kind, outcome, **more)
    left = LEFT & {one.notice.state for one in ledger.waiting_notices()}
    assert left == (LEFT if end in OF_SOMETHING_ELSE else set())


@pytest.mark.parametrize("end", [*OF_THE_WHOLE, *OF_SOMETHING_ELSE])
def test_no_change_settles_harm_about_which_no_operator_has_decided(ledger: Ledger, end: str) -> None:
    stage = Stage(ledger)
    harm_after_a_promotion(stage)
    kind, outcome, more = (OF_THE_WHOLE | OF_SOMETHING_ELSE)[end]
    another_ends(stage, kind, outcome, **more)
    assert [one.change for one in undecided_harm(ledger, "edge")] == ["edge-2"]
    assert NoticeState.HARM_FOUND in {one.notice.state for one in ledger.waiting_notices()}


def test_a_rollback_that_ends_late_settles_nothing_of_the_changes_after_it(ledger: Ledger) -> None:
    stage = Stage(ledger)
    stage.change((ChangeKind.GO_BACK, *STATES["rollback incomplete"][1:]))
    another_is_promoted(stage)
    stage.entry(UNWATCHED, "edge/edge-2")
    stage.ledger.close_change(
        ChangeEnding(change="edge-1", outcome=Outcome.ROLLED_BACK, sentence="it is back")
    )
    stage.looks.look()
    assert [one.notice.state for one in ledger.waiting_notices()] == [NoticeState.UNWATCHED]


def test_a_release_that_is_promoted_after_one_that_was_not_watched_settles_that(ledger: Ledger) -> None:
    """C1."""
    stage = Stage(ledger)
    stage.entry(UNWATCHED, "edge/edge-1")
    another_is_promoted(stage)
    assert ledger.waiting_notices() == ()


def test_an_incomplete_rollback_whose_gateways_are_back_since_is_over(ledger: Ledger) -> None:
    stage = Stage(ledger)
    SCENES[NoticeState.ENDED_INCOMPLETE](stage)
    [waits] = ledger.waiting_notices()
    back = "users call; gw-1 was brought back since: seen on its known-good at 2026-11-30 09:50:00 UTC"
    end = ChangeEnding(change=waits.subject, outcome=Outcome.ROLLED_BACK, sentence=back)
    ledger.close_change(end)
    stage.looks.look()
    assert ledger.waiting_notices() == ()
    newest = ledger.notice_rows(["edge"], 500)[0].notice
    assert (newest.state, newest.headline.endswith(back)) == (NoticeState.ROLLED_BACK, True)


def tried_in_vain(stage: Stage, number: int, gateway: str = "gw-1") -> str:
    """Have penstock try to bring a gateway back that refuses; return the change's name."""
    order = ChangeOrder(fleet="edge", kind=ChangeKind.GO_BACK, bakes_on=True, reason="it drifted")
    opening = ChangeOpening(
        key=f"try-{number}",
        fleet="edge",
        kind=ChangeKind.GO_BACK,
        requested_by=PENSTOCK,
        reason="it drifted",
        release="1.1.6",
    )
    name, why = stage.ledger.open_change(opening), {gateway: "refuses"}
    stage.ledger.record_tries("edge", {gateway: True}, name)
    row = Quarantine(
        fleet="edge", gateway=gateway, reason="refuses", person=PENSTOCK, since=datetime.now(UTC)
    )
    stage.ledger.set_quarantine(row)
    end = Outcome.ROLLBACK_INCOMPLETE
    result = ChangeResult(rollout=name, outcome=end, reason=f"{gateway}: refuses", incomplete=why)
    stage.ledger.record_story(order, Told(name=name, phase=Phase.ENDED, result=result), 0, [])
    stage.ledger.close_change(ChangeEnding(change=name, outcome=end, sentence=result.reason))
    stage.looks.look()
    return name


def incomplete_pages(ledger: Ledger) -> list[str | None]:
    rows = ledger.notice_rows(["edge"], 500)
    state = NoticeState.ENDED_INCOMPLETE
    return [row.notice.change for row in reversed(rows) if row.notice.state == state]


def test_a_gateway_that_penstock_tries_in_vain_again_and_again_pages_once(ledger: Ledger) -> None:
    stage = Stage(ledger)
    tries = [tried_in_vain(stage, number) for number in range(5)]
    assert incomplete_pages(ledger) == tries[:1]
    other = tried_in_vain(stage, 5, "gw-2")
    assert incomplete_pages(ledger) == [tries[0], other], "of another gateway it is news"


def test_a_first_try_in_vain_of_a_gateway_that_an_operator_has_returned_pages(ledger: Ledger) -> None:
    stage = Stage(ledger)
    first = tried_in_vain(stage, 0)
    ledger.hand_over("edge", {"gw-1": "it runs another release"}, "ana", "mended")
    tries = [tried_in_vain(stage, number) for number in (1, 2)]
    assert incomplete_pages(ledger) == [first, tries[0]]


@pytest.mark.parametrize("action", sorted(ACTIONS))
def test_each_entry_that_says_something_to_people_is_told_or_settles_what_was(
    ledger: Ledger, action: str
) -> None:
    stage = Stage(ledger)
    of_plan = action == APPROVAL_AWAITED or action.startswith("plan")
    subject = PLAN if of_plan else "edge/gw-1" if action.startswith("gateway") else "gw-1/edge-1"
    if action in {*DrainEvent}:
        stage.entry(DrainEvent.HELD, subject)
    elif action == "gateway returned":
        left_out(stage)
    elif action == WATCHED:
        stage.entry(UNWATCHED, subject)
    elif action == HARM_ACCEPTED:
        stage.entry(HARM, subject)
    elif action == TAKEN_BACK:
        stage.entry(NOT_TAKEN_BACK, subject)
    before = {one.notice.key for one in ledger.waiting_notices()}
    stage.entry(action, subject)
    settled = before - {one.notice.key for one in ledger.waiting_notices()}
    assert settled or (stage.told().keys() - ({"drain_held"} if action != DrainEvent.HELD else set()))


def test_a_person_who_ends_all_drains_of_a_fleet_settles_what_each_of_them_waited_for(ledger: Ledger) -> None:
    stage = Stage(ledger)
    stage.entry(DrainEvent.HELD, "gw-1/edge-1")
    stage.entry(DrainEvent.HELD, "gw-2/edge-1")
    stage.entry(DrainEvent.ENDED, "edge/edge-1")
    assert ledger.waiting_notices() == ()


@pytest.mark.parametrize(
    ("name", "more", "said"),
    [
        ("starting", {"window": CLOSED}, "is accepted, and waits for its window"),
        ("held while it waits for its window", {}, "is accepted, and waits for its window"),
        ("switching", {}, "has started"),
        ("observing health", {"window": CLOSED}, "has started"),
    ],
)
def test_a_change_that_waits_for_its_window_is_not_said_to_have_started(
    ledger: Ledger, name: str, more: dict[str, Any], said: str
) -> None:
    of_state(name, **more)(Stage(ledger))
    (one,) = [row.notice for row in ledger.notice_rows(["edge"], 9) if row.notice.state == "started"]
    assert one.headline == f"edge: edge-1 {said}: CVE"


def test_drains_of_a_promoted_change_are_over_when_the_last_part_is_and_not_before(ledger: Ledger) -> None:
    stage = Stage(ledger)
    plan = planned(facts_of(120))
    parts = len(parted(plan).header.keys)
    with_plan(ledger, plan, "promoted")
    for number in range(1, parts):
        stage.entry(DRAIN_OVER, f"part 001-{number:04}/edge-1")
        stage.entry(DRAIN_OVER, f"gw-{number}/edge-1")  # what was set aside has a drain of its own
    ours = [row.notice.headline for row in ledger.notice_rows(["edge"], 99) if row.notice.state == "drained"]
    assert ours == []
    stage.entry(DRAIN_OVER, f"part 001-{parts:04}/edge-1")
    ours = [row.notice.headline for row in ledger.notice_rows(["edge"], 99) if row.notice.state == "drained"]
    assert ours == [f"edge: what edge-1 left behind is drained empty, in all {parts} parts"]
    stage.entry(DRAIN_OVER, "gw-120/edge-1")
    again = [row.notice.headline for row in ledger.notice_rows(["edge"], 99) if row.notice.state == "drained"]
    assert again == ours


def test_what_is_empty_before_its_promotion_is_written_down_comes_with_the_last_part(ledger: Ledger) -> None:
    stage = Stage(ledger)
    plan = planned(facts_of(120))
    with_plan(ledger, plan, "promoting")
    stage.entry(DRAIN_OVER, "part 001-0001/edge-1")
    assert not [row for row in ledger.notice_rows(["edge"], 99) if row.notice.state == "drained"]


def with_plan(ledger: Ledger, plan: Plan, name: str) -> None:
    """Have a change in the ledger that is in this state, by that plan."""
    written(ledger, STATES[name])
    digest = ledger.record_plan(plan)
    with writing(ledger.engine) as connection:
        connection.execute(update(tables.changes).values(plan=digest))
    row = ledger.story("edge-1")
    assert row is not None
    ledger.record_story(row.order.model_copy(update={"plan": digest}), row.told, 1, ())
