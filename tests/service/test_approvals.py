"""The two-person rule for upgrades: who approves which plan, at a real socket, of a real signed release."""

import json
import os
import re
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from activities.files import load
from orchestrator.processes.api import serving, socket_at
from orchestrator.processes.composition import Installation, compose
from orchestrator.publishing.folder import place as file_of
from orchestrator.publishing.folder import publish
from orchestrator.service.identity import IdentityProvider, Vouched
from orchestrator.settings import Settings
from orchestrator.store import tables
from orchestrator.words.plans import plan_lines
from policies.model.change import ChangeEnding, ChangeKind, ChangeOpening, ChangeOrder, Outcome
from policies.model.command import CommandKind
from policies.model.errors import NotAllowed, Unavailable
from policies.model.fleet import Fleet
from policies.model.gates import GatePolicy
from policies.model.instance import GatewayState
from policies.model.people import Caller, Role, Via
from policies.model.plan import Plan, ReleaseRef, Strategy
from policies.model.plan_part import PlanHeader
from policies.model.refusals import ApprovalRequired
from policies.model.value import digest_of
from policies.model.verdict import Action, Basis, GateVerdict
from policies.planning.plan import plan as make_plan
from policies.planning.settings import changing
from policies.status.told import Told
from tests.fakes.gateway import FakeGateway
from tests.fakes.ledgers import new_ledger
from tests.fakes.stage import PRODUCT, Stage
from tests.service.system_user import SystemUser

ANNA, BERT, CAROL, DORA, STRANGER = 61001, 61002, 61003, 61004, 61009
PEOPLE = f"""\
apiVersion: penstock/v1
people:
  - {{name: anna, system_users: ["uid:{ANNA}"], roles: {{edge: [operator, approver]}}}}
  - {{name: bert, system_users: ["uid:{BERT}"], roles: {{edge: [approver]}}}}
  - {{name: carol, system_users: ["uid:{CAROL}"], roles: {{edge: [approver]}}}}
  - {{name: dora, system_users: ["uid:{DORA}"], roles: {{edge: [viewer, operator]}}}}
"""
ISSUER = "https://idp.example"
OIDC = f"oidc: {{issuer: {ISSUER}, audience: penstock, client: penstock, name_claim: email}}\n"
KNOWN_TO_THE_PROVIDER = re.sub(r"name: (\w+),", r"name: \1, subjects: [s-\1],", PEOPLE)
FLEET = f"""\
name: edge
product: {PRODUCT}
channel: stable
approvals: {{approvals}}
limits: {{{{holdout: "0", steps: ["1", "100%"]}}}}
gateways:
"""
GATEWAY = """\
  - name: gw-{0}
    addresses: [192.0.2.{0}]
    slots:
      - {{name: a, port: 4441, device: oca{0}, pool4: 10.{0}.0.0/24}}
      - {{name: b, port: 4442, device: ocb{0}, pool4: 10.{0}.1.0/24}}
"""
WHY = {"reason": "read it, and the changelog"}


class House:
    """An installation with a repository: releases are added for real, plans are made of what it knows."""

    def __init__(self, folder: Path, stage: Stage, socket: Path) -> None:
        self.folder, self.stage, self.socket = folder, stage, socket
        (folder / "people.yaml").write_text(PEOPLE)
        new_ledger(folder / "ledger.db")
        self.settings = Settings(
            temporal_address="127.0.0.1:1",
            prometheus_url="http://127.0.0.1:1",
            source=stage.server.url,
            ledger_url=f"sqlite:///{folder / 'ledger.db'}",
            fleet=folder / "fleet.yaml",
            people=folder / "people.yaml",
            gates=Path("deploy/prometheus/gates.yaml"),
            trust=stage.lab.trust_policy,
            store=folder / "store",
            audit_key=folder / "audit.key",
            audit_checkpoints=folder / "checkpoints.jsonl",
            audit_late=folder / "audit-late.jsonl",
            socket=socket,
        )
        self.write_fleet()

    def write_fleet(self, approvals: int = 0) -> None:
        gateways = "".join(GATEWAY.format(number) for number in range(1, 5))
        (self.folder / "fleet.yaml").write_text(FLEET.format(approvals=approvals) + gateways)

    def by(self, uid: int) -> SystemUser:
        return SystemUser(self.socket, uid)

    async def open(self) -> None:
        self.installation: Installation = await compose(self.settings)
        self.ledger = self.installation.ledger

    async def add(self, digest: str) -> ReleaseRef:
        status, found = await self.by(DORA)("POST", "/releases", {"fleet": "edge", "digest": digest})
        assert status == 201, found
        return ReleaseRef.model_validate(found["release"])

    async def release(self, version: str, template: str, index: int, changelog: str = "") -> ReleaseRef:
        """Have a release with that configuration published, signed and added."""
        file = self.folder / f"{version}.conf"
        file.write_text(template)
        lab = self.stage.lab
        tree = self.stage.folder / "tree"
        digest = lab.publish(tree, file, version=version, rollback_index=index, changelog=changelog)
        return await self.add(digest)

    async def plan(self, old: ReleaseRef, new: ReleaseRef) -> Plan:
        """Record the plan of an upgrade of gateways that all serve the old release."""
        fleet = load(self.folder / "fleet.yaml", Fleet)
        states: dict[str, GatewayState] = {}
        for gateway in fleet.gateways:
            fake = FakeGateway(gateway)
            fake.serve(old)
            states[gateway.name] = await fake.observe()
        known_good = {gateway.name: old for gateway in fleet.gateways}
        made = make_plan(
            fleet,
            states,
            known_good,
            new,
            Strategy.CANARY,
            gates=load(self.settings.gates, GatePolicy),
            trust_policy=digest_of(self.settings.trust.read_bytes()),
        )
        self.ledger.record_plan(made)
        return made

    async def plan_of(self, **settings: tuple[str, ...]) -> PlanHeader:
        """Record the plan of a change of settings of all gateways."""
        fleet = load(self.folder / "fleet.yaml", Fleet).model_copy(update={"settings": settings})
        states = {gateway.name: await FakeGateway(gateway).observe() for gateway in fleet.gateways}
        digest = self.ledger.record_settings(fleet, tuple(states), changing(fleet, states))
        return self.ledger.plan_header(digest)

    def refusal_of(self, plan: Plan | PlanHeader, starts: str) -> str | None:
        """Return why that person may not start the plan."""
        try:
            self.installation.approvals.require(self.ledger.outline(plan.digest), starts)
        except ApprovalRequired as refused:
            return str(refused)
        return None

    def begun(self, plan: Plan, person: str) -> str:
        """Open the upgrade that the person started by this plan; return its name."""
        opening = ChangeOpening(
            key="started",
            fleet="edge",
            kind=ChangeKind.UPGRADE,
            requested_by=person,
            reason="tuesday",
            release=plan.release.version,
            plan=plan.digest,
        )
        return self.ledger.open_change(opening)

    def passed(self, time: timedelta) -> None:
        """Have everything that was seen of people be older by so much."""
        engine, table = sqlalchemy.create_engine(self.settings.ledger_url), tables.logins
        with engine.begin() as connection:
            for row in connection.execute(sqlalchemy.select(table)).all():
                mine = (table.c.identity == row.identity, table.c.name == row.name)
                connection.execute(sqlalchemy.update(table).where(*mine).values(last=row.last - time))
        engine.dispose()

    def audited(self, action: str) -> list[Any]:
        return [entry for entry in self.ledger.audit_entries() if entry.action == action]


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder where every user of this host may knock."""
    with tempfile.TemporaryDirectory(prefix="penstock-people-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "penstock.sock"


@pytest.fixture
async def house(tmp_path: Path, place: Path) -> AsyncIterator[House]:
    if os.geteuid():
        pytest.skip("only root can knock as somebody else")
    with Stage(tmp_path / "stage") as stage:
        found = House(tmp_path, stage, place)
        await found.open()
        async with serving(found.installation.service, socket_at(place)):
            yield found


@pytest.fixture
async def releases(house: House) -> tuple[ReleaseRef, ReleaseRef, ReleaseRef]:
    """One that serves, one with other programs alone, and one that changes its configuration, too."""
    template = house.stage.template.read_text()
    old = await house.release("1.4.0", template, 6)
    same = await house.release("1.5.0", template, 7)
    wider = await house.release("1.6.0", template + "tls-priorities = LEGACY\n", 8)
    house.stage.change_policy(lambda policy: policy.pop("approvals"))
    return old, same, wider


Releases = tuple[ReleaseRef, ReleaseRef, ReleaseRef]


async def test_who_approves_reads_what_the_signers_say_that_the_release_changes(
    house: House, releases: Releases
) -> None:
    changelog = "# 1.7.0\n\n- no login is refused any more [bold]\n" + "- and more\n" * 20
    new = await house.release("1.7.0", house.stage.template.read_text(), 9, changelog.strip())
    made = await house.plan(releases[0], new)
    status, found = await house.by(DORA)("GET", f"/plans/{made.digest}")
    assert (status, found["changelog"]) == (200, changelog.strip())
    lines = plan_lines(found)
    assert lines.index(" Changes     # 1.7.0") + 1 == lines.index(
        " Changes     - no login is refused any more [bold]"
    )
    assert " Changes     10 more lines: penstock release show 1.7.0" in lines
    _, shown = await house.by(DORA)("GET", "/releases/1.7.0")
    assert shown["changelog"] == changelog.strip()
    _, silent = await house.by(DORA)("GET", f"/plans/{(await house.plan(releases[0], releases[1])).digest}")
    assert (silent["changelog"], [line for line in plan_lines(silent) if "Changes  " in line]) == ("", [])


async def approve(house: House, uid: int, plan: str) -> tuple[int, Any]:
    return await house.by(uid)("POST", f"/plans/{plan}/approvals", WHY)


async def test_a_release_of_other_programs_alone_needs_nobody(house: House, releases: Releases) -> None:
    old, same, _ = releases
    assert house.refusal_of(await house.plan(old, same), "dora") is None


async def test_a_change_of_configuration_needs_two_who_do_not_start_it(
    house: House, releases: Releases
) -> None:
    old, _, wider = releases
    plan = await house.plan(old, wider)
    assert "changes tls-priorities: 2 people must approve" in str(house.refusal_of(plan, "dora"))
    for uid in (BERT, ANNA):
        assert (await approve(house, uid, plan.digest))[0] == 201
    assert house.refusal_of(plan, "dora") is None
    assert "and bert did" in str(house.refusal_of(plan, "anna"))
    assert [entry.person for entry in house.audited("plan approved")] == ["bert", "anna"]
    assert {entry.fleet for entry in house.audited("plan approved")} == {"edge"}


async def test_a_plan_that_lacks_people_is_in_the_record_once_for_each_step_that_it_has_come(
    house: House, releases: Releases
) -> None:
    old, _, wider = releases
    plan = await house.plan(old, wider)
    for _ in range(3):
        assert house.refusal_of(plan, "dora")
    for uid in (BERT, ANNA):
        await approve(house, uid, plan.digest)
    assert house.refusal_of(plan, "dora") is None
    awaited = house.audited("approval awaited")
    assert [(entry.person, json.loads(entry.body)["lacking"]) for entry in awaited] == [
        ("dora", 2),
        ("bert", 1),
    ]
    assert {(entry.subject, entry.fleet) for entry in awaited} == {(plan.digest, "edge")}


async def test_a_fleet_that_is_protected_asks_for_people_at_every_upgrade(
    house: House, releases: Releases
) -> None:
    old, same, _ = releases
    house.write_fleet(approvals=1)
    plan = await house.plan(old, same)
    assert "1.5.0" in plan.release.version
    assert "the fleet's file asks for it" in str(house.refusal_of(plan, "dora"))
    await approve(house, CAROL, plan.digest[7:19])
    assert house.refusal_of(plan, "dora") is None


async def test_whoever_looks_at_a_plan_sees_who_is_missing_and_what_to_do(
    house: House, releases: Releases
) -> None:
    old, _, wider = releases
    plan = await house.plan(old, wider)
    await approve(house, BERT, plan.digest)
    status, found = await house.by(DORA)("GET", f"/plans/{plan.digest[7:19]}")
    assert status == 200, found
    assert found["approved"]["people"] == ["bert"]
    assert [offer["verb"] for offer in found["offers"]] == ["approve", "start"]
    _, his = await house.by(BERT)("GET", f"/plans/{plan.digest}")
    assert his["approved"]["people"] == ["bert"]
    await approve(house, CAROL, plan.digest)
    _, found = await house.by(DORA)("GET", f"/plans/{plan.digest}")
    assert [offer["verb"] for offer in found["offers"]] == ["start"]


async def test_an_approval_is_for_one_plan_alone(house: House, releases: Releases) -> None:
    old, _, wider = releases
    before = await house.plan(old, wider)
    for uid in (BERT, CAROL):
        await approve(house, uid, before.digest)
    house.write_fleet(approvals=1)
    after = await house.plan(old, wider)
    assert house.refusal_of(before, "dora") is None
    assert "and nobody did" in str(house.refusal_of(after, "dora"))


async def test_an_approval_expires_and_one_start_uses_it_up(house: House, releases: Releases) -> None:
    old, _, wider = releases
    plan = await house.plan(old, wider)
    for uid in (BERT, CAROL):
        await approve(house, uid, plan.digest)
    house.begun(plan, "dora")
    assert "and nobody did" in str(house.refusal_of(plan, "dora"))
    for uid in (BERT, CAROL):
        await approve(house, uid, plan.digest)
    assert house.refusal_of(plan, "dora") is None
    engine = sqlalchemy.create_engine(house.settings.ledger_url)
    with engine.begin() as connection:
        now, table = datetime.now(UTC), tables.approvals
        old_yes = {"at": now - timedelta(minutes=1), "expires": now - timedelta(seconds=1)}
        connection.execute(sqlalchemy.update(tables.changes).values(began=now - timedelta(hours=1)))
        connection.execute(sqlalchemy.update(table).values(**old_yes))
    engine.dispose()
    assert "and nobody did" in str(house.refusal_of(plan, "dora"))


@pytest.mark.parametrize(
    ("uid", "status", "said"),
    [
        (DORA, 403, "dora may not approve or reject for edge: that takes approver"),
        (STRANGER, 403, "nobody who is known here"),
    ],
)
async def test_who_is_no_approver_approves_nothing(
    uid: int, status: int, said: str, house: House, releases: Releases
) -> None:
    old, _, wider = releases
    plan = await house.plan(old, wider)
    answer, problem = await approve(house, uid, plan.digest)
    assert answer == status
    assert said in problem["detail"]
    assert not house.ledger.approvals(plan.digest)
    if uid == DORA:
        assert house.audited("refused")


async def test_a_machine_approves_nothing_whatever_its_roles_say(house: House, releases: Releases) -> None:
    old, _, wider = releases
    plan = await house.plan(old, wider)
    grants = {"edge": frozenset({Role.APPROVER, Role.CI})}
    robot = Caller(person="robot", grants=grants, via=Via.API, machine=True)
    with pytest.raises(NotAllowed, match="robot is a machine; only people approve"):
        await house.installation.service.approve_plan(robot, plan.digest, "always")
    assert not house.ledger.approvals(plan.digest)


async def test_nobody_starts_what_they_approved_through_a_machine_or_as_root(
    house: House, releases: Releases
) -> None:
    old, newer, _ = releases
    house.write_fleet(approvals=1)
    plan = await house.plan(old, newer)
    house.ledger.make_token("deploy-bot", {"edge": frozenset({Role.CI})}, timedelta(days=1), "bert")
    await approve(house, BERT, plan.digest)
    assert house.refusal_of(plan, "dora") is None
    assert house.refusal_of(plan, "deploy-bot") is not None
    assert "root may be one of them" in str(house.refusal_of(plan, "root"))
    await approve(house, CAROL, plan.digest)
    assert house.refusal_of(plan, "deploy-bot") is None
    assert house.refusal_of(plan, "root") is None


async def test_a_plan_that_nobody_made_cannot_be_approved(house: House, releases: Releases) -> None:
    del releases
    assert (await house.by(BERT)("POST", "/plans/ffffffffffff/approvals", WHY))[0] == 404
    assert (await house.by(BERT)("POST", "/plans/sha256:zz/approvals", WHY))[0] == 422


@pytest.mark.parametrize("spelled", [str.lower, str.upper, str.title])
async def test_who_signed_the_release_does_not_approve_it_however_the_name_is_spelled(
    house: House, releases: Releases, spelled: Callable[[str], str]
) -> None:
    """S4's kind, a fresh reader's H4: another spelling in people.yaml let the signer approve."""
    old, _, wider = releases
    identity = spelled(house.stage.lab.manager[0])
    people = PEOPLE.replace("{name: bert,", f"{{name: bert, subjects: [{json.dumps(identity)}],")
    oidc = "oidc: {issuer: https://idp.example, audience: penstock, client: penstock}\n"
    (house.folder / "people.yaml").write_text(people + oidc)
    plan = await house.plan(old, wider)
    answer, problem = await approve(house, BERT, plan.digest)
    assert answer == 403, problem
    assert "bert signed 1.6.0" in problem["detail"]


async def test_whom_the_trust_policy_names_as_the_signer_does_not_approve_the_release(house: House) -> None:
    """A fresh reader's H4: nobody asked `person:` of the policy, and keys of OpenPGP name no person."""

    def name_everybody(policy: dict[str, Any]) -> None:
        policy.pop("approvals", None)
        for signer in (one for rule in policy["rules"] for group in rule["groups"].values() for one in group):
            signer["person"] = "bert" if signer.get("identity") == house.stage.lab.manager[0] else "else"

    house.stage.change_policy(name_everybody)
    template = house.stage.template.read_text()
    old = await house.release("1.4.0", template, 6)
    new = await house.release("1.6.0", template + "tls-priorities = LEGACY\n", 8)
    plan = await house.plan(old, new)
    answer, problem = await approve(house, BERT, plan.digest)
    assert (answer, "bert signed 1.6.0" in problem["detail"]) == (403, True), problem
    assert (await approve(house, ANNA, plan.digest))[0] == 201


async def signed_anew(house: House, digest: str, manager: tuple[str, str]) -> Any:
    """Have the manager revoked and another one sign the release in their place; return the answer."""
    stage = house.stage

    def manager_left(policy: dict[str, Any]) -> None:
        policy.pop("approvals", None)
        for rule in policy["rules"]:
            signer = rule["groups"]["release_manager"][0]
            rule["groups"]["release_manager"] = [signer | {"identity": manager[0], "issuer": manager[1]}]
        revoked = policy.setdefault("revoked", {})
        revoked["identities"] = [*revoked.get("identities", []), stage.lab.manager[0]]

    stage.change_policy(manager_left)
    statement = file_of(stage.root, "statements", digest).read_bytes()
    bundles = [stage.signer.sign(statement, *one) for one in (stage.lab.builder, manager)]
    publish(stage.root, statement, [("sigstore", one) for one in bundles], {})
    status, found = await house.by(DORA)("POST", "/releases", {"fleet": "edge", "digest": digest})
    assert status == 201, found
    return found


@pytest.mark.parametrize("approved_before", [False, True])
async def test_whoever_ever_signed_a_release_does_not_approve_it(house: House, approved_before: bool) -> None:
    """The ledger kept the signers of the first time: the new one could approve what they had signed."""
    bert, anna = "second@lab.penstock.example", house.stage.lab.manager[0]
    people = PEOPLE.replace("{name: bert,", f"{{name: bert, subjects: [{bert}],")
    people = people.replace("{name: anna,", f"{{name: anna, subjects: [{anna}],")
    oidc = "oidc: {issuer: https://idp.example, audience: penstock, client: penstock}\n"
    (house.folder / "people.yaml").write_text(people + oidc)
    template = house.stage.template.read_text()
    old = await house.release("1.4.0", template, 6)
    new = await house.release("1.6.0", template + "tls-priorities = LEGACY\n", 8)
    plan = await house.plan(old, new)
    assert (await approve(house, ANNA, plan.digest))[0] == 403
    if approved_before:
        assert (await approve(house, BERT, plan.digest))[0] == 201
    found = await signed_anew(house, new.digest, (bert, "https://idp.lab.penstock.example"))
    assert bert in str(found["signers"])
    assert anna not in str(found["signers"])
    assert anna in str(found["former_signers"])
    for uid, name in ((BERT, "bert"), (ANNA, "anna")):
        status, problem = await approve(house, uid, plan.digest)
        assert (status, f"{name} signed 1.6.0" in str(problem)) == (403, True), problem
    assert "bert did" not in str(house.refusal_of(plan, "dora"))
    (entry,) = house.audited("signers of release changed")
    assert (entry.person, entry.subject, bert in str(entry.body)) == ("dora", new.digest, True)


async def test_the_same_key_gives_one_approval(house: House, releases: Releases) -> None:
    old, _, wider = releases
    plan = await house.plan(old, wider)
    bert = house.by(BERT)
    route = f"/plans/{plan.digest}/approvals"
    first, again = await bert("POST", route, WHY, "k"), await bert("POST", route, WHY, "k")
    assert first == again
    assert len(house.audited("plan approved")) == 1
    assert (await bert("POST", route, {"reason": "another"}, "k"))[0] == 422


async def test_the_yes_of_somebody_who_may_not_approve_any_more_does_not_count(
    house: House, releases: Releases
) -> None:
    old, _, wider = releases
    plan = await house.plan(old, wider)
    for uid in (BERT, CAROL):
        assert (await approve(house, uid, plan.digest))[0] == 201
    assert house.refusal_of(plan, "dora") is None
    lines = [line for line in PEOPLE.splitlines() if "bert" not in line]
    (house.folder / "people.yaml").write_text("\n".join(lines) + "\n")
    assert house.refusal_of(plan, "dora") is not None


@pytest.mark.parametrize(
    ("approves_by", "taken_away", "counts"),
    [
        ((), "", True),
        ((), "their role", False),
        ((), "the group's role", True),
        (("approvers",), "", True),
        (("approvers",), "their role", True),
        (("approvers",), "the group's role", False),
        (("readers",), "their role", False),
    ],
)
async def test_an_approval_counts_by_what_its_person_was_and_never_by_what_other_groups_may(
    approves_by: tuple[str, ...],
    taken_away: str,
    counts: bool,
    house: House,
    releases: Releases,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where any group of people.yaml might approve, nobody's approval ended with their role."""
    old, newer, _ = releases
    house.write_fleet(approvals=1)
    plan = await house.plan(old, newer)
    role = "viewer" if approves_by == ("approvers",) else "approver"
    bert = "  - {name: bert, subjects: [s-bert], roles: {edge: [%s]}}\n"
    groups = "groups: [{name: readers, roles: {edge: [viewer]}}, {name: approvers, roles: {edge: [%s]}}]\n"

    def write(role: str, of_group: str) -> None:
        people = f"apiVersion: penstock/v1\n{OIDC}{groups % of_group}people:\n{bert % role}"
        (house.folder / "people.yaml").write_text(people)

    write(role, "approver")
    vouched = Vouched(issuer=ISSUER, subject="s-bert", groups=approves_by)
    monkeypatch.setattr(IdentityProvider, "vouched", lambda *_: vouched)
    service = house.installation.service
    caller = await service.caller_of_token("eyJ", "192.0.2.1")
    await service.approve_plan(caller, plan.digest, "mine")
    write(
        "viewer" if taken_away == "their role" else role,
        "viewer" if taken_away == "the group's role" else "approver",
    )
    assert (house.refusal_of(plan, "dora") is None) is counts


async def test_who_signed_and_is_known_by_a_group_alone_does_not_approve_it(
    house: House, releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, _, wider = releases
    signer = house.stage.lab.manager[0]
    groups = "groups: [{name: approvers, roles: {edge: [approver]}}]\n"
    people = "apiVersion: penstock/v1\n"
    (house.folder / "people.yaml").write_text(people + OIDC + groups)
    vouched = Vouched(issuer="https://idp.example", subject="s-1", name=signer.lower(), groups=("approvers",))
    monkeypatch.setattr(IdentityProvider, "vouched", lambda *_: vouched)
    plan = await house.plan(old, wider)
    caller = await house.installation.service.caller_of_token("eyJ", "192.0.2.1")
    assert caller.person == signer.lower()
    with pytest.raises(NotAllowed, match="signed 1"):
        await house.installation.service.approve_plan(caller, plan.digest, "mine")


async def test_who_got_another_name_is_no_second_person(house: House, releases: Releases) -> None:
    """Known by a group as annika, who approves; then by people.yaml as anna, who starts or approves again."""
    old, newer, _ = releases
    house.write_fleet(approvals=1)
    plan = await house.plan(old, newer)
    groups = "groups: [{name: approvers, roles: {edge: [approver]}}]\n"
    house.ledger.know_login(f"{ISSUER} s-anna", "annika")
    as_one_of = ("approvers",)
    house.ledger.approve_plan(plan.digest, "edge", "annika", "read it", timedelta(days=1), as_one_of)
    (house.folder / "people.yaml").write_text(KNOWN_TO_THE_PROVIDER + OIDC + groups)
    house.ledger.make_token("deploy-bot", {"edge": frozenset({Role.CI})}, timedelta(days=1), "anna")
    assert house.refusal_of(plan, "dora") is None
    assert house.refusal_of(plan, "anna") is not None
    assert house.refusal_of(plan, "deploy-bot") is not None
    house.write_fleet(approvals=2)
    twice = await house.plan(old, newer)
    for name in ("annika", "anna"):
        house.ledger.approve_plan(twice.digest, "edge", name, "read it", timedelta(days=1), as_one_of)
    assert house.refusal_of(twice, "dora") is not None
    await approve(house, BERT, twice.digest)
    assert house.refusal_of(twice, "dora") is None


async def test_who_asked_or_voted_by_another_name_has_no_vote_on_a_change_under_way(
    house: House, releases: Releases
) -> None:
    old, newer, _ = releases
    plan = await house.plan(old, newer)
    change = house.begun(plan, "annika")
    asked = {"fleet": "edge", "kind": ChangeKind.UPGRADE, "plan": plan.digest, "source": "http://repository"}
    order = ChangeOrder.model_validate(asked | {"requested_by": "annika", "reason": "tuesday"})
    seen = Basis(action=Action.HOLD_FOR_HUMAN, verdict=GateVerdict.NOT_ENOUGH_DATA)
    house.ledger.record_story(order, Told(name=change, votes={"bertram": seen}), 0, [])
    house.ledger.know_login(f"{ISSUER} s-anna", "annika")
    house.ledger.know_login(f"{ISSUER} s-bert", "bertram")
    (house.folder / "people.yaml").write_text(KNOWN_TO_THE_PROVIDER + OIDC)
    service = house.installation.service
    for uid, other in ((ANNA, "annika"), (BERT, "bertram")):
        caller = service.people.at_the_socket(uid)
        with pytest.raises(NotAllowed, match=f"is {other} by another name"):
            await service.command(caller, "edge", CommandKind.PROMOTE, "it is well")
    with pytest.raises(Unavailable):  # hers would count, were there an engine
        await service.command(service.people.at_the_socket(CAROL), "edge", CommandKind.PROMOTE, "it is well")


async def test_another_trust_policy_asks_for_as_many_people_as_the_one_before_it_says(
    house: House, releases: Releases
) -> None:
    old, same, _ = releases
    first = await house.plan(old, same)
    assert house.refusal_of(first, "dora") is None
    change = house.begun(first, "dora")
    house.ledger.close_change(ChangeEnding(change=change, outcome=Outcome.PROMOTED, sentence="it held"))
    nobody = {"trust_policy_change": {"count": 0}}
    house.stage.change_policy(lambda policy: policy.update(approvals=nobody))
    plan = await house.plan(old, same)
    refused = str(house.refusal_of(plan, "dora"))
    assert "the trust policy is another one than that of the last upgrade: 2 people must approve" in refused
    for uid in (BERT, CAROL):
        await approve(house, uid, plan.digest)
    assert house.refusal_of(plan, "dora") is None


async def test_a_change_of_settings_is_shown_and_approved_like_a_release_that_changes_them(
    house: House,
) -> None:
    house.stage.change_policy(lambda policy: policy.pop("approvals"))
    plan = await house.plan_of(dns=("10.0.0.53",), route=("10.0.0.0/8",))
    assert "it changes dns, route: 2 people must approve" in str(house.refusal_of(plan, "dora"))
    _, shown = await house.by(BERT)("GET", f"/plans/{plan.digest[7:19]}")
    lines = plan_lines(shown)
    assert lines[0] == f"PLAN edge settings  digest {plan.digest[7:19]}"
    assert "   + route = 10.0.0.0/8" in lines
    assert any(f"penstock config start edge --plan {plan.digest[7:19]}" in line for line in lines)
    for uid in (BERT, CAROL):
        assert (await approve(house, uid, plan.digest))[0] == 201
    assert house.refusal_of(plan, "dora") is None
    assert "and carol did" in str(house.refusal_of(plan, "bert"))
    other = await house.plan_of(dns=("10.0.0.66",), route=("10.0.0.0/8",))
    assert "and nobody did" in str(house.refusal_of(other, "dora"))


async def test_settings_that_the_policy_names_need_nobody_but_whom_the_fleet_asks_for(house: House) -> None:
    def whitelisted(policy: dict[str, Any]) -> None:
        policy["approvals"] = {"config": {"count": 2, "unless_keys_in": ["banner"]}}

    house.stage.change_policy(whitelisted)
    assert house.refusal_of(await house.plan_of(banner=("hello",)), "dora") is None
    house.write_fleet(approvals=1)
    asked = house.refusal_of(await house.plan_of(banner=("hello",)), "dora")
    assert "the fleet's file asks for it of every change of settings: one person must" in str(asked)


async def test_a_fleet_asks_for_people_at_every_reload_of_credentials_where_its_file_says_so(
    house: House,
) -> None:
    fleet = load(house.folder / "fleet.yaml", Fleet)
    names = tuple(gateway.name for gateway in fleet.gateways)
    free = house.ledger.plan_header(house.ledger.record_reload(fleet, names))
    assert house.refusal_of(free, "dora") is None
    asking = fleet.model_copy(update={"reload_approvals": 1})
    plan = house.ledger.plan_header(house.ledger.record_reload(asking, names))
    assert "asks for it of every reload of credentials" in str(house.refusal_of(plan, "dora"))
    assert (await approve(house, BERT, plan.digest))[0] == 201
    assert house.refusal_of(plan, "dora") is None
