"""A rollback by force ends the change under way only once it is known that its order may begin."""

from typing import Any

import pytest

from policies.model.change import Phase
from policies.model.errors import Conflict, NotAllowed, PenstockError, Refused, Unavailable
from policies.model.fleet import AtDeadline, Fleet, RollbackRules
from policies.model.offer import Offer, Verb
from policies.model.people import ROOT
from policies.model.plan import ReleaseRef
from policies.model.value import digest_of
from policies.model.way_back import RollbackAsked
from tests.fakes.control import CLOSED, HEALTHY, UNDECIDED
from tests.patience import until
from tests.workflows.recorded import SOON, Recorded
from tests.workflows.world import NEW, NEXT, OLD, in_phase

ALL = ("gw-1", "gw-2", "gw-3", "gw-4")
FOR_LONG = 10_000
BY_FORCE = Offer(verb=Verb.ROLL_BACK, fleet="edge", force=True)


async def goes_on(recorded: Recorded, name: str) -> bool:
    """Whether the change still has the fleet's lock."""
    return await recorded.service.is_under_way("edge") and recorded.ledger.open_changes("edge") == (name,)


def with_two_people(fleet: Fleet) -> Fleet:
    rules = RollbackRules(confirm_whole_group=True, at_deadline=AtDeadline.NOTHING)
    return fleet.model_copy(update={"rollback": rules})


async def half_upgraded(recorded: Recorded) -> str:
    """Promote 1.3.0 everywhere, and have 1.4.0 on two gateways, with the other two on trial."""
    world = recorded.world
    world.judge.says(HEALTHY)
    await recorded.upgrade(ALL)
    world.judge.says(UNDECIDED, wave=2)
    name = await recorded.start(("gw-1", "gw-2"), ("gw-3", "gw-4"), release=NEXT)
    await in_phase(recorded.service._change("edge"), Phase.OBSERVING, 2)
    return name


async def stuck_reload(recorded: Recorded) -> tuple[Fleet, str]:
    """Give the fleet settings that gw-1 does not take."""
    world, service = recorded.world, recorded.service
    world.gateways["gw-1"].fail("configure", Unavailable("gw-1 does not answer"), times=FOR_LONG)
    fleet = world.fleet.model_copy(update={"settings": {"dns": ("10.0.0.53",)}})
    name = await service.reload(fleet, await service.plan_settings(fleet), "bea", "new name server")
    assert name is not None
    return fleet, name


@pytest.mark.sweep
@pytest.mark.parametrize("person", ["ana", ROOT])
@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"to": OLD}, "until a second operator approves 1.1.6, gateways would stay where edge-3 has left"),
        ({"settings": True}, "takes no release back, and gateways would stay where edge-3 has left them"),
    ],
    ids=["named", "settings"],
)
async def test_a_rollback_by_force_that_would_leave_gateways_behind_is_refused_and_ends_nothing(
    recorded: Recorded, asked: dict[str, Any], why: str, person: str
) -> None:
    """The upgrade was ended, and gw-1 and gw-2 stayed on its release with no change looking after them."""
    world, service, fleet = recorded.world, recorded.service, with_two_people(recorded.world.fleet)
    assert await half_upgraded(recorded) == "edge-3"
    to: ReleaseRef | None = asked.get("to")
    named = RollbackAsked(to=to and to.version, settings="settings" in asked, force=True)
    for order in (
        service.rollback_preview(fleet, named, to),
        service.roll_back(fleet, person, "users call", force=True, **asked),
    ):
        with pytest.raises(Conflict, match=why) as refused:
            await order
        assert refused.value.offers == (BY_FORCE,)
    assert await goes_on(recorded, "edge-3")
    assert set(world.serving().values()) == {"1.4.0"}
    shown = await service.rollback_preview(fleet, RollbackAsked(force=True), None)
    receipt = await service.roll_back(fleet, person, "users call", force=True, shown=shown.digest)
    assert receipt.accepted, receipt.sentence
    await until(lambda: set(world.serving().values()) == {"1.3.0"}, SOON)


@pytest.mark.sweep
async def test_a_rollback_by_force_and_name_that_leaves_a_gateway_out_is_refused_and_ends_nothing(
    recorded: Recorded,
) -> None:
    """gw-3 and gw-4 were never on 1.4.0, so that no rollback to it takes them along."""
    world, service = recorded.world, recorded.service
    world.judge.says(HEALTHY)
    await recorded.upgrade(("gw-1", "gw-2"))
    world.judge.says(UNDECIDED)
    name = await recorded.start(("gw-3", "gw-1"), release=NEXT)
    await in_phase(service._change("edge"), Phase.OBSERVING)
    with pytest.raises(Conflict, match=rf"gw-3 would not go to 1\.3\.0 and stay where {name}"):
        await service.roll_back(world.fleet, "ana", "users call", to=NEW, force=True)
    assert await goes_on(recorded, name)


@pytest.mark.sweep
@pytest.mark.parametrize(("person", "error"), [("ana", Refused), (ROOT, NotAllowed)])
async def test_a_rollback_by_force_that_is_refused_leaves_a_change_that_waits(
    recorded: Recorded, person: str, error: type[PenstockError]
) -> None:
    """It was dead already when root was refused."""
    world, service, fleet = recorded.world, recorded.service, with_two_people(recorded.world.fleet)
    await recorded.upgrade(ALL)
    world.windows.answer = CLOSED
    name = await recorded.start(("gw-1",), release=NEXT)
    await in_phase(service._change("edge"), Phase.WAITING, 0)
    with pytest.raises(error):
        await service.roll_back(fleet, person, "users call", to=NEXT if error is Refused else OLD, force=True)
    assert await goes_on(recorded, name)


@pytest.mark.sweep
async def test_a_rollback_by_force_is_shown_with_what_it_ends_and_is_the_one_that_was_shown(
    recorded: Recorded,
) -> None:
    world, service = recorded.world, recorded.service
    name = await half_upgraded(recorded)
    shown = await service.rollback_preview(world.fleet, RollbackAsked(force=True), None)
    assert shown.sentence.startswith(f"{name} is ended by force; then {name} has not ended")
    assert "gw-1, gw-2, gw-3, gw-4 will serve 1.3.0" in shown.sentence
    with pytest.raises(Conflict, match="something else now than was shown"):
        await service.roll_back(world.fleet, "ana", "it hangs", force=True, shown=digest_of(b"another"))
    assert await goes_on(recorded, name)


@pytest.mark.sweep
async def test_a_rollback_of_settings_by_force_ends_a_change_of_settings_and_takes_it_back(
    recorded: Recorded,
) -> None:
    """No other order ends it without a release going back."""
    world, service = recorded.world, recorded.service
    fleet, stuck = await stuck_reload(recorded)
    asked = RollbackAsked(settings=True, force=True)
    shown = await service.rollback_preview(fleet, asked, None)
    assert shown.sentence.startswith(f"{stuck} is ended by force; then what runs gets again the settings")
    world.gateways["gw-1"]._failures.clear()
    receipt = await service.roll_back(
        fleet, "ana", "names fail", settings=True, force=True, shown=shown.digest
    )
    assert receipt.sentence.startswith(f"{stuck} was ended by force. Rolling back: what runs gets again")
    await recorded.nothing_under_way()
    assert set(world.serving().values()) == {"1.1.6"}
