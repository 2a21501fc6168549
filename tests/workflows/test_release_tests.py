"""Release tests in a change: a release that fails one meets no user, and one that cannot be made waits."""

import json
from datetime import timedelta
from typing import Any

import pytest

from policies.model.change import Outcome
from policies.model.command import CommandKind
from policies.model.errors import Refused, Unavailable
from policies.model.release_tests import Asked, ReleaseTests
from tests.fakes.control import HEALTHY
from tests.patience import until
from tests.workflows.engine import Engine
from tests.workflows.world import NEW, World, fleet_of, result_of, say, status_of, working


async def fleet_with_tests(server: Engine, **tests: Any) -> World:
    """Return a fleet whose releases are tested before exposure."""
    fleet = fleet_of("edge", lease=timedelta(seconds=15))
    runs = "openvpn" if "profiles" in tests else "ocserv"
    gateways = tuple(one.model_copy(update={"daemon": runs}) for one in fleet.gateways)
    asked = ReleaseTests.model_validate(tests)
    fleet = fleet.model_copy(update={"tests": asked, "gateways": gateways, "product": runs})
    world = World.made(await server.client(), fleet)
    world.judge.says(HEALTHY)
    return world


def written_down(world: World) -> list[tuple[str, str]]:
    entries = world.book.audit_entries(fleets=[world.fleet.name])
    return sorted(
        (entry.subject, str(json.loads(entry.body)["exposure"]["outcome"]))
        for entry in entries
        if entry.action == "release tested"
    )


@pytest.mark.sweep
async def test_every_gateway_is_tested_before_it_gets_a_session_and_it_is_written_down(
    server: Engine,
) -> None:
    world = await fleet_with_tests(server)
    async with working(world):
        result = await world.upgrade()
    assert result.outcome is Outcome.PROMOTED, result.reason
    for name in ("gw-1", "gw-2", "gw-3"):
        done = world.effects()[name]
        assert done.index("start b") < done.index("inspect b") < done.index("steer b")
    assert written_down(world) == [(f"{world.newest}/gw-{number}", "passed") for number in (1, 2, 3)]


@pytest.mark.sweep
@pytest.mark.parametrize("test", [Asked.WRONG_PASSWORD, Asked.CLEARTEXT])
async def test_a_canary_that_fails_a_test_meets_no_user_and_nobody_else_gets_the_release(
    server: Engine, test: Asked
) -> None:
    world = await fleet_with_tests(server)
    world.gateways["gw-1"].spoiled[NEW.digest] = {test: 1.0}
    async with working(world):
        result = await world.upgrade()
    assert result.outcome is Outcome.ROLLED_BACK
    assert result.reason.startswith(f"gw-1 failed a test before any user: {test} (1, at most 0): ")
    assert "steer b" not in world.effects()["gw-1"]
    assert world.effects()["gw-2"] == world.effects()["gw-3"] == []
    assert written_down(world) == [(f"{world.newest}/gw-1", "failed")]


@pytest.mark.sweep
async def test_a_test_that_cannot_be_made_waits_says_what_to_do_and_goes_on_by_itself(
    server: Engine,
) -> None:
    world = await fleet_with_tests(server)
    spoiled = world.gateways["gw-1"].spoiled
    spoiled[NEW.digest] = {Asked.LOGIN: None}
    async with working(world):
        rollout = await world.start(("gw-1",))

        async def waits() -> bool:
            status = await status_of(rollout)
            return (
                status.needs_you == "release tests cannot be made: gw-1: login (at least 2): as it was found"
            )

        await until(waits)
        assert "steer b" not in world.effects()["gw-1"]
        spoiled.clear()
        result = await result_of(rollout)
    assert result.outcome is Outcome.PROMOTED, result.reason
    assert written_down(world) == [(f"{world.newest}/gw-1", outcome) for outcome in ("passed", "unknown")]


@pytest.mark.sweep
async def test_whoever_waits_for_a_test_can_be_told_to_go_back(server: Engine) -> None:
    world = await fleet_with_tests(server)
    world.gateways["gw-1"].spoiled[NEW.digest] = {Asked.LOGIN: None}
    async with working(world):
        rollout = await world.start(("gw-1",))
        await until(lambda: "inspect b" in world.effects()["gw-1"])
        await say(rollout, CommandKind.ABORT)
        result = await result_of(rollout)
    assert result.outcome is Outcome.ABORTED
    assert "steer b" not in world.effects()["gw-1"]


NAMES = {"inside": {"intranet.example.com": ["10.0.0.80"]}, "outside": ["www.example.org"]}


@pytest.mark.sweep
async def test_the_names_of_the_file_are_asked_for_on_each_gateway(server: Engine) -> None:
    world = await fleet_with_tests(server, names=NAMES)
    async with working(world):
        result = await world.upgrade()
    assert result.outcome is Outcome.PROMOTED, result.reason
    asked = [world.gateways[f"gw-{number}"].names for number in (1, 2, 3)]
    assert [names and names.model_dump(mode="json") for names in asked] == [NAMES] * 3


@pytest.mark.sweep
async def test_a_release_with_which_a_name_is_answered_wrongly_meets_no_user(server: Engine) -> None:
    world = await fleet_with_tests(server, names=NAMES)
    world.gateways["gw-1"].spoiled[NEW.digest] = {Asked.NAMES_INSIDE: 1.0}
    async with working(world):
        result = await world.upgrade()
    assert result.outcome is Outcome.ROLLED_BACK
    assert result.reason.startswith("gw-1 failed a test before any user: names-inside (1, at most 0): ")
    assert "steer b" not in world.effects()["gw-1"]


@pytest.mark.sweep
async def test_an_agent_of_before_that_asks_for_no_names_is_waited_for(server: Engine) -> None:
    world = await fleet_with_tests(server, names=NAMES, patience=timedelta(seconds=0))
    world.gateways["gw-1"].knows_names = False
    async with working(world):
        result = await world.upgrade(("gw-1",))
    assert result.outcome is Outcome.ROLLED_BACK
    assert result.reason.startswith(
        "gw-1 could not be tested before any user: names-inside (at most 0): the host's agent does not know "
        "this test: upgrade it"
    )
    assert "steer b" not in world.effects()["gw-1"]


async def test_the_client_profiles_of_the_file_are_tried_and_one_that_is_refused_stops_the_release(
    server: Engine,
) -> None:
    profiles = {"laptops": ("comp-lzo no",), "today": ()}
    world = await fleet_with_tests(server, profiles=profiles)
    world.gateways["gw-1"].spoiled[NEW.digest] = {Asked.PROFILES: 1.0}
    async with working(world):
        result = await world.upgrade()
    assert world.gateways["gw-1"].profiles == profiles
    assert result.outcome is Outcome.ROLLED_BACK
    assert result.reason.startswith("gw-1 failed a test before any user: profiles (1, at most 0): ")
    assert "steer b" not in world.effects()["gw-1"]


@pytest.mark.sweep
async def test_a_gateway_that_stays_untested_is_set_aside_without_a_user(server: Engine) -> None:
    world = await fleet_with_tests(server, patience=timedelta(seconds=0))
    world.gateways["gw-1"].fail("inspect", Unavailable("openconnect cannot be started here"), times=99)
    async with working(world):
        result = await world.upgrade(("gw-1",))
    assert result.outcome is Outcome.ROLLED_BACK
    assert result.reason == ("gw-1 could not be tested before any user: openconnect cannot be started here")
    assert "steer b" not in world.effects()["gw-1"]


@pytest.mark.sweep
async def test_an_instance_that_dies_under_its_tests_is_not_waited_for(server: Engine) -> None:
    world = await fleet_with_tests(server)
    world.gateways["gw-1"].fail("inspect", Refused("nothing that could be tested runs in slot b"), times=9)
    async with working(world):
        result = await world.upgrade(("gw-1",))
    assert result.outcome is Outcome.ROLLED_BACK
    assert "nothing that could be tested runs" in result.reason


@pytest.mark.sweep
async def test_a_fleet_that_asks_for_no_tests_has_none(server: Engine) -> None:
    world = World.made(await server.client(), fleet_of("edge", lease=timedelta(seconds=15)))
    world.judge.says(HEALTHY)
    async with working(world):
        await world.upgrade(("gw-1",))
    assert "inspect b" not in world.effects()["gw-1"]


@pytest.mark.sweep
async def test_a_release_that_is_slower_under_load_meets_no_user(server: Engine) -> None:
    world = await fleet_with_tests(server, load={"gateway": "gw-1", "sessions": 10})
    world.gateways["gw-1"].spoiled[NEW.digest] = {Asked.THROUGHPUT: 5.0}
    async with working(world):
        result = await world.upgrade()
    assert result.outcome is Outcome.ROLLED_BACK
    assert result.reason == (
        "gw-1 failed a test before any user: throughput (5 beside 10, at least 0.7 of the old instance's): "
        "as it was found"
    )
    assert "steer b" not in world.effects()["gw-1"]
    assert world.effects()["gw-2"] == []


@pytest.mark.sweep
async def test_only_the_gateway_that_the_file_names_is_loaded_and_once(server: Engine) -> None:
    world = await fleet_with_tests(server, load={"gateway": "gw-1"})
    async with working(world):
        result = await world.upgrade()
    assert result.outcome is Outcome.PROMOTED, result.reason
    loads = {name: effects.count("load b") for name, effects in world.effects().items()}
    assert loads == {"gw-1": 1, "gw-2": 0, "gw-3": 0, "gw-4": 0}


MIRROR = {"within": "3m", "at_least": 4, "at_most": 30}


@pytest.mark.sweep
async def test_logins_are_mirrored_to_every_gateway_after_its_other_tests_and_before_its_first_session(
    server: Engine,
) -> None:
    world = await fleet_with_tests(server, mirror=MIRROR)
    async with working(world):
        result = await world.upgrade()
    assert result.outcome is Outcome.PROMOTED, result.reason
    mirrored = "mirror b for 180 s at 4 to 30"
    for name in ("gw-1", "gw-2", "gw-3"):
        done = world.effects()[name]
        assert done.index("inspect b") < done.index(mirrored) < done.index("steer b")
        assert done.count(mirrored) == 1
    assert written_down(world) == [
        (f"{world.newest}/gw-{number}", "passed") for number in (1, 2, 3) for _ in ("tests", "mirror")
    ]


@pytest.mark.parametrize(
    ("test", "measured", "said"),
    [
        (Asked.MIRROR_REFUSED, 0.25, "mirror-refused (0.25, at most 0.05)"),
        (Asked.MIRROR_SECONDS, 0.9, "mirror-seconds (0.9 beside 0.2, at most 2 of the old instance's)"),
    ],
)
async def test_a_release_that_fails_as_users_log_in_meets_no_user(
    server: Engine, test: Asked, measured: float, said: str
) -> None:
    world = await fleet_with_tests(server, mirror=MIRROR)
    world.gateways["gw-1"].spoiled[NEW.digest] = {test: measured}
    async with working(world):
        result = await world.upgrade()
    assert result.outcome is Outcome.ROLLED_BACK
    assert result.reason.startswith(f"gw-1 failed a test before any user: {said}: ")
    assert "steer b" not in world.effects()["gw-1"]
    assert world.effects()["gw-2"] == world.effects()["gw-3"] == []
    assert written_down(world) == [(f"{world.newest}/gw-1", outcome) for outcome in ("failed", "passed")]


@pytest.mark.sweep
async def test_a_mirror_that_shows_nothing_is_no_pass_and_says_why_while_it_is_tried_again(
    server: Engine,
) -> None:
    world = await fleet_with_tests(server, mirror=MIRROR)
    spoiled = world.gateways["gw-1"].spoiled
    spoiled[NEW.digest] = {Asked.MIRROR_REFUSED: None}
    async with working(world):
        rollout = await world.start(("gw-1",))

        async def waits() -> bool:
            said = (await status_of(rollout)).needs_you or ""
            return said.startswith("release tests cannot be made: gw-1: mirror-refused (at most 0.05)")

        await until(waits)
        assert "steer b" not in world.effects()["gw-1"]
        spoiled.clear()
        result = await result_of(rollout)
    assert result.outcome is Outcome.PROMOTED, result.reason


@pytest.mark.sweep
async def test_a_mirror_that_was_killed_begins_again_and_the_change_goes_on(server: Engine) -> None:
    world = await fleet_with_tests(server, mirror=MIRROR)
    world.gateways["gw-1"].fail("mirror", Unavailable("the agent was killed"), times=1)
    async with working(world):
        result = await world.upgrade(("gw-1",))
    assert result.outcome is Outcome.PROMOTED, result.reason
    assert world.effects()["gw-1"].count("mirror b for 180 s at 4 to 30") == 1


@pytest.mark.sweep
async def test_a_fleet_without_a_mirror_has_none(server: Engine) -> None:
    world = await fleet_with_tests(server)
    async with working(world):
        await world.upgrade(("gw-1",))
    assert not [one for one in world.effects()["gw-1"] if one.startswith("mirror")]
