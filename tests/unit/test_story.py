"""The story a change tells of itself, however the engine mixes up what its children say."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from policies.model.change import ChangeKind, ChangeOrder, ChangeResult, Outcome, Phase
from policies.model.command import MOST_GATEWAYS, Command, CommandKind
from policies.model.gates import GatePolicy
from policies.model.offer import Offer, Refusal, Verb
from policies.model.plan import Strategy
from policies.model.plan_part import PartKey, PlanHeader
from policies.model.report import GatewayProgress, RestoreReport, WaveReport
from policies.model.value import digest_of
from policies.model.verdict import Action, Decision, GateVerdict
from policies.model.way_back import Confirmation
from policies.planning.cohorts import LEFT_OUT, SET_ASIDE
from policies.planning.parts import parted
from policies.planning.plan import plan
from policies.status.story import KEPT_EVENTS, Story
from tests.unit.fleets import NEW, facts_of, planned, state

BEGAN = datetime(2026, 11, 20, 3, 0, tzinfo=UTC)
HEADER = parted(planned(facts_of(4))).header
PART = PartKey(wave=1, number=1)
BACK = (Offer(verb=Verb.ROLL_BACK, fleet="edge"),)
REPORTS = (
    RestoreReport(at=BEGAN, number=1, part=PART, reason="it is worse"),
    RestoreReport(
        at=BEGAN + timedelta(seconds=1), number=2, part=PART, reason="it is worse", names=("gw-2",)
    ),
    RestoreReport(
        at=BEGAN + timedelta(seconds=1),
        number=3,
        part=PART,
        reason="it is worse",
        names=("gw-2",),
        missing={"gw-1": "nft says no"},
        tried=True,
    ),
)
CONFIRM = Confirmation(
    reason="0.9 is not the known-good of gw-1",
    within=timedelta(minutes=5),
    change=digest_of(b"asked"),
    known_good=digest_of(b"known-good"),
)


ORDER = ChangeOrder(
    fleet="edge",
    kind=ChangeKind.UPGRADE,
    plan=HEADER.digest,
    source="http://repository",
    requested_by="ana",
    reason="CVE-2030-1",
)


def story_of(kind: ChangeKind = ChangeKind.UPGRADE, confirm: Confirmation | None = None) -> Story:
    order = ORDER.model_copy(update={"kind": kind, "confirm": confirm})
    story = Story(order, BEGAN)
    story.know("edge-2", HEADER)
    return story


def wave(number: int, **more: object) -> WaveReport:
    told = {"change": "edge-1", "at": BEGAN, "number": number, "wave": 1, "phase": Phase.OBSERVING, **more}
    return WaveReport.model_validate(told)


def test_the_share_of_new_sessions_on_the_new_release_is_stated_while_it_is_not_everybody() -> None:
    """Screens 4: no screen named the share of a blue-green change at any time."""
    story = story_of()
    story.take(wave(1, share=10, counts={"waiting": 4}))
    assert "new sessions go" not in story.status().users
    for number, share in ((2, 10), (3, 10), (4, 50)):
        story.take(wave(number, share=share, counts={"on trial": 4}))
        assert story.status().users.startswith(
            f"4 of 4 gateways, where {share} % of new sessions go to the new release; "
        )
    noted = [event.sentence for event in story.status().events if "new sessions go" in event.sentence]
    assert noted == [f"{share} % of new sessions go to the new release" for share in (10, 50)]
    story.take(wave(5, share=100, counts={"on trial": 4}))
    assert "where" not in story.status().users


def test_a_rollback_that_waits_for_a_second_person_names_who_asks_and_why() -> None:
    """Screens 13: it read as if the rollback were happening, without who asked for it."""
    story = story_of(ChangeKind.GO_BACK, CONFIRM)
    story.wait(CONFIRM, BEGAN)
    assert story.status().needs_you == (
        "ana asks to approve or reject a rollback: 0.9 is not the known-good of gw-1. Reason: CVE-2030-1"
    )


def command(kind: CommandKind, person: str = "ben", **more: object) -> Command:
    told = {"id": f"{kind} {person}", "kind": kind, "person": person, "reason": "why not", **more}
    return Command.model_validate(told)


def decided(action: Action, reason: str = "3 of 40 bad") -> Decision:
    return Decision(action=action, verdict=GateVerdict.NOT_ENOUGH_DATA, reason=reason)


def sentences(story: Story) -> list[str]:
    return [event.sentence for event in story.status().events]


@given(st.permutations(REPORTS))
def test_a_gateway_that_is_missing_stays_so_whichever_report_arrives_last(
    reports: list[RestoreReport],
) -> None:
    story = story_of()
    for report in reports:
        story.take_restore(report)
    status = story.status()
    assert status.incomplete == ("gw-1: nft says no",)
    assert status.outcome is Outcome.ROLLBACK_INCOMPLETE
    assert status.needs_you == "1 gateway is not back: gw-1: nft says no"
    assert status.can_do == (Offer(verb=Verb.QUARANTINE, fleet="edge", gateway="gw-1"),)


def test_a_rollback_whose_first_try_goes_on_is_under_way_and_not_incomplete() -> None:
    """`status` showed ROLLBACK INCOMPLETE for two seconds, above gateways that were being tried."""
    story, why = story_of(), {"gw-1": "nft says no"}
    story.take_restore(RestoreReport(at=BEGAN, number=1, part=PART, reason="it is worse", missing=why))
    status = story.status()
    assert (status.phase, status.outcome, status.needs_you) == (Phase.ROLLING_BACK, None, None)
    assert (status.incomplete, status.not_back) == ((), 1)
    assert sentences(story)[-1] == "not back yet: gw-1: nft says no"
    tried = RestoreReport(at=BEGAN, number=2, part=PART, reason="it is worse", missing=why, tried=True)
    story.take_restore(tried)
    assert story.status().outcome is Outcome.ROLLBACK_INCOMPLETE
    assert sentences(story)[-1] == "ROLLBACK INCOMPLETE: gw-1: nft says no"


def test_a_part_that_fails_by_itself_keeps_its_gateways_named_until_it_goes_on() -> None:
    story = story_of()
    for report in REPORTS:
        story.take_restore(report)
    later, why = BEGAN + timedelta(minutes=1), "the ledger has lost it"
    told = {"part": PART, "reason": "it is worse", "beginning": (1,)}
    story.take_restore(RestoreReport.model_validate({**told, "at": later, "failed": why}))
    status = story.status()
    assert status.incomplete == ("gw-1: nft says no", f"part 1/1: {why}")
    assert status.needs_you == (
        "1 gateway is not back: gw-1: nft says no; "
        f"1 parts of up to 50 gateways do not go back: part 1/1: {why}"
    )
    assert status.waits_for == ("gw-1",)
    assert status.can_do == (Offer(verb=Verb.QUARANTINE, fleet="edge", gateway="gw-1"),)
    back = later + timedelta(minutes=1)
    story.take_restore(RestoreReport.model_validate({**told, "at": back, "number": 1, "names": ("gw-1",)}))
    assert (story.status().incomplete, story.status().needs_you) == ((), None)


def test_a_report_is_newer_by_its_number_although_the_clock_was_set_back() -> None:
    story = story_of()
    story.take(wave(7, decision=decided(Action.CONTINUE, "7 of 40 bad")))
    earlier = BEGAN - timedelta(hours=1)
    story.take(wave(8, at=earlier, decision=decided(Action.ROLL_BACK, "8 of 40 bad")))
    story.take(wave(6, at=BEGAN + timedelta(seconds=1), decision=decided(Action.CONTINUE, "6 of 40 bad")))
    assert story.status().why == "8 of 40 bad"


def test_a_part_that_is_begun_again_is_newer_than_the_one_that_failed_whatever_its_numbers() -> None:
    story, told = story_of(), {"at": BEGAN, "part": PART, "reason": "it is worse"}
    story.take_restore(RestoreReport.model_validate({**told, "beginning": (0, 1), "number": 40}))
    story.take_restore(
        RestoreReport.model_validate({**told, "beginning": (0, 2), "missing": {"gw-1": "silent"}})
    )
    story.take_restore(RestoreReport.model_validate({**told, "beginning": (0, 1), "number": 41}))
    assert story.status().not_back == 1


@given(st.permutations([wave(n, decision=decided(Action.CONTINUE, f"{n} of 40 bad")) for n in range(5)]))
def test_a_report_that_was_overtaken_changes_nothing(reports: list[WaveReport]) -> None:
    story = story_of()
    for report in reports:
        story.take(report)
    assert story.status().why == "4 of 40 bad"


def test_a_wait_for_capacity_is_the_reason_while_it_lasts_and_two_events_whatever_its_figures() -> None:
    story, carries = story_of(), "group main can carry 90 sessions and needs"
    for number, wanted in enumerate((96, 99, 97)):
        story.take(wave(number, phase=Phase.SWITCHING, short=(f"{carries} {wanted}",)))
    assert story.status().why == f"gateways wait for capacity: {carries} 97"
    assert story.status().next.startswith("gateways that wait start by themselves when there is capacity")
    story.take(wave(3, phase=Phase.SWITCHING))
    assert "capacity" not in story.status().why + story.status().next
    assert [told for told in sentences(story) if "capacity" in told] == [
        f"gateways wait for capacity: {carries} 96",
        "no gateway waits for capacity any more",
    ]


def test_a_hold_is_the_reason_before_a_wait_for_capacity() -> None:
    story = story_of()
    story.take(wave(1, phase=Phase.SWITCHING, short=("group main can carry 1",)))
    story.hear(command(CommandKind.HOLD, "ben"), BEGAN)
    assert story.status().why == "held by ben: why not"


def test_what_is_told_twice_is_one_event() -> None:
    story = story_of()
    on_trial = (GatewayProgress(gateway="gw-1", wave=1, state="on trial"),)
    for number in range(3):
        story.take(wave(number, gateways=on_trial, decision=decided(Action.CONTINUE)))
    told = sentences(story)
    assert len(told) == len(set(told))
    assert "gw-1 on trial" in told


@given(st.integers(0, 3 * KEPT_EVENTS))
def test_no_event_is_forgotten_without_being_counted(notes: int) -> None:
    story = story_of()
    for number in range(notes):
        story.note(f"note {number}", BEGAN)
    status = story.status()
    assert len(status.events) <= KEPT_EVENTS
    assert status.earlier_events + len(status.events) == notes + 1  # and the request itself
    assert notes == 0 or status.events[-1].sentence == f"note {notes - 1}"


def test_a_story_that_was_cut_goes_on_where_it_was() -> None:
    story = story_of()
    story.take(wave(1, counts={"on trial": 1}))
    story.hear(command(CommandKind.HOLD, "ben"), BEGAN)
    order = ChangeOrder(fleet="edge", kind=ChangeKind.UPGRADE, plan=HEADER.digest, reason="CVE-2030-1")
    again = Story(order, BEGAN, story.dump())
    again.know("edge-2", HEADER)
    assert again.status().events == story.status().events
    assert again.holds == {"ben": "why not"}
    assert again.sessions_moved


def test_a_report_that_was_under_way_when_a_person_held_lifts_no_hold() -> None:
    story = story_of()
    story.hear(command(CommandKind.HOLD, "ben"), BEGAN)
    story.take(wave(1, counts={"on trial": 1}))
    assert story.holds == {"ben": "why not"}


@pytest.mark.parametrize("kind", [CommandKind.HOLD, CommandKind.ABORT, CommandKind.PROMOTE])
def test_what_can_no_longer_be_held_says_so(kind: CommandKind) -> None:
    story = story_of()
    story.begin_to_promote(BEGAN)
    refusal = story.refusal_of(command(kind, "ben"))
    assert refusal == Refusal(sentence="edge-2 is being promoted", next=BACK)
    order = ChangeOrder(fleet="edge", kind=ChangeKind.INSTALL, plan=HEADER.digest, reason="first")
    first = Story(order, BEGAN)
    assert "is an installation" in str(first.refusal_of(command(kind, "ben")))


def test_the_hold_of_one_person_is_lifted_by_that_person_or_by_name() -> None:
    story = story_of()
    for person in ("ana", "ben"):
        story.hear(command(CommandKind.HOLD, person), BEGAN)
    assert story.status().why == "held by ana: why not; ben: why not"
    refusal = story.refusal_of(command(CommandKind.RESUME, "carl"))
    assert refusal is not None
    assert refusal.next == (Offer(verb=Verb.RESUME, fleet="edge", hold_of="ana"),)
    assert "still held by ben" in story.hear(command(CommandKind.RESUME, "ana"), BEGAN)
    others = command(CommandKind.RESUME, "carl", hold_of="ben")
    assert story.refusal_of(others) is None
    assert story.hear(others, BEGAN).startswith("Resumed")
    assert story.holds == {}


def test_a_resume_where_only_a_verdict_holds_says_that_there_is_nothing_to_resume() -> None:
    """A fresh reader's M4: "Resumed" was the answer, and nothing was."""
    story = story_of()
    story.take(wave(1, phase=Phase.HELD))
    before = story.status().phase
    assert story.hear(command(CommandKind.RESUME, "ana"), BEGAN).startswith("There is nothing to resume")
    assert story.status().phase is before


def test_a_hold_during_a_switch_says_that_it_is_finished_first() -> None:
    story = story_of()
    story.take(wave(1, phase=Phase.SWITCHING, switching=True))
    assert "are finished" in story.hear(command(CommandKind.HOLD), BEGAN)


def test_an_abort_is_refused_once_sessions_have_moved() -> None:
    story = story_of()
    story.take(wave(1, counts={"staging": 1}))
    assert story.refusal_of(command(CommandKind.ABORT)) is None
    story.take(wave(2, counts={"on trial": 1}))
    refusal = story.refusal_of(command(CommandKind.ABORT))
    assert refusal == Refusal(sentence="sessions have moved already", next=BACK)


def test_whoever_asked_for_an_upgrade_cannot_promote_it_without_proof() -> None:
    story = story_of()
    assert story.refusal_of(command(CommandKind.PROMOTE, "ben")) is not None  # there is no verdict yet
    story.take(wave(1, decision=decided(Action.HOLD_FOR_HUMAN)))
    assert story.refusal_of(command(CommandKind.PROMOTE, "ben")) is None
    refusal = story.refusal_of(command(CommandKind.PROMOTE, "ana"))
    assert refusal is not None
    assert "two other people" in refusal.sentence


def test_another_name_of_whoever_asked_or_voted_has_no_vote_and_approves_nothing() -> None:
    """A change compares the names that come with a command: a vote that was stored is in no ledger."""
    story = story_of()
    story.take(wave(1, decision=decided(Action.HOLD_FOR_HUMAN)))
    asked = story.refusal_of(command(CommandKind.PROMOTE, "ana.b", known_as=("ana",)))
    assert "ana asked for this upgrade" in str(asked)
    story.hear(command(CommandKind.PROMOTE, "ben"), BEGAN)
    voted = story.refusal_of(command(CommandKind.PROMOTE, "ben.c", known_as=("ben",)))
    assert str(voted) == "ben.c has voted as ben, and one person has one vote"
    assert story.refusal_of(command(CommandKind.PROMOTE, "carla", known_as=("carla.d",))) is None
    back = story_of(ChangeKind.GO_BACK, CONFIRM)
    back.wait(CONFIRM, BEGAN)
    yes = command(CommandKind.APPROVE, "ana.b", approves=CONFIRM.change, known_as=("ana",))
    assert str(back.refusal_of(yes)) == "ana asked for this rollback; somebody else has to approve it"


def test_each_vote_to_promote_is_answered_with_how_many_there_are_and_what_follows() -> None:
    story = story_of()
    story.take(wave(1, phase=Phase.HELD, decision=decided(Action.HOLD_FOR_HUMAN)))
    once = story.hear(command(CommandKind.PROMOTE), BEGAN)
    assert once.startswith("1 of 2 votes, by ben: nothing follows until one more person says so")
    assert story.hear(command(CommandKind.PROMOTE), BEGAN) == once
    assert story.status().can_do[0].note == "ben did; others have to, too"
    twice = story.hear(command(CommandKind.PROMOTE, "carla"), BEGAN)
    assert twice.startswith("2 of 2 votes, by ben and carla: wave 1 goes on without proof")


@pytest.mark.parametrize(
    "report",
    [
        wave(2, decision=decided(Action.HOLD)),
        wave(2),
        wave(2, wave=2, decision=decided(Action.HOLD_FOR_HUMAN)),
    ],
)
def test_a_vote_counts_no_more_once_there_is_another_verdict_window_or_wave(report: WaveReport) -> None:
    story = story_of()
    story.take(wave(1, decision=decided(Action.HOLD_FOR_HUMAN)))
    story.hear(command(CommandKind.PROMOTE), BEGAN)
    story.take(report)
    said = story.hear(command(CommandKind.PROMOTE, "carla"), BEGAN)
    assert said.startswith("1 of 2 votes, by carla:")


def test_an_approval_is_somebody_elses_and_of_what_was_shown() -> None:
    story = story_of(ChangeKind.GO_BACK, CONFIRM)
    yes = command(CommandKind.APPROVE, approves=CONFIRM.change)
    assert str(story.refusal_of(yes)) == "nothing waits for an answer in edge any more"
    story.wait(CONFIRM, BEGAN)
    assert story.status().confirm == CONFIRM.change
    assert CONFIRM.reason in (story.status().needs_you or "")
    assert story.refusal_of(yes) is None
    own = story.refusal_of(yes.model_copy(update={"person": "ana"}))
    assert str(own) == "ana asked for this rollback; somebody else has to approve it"
    other = story.refusal_of(yes.model_copy(update={"approves": digest_of(b"another")}))
    assert other is not None
    assert "another change" in other.sentence
    assert story.refusal_of(command(CommandKind.REJECT, "ana")) is None
    held = story.refusal_of(command(CommandKind.HOLD))
    assert held is not None
    assert [offer.verb for offer in held.next] == [Verb.APPROVE, Verb.REJECT, Verb.ROLL_BACK]
    story.answered()
    assert story.status().confirm is None


def test_only_a_gateway_that_is_waited_for_is_given_up() -> None:
    story = story_of()
    for report in REPORTS:
        story.take_restore(report)
    assert story.refusal_of(command(CommandKind.QUARANTINE, gateways=("gw-1",))) is None
    refusal = story.refusal_of(command(CommandKind.QUARANTINE, gateways=("gw-2",)))
    assert str(refusal) == "gw-2 is not waited for; waited for: gw-1: nft says no"


def test_a_lost_site_is_given_up_with_one_command_and_who_is_back_meanwhile_is_named() -> None:
    story, sites = story_of(), (PART, PartKey(wave=2, number=7))
    for number, part in enumerate(sites, start=1):
        missing = {f"gw-{number}{one:02}": "does not answer" for one in range(20)}
        story.take_restore(
            RestoreReport(at=BEGAN, part=part, reason="it is worse", missing=missing, tried=True)
        )
    lost = tuple(story.status().waits_for)
    given_up = command(CommandKind.QUARANTINE, gateways=(*lost, "gw-9"))
    assert story.refusal_of(given_up) is None
    assert story.waited_for(given_up) == {sites[0]: lost[:20], sites[1]: lost[20:]}
    said = story.hear(given_up, BEGAN)
    assert said.startswith("40 gateways (gw-100, gw-101, ")
    assert said.endswith(
        "gw-109 and 30 more) are given up here, and named until somebody returns them; then penstock brings "
        "each back to its known-good. gw-9 is not waited for any more, and left out, too."
    )


def test_what_a_change_tells_of_ten_thousand_gateways_that_are_not_back_is_as_short_as_of_fifty() -> None:
    story, why = story_of(), "no answer in time (restore gateway); is the agent running?"
    for number in range(1, 201):
        part = PartKey(wave=1, number=number)
        missing = {f"paris-edge-{number:03}-{one:02}": why for one in range(50)}
        report = RestoreReport(
            at=BEGAN, number=1, part=part, reason="it is worse", missing=missing, tried=True
        )
        story.take_restore(report)
    told, status = story.dump(), story.status()
    assert len(told.model_dump_json()) < 32 * 1024
    assert len([one for one in sentences(story) if one.startswith("ROLLBACK INCOMPLETE")]) == 10
    assert (status.not_back, len(status.waits_for)) == (10_000, 50)
    assert status.needs_you is not None
    assert status.needs_you.startswith("10000 gateways are not back: paris-edge-001-00: no answer in time")
    assert status.needs_you.endswith(" and 9990 more")
    one = command(CommandKind.QUARANTINE, gateways=("paris-edge-199-07",))
    left = story.left()
    assert len(left.model_dump_json()) < 256 * 1024
    for resumed in (story, Story(ORDER, BEGAN, told, left)):
        assert resumed.refusal_of(one) is None
        assert resumed.waited_for(one) == {PartKey(wave=1, number=199): one.gateways}
    last = RestoreReport(at=BEGAN, number=2, part=PART, reason="it is worse", names=("paris-edge-001-00",))
    story.take_restore(last)
    assert story.status().not_back == 9_950


def test_of_many_gateways_that_were_left_out_the_first_are_named_and_all_are_counted() -> None:
    story = story_of()
    aside = {f"gw-{one:03}": "in quarantine by ana: no power" for one in range(50)}
    story.take(wave(1, left_out=aside, counts={LEFT_OUT: 1_250, SET_ASIDE: 1}))
    story.take(wave(2, aside={"gw-999": "it rebooted"}, counts={LEFT_OUT: 1_250, SET_ASIDE: 1}))
    told = story.status()
    assert (len(told.aside), told.more_aside) == (50, 1_201)
    assert "gw-999" in told.aside
    story.end(ChangeResult(rollout="edge-2", outcome=Outcome.PROMOTED, reason="every wave passed"), BEGAN)
    assert "without 1251 gateways, which were left out" in story.status().what


def test_one_command_gives_up_a_thousand_gateways_and_no_more() -> None:
    names = tuple(f"gw-{number:04}" for number in range(MOST_GATEWAYS + 1))
    written = command(CommandKind.QUARANTINE).model_dump(mode="json")
    assert (
        "gateways" not in written
    )  # every other order stays as those know it who have not been upgraded yet
    assert len(Command.model_validate(written | {"gateways": names[1:]}).gateways) == MOST_GATEWAYS
    with pytest.raises(ValidationError, match="at most 1000 items"):
        Command.model_validate(written | {"gateways": names})


def test_a_quarantine_of_one_gateway_is_read_as_it_was_written_before_one_could_name_several() -> None:
    written = command(CommandKind.QUARANTINE, gateways=("gw-1",)).model_dump(mode="json")
    del written["gateways"]
    assert Command.model_validate(written | {"gateway": "gw-1"}).gateways == ("gw-1",)
    assert Command.model_validate(written | {"gateway": None}).gateways == ()


@pytest.mark.parametrize("kind", [kind for kind in CommandKind if kind is not CommandKind.ROLL_BACK])
def test_while_it_goes_back_a_change_takes_no_other_order(kind: CommandKind) -> None:
    story = story_of()
    story.begin_to_go_back("it is worse", BEGAN)
    assert story.refusal_of(command(kind))
    assert story.refusal_of(command(CommandKind.ROLL_BACK)) is None


@pytest.mark.parametrize("kind", list(CommandKind))
def test_a_change_that_has_ended_names_what_can_be_done_instead(kind: CommandKind) -> None:
    story = story_of()
    story.end(ChangeResult(rollout="edge-2", outcome=Outcome.PROMOTED, reason="every wave passed"), BEGAN)
    refusal = story.refusal_of(command(kind))
    assert refusal is not None
    assert refusal.next == BACK


@pytest.mark.parametrize("kind", list(ChangeKind))
@pytest.mark.parametrize("phase", [phase for phase in Phase if phase is not Phase.ENDED])
def test_in_every_phase_all_five_sentences_say_something(kind: ChangeKind, phase: Phase) -> None:
    story = story_of(kind)
    story.enter(phase, BEGAN)
    status = story.status()
    assert all((status.what, status.users, status.why, status.next, status.can_do))
    assert all(event.sentence for event in status.events)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_however_it_ended_all_five_sentences_say_something(outcome: Outcome) -> None:
    story = story_of()
    story.end(ChangeResult(rollout="edge-2", outcome=outcome, reason="so it is"), BEGAN)
    status = story.status()
    assert (status.phase, status.outcome, status.why) == (Phase.ENDED, outcome, "so it is")
    assert all((status.what, status.users, status.next, status.can_do))
    assert status.needs_you is None


def test_gateways_that_were_left_out_are_named_with_why() -> None:
    story = story_of()
    story.take(wave(1, aside={"gw-3": "it rebooted"}))
    assert story.status().aside == {"gw-3": "it rebooted"}
    assert "gw-3 left out and sent back: it rebooted" in sentences(story)


def test_a_promotion_without_some_gateways_says_so_and_does_not_speak_of_every_gateway() -> None:
    story = story_of()
    story.take(wave(1, aside={"gw-3": "it rebooted"}))
    story.end(ChangeResult(rollout="edge-2", outcome=Outcome.PROMOTED, reason="every wave passed"), BEGAN)
    assert story.status().what.startswith("promoted to ")
    assert story.status().what.endswith("without 1 gateway, which was left out")


def planned_without(quarantined: dict[str, str], silent: tuple[str, ...] = ()) -> PlanHeader:
    """Return the header of a plan of four gateways, of which gw-4 is on the new release already."""
    fleet, states, known_good = facts_of(4)
    states["gw-4"] = state("gw-4", on=NEW)
    known = {name: found for name, found in states.items() if name not in silent}
    made = plan(
        fleet,
        known,
        known_good,
        NEW,
        Strategy.CANARY,
        gates=GatePolicy(),
        trust_policy=digest_of(b"trust"),
        quarantined=quarantined,
    )
    return parted(made).header


def promoted(header: PlanHeader, **report: Any) -> str:
    """Return what a change says that promoted this plan."""
    story = Story(ORDER, BEGAN)
    story.know("edge-2", header)
    story.take(wave(1, **report))
    story.end(ChangeResult(rollout="edge-2", outcome=Outcome.PROMOTED, reason="every wave passed"), BEGAN)
    return story.status().what


def test_a_promotion_names_the_gateways_that_its_plan_left_alone_and_what_they_serve() -> None:
    """A fresh reader's C2: gw-3 was returned meanwhile, and "every gateway" had the mended release."""
    what = promoted(planned_without({"gw-3": "ana: its disk"}))
    assert what == (
        "promoted to ocserv 1.4.1 without 1 gateway, which the plan left alone: gw-3 on 1.3.0 (in "
        "quarantine: ana: its disk)"
    )


def test_a_promotion_says_of_a_silent_gateway_that_its_release_is_not_known() -> None:
    what = promoted(planned_without({}, silent=("gw-3",)))
    assert "the plan left alone: gw-3 on a release that is not known (silent: its agent" in what


def test_a_promotion_tells_gateways_left_out_under_way_from_those_that_its_plan_left_alone() -> None:
    what = promoted(planned_without({"gw-3": "ana: its disk"}), aside={"gw-2": "it rebooted"})
    assert "without 1 gateway, which was left out, and without 1 gateway, which the plan left alone" in what


def test_every_gateway_is_said_only_where_those_that_the_plan_left_alone_were_on_its_release() -> None:
    assert promoted(planned_without({})) == "promoted: every gateway takes its sessions on ocserv 1.4.1"
    there = planned_without({"gw-4": "ana: its disk"})
    assert promoted(there) == "promoted: every gateway takes its sessions on ocserv 1.4.1"


def test_a_hold_is_offered_to_be_lifted_by_the_name_of_who_holds() -> None:
    story = story_of()
    story.take(wave(1))
    story.hear(command(CommandKind.HOLD, "ben"), BEGAN)
    assert Offer(verb=Verb.RESUME, fleet="edge", hold_of="ben") in story.status().can_do


def test_a_hold_is_seen_as_soon_as_it_is_heard_and_what_the_wave_said_before_changes_nothing() -> None:
    story = story_of()
    story.take(wave(1))
    assert story.status().next.startswith("promotion on proof")
    story.hear(command(CommandKind.HOLD), BEGAN)
    assert story.status().phase is Phase.HELD
    assert story.status().next.startswith("nothing, until the cause is gone")
    story.take(wave(2))
    assert story.status().phase is Phase.HELD
    story.take(wave(3, phase=Phase.HELD))
    story.hear(command(CommandKind.RESUME), BEGAN)
    story.take(wave(4))
    assert story.status().phase is Phase.OBSERVING
    assert sentences(story).count("held; new sessions stay where they are") == 1


def test_a_vote_that_was_shown_another_verdict_is_refused_with_the_present_one() -> None:
    """B4: a vote names what its person read, where a screen was open for a while."""
    story = story_of()
    story.take(wave(1, decision=decided(Action.HOLD, "descriptors grow by 0.03")))
    vote = command(CommandKind.PROMOTE, approves=story.status().ballot)
    story.take(wave(2, decision=decided(Action.HOLD, "descriptors grow by 0.04")))
    assert story.refusal_of(vote) is None
    assert "descriptors grow by 0.04" in story.hear(vote, BEGAN)
    story.take(wave(3, decision=decided(Action.HOLD, "40 of 200 users complain")))
    refusal = story.refusal_of(vote)
    assert refusal is not None
    assert "40 of 200 users complain" in refusal.sentence
    assert story.refusal_of(command(CommandKind.PROMOTE)) is None


def test_a_change_that_has_moved_nothing_is_ended_by_abort_and_its_rollback_says_what_else_it_does() -> None:
    """Only a rollback was offered, and it took the good release back on every gateway."""
    story, held = story_of(), story_of()
    held.hear(command(CommandKind.HOLD), BEGAN)
    for one in (story, held):
        *_, abort, back = one.status().can_do
        assert (abort.verb, back.verb) == (Verb.ABORT, Verb.ROLL_BACK)
        assert back.note == "also takes back the last promotion, on every gateway"
    for one in (story, held):
        one.begin_to_move(1)
        assert one.status().can_do[-1] == BACK[0]
        assert Verb.ABORT not in {offer.verb for offer in one.status().can_do}
