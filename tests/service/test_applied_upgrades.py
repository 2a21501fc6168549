"""An upgrade that a file asks for: planned, approved by somebody else, and started as it was planned."""

from typing import Any

import pytest

from activities.files import load
from orchestrator.service.changes import ChangeService
from orchestrator.service.surveys import Surveyed, SurveyService
from policies.model.change import ChangeEnding, ChangeKind, ChangeOpening, KnownGoodBatch, Outcome
from policies.model.desired import AppliedKind
from policies.model.errors import Refused
from policies.model.fleet import Fleet
from policies.model.people import Caller, Role, Via
from policies.model.plan import Plan, ReleaseRef, Strategy
from tests.fakes.gateway import FakeGateway
from tests.service.test_approvals import (  # noqa: F401 - fixtures
    CAROL,
    DORA,
    House,
    Releases,
    approve,
    house,
    place,
    releases,
)


def applied(release: ReleaseRef, start: str = "on-approval", plan: str | None = None) -> dict[str, Any]:
    lines = (
        "kind: Upgrade",
        "fleet: edge",
        f"release: {release.digest}",
        f"version: {release.version}",
        "reason: patches",
        f"start: {start}",
    )
    return {"file": {"path": "upgrade.yaml", "text": "\n".join(lines)}, "plan": plan}


@pytest.fixture
async def serving(
    house: House,  # noqa: F811
    releases: Releases,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> House:
    """A fleet whose gateways all serve the old release, and say so."""
    old, states = releases[0], {}
    for gateway in load(house.folder / "fleet.yaml", Fleet).gateways:
        fake = FakeGateway(gateway)
        fake.serve(old)
        states[gateway.name] = await fake.observe()
    opening = ChangeOpening(
        key="first",
        fleet="edge",
        kind=ChangeKind.INSTALL,
        requested_by="dora",
        reason="first",
        release=old.version,
        release_digest=old.digest,
    )
    name = house.ledger.open_change(opening)
    house.ledger.record_known_good_batch(
        KnownGoodBatch(fleet="edge", change=name, releases=dict.fromkeys(states, old))
    )
    house.ledger.close_change(ChangeEnding(change=name, outcome=Outcome.PROMOTED, sentence="it serves"))
    house.ledger.record_states("edge", list(states.values()), {})

    async def survey(*_: object) -> Surveyed:
        return Surveyed(states=states)

    monkeypatch.setattr(SurveyService, "of", survey)
    return house


@pytest.fixture
def begun(serving: House, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The digests of the plans that an engine was asked to carry out, which calls their changes so."""
    found: list[str] = []

    async def start(_: object, plan: Plan, __: str, person: str, reason: str, **more: Any) -> str:
        opening = ChangeOpening(
            key=more["key"],
            fleet=plan.fleet.name,
            kind=ChangeKind.UPGRADE,
            requested_by=person,
            reason=reason,
            release=plan.release.version,
            release_digest=plan.release.digest,
        )
        found.append(plan.digest)
        return serving.ledger.open_change(opening)

    monkeypatch.setattr(ChangeService, "start", start)
    return found


async def post(at: House, body: dict[str, Any], key: str) -> tuple[int, Any]:
    return await at.by(DORA)("POST", "/fleets/edge/upgrade", body, key)


async def test_it_waits_for_whoever_has_to_approve_exactly_its_plan_and_starts_then(
    serving: House,
    releases: Releases,  # noqa: F811
    begun: list[str],
) -> None:
    new = releases[1]
    serving.write_fleet(approvals=1)
    asked = {"fleet": "edge", "to": new.digest}
    status, plan = await serving.by(DORA)("POST", "/plans", asked)
    assert status == 200, plan
    body = applied(new, plan=plan["digest"])
    status, refused = await post(serving, body, "one")
    assert (status, refused["code"], refused["exit_code"]) == (422, "ApprovalRequired", 5), refused
    [offer] = [one for one in refused["next"] if one["verb"] == "approve"]
    assert offer["plan"] == plan["digest"]
    assert serving.ledger.newest_revision("edge", AppliedKind.UPGRADE) is None

    assert (await approve(serving, CAROL, plan["digest"]))[0] == 201
    status, started = await post(serving, body, "two")
    assert (status, started["started"]) == (200, True), started
    assert begun == [plan["digest"]]
    for key in ("two", "three"):  # the same request, and another one that asks for the same
        status, again = await post(serving, body, key)
        assert (status, again["change"]) == (200, started["change"])
    assert begun == [plan["digest"]]
    revision = serving.ledger.newest_revision("edge", AppliedKind.UPGRADE)
    assert revision is not None
    assert (revision.number, revision.person) == (1, "dora")


async def test_a_file_that_does_not_say_start_starts_nothing(
    serving: House,
    releases: Releases,  # noqa: F811
    begun: list[str],
) -> None:
    status, found = await post(serving, applied(releases[1], "never"), "one")
    assert (status, found["state"], found["started"]) == (200, "wanted", False)
    assert begun == []
    assert serving.ledger.last_change("edge") is not None


async def test_another_change_is_finished_first(
    serving: House,
    releases: Releases,  # noqa: F811
    begun: list[str],
) -> None:
    await post(serving, applied(releases[1]), "one")
    status, found = await post(serving, applied(releases[2]), "two")
    assert (status, found["exit_code"]) == (409, 9), found
    assert "is under way, which leads edge elsewhere" in found["detail"]
    assert len(begun) == 1


async def test_a_machine_does_not_start_a_pinned_release_by_another_road(
    serving: House,
    releases: Releases,  # noqa: F811
    begun: list[str],
) -> None:
    _, started = await post(serving, applied(releases[1]), "one")
    ending = ChangeEnding(change=started["change"], outcome=Outcome.ROLLED_BACK, sentence="logins failed")
    serving.ledger.close_change(ending)
    body = {"fleet": "edge", "to": releases[1].digest, "reason": "again"}
    grants = {"edge": frozenset({Role.CI})}
    robot = Caller(person="robot", grants=grants, via=Via.API, machine=True)
    with pytest.raises(Refused, match=r"edge is pinned against 1\.5\.0"):
        await serving.installation.service.start(
            robot, "edge", releases[1].digest, Strategy.CANARY, "again", key="two"
        )
    assert (await post(serving, applied(releases[1]), "three"))[1]["exit_code"] == 5
    assert len(begun) == 1
    status, found = await serving.by(DORA)("POST", "/changes", body, "four")
    assert status == 202, found  # a person names it, and so says so
    assert len(begun) == 2
