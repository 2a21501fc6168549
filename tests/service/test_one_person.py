"""One person with two names: no edit of people.yaml makes a second person of anybody."""

import re
from contextlib import suppress
from datetime import timedelta

import pytest

from orchestrator.service.identity import IdentityProvider, Vouched
from policies.model.change import ChangeKind, ChangeOrder
from policies.model.command import CommandKind
from policies.model.errors import BadInput, NotAllowed, Unavailable
from policies.model.people import Caller, Role
from policies.model.plan import Plan, Strategy
from policies.model.value import digest_of
from policies.status.told import Told
from tests.service.test_approvals import (
    ANNA,
    BERT,
    CAROL,
    KNOWN_TO_THE_PROVIDER,
    OIDC,
    PEOPLE,
    House,
    Releases,
    house,
    place,
    releases,
)

__all__ = ["house", "place", "releases"]
GROUPS = "groups: [{name: duty, roles: {edge: [approver, operator]}}]\n"
DIGEST = digest_of(b"what was shown")
NOBODY = f"apiVersion: penstock/v1\n{OIDC}{GROUPS}"
ALL = KNOWN_TO_THE_PROVIDER + OIDC + GROUPS


def edited(name: str, users: str | None = None) -> str:
    """Return people.yaml with anna's entry written otherwise."""
    line = next(one for one in ALL.splitlines(keepends=True) if "anna" in one)
    new = line.replace("name: anna,", f"name: {name},")
    new = new if users is None else re.sub(r"system_users: \[[^]]*\]", f"system_users: [{users}]", new)
    return ALL.replace(line, new)


def write(house: House, people: str) -> None:
    (house.folder / "people.yaml").write_text(people)


def vouch(monkeypatch: pytest.MonkeyPatch, subject: str, name: str) -> None:
    vouched = Vouched(issuer="https://idp.example", subject=subject, name=name, groups=("duty",))
    monkeypatch.setattr(IdentityProvider, "vouched", lambda *_: vouched)


async def by_the_provider(house: House) -> Caller:
    return await house.installation.service.caller_of_token("eyJ", "192.0.2.1")


async def asked_for_an_upgrade(house: House, caller: Caller) -> None:
    """Have somebody ask for an upgrade, which no engine begins here."""
    with suppress(Unavailable):
        await house.installation.service.start(caller, "edge", "1.5.0", Strategy.CANARY, "tuesday")


def under_way(house: House, plan: Plan, person: str) -> None:
    change = house.begun(plan, person)
    asked = {"fleet": "edge", "kind": ChangeKind.UPGRADE, "plan": plan.digest, "source": "http://repository"}
    who = {"requested_by": person, "on_behalf_of": house.ledger.makers_of(person)}
    order = ChangeOrder.model_validate(asked | who | {"reason": "tuesday"})
    house.ledger.record_story(order, Told(name=change), 0, [])


async def test_an_approval_stays_that_of_its_person_when_the_file_stops_naming_them(
    house: House, releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, newer, _ = releases
    house.write_fleet(approvals=1)
    plan = await house.plan(old, newer)
    write(house, ALL)
    vouch(monkeypatch, "s-anna", "annika")
    anna = await by_the_provider(house)
    assert anna.person == "anna"
    await house.installation.service.approve_plan(anna, plan.digest, "mine")
    write(house, NOBODY)
    assert (await by_the_provider(house)).person == "annika"
    assert house.refusal_of(plan, "annika") is not None
    vouch(monkeypatch, "s-bert", "bert")
    assert house.refusal_of(plan, (await by_the_provider(house)).person) is None


async def test_an_approval_stays_that_of_its_person_when_the_file_begins_to_name_them(
    house: House, releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, newer, _ = releases
    house.write_fleet(approvals=1)
    plan = await house.plan(old, newer)
    write(house, NOBODY)
    vouch(monkeypatch, "s-anna", "annika")
    annika = await by_the_provider(house)
    await house.installation.service.approve_plan(annika, plan.digest, "mine")
    write(house, ALL)
    assert house.refusal_of(plan, (await by_the_provider(house)).person) is not None
    assert house.refusal_of(plan, "bert") is None


@pytest.mark.parametrize("restarted", [False, True])
async def test_an_approval_stays_that_of_its_person_when_the_file_names_them_otherwise(
    house: House, releases: Releases, *, restarted: bool
) -> None:
    old, newer, _ = releases
    house.write_fleet(approvals=1)
    plan = await house.plan(old, newer)
    service = house.installation.service
    await service.approve_plan(service.people.at_the_socket(ANNA), plan.digest, "mine")
    write(house, edited(name="anna.b"))
    if restarted:
        await house.open()
    again = house.installation.service.people.at_the_socket(ANNA)
    assert again.person == "anna.b"
    assert house.refusal_of(plan, again.person) is not None
    assert house.refusal_of(plan, "bert") is None


async def test_a_person_whose_entry_is_cut_in_two_is_one_person(
    house: House, releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user of the host approved it; the subject that was the same person's starts it by another name."""
    old, newer, _ = releases
    house.write_fleet(approvals=1)
    plan = await house.plan(old, newer)
    write(house, ALL)
    service = house.installation.service
    await service.approve_plan(service.people.at_the_socket(ANNA), plan.digest, "mine")
    write(house, edited(name="anna.b", users=""))
    vouch(monkeypatch, "s-anna", "annika")
    again = await by_the_provider(house)
    assert again.person == "anna.b"
    assert house.refusal_of(plan, again.person) is not None


async def test_a_chat_account_that_becomes_another_persons_is_no_second_person(
    house: House, releases: Releases
) -> None:
    old, newer, _ = releases
    house.write_fleet(approvals=1)
    plan = await house.plan(old, newer)
    service, links = house.installation.service, house.installation.service.chat_links
    for uid in (ANNA, BERT):
        person = service.people.at_the_socket(uid).person
        house.ledger.offer_chat_link(f"offer of {uid}", "chat", "U1", "someone", timedelta(minutes=5))
        house.ledger.link_chat(f"offer of {uid}", person, uid, None, timedelta(days=1))
        caller = links.who("chat", "U1")
        assert caller.person == person
        await service.approve_plan(caller, plan.digest, "mine")
    assert house.refusal_of(plan, "anna") is not None
    assert house.refusal_of(plan, "bert") is not None
    assert house.refusal_of(plan, "dora") is None


async def test_whoever_asked_under_the_name_of_before_has_no_vote_on_that_change(
    house: House, releases: Releases
) -> None:
    old, newer, _ = releases
    plan = await house.plan(old, newer)
    service = house.installation.service
    await asked_for_an_upgrade(house, service.people.at_the_socket(ANNA))
    under_way(house, plan, "anna")
    write(house, PEOPLE.replace("name: anna,", "name: anna.b,"))
    with pytest.raises(NotAllowed, match=r"anna\.b is anna by another name"):
        await service.command(service.people.at_the_socket(ANNA), "edge", CommandKind.PROMOTE, "it is well")


async def test_a_person_of_the_file_who_did_nothing_so_far_is_remembered_with_their_name(
    house: House, releases: Releases
) -> None:
    old, newer, _ = releases
    plan = await house.plan(old, newer)
    service = house.installation.service
    await service.remember_people()
    under_way(house, plan, "anna")
    write(house, PEOPLE.replace("name: anna,", "name: anna.b,"))
    with pytest.raises(NotAllowed, match=r"anna\.b is anna by another name"):
        await service.command(service.people.at_the_socket(ANNA), "edge", CommandKind.PROMOTE, "it is well")


async def test_the_maker_of_a_machines_token_stays_its_maker_by_another_name(
    house: House, releases: Releases
) -> None:
    old, newer, _ = releases
    house.write_fleet(approvals=1)
    plan = await house.plan(old, newer)
    service = house.installation.service
    await asked_for_an_upgrade(house, service.people.at_the_socket(ANNA))
    house.ledger.make_token("deploy-bot", {"edge": frozenset({Role.CI})}, timedelta(days=1), "anna")
    write(house, edited(name="anna.b"))
    await service.approve_plan(service.people.at_the_socket(ANNA), plan.digest, "mine")
    assert house.refusal_of(plan, "deploy-bot") is not None
    assert house.refusal_of(plan, "dora") is None


@pytest.mark.parametrize("kind", [CommandKind.PROMOTE, CommandKind.APPROVE])
@pytest.mark.parametrize("days", [0, 3])
async def test_the_maker_of_a_token_has_no_say_by_another_name_in_what_the_token_started(
    house: House, releases: Releases, days: int, kind: CommandKind
) -> None:
    """The change is younger than the name by which its token was made."""
    old, newer, _ = releases
    plan = await house.plan(old, newer)
    service = house.installation.service
    await asked_for_an_upgrade(house, service.people.at_the_socket(ANNA))
    grants = {"edge": frozenset({Role.CI, Role.OPERATOR})}
    house.ledger.make_token("deploy-bot", grants, timedelta(days=90), "anna")
    write(house, edited(name="anna.b"))
    house.passed(timedelta(days=days))
    await service.remember_people()
    under_way(house, plan, "deploy-bot")
    with pytest.raises(NotAllowed, match=r"anna\.b is anna by another name"):
        await service.command(service.people.at_the_socket(ANNA), "edge", kind, "it is well", approves=DIGEST)
    with pytest.raises(Unavailable, match="the engine cannot be reached"):  # bert's goes on to the change
        await service.command(service.people.at_the_socket(BERT), "edge", kind, "it is well", approves=DIGEST)


async def test_a_name_that_a_person_had_becomes_no_machines(house: House) -> None:
    service = house.installation.service
    await service.remember_people()
    write(house, PEOPLE.replace("name: anna,", "name: anna.b,"))
    root, grants = service.people.at_the_socket(0), {"edge": frozenset({Role.CI})}
    with pytest.raises(BadInput, match="anna is or could be somebody's name"):
        await service.tokens.make(root, "anna", grants, timedelta(days=1))
    await service.tokens.make(root, "deploy-bot", grants, timedelta(days=1))


async def test_who_signed_a_release_does_not_approve_it_by_a_name_of_later(house: House) -> None:
    """The trust policy names a person for a key, and people.yaml calls that person otherwise since."""

    def name_everybody(policy: dict[str, object]) -> None:
        policy.pop("approvals", None)
        rules: list[dict[str, dict[str, list[dict[str, str]]]]] = policy["rules"]  # type: ignore[assignment]
        for signer in (one for rule in rules for group in rule["groups"].values() for one in group):
            signer["person"] = "bert" if signer.get("identity") == house.stage.lab.manager[0] else "else"

    house.stage.change_policy(name_everybody)
    template = house.stage.template.read_text()
    old = await house.release("1.4.0", template, 6)
    new = await house.release("1.6.0", template + "tls-priorities = LEGACY\n", 8)
    plan = await house.plan(old, new)
    service = house.installation.service
    await service.remember_people()
    write(house, PEOPLE.replace("name: bert,", "name: bertram,"))
    with pytest.raises(NotAllowed, match=r"bertram signed 1\.6\.0"):
        await service.approve_plan(service.people.at_the_socket(BERT), plan.digest, "mine")


async def test_a_person_who_approves_twice_by_two_names_is_counted_once(
    house: House, releases: Releases
) -> None:
    old, newer, _ = releases
    house.write_fleet(approvals=2)
    plan = await house.plan(old, newer)
    service = house.installation.service
    for people in (ALL, edited(name="anna.b")):
        write(house, people)
        await service.approve_plan(service.people.at_the_socket(ANNA), plan.digest, "mine")
    assert house.refusal_of(plan, "dora") is not None
    await service.approve_plan(service.people.at_the_socket(CAROL), plan.digest, "read it")
    assert house.refusal_of(plan, "dora") is None


async def test_a_newcomer_with_the_name_that_another_had_is_a_person_of_their_own(
    house: House, releases: Releases
) -> None:
    """Names come free: what a person did under one long ago is no act of whoever has it now."""
    old, newer, _ = releases
    house.write_fleet(approvals=1)
    plan = await house.plan(old, newer)
    service = house.installation.service
    await asked_for_an_upgrade(house, service.people.at_the_socket(ANNA))
    house.passed(timedelta(days=3))
    newcomer = PEOPLE.replace("name: anna,", "name: anna.b,")
    newcomer += '  - {name: anna, system_users: ["uid:61010"], roles: {edge: [operator, approver]}}\n'
    write(house, newcomer)
    await service.approve_plan(service.people.at_the_socket(61010), plan.digest, "read it")
    assert house.refusal_of(plan, "anna.b") is None
    assert house.refusal_of(plan, "anna") is not None
