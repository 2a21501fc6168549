"""What a plan warns of beside what it does: files that describe the fleet's gateways in different ways."""

import pytest

from activities.files import load
from orchestrator.service.surveys import Surveyed, SurveyService
from policies.adoption import release_of
from policies.model.change import ChangeKind, ChangeOpening, KnownGoodBatch
from policies.model.fleet import Fleet
from policies.model.instance import GivenCredential
from tests.fakes.gateway import FakeGateway
from tests.service.test_approvals import DORA, House, Releases, house, place, releases  # noqa: F401 - fixtures

KEY = (GivenCredential(name="key"),)
IN_A_VAULT = (GivenCredential(name="key", elsewhere=True),)


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


async def test_a_plan_says_what_the_steering_of_its_gateways_promises(
    house: House,  # noqa: F811
    releases: Releases,  # noqa: F811
) -> None:
    old, same, _ = releases
    plan = await house.plan(old, same)
    _, found = await house.by(DORA)("GET", f"/plans/{plan.digest[7:19]}")
    assert found["sentences"][-1] == (
        "Steering by nftables: who changes networks while an instance drains logs in again, unless a packet "
        "over UDP tells of it."
    )


async def test_a_plan_names_gateway_and_credential_where_a_host_lacks_what_the_release_asks_for(
    house: House,  # noqa: F811
    releases: Releases,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old, same, _ = releases
    fleet = load(house.folder / "fleet.yaml", Fleet)
    states = {}
    for gateway, given in zip(fleet.gateways, ((), None, KEY, IN_A_VAULT), strict=True):
        fake = FakeGateway(gateway)
        fake.credentials = given
        fake.serve(old)
        states[gateway.name] = await fake.observe()
    opening = ChangeOpening(
        key="first",
        fleet="edge",
        kind=ChangeKind.INSTALL,
        requested_by="dora",
        reason="first",
        release="1.4.0",
    )
    change, known_good = house.ledger.open_change(opening), dict.fromkeys(states, old)
    batch = KnownGoodBatch(fleet="edge", change=change, releases=known_good)
    house.ledger.record_known_good_batch(batch)
    house.ledger.record_states("edge", list(states.values()), {})

    async def survey(*_: object) -> Surveyed:
        return Surveyed(states=states)

    monkeypatch.setattr(SurveyService, "of", survey)
    asked = {"fleet": "edge", "to": same.version}
    status, found = await house.by(DORA)("POST", "/plans", asked)
    assert status == 200, found
    lacks = "its host lacks credential key, which its agent's file does not name"
    [alone] = found["left_alone"]
    assert (alone["gateway"], alone["reason"], alone["is_there"]) == ("gw-1", lacks, False)
    assert found["warnings"] == [
        "whether gw-4 can read credential key is not known before a start: a vault has it",
        "whether gw-2 can read key is not known: an agent that is older does not tell",
    ]
    for name, state in states.items():
        serves_nobody = state.steering.model_copy(update={"serving": None})
        states[name] = state.model_copy(update={"steering": serves_nobody})
    first = {"to": same.version, "reason": "first"}
    status, found = await house.by(DORA)("POST", "/fleets/edge/install", first, "k")
    assert status == 422, found
    assert found["detail"].startswith(f"gw-1: {lacks}; mend")


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
