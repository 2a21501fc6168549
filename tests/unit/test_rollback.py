"""What a rollback takes back, from facts, and which rollbacks a second operator approves."""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.processes.agent import Host
from orchestrator.processes.break_glass import break_glass
from policies.model.change import (
    PENSTOCK,
    ChangeKind,
    ChangeRecord,
    KnownGoodMove,
    Promotion,
    RollbackTargets,
    UnfinishedChange,
)
from policies.model.errors import Refused
from policies.model.fleet import RollbackRules
from policies.model.instance import GatewayState, Instance, InstanceState, Steering
from policies.model.plan import ReleaseRef
from policies.rollback import (
    Takes,
    beyond,
    confirmation_of,
    kept_slot,
    known_good_within,
    on_it_already,
    rollback_targets,
    served_elsewhere,
    silent_since,
    targets_of,
    targets_of_unfinished,
    will_serve,
)
from tests.moments.oracle import KEPT
from tests.unit.fleets import NEW, OLD, fleet, gateway
from tests.unit.rollback_world import HOUR, NAMES, RELEASES, World, steps

AT = datetime(2030, 1, 2, tzinfo=UTC)
FLEET = fleet(*(gateway(f"gw-{number}") for number in (1, 2, 3, 4)))
ALL = [gateway.name for gateway in FLEET.gateways]
OTHER = OLD.model_copy(update={"digest": "sha256:" + "9" * 64, "version": "0.9"})
WAY_BACK = ChangeRecord(
    name="edge-5",
    number=5,
    fleet="edge",
    kind=ChangeKind.GO_BACK,
    requested_by=PENSTOCK,
    reason="gw-1 restarted by itself",
    release="known-good",
    began=AT,
)


def confirmation(to: ReleaseRef = OLD, names: Sequence[str] = ALL, **rules: object) -> str | None:
    ruled = FLEET.model_copy(update={"rollback": RollbackRules.model_validate(rules)})
    targets = dict.fromkeys(names, to)
    return confirmation_of(ruled, targets, dict.fromkeys(ALL, NEW), dict.fromkeys(ALL, (OLD,)))


def moved(
    name: str,
    to: ReleaseRef,
    before: ReleaseRef | None,
    number: int,
    *,
    hours: float = 1,
    returned: bool = False,
    kind: ChangeKind = ChangeKind.UPGRADE,
    left: int = 0,
) -> KnownGoodMove:
    return KnownGoodMove(
        gateway=name,
        release=to,
        before=before,
        change=f"edge-{number}",
        number=number,
        kind=kind,
        at=AT - hours * HOUR,
        returned=returned,
        left=Promotion(number=left, release=before) if left and before else None,
    )


def returned(name: str, to: ReleaseRef, before: ReleaseRef, number: int, left: int) -> KnownGoodMove:
    """Return the move by which a gateway went back from what the change of the number `left` promoted."""
    return moved(name, to, before, number, returned=True, kind=ChangeKind.GO_BACK, left=left)


def back(
    *moves: KnownGoodMove,
    unfinished: UnfinishedChange | None = None,
    by_hand: Collection[str] = (),
    unknown: Collection[str] = (),
) -> RollbackTargets:
    return rollback_targets(moves, unfinished, KEPT, AT, by_hand=by_hand, unknown=unknown)


def test_the_known_good_before_the_last_promotion_needs_nobody() -> None:
    assert confirmation(OLD) is None
    assert confirmation(NEW) is None


def test_another_release_needs_a_second_person_unless_the_policy_says_otherwise() -> None:
    asked = confirmation(OTHER)
    assert asked is not None
    assert asked.startswith("0.9 is not the known-good of")
    assert confirmation(OTHER, confirm_other_release=False) is None


def test_a_whole_group_needs_a_second_person_where_the_policy_says_so() -> None:
    asked = confirmation(OLD, confirm_whole_group=True)
    assert asked is not None
    assert "every gateway of main goes back at once" in asked
    assert confirmation(OLD, ALL[:-1], confirm_whole_group=True) is None
    assert confirmation(NEW, confirm_whole_group=True) is None  # each has it as its known-good already


def test_a_promotion_older_than_the_kept_window_is_taken_back_by_the_name_of_a_release_alone() -> None:
    found = back(moved("gw-1", NEW, OLD, 2, hours=25))
    assert (found.targets, found.needs_name) == ({}, OLD)
    found = back(moved("gw-1", NEW, OLD, 2, hours=23))
    assert (found.targets, found.needs_name) == ({"gw-1": OLD}, None)


def test_what_has_not_ended_well_is_taken_back_at_any_time() -> None:
    died = UnfinishedChange(change="edge-3")
    found = back(
        moved("gw-1", OTHER, NEW, 3, hours=99), moved("gw-2", NEW, OLD, 2, hours=99), unfinished=died
    )
    assert (found.targets, found.finished) == ({"gw-1": NEW, "gw-2": NEW}, False)


def test_a_lost_change_that_has_moved_no_session_ends_and_hides_nothing_that_stands_under_it() -> None:
    """Item 1: the operator who types `rollback` once is off the bad release."""
    lost = UnfinishedChange(change="edge-3", moved=False)
    found = back(moved("gw-1", NEW, OLD, 2), moved("gw-2", OLD, None, 1), unfinished=lost)
    assert (found.change, found.targets) == ("edge-2", {"gw-1": OLD, "gw-2": OLD})
    assert found.sentence == (
        "edge-3 has moved no session and ends; 1.4.1, promoted by edge-2, is taken back: "
        "gw-1 will serve 1.3.0"
    )
    alone = back(moved("gw-1", OLD, None, 1, kind=ChangeKind.INSTALL), unfinished=lost)
    assert (alone.change, alone.targets) == ("edge-3", {"gw-1": OLD})


@pytest.mark.parametrize("has_moved", [True, False])
def test_a_gateway_steered_by_hand_stays_unless_something_is_taken_back_from_it(has_moved: bool) -> None:
    """R9: completing a rollback led a gateway forward to the release that an operator had left by hand."""
    died = UnfinishedChange(change="edge-3", moved=has_moved)
    moves = moved("gw-1", NEW, OLD, 3 if has_moved else 2), moved("gw-2", OLD, OTHER, 1)
    assert back(*moves, unfinished=died).targets == {"gw-1": OLD, "gw-2": OLD}
    stays = back(*moves, unfinished=died, by_hand=["gw-2"])
    assert stays.targets == {"gw-1": OLD}
    assert stays.sentence.endswith("; gw-2 stays as an operator steered it on its host")
    assert back(*moves, unfinished=died, by_hand=["gw-1"]).targets == {"gw-1": OLD, "gw-2": OLD}


def test_a_release_that_two_changes_promoted_is_taken_back_on_all_its_gateways() -> None:
    """A1: a gateway that was promoted later never keeps the others on the release that is taken back."""
    found = back(*(moved(name, NEW, OLD, 2) for name in ("gw-1", "gw-2")), moved("gw-3", NEW, OLD, 5))
    assert found.targets == dict.fromkeys(("gw-1", "gw-2", "gw-3"), OLD)
    assert found.sentence == (
        "1.4.1, promoted by edge-5, edge-2, is taken back: gw-1, gw-2, gw-3 will serve 1.3.0"
    )


def test_the_return_of_one_gateway_leaves_the_others_to_a_rollback() -> None:
    alone = returned("gw-1", OLD, NEW, 3, left=2)
    assert back(alone, moved("gw-2", NEW, OLD, 2)).targets == {"gw-2": OLD}


def test_a_return_of_an_older_promotion_hides_no_newer_one_however_late_it_is() -> None:
    """R1: it had the highest number of all moves, and a rollback was about what that gateway had left."""
    late, newer = returned("gw-2", OLD, NEW, 9, left=2), moved("gw-3", OTHER, OLD, 3)
    found = back(late, moved("gw-1", NEW, OLD, 2), newer)
    assert (found.change, found.targets) == ("edge-3", {"gw-3": OLD})
    gone = returned("gw-3", OLD, OTHER, 4, left=3)
    found = back(late, moved("gw-1", NEW, OLD, 2), gone)
    assert found.targets == {}
    assert found.sentence.startswith("edge-4 went back already")


AFTER_IT_OR_BY_NAME = (
    "gw-3 serves 0.9; another rollback after it takes 0.9 back, and one by name (--to 1.3.0) does so at once"
)


def test_a_rollback_beside_a_way_back_takes_a_newer_promotion_along_and_no_older_one() -> None:
    record = WAY_BACK.model_copy(update={"name": "edge-9", "number": 9})
    waits, newer = returned("gw-2", OLD, NEW, 9, left=2), moved("gw-3", OTHER, OLD, 3)
    assert beyond((waits, newer), record, KEPT, AT).targets == {"gw-3": OLD}
    waits, older = returned("gw-2", OLD, NEW, 9, left=4), moved("gw-3", OTHER, OLD, 3)
    assert beyond((waits, older), record, KEPT, AT).targets == {}
    drifted = moved("gw-2", OLD, None, 1, kind=ChangeKind.INSTALL)
    found = beyond((drifted, newer), record, KEPT, AT)
    assert (found.targets, found.sentence) == ({}, AFTER_IT_OR_BY_NAME)


def test_a_gateway_of_which_nothing_newer_is_known_than_its_last_move_is_never_said_to_serve() -> None:
    stay, record = [moved(name, OLD, None, 1, kind=ChangeKind.INSTALL) for name in ALL], WAY_BACK
    found = beyond(stay, record, KEPT, AT, not_back={"gw-4"}, silent={"gw-3", "gw-4"})
    assert found.sentence == (
        "no other promotion can be taken back: gw-1, gw-2 serve 1.3.0; gw-3 does not say what serves there; "
        "gw-4 is not back"
    )
    answers = {"gw-1": Takes(OLD.digest, AT), "gw-2": Takes(None, AT), "gw-3": Takes(None, AT - 2 * HOUR)}
    assert silent_since(stay, answers, AT - HOUR) == {"gw-2"}
    assert silent_since(stay, answers, AT) == {"gw-2", "gw-3", "gw-4"}
    assert rollback_targets(stay, None, KEPT, AT, silent={"gw-3"}, as_steered={"gw-4"}).sentence == (
        "no promotion can be taken back: gw-1, gw-2 serve 1.3.0; gw-3 does not say what serves there; "
        "gw-4 stays as an operator steered it on its host"
    )
    assert on_it_already("edge", OLD, stay, ()) == "edge is on 1.3.0 already"
    assert on_it_already("edge", OLD, stay, {"gw-4"}) == (
        "known-good of edge is 1.3.0 already: gw-1, gw-2, gw-3 serve 1.3.0; "
        "gw-4 does not say what serves there"
    )


def test_a_gateway_that_serves_another_release_than_its_known_good_is_never_said_to_serve_that() -> None:
    stay = [moved(name, OLD, None, 1, kind=ChangeKind.INSTALL) for name in ALL]
    answers = {"gw-1": Takes(OLD.digest, AT), "gw-2": Takes(NEW.digest, AT), "gw-3": Takes("", AT)}
    elsewhere = served_elsewhere(stay, answers)
    assert elsewhere == {"gw-2"}
    facts = "gw-1, gw-3 serve 1.3.0; gw-2 serves another release than its known-good 1.3.0; gw-4 is not back"
    found = beyond(stay, WAY_BACK, KEPT, AT, not_back={"gw-4"}, elsewhere=elsewhere)
    assert found.sentence == f"no other promotion can be taken back: {facts}"
    assert on_it_already("edge", OLD, stay[:2], (), elsewhere) == (
        "known-good of edge is 1.3.0 already: gw-1 serves 1.3.0; "
        "gw-2 serves another release than its known-good 1.3.0"
    )


def test_going_back_twice_is_going_back_once_and_never_one_release_too_far() -> None:
    gone = returned("gw-1", NEW, OTHER, 4, left=3)
    found = back(gone, moved("gw-2", NEW, OLD, 2))
    assert found.targets == {}
    assert found.sentence == (
        "edge-4 went back already: gw-1, gw-2 serve 1.4.1; name the release to go back further"
    )


def test_a_gateway_of_unknown_changes_stays_and_no_other_goes_a_release_too_far_for_it() -> None:
    everywhere = [moved(name, NEW, OLD, 2) for name in ALL]
    found = back(*everywhere, unknown={"gw-4"})
    assert found.targets == dict.fromkeys(("gw-1", "gw-2", "gw-3"), OLD)
    assert "gw-4" not in found.sentence
    alone = [*everywhere[:3], moved("gw-4", OTHER, NEW, 3)]
    found = back(*alone, unknown={"gw-4"})
    assert found.targets == {}
    assert "gw-4" not in found.sentence


def test_a_first_installation_and_an_adoption_are_nothing_to_go_back_from() -> None:
    installed = moved("gw-1", OLD, None, 1, kind=ChangeKind.INSTALL)
    adopted = moved("gw-2", OLD, NEW, 2, kind=ChangeKind.ADOPT)
    assert back(installed, adopted).targets == {}
    assert back().sentence == "no change that could be taken back has been promoted"


def test_a_gateway_that_joined_with_the_release_is_named_and_stays() -> None:
    found = back(moved("gw-1", NEW, OLD, 2), moved("gw-9", NEW, None, 3, kind=ChangeKind.INSTALL))
    assert found.targets == {"gw-1": OLD}
    assert found.sentence.endswith(
        "; gw-9 had no other release within the kept window of 1 day, 0:00:00 and stays on it"
    )


def test_a_rollback_says_in_groups_which_release_each_gateway_will_serve() -> None:
    """Issue item 1: the answer names every gateway's release, the largest group first."""
    found = will_serve({"gw-3": NEW, "gw-1": OLD, "gw-2": OLD})
    assert found == "gw-1, gw-2 will serve 1.3.0; gw-3 will serve 1.4.1"
    many = will_serve({f"gw-{number:03}": OLD for number in range(1000)})
    assert many == "gw-000, gw-001, gw-002 and 997 more will serve 1.3.0"


def test_only_gateways_on_which_it_was_known_good_go_back_to_a_release() -> None:
    proven = {"gw-1": (NEW, OLD), "gw-2": (NEW, OLD), "gw-3": (NEW,)}
    on = {"gw-1": NEW, "gw-2": OLD, "gw-3": NEW}
    assert targets_of(OLD, proven, on) == {"gw-1": OLD}
    with pytest.raises(Refused, match="never known-good here"):
        targets_of(OTHER, proven, on)


# --- any history, against an oracle that only knows what each gateway served ------------------------


@given(steps())
def test_whatever_happened_a_rollback_takes_each_gateway_to_what_it_had_before(world: World) -> None:
    """A1, R1: the oracle follows gateways, not changes."""
    found = rollback_targets(world.moves(), None, KEPT, world.now)
    assert found.targets == world.expected()


@given(steps(), st.sampled_from(NAMES))
def test_the_return_of_one_gateway_never_changes_where_a_rollback_takes_the_others(
    world: World, name: str
) -> None:
    before = rollback_targets(world.moves(), None, KEPT, world.now).targets
    world.do("alone", RELEASES[0], [name])
    after = rollback_targets(world.moves(), None, KEPT, world.now).targets
    assert after.items() <= before.items()
    assert before.keys() - after.keys() <= {name}


@given(steps())
def test_whatever_happened_a_second_rollback_moves_nobody(world: World) -> None:
    world.roll_back(rollback_targets(world.moves(), None, KEPT, world.now).targets)
    served = world.known_good()
    again = rollback_targets(world.moves(), None, KEPT, world.now).targets
    assert again == {}
    assert world.known_good() == served


@given(steps(), st.sampled_from(("canary", "waits", "settings", "stray returns", "reload")))
def test_what_moved_no_known_good_never_changes_the_target_of_a_rollback(world: World, step: str) -> None:
    """A1, 12, 12b, 12c: a change that only waited, a failed canary and new settings hide no promotion."""
    before = rollback_targets(world.moves(), None, KEPT, world.now)
    world.do(step, RELEASES[0], NAMES)
    assert rollback_targets(world.moves(), None, KEPT, world.now) == before


@given(steps())
def test_a_rollback_never_leads_forward_to_a_release_that_was_taken_back(world: World) -> None:
    for name, release in rollback_targets(world.moves(), None, KEPT, world.now).targets.items():
        assert release not in world.oracle.taken_back_since_it_was_left(name, release)


@given(steps(), st.sampled_from(RELEASES), st.sets(st.sampled_from(NAMES), min_size=1))
def test_a_change_that_dies_in_its_promotion_is_taken_back_to_exactly_what_was_before(
    world: World, release: ReleaseRef, names: set[str]
) -> None:
    """A6."""
    served: Mapping[str, ReleaseRef] = world.known_good()
    died = world.do("promote", release, names)
    assert targets_of_unfinished(world.moves(), died) == served


def test_a_release_that_a_rollback_left_since_is_known_good_no_more_until_it_is_promoted_again() -> None:
    there = moved("gw-1", NEW, OLD, 2, hours=5)
    on = moved("gw-1", OTHER, NEW, 3, hours=4)
    back = moved("gw-1", NEW, OTHER, 4, hours=3, returned=True, kind=ChangeKind.GO_BACK)
    gone = moved("gw-1", OLD, NEW, 5, hours=2, returned=True, kind=ChangeKind.GO_BACK)
    assert known_good_within([there, on], KEPT, AT) == {"gw-1": {OLD, NEW}}
    assert known_good_within([there, on, back, gone], KEPT, AT) == {"gw-1": {OLD}}
    again, later = moved("gw-1", NEW, OLD, 6), moved("gw-1", OTHER, NEW, 7)
    assert known_good_within([there, on, back, gone, again, later], KEPT, AT) == {"gw-1": {OLD, NEW}}


@given(steps())
def test_what_a_promotion_of_the_kept_window_left_counts_as_known_good(world: World) -> None:
    """A1: `--to` that release asks no second operator, whatever came later; a release taken back does."""
    known = known_good_within(world.trail, KEPT, world.now)
    for name, release in rollback_targets(world.moves(), None, KEPT, world.now).targets.items():
        assert release in known[name]
    for name, left in world.oracle.left_by_promotion(world.now).items():
        assert known.get(name, frozenset()) == left


NEXT = RELEASES[-1]


def on_its_host(serving: str, trial: str | None = None, **runs: ReleaseRef) -> GatewayState:
    """What a gateway reports that runs these releases, by slot."""
    return GatewayState(
        gateway="gw-2",
        instances=tuple(
            Instance(slot=slot, state=InstanceState.RUNNING, release=one.digest) for slot, one in runs.items()
        ),
        steering=Steering(primed=True, serving=serving, trial=trial),
        epoch=1,
        observed_at=datetime.now(UTC),
    )


@pytest.mark.parametrize(
    ("state", "known_good", "said"),
    [
        (on_its_host("a", a=NEW, adopted=OLD), NEW, f"slot a, its known-good {NEW.digest[:19]}"),
        (on_its_host("adopted", adopted=OLD, a=NEW), None, "slot adopted, the daemon that was adopted"),
    ],
)
def test_a_gateway_that_no_upgrade_has_touched_is_not_steered_off_what_is_good_on_its_host(
    state: GatewayState, known_good: ReleaseRef | None, said: str
) -> None:
    with pytest.raises(Refused, match=f"gw-2 serves {said}, and no release is on trial") as refusal:
        kept_slot(state, known_good.digest if known_good is not None else None)
    other = next(one.slot for one in state.instances if one.slot != state.steering.serving)
    assert f"type --slot {other} instead of --back" in str(refusal.value)


@pytest.mark.parametrize(
    ("state", "known_good", "slot"),
    [
        (on_its_host("a", "b", a=NEW, b=NEXT, adopted=OLD), NEW, "a"),
        (on_its_host("adopted", "a", adopted=OLD, a=NEW), None, "adopted"),
        (on_its_host("b", a=NEW, b=NEXT), NEW, "a"),
        (on_its_host("b", a=NEW, b=NEXT), None, "a"),
    ],
)
def test_a_gateway_goes_back_on_its_host_from_a_trial_and_from_what_is_not_known_good_there(
    state: GatewayState, known_good: ReleaseRef | None, slot: str
) -> None:
    assert kept_slot(state, known_good.digest if known_good is not None else None) == slot


class OwnHost:
    """A host that only says what it serves; whatever else is asked of it fails."""

    def __init__(self, state: GatewayState, known_good: Callable[[], tuple[str, ...]]) -> None:
        self.runtime = self
        self.known_good = known_good
        self._state = state

    async def observe(self) -> GatewayState:
        return self._state


async def test_break_glass_that_would_leave_known_good_changes_nothing_and_records_nothing() -> None:
    host = OwnHost(on_its_host("a", a=NEW, adopted=OLD), lambda: (OLD.digest, NEW.digest))
    with pytest.raises(Refused, match="type --slot adopted"):
        await break_glass(cast("Host", host), "root", "users call", back=True)
