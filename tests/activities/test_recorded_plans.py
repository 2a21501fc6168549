"""Plans in a real ledger: whole under their digest, and in parts that a workflow can carry."""

import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import create_engine, delete, event, update
from temporalio.testing import ActivityEnvironment

from activities.plans import PartEntry, PartQuery, PlanActivities
from orchestrator.store import tables
from orchestrator.store.ledger import Ledger
from policies.model.change import ChangeKind, ChangeOpening
from policies.model.errors import BadInput
from policies.model.fleet import Fleet, GatewayRef
from policies.model.gates import GatePolicy
from policies.model.plan import Plan, ReleaseRef, Skipped, Strategy, Wave
from policies.model.plan_part import MOST_MEMBERS, PartKey
from policies.model.value import digest_of
from policies.model.verdict import Window
from policies.planning.outline import PlanOutline, outlined
from tests.unit.fleets import gateway

LARGEST_PAYLOAD = 262_144


def release(version: str) -> ReleaseRef:
    return ReleaseRef(
        digest=digest_of(version.encode()), product="ocserv", version=version, executable=digest_of(b"e")
    )


OLD, NEW = release("1.1.6"), release("1.3.0")


def plan_of(count: int, *, waves: tuple[int, ...], sessions: int = 7) -> Plan:
    """Return a plan of so many gateways, whose waves hold so many each, from the last gateway on."""
    gateways = tuple(gateway(f"gw-{number:05}") for number in range(count))
    names = [gateway.name for gateway in reversed(gateways)]
    made = []
    for number, size in enumerate(waves, start=1):
        made.append(Wave(number=number, gateways=tuple(names[:size])))
        names = names[size:]
    return Plan(
        fleet=Fleet(name="edge", product="ocserv", gateways=gateways),
        release=NEW,
        strategy=Strategy.CANARY,
        waves=tuple(made),
        skipped=tuple(Skipped(gateway=name, reason="does not answer") for name in names),
        known_good={gateway.name: OLD for gateway in gateways},
        sessions={gateway.name: sessions for gateway in gateways},
        window=Window(),
        gates=GatePolicy(gates=()),
        trust_policy=digest_of(b"trust"),
    )


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    opened = Ledger.open(url)
    yield opened
    opened.close()


def test_a_plan_comes_back_as_it_was_under_its_digest(ledger: Ledger) -> None:
    plan = plan_of(7, waves=(1, 4))
    assert [ledger.record_plan(plan), ledger.record_plan(plan)] == [plan.digest] * 2
    assert ledger.plan(plan.digest) == plan
    assert ledger.plan(plan.digest).digest == plan.digest
    assert [entry.action for entry in ledger.audit_entries()] == ["plan recorded"]


@pytest.mark.parametrize("written", [None, b"{}", b'{"digest": 1}'])
def test_the_outline_of_a_plan_that_another_penstock_recorded_follows_from_the_whole(
    ledger: Ledger, url: str, written: bytes | None
) -> None:
    plan = plan_of(7, waves=(1, 4))
    ledger.record_plan(plan)
    with create_engine(url).begin() as connection:
        outline = zlib.compress(written) if written is not None else None
        connection.execute(update(tables.plans).values(outline=outline))
    found = ledger.outline(plan.digest)
    assert found == outlined(plan)
    assert isinstance(found, PlanOutline)
    assert (found.waves, found.left_alone_count, found.versions) == ((1, 4), 2, {"1.1.6": 7})


@pytest.mark.parametrize("older", [False, True])
def test_what_leads_to_no_release_has_a_header_for_an_outline(ledger: Ledger, url: str, older: bool) -> None:
    fleet = plan_of(2, waves=(2,)).fleet
    reload = ledger.record_reload(fleet, ("gw-00001",))
    back = ledger.record_return(fleet, {"gw-00001": OLD})
    if older:
        with create_engine(url).begin() as connection:
            connection.execute(update(tables.plans).values(outline=None))
    assert ledger.outline(reload) == ledger.plan_header(reload)
    with pytest.raises(BadInput, match="it waits for nobody"):
        ledger.outline(back)


def test_a_plan_that_nobody_recorded_is_bad_input(ledger: Ledger) -> None:
    unknown = digest_of(b"no plan")
    for ask in (ledger.plan, ledger.plan_header, ledger.outline):
        with pytest.raises(BadInput, match="no plan"):
            ask(unknown)
    with pytest.raises(BadInput, match="no part 1 of wave 1"):
        ledger.plan_part(unknown, PartKey(wave=1, number=1))


def test_the_parts_of_all_waves_are_the_gateways_that_change(ledger: Ledger) -> None:
    plan = plan_of(140, waves=(1, 51, 80))
    digest = ledger.record_plan(plan)
    header = ledger.plan_header(digest)
    sizes = [(wave.number, wave.gateways, wave.parts) for wave in header.waves]
    assert sizes == [(1, 1, 1), (2, 51, 2), (3, 80, 2)]
    assert (header.gateways, header.changing) == (140, 132)
    for wave in plan.waves:
        parts = [ledger.plan_part(digest, key) for key in header.wave(wave.number).keys]
        assert max(len(part.members) for part in parts) <= MOST_MEMBERS
        members = [member for part in parts for member in part.members]
        assert {member.gateway.name for member in members} == {*wave.gateways}
        assert len(members) == len(wave.gateways)
        for member in members:
            gateway = plan.fleet.gateway(member.gateway.name)
            assert member.gateway.model_dump() == gateway.model_dump(include={*GatewayRef.model_fields})
            assert member.target == gateway.metrics_target
        assert {member.back for member in members} == {OLD}


def test_all_parts_of_a_plan_are_read_by_one_question(ledger: Ledger) -> None:
    """A plan of 10,000 gateways has 200 parts, and each was a question of its own."""
    digest = ledger.record_plan(plan_of(140, waves=(1, 51, 80)))
    header, asked = ledger.plan_header(digest), list[str]()
    event.listen(ledger.engine, "before_cursor_execute", lambda *said: asked.append(said[2]))
    parts = ledger.plan_parts(digest)
    assert [part.key for part in parts] == [*header.keys]
    assert len([one for one in asked if "FROM plan_parts" in one]) == 1
    assert parts == [ledger.plan_part(digest, key) for key in header.keys]
    members = ledger.plan_members(digest)
    assert [*members.values()] == [member for part in parts for member in part.members]
    assert all(name == member.gateway.name for name, member in members.items())


def test_a_plan_that_lacks_a_part_is_never_read_as_a_whole_one(ledger: Ledger) -> None:
    digest = ledger.record_plan(plan_of(140, waves=(1, 51, 80)))
    lost = delete(tables.plan_parts).where(tables.plan_parts.c.wave == 2, tables.plan_parts.c.number == 2)
    with ledger.engine.begin() as connection:
        connection.execute(lost)
    for ask in (ledger.plan_parts, ledger.plan_members):
        with pytest.raises(BadInput, match=f"plan {digest} has no part 2 of wave 2"):
            ask(digest)


def test_a_plan_to_go_back_names_its_own_release_for_each_gateway(ledger: Ledger) -> None:
    fleet, targets = plan_of(60, waves=(60,)).fleet, {}
    for number in range(55):
        targets[f"gw-{number:05}"] = OLD if number % 2 else NEW
    header = ledger.plan_header(ledger.record_return(fleet, targets))
    parts = [ledger.plan_part(header.digest, key) for key in header.keys]
    assert [len(part.members) for part in parts] == [50, 5]
    assert {member.gateway.name: member.back for part in parts for member in part.members} == targets
    assert header.release is None


async def test_no_part_of_the_largest_plan_is_larger_than_a_payload(ledger: Ledger) -> None:
    plan = plan_of(2000, waves=(1, 499, 1400))
    book, run = PlanActivities(ledger), ActivityEnvironment().run
    digest = ledger.record_plan(plan)
    header = await run(book.read_header, digest)
    part = await run(book.read_part, PartQuery(plan=digest, key=PartKey(wave=3, number=28)))
    assert len(header.model_dump_json()) < 16_384
    assert len(part.members) == MOST_MEMBERS
    assert len(part.model_dump_json()) < LARGEST_PAYLOAD
    assert (header.wave(3).gateways, header.wave(3).parts) == (1400, 28)


async def test_a_part_is_promoted_and_taken_back_without_those_who_were_left_out(ledger: Ledger) -> None:
    plan = plan_of(3, waves=(3,))
    book, run = PlanActivities(ledger), ActivityEnvironment().run
    entry = PartEntry(
        plan=ledger.record_plan(plan),
        key=PartKey(wave=1, number=1),
        change=ledger.open_change(
            ChangeOpening(
                key="run 1",
                fleet="edge",
                kind=ChangeKind.UPGRADE,
                requested_by="ada",
                reason="CVE",
                release="1.3.0",
            )
        ),
        fleet="edge",
        without=("gw-00001",),
    )
    for _ in range(2):
        await run(book.promote_part, entry)
    assert ledger.known_good("edge") == {"gw-00000": NEW, "gw-00002": NEW}
    for _ in range(2):
        await run(book.take_back_part, entry)
    assert ledger.known_good("edge") == {"gw-00000": OLD, "gw-00002": OLD}


def test_a_plan_that_many_batches_ask_for_at_once_is_read_once(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, read, reads = plan_of(4, waves=(1, 3)), list[bytes](), Plan.model_validate_json

    def slowly(body: bytes) -> Plan:
        read.append(body)
        time.sleep(0.1)
        return reads(body)

    digest = ledger.record_plan(made)
    monkeypatch.setattr(Plan, "model_validate_json", slowly)
    with ThreadPoolExecutor(8) as batches:
        found = list(batches.map(ledger.plan, [digest] * 8))
    assert found == [made] * 8
    assert len(read) == 1
