"""What a plan warns of beside what it does: files that describe the fleet's gateways in different ways."""

from activities.files import load
from policies.adoption import release_of
from policies.model.fleet import Fleet
from tests.fakes.gateway import FakeGateway
from tests.service.test_approvals import DORA, House, Releases, house, place, releases  # noqa: F401 - fixtures


async def test_a_plan_warns_where_an_agents_file_is_not_as_fleet_yaml_says(
    house: House,  # noqa: F811
    releases: Releases,  # noqa: F811
) -> None:
    old, same, _ = releases
    plan = await house.plan(old, same)
    gateways = load(house.folder / "fleet.yaml", Fleet).gateways
    differs = "files differ on gw-1 and 1 more gateways: port: fleet.yaml says 443, its agent's file 8443"
    for others, warnings in ((0, []), (2, [differs])):
        states = []
        for number, gateway in enumerate(gateways):
            agents = gateway.model_copy(update={"port": 8443}) if number < others else gateway
            fake = FakeGateway(agents)
            fake.serve(old)
            states.append(await fake.observe())
        house.ledger.record_states("edge", states, {})
        _, found = await house.by(DORA)("GET", f"/plans/{plan.digest[7:19]}")
        assert found["warnings"] == warnings


async def test_a_plan_says_that_logins_to_a_daemon_that_was_adopted_are_not_counted(
    house: House,  # noqa: F811
    releases: Releases,  # noqa: F811
) -> None:
    _, new, _ = releases
    plan = await house.plan(release_of(new.product, "1.1.6", new.executable), new)
    _, found = await house.by(DORA)("GET", f"/plans/{plan.digest[7:19]}")
    [said] = found["warnings"]
    first = min(plan.known_good)
    assert said.startswith(f"logins to the daemon that was adopted are not counted on {first} and")
