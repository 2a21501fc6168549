"""How an instance is emptied: nobody is ended because something is unknown."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.drains import (
    BEYOND_AUTH,
    DESERTED_FOR,
    SILENT_FOR,
    allowance,
    loss_between,
    mode_of,
    next_step,
    remembered,
    uncounted_ending,
)
from policies.model.drain import DrainFacts, DrainLimits, DrainMode, Look, Loss, Silence, Step, Uncounted
from policies.model.instance import Probe
from policies.model.verdict import Action, Decision, GateReading, GateVerdict

NOW = datetime(2026, 11, 20, 3, tzinfo=UTC)
TUNNELS = ("packet-loss", "gone")
GATES = (*TUNNELS, "connect-success", "probe", "restarted")
MINE, ANOTHER = "198.18.1.1:9500", "198.18.1.2:9500"
GOOD = Probe(passed=True, stage="ping", reason="5 of 5")

limits = st.builds(
    DrainLimits,
    batch=st.integers(1, 20),
    forced=st.floats(0, 100),
    warning=st.timedeltas(timedelta(0), timedelta(hours=2)),
)


@st.composite
def counts(draw: st.DrawFn) -> Look:
    sessions = draw(st.none() | st.integers(0, 500))
    exempt = None if sessions is None else draw(st.integers(0, sessions))
    return Look(sessions=sessions, exempt=exempt, resumable=draw(st.integers(0, 3)))


@st.composite
def facts(draw: st.DrawFn) -> DrainFacts:
    look = draw(counts())
    return DrainFacts(
        look=look,
        mode=draw(st.sampled_from(DrainMode)),
        found=(look.sessions or 0) + draw(st.integers(0, 500)),
        ended=draw(st.integers(0, 100)),
        now=NOW,
        deadline=NOW + draw(st.timedeltas(-timedelta(hours=9), timedelta(hours=9))),
        fleet="edge",
        gateway="gw-1",
        slot="a",
        warned=draw(st.booleans()),
        forced_by=draw(st.none() | st.just("on call: a hole")),
        exempt_too=draw(st.booleans()),
    )


probes = st.none() | st.builds(
    Probe,
    passed=st.booleans(),
    stage=st.sampled_from(("tcp", "tls", "auth", *BEYOND_AUTH)),
    reason=st.just("as found"),
)
readings = st.builds(
    GateReading,
    gate=st.sampled_from(GATES),
    verdict=st.sampled_from(GateVerdict),
    reason=st.just("as read"),
    instances=st.lists(st.sampled_from((MINE, ANOTHER)), unique=True).map(tuple),
)
decisions = st.none() | st.builds(
    Decision,
    action=st.sampled_from(Action),
    verdict=st.sampled_from(GateVerdict),
    reason=st.just("as decided"),
    readings=st.lists(readings, max_size=4).map(tuple),
)


@given(facts(), limits)
def test_what_cannot_be_counted_is_never_ended_nor_stopped(seen: DrainFacts, rules: DrainLimits) -> None:
    unseen = seen.model_copy(update={"look": Look(sessions=None, exempt=None)})
    assert next_step(unseen, rules).step not in {Step.END, Step.STOP}


silences = st.builds(
    Silence,
    lasts=st.timedeltas(timedelta(0), 2 * DESERTED_FOR),
    deserted=st.none() | st.timedeltas(timedelta(0), 2 * DESERTED_FOR),
)


@given(facts(), limits, silences)
def test_a_silent_instance_is_stopped_by_an_operator_or_at_its_deadline_when_no_user_is_there(
    seen: DrainFacts, rules: DrainLimits, silence: Silence
) -> None:
    silent = seen.model_copy(update={"look": Look(sessions=None, exempt=None, silence=silence)})
    step = next_step(silent, rules)
    ordered = seen.forced_by is not None and seen.exempt_too
    deserted = silence.deserted is not None and silence.deserted >= DESERTED_FOR
    may = silence.lasts >= SILENT_FOR and (ordered or (deserted and seen.now >= seen.deadline))
    assert (step.step is Step.STOP_UNCOUNTED) == may
    assert step.step not in {Step.END, Step.STOP}
    if may:
        assert step.uncounted is (Uncounted.SILENT if ordered else Uncounted.DESERTED)


def test_what_is_told_of_a_silent_instance_names_since_when_its_users_and_what_to_do() -> None:
    silence = Silence(lasts=timedelta(minutes=30), deserted=timedelta(0))
    silent = DrainFacts(
        look=Look(sessions=None, exempt=None, silence=silence),
        mode=DrainMode.WAIT,
        found=3,
        ended=0,
        now=NOW,
        deadline=NOW,
        fleet="edge",
        gateway="gw-1",
        slot="a",
        silent_since=NOW - timedelta(minutes=30),
    )
    assert next_step(silent, DrainLimits()).reason == (
        "it has not answered since 2026-11-20 02:30 UTC, so its sessions are unknown; its kernel shows users "
        "within 10 minutes; `penstock drain end edge --gateway gw-1 --slot a --exempt-too --reason TEXT` "
        "stops it and loses every session that it has"
    )
    later = silent.model_copy(update={"deadline": NOW + timedelta(hours=8)})
    assert next_step(later, DrainLimits()).reason == (
        "it has not answered since 2026-11-20 02:30 UTC, so its sessions are unknown; `penstock drain end "
        "edge --gateway gw-1 --slot a --exempt-too --reason TEXT` stops it and loses every "
        "session that it has"
    )


UNREAD = "OpenVPN answers in a form that penstock does not read (Real Address)"


def test_an_instance_that_answers_in_another_form_is_not_offered_to_be_stopped_as_a_dead_one() -> None:
    """Reader of real inputs 2: `--exempt-too` on a live OpenVPN 2.7 cut off all its users."""
    silence = Silence(lasts=timedelta(minutes=30), unread=UNREAD)
    unread = DrainFacts(
        look=Look(sessions=None, exempt=None, silence=silence),
        mode=DrainMode.WAIT,
        found=3,
        ended=0,
        now=NOW,
        deadline=NOW,
        fleet="edge",
        gateway="gw-1",
        slot="a",
        silent_since=NOW - timedelta(minutes=30),
    )
    held = next_step(unread, DrainLimits())
    assert held.step is Step.HOLD
    assert held.reason == (
        f"{UNREAD} since 2026-11-20 02:30 UTC, so its sessions are unknown and it may serve users; its "
        "kernel does not show whether it has users; count its users on its host, and update penstock to a "
        "version that reads the answer"
    )
    waits = next_step(unread.model_copy(update={"deadline": NOW + timedelta(hours=8)}), DrainLimits())
    assert waits.step is Step.WAIT
    assert "--exempt-too" not in waits.reason
    assert "not answered" not in waits.reason


def test_an_order_to_end_names_the_instances_that_answer_apart_from_the_silent_ones() -> None:
    dead = Look(sessions=None, exempt=None, silence=Silence(lasts=SILENT_FOR))
    alive = Look(sessions=None, exempt=None, silence=Silence(lasts=SILENT_FOR, unread=UNREAD))
    slots = [("slot a of gw-1", dead), ("slot b of gw-2", alive)]
    assert uncounted_ending(slots, exempt_too=False) == (
        "Without an answer, slot a of gw-1 is not stopped; `--exempt-too` stops it and loses every session "
        f"that it has. In slot b of gw-2, {UNREAD}: it is not stopped: count its users on its host, and "
        "update penstock to a version that reads the answer."
    )
    assert uncounted_ending(slots[1:], exempt_too=True) == (
        f"In slot b of gw-2, {UNREAD}: it is stopped, and users who are connected to it are cut off."
    )


@given(facts(), limits)
def test_an_instance_is_stopped_exactly_when_it_is_known_to_be_empty(
    seen: DrainFacts, rules: DrainLimits
) -> None:
    step, nobody = next_step(seen, rules).step, seen.look.sessions == 0
    assert (step is Step.STOP) == (nobody and (seen.look.resumable == 0 or step is not Step.WAIT))


@given(facts(), limits, st.integers(1, 500))
def test_who_may_come_back_without_a_login_is_waited_for_until_the_deadline_or_an_ending(
    seen: DrainFacts, rules: DrainLimits, broken: int
) -> None:
    look = Look(sessions=0, resumable=broken)
    calm = seen.model_copy(update={"look": look, "mode": DrainMode.WAIT, "forced_by": None})
    waited = calm.model_copy(update={"deadline": NOW + timedelta(hours=1)})
    assert next_step(waited, rules).step is Step.WAIT
    for over in (
        {"deadline": NOW},
        {"mode": DrainMode.END},
        {"forced_by": "on call: a hole", "deadline": NOW + timedelta(hours=1)},
    ):
        assert next_step(calm.model_copy(update=over), rules).step is Step.STOP


@given(facts(), limits)
def test_a_batch_is_small_and_leaves_the_exempt_unless_a_person_named_them(
    seen: DrainFacts, rules: DrainLimits
) -> None:
    step = next_step(seen, rules)
    if step.step is not Step.END:
        return
    assert seen.look.sessions is not None
    assert seen.look.exempt is not None
    assert 0 < seen.look.sessions - step.leave <= rules.batch
    assert step.leave >= seen.look.exempt or (seen.forced_by is not None and seen.exempt_too)


@given(facts(), limits)
def test_nobody_is_ended_before_the_deadline_on_tunnels_that_work(
    seen: DrainFacts, rules: DrainLimits
) -> None:
    calm = seen.model_copy(
        update={"mode": DrainMode.WAIT, "forced_by": None, "deadline": NOW + timedelta(seconds=1)}
    )
    assert next_step(calm, rules).step is not Step.END


@given(facts(), limits, st.sampled_from((DrainMode.WAIT, DrainMode.END_SHARE)))
def test_neither_a_deadline_nor_a_verdict_alone_ends_more_than_the_forced_share(
    seen: DrainFacts, rules: DrainLimits, mode: DrainMode
) -> None:
    """D3, D15."""
    over = seen.model_copy(update={"mode": mode, "forced_by": None, "deadline": NOW, "ended": 0})
    ended, sessions = 0, over.look.sessions
    for _ in range(200):
        step = next_step(over, rules)
        if step.step is not Step.END or sessions is None:
            break
        ended, sessions = ended + sessions - step.leave, step.leave
        look = over.look.model_copy(update={"sessions": sessions})
        over = over.model_copy(update={"look": look, "ended": ended})
    assert ended <= allowance(over.found, rules)


@given(facts(), limits)
def test_people_are_warned_before_any_wait_goes_on_to_the_deadline(
    seen: DrainFacts, rules: DrainLimits
) -> None:
    step = next_step(seen, rules)
    if step.step is Step.WAIT and not seen.warned and seen.look.sessions != 0:
        assert step.until == seen.deadline - rules.warning


@given(decisions, probes, probes)
def test_sessions_are_only_ended_for_broken_tunnels_and_a_proven_better_place(
    decision: Decision | None, left: Probe | None, good: Probe | None
) -> None:
    mode, reason = mode_of(decision, left, good, TUNNELS, MINE)
    assert reason
    bad = {GateVerdict.UNHEALTHY, GateVerdict.HARD}
    read = decision is not None and any(
        r.gate in TUNNELS and r.verdict in bad and MINE in r.instances for r in decision.readings
    )
    works = left is not None and left.passed
    probed = left is not None and not left.passed and left.stage in BEYOND_AUTH
    better = good is not None and good.passed
    assert (mode is DrainMode.END) == (better and probed)
    assert (mode is DrainMode.END_SHARE) == (better and read and not probed and not works)


@given(decisions, probes, st.just(GOOD) | st.none())
def test_a_passing_probe_of_the_instance_that_was_left_spares_its_sessions_whatever_was_read(
    decision: Decision | None, good: Probe | None, left: Probe | None
) -> None:
    """D3."""
    if left is not None:
        assert mode_of(decision, left, good, TUNNELS, MINE)[0] is DrainMode.WAIT


@given(decisions, probes)
def test_a_reading_that_names_other_gateways_ends_nobody_here(
    decision: Decision | None, good: Probe | None
) -> None:
    """D3."""
    assert mode_of(decision, None, good, TUNNELS, "198.18.1.9:9500")[0] is DrainMode.WAIT


def test_a_daemon_that_is_gone_says_nothing_about_the_tunnels_of_others() -> None:
    """D3."""
    assert "gone" not in DrainLimits().tunnel_gates


@given(decisions, probes)
def test_losing_evidence_never_ends_anybody(decision: Decision | None, left: Probe | None) -> None:
    assert mode_of(decision, left, None, TUNNELS, MINE)[0] is DrainMode.WAIT
    assert mode_of(None, None, GOOD, TUNNELS, MINE)[0] is DrainMode.WAIT


@pytest.mark.parametrize(("found", "forced", "may"), [(40, 20, 8), (1, 20, 1), (7, 0, 0), (0, 100, 0)])
def test_the_share_is_of_what_the_drain_found(found: int, forced: float, may: int) -> None:
    assert allowance(found, DrainLimits(forced=forced)) == may


def test_a_process_that_is_gone_took_its_sessions_and_a_new_boot_is_a_reboot() -> None:
    before = Look(sessions=3, boot="1", process="100.5")
    assert loss_between(before, before.model_copy(update={"sessions": 0})) is None
    assert loss_between(before, Look(sessions=0, boot="1")) is Loss.CRASH
    assert loss_between(before, Look(sessions=0, boot="2")) is Loss.REBOOT
    assert loss_between(Look(sessions=0, boot="1", process="100.5"), Look(sessions=0, boot="1")) is None


def test_a_silent_instance_is_remembered_by_its_last_count() -> None:
    before, silent = Look(sessions=3, process="1"), Look(sessions=None, exempt=None, process="1")
    assert remembered(before, silent).sessions == 3
    assert remembered(before, silent.model_copy(update={"process": "2"})).sessions is None
