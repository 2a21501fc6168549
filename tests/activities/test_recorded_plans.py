"""Plans in a real ledger: whole under their digest, and in parts that a workflow can carry."""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from temporalio.testing import ActivityEnvironment

from activities.ledger import BatchQuestion, LedgerActivities, PlanQuestion
from orchestrator.store.ledger import Ledger
from policies.gates import GatePolicy
from policies.words.errors import BadInput
from policies.words.fleet import Fleet, Gateway, Slot
from policies.words.plan import Plan, ReleaseRef, Skipped, Strategy, Wave
from policies.words.plan_part import BATCH, PlanGateway, PlanHeader
from policies.words.verdict import Window
from policies.words.word import digest_of

LARGEST_PAYLOAD = 262_144


def release(version: str) -> ReleaseRef:
    return ReleaseRef(
        digest=digest_of(version.encode()), product="ocserv", version=version, executable=digest_of(b"e")
    )


OLD, NEW = release("1.1.6"), release("1.3.0")


def gateway(number: int) -> Gateway:
    slots = tuple(
        Slot(name=name, port=port, device=f"vpn{name}", pool4=IPv4Network(f"10.{port - 4430}.0.0/24"))
        for name, port in (("a", 4431), ("b", 4432))
    )
    address = IPv4Address(f"10.{number // 62500}.{number // 250 % 250}.{number % 250 + 1}")
    return Gateway(name=f"gw-{number:05}", addresses=(address,), slots=slots)


def plan_of(count: int, *, waves: tuple[int, ...], sessions: int = 7) -> Plan:
    """Return a plan of so many gateways, whose waves hold so many each, from the last gateway on."""
    gateways = tuple(gateway(n) for n in range(count))
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
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger.open(f"sqlite:///{tmp_path}/ledger.db")
    yield opened
    opened.close()


def test_a_plan_comes_back_as_it_was_under_its_digest(ledger: Ledger) -> None:
    plan = plan_of(7, waves=(1, 4))
    assert [ledger.record_plan(plan), ledger.record_plan(plan)] == [plan.digest] * 2
    assert ledger.plan(plan.digest) == plan
    assert ledger.plan(plan.digest).digest == plan.digest
    assert [entry.action for entry in ledger.audit_entries()] == ["plan recorded"]


def test_a_plan_that_nobody_recorded_is_bad_input(ledger: Ledger) -> None:
    unknown = digest_of(b"no plan")
    for ask in (ledger.plan, ledger.plan_header):
        with pytest.raises(BadInput, match="no plan"):
            ask(unknown)
    with pytest.raises(BadInput, match="no batch 1 of wave 1"):
        ledger.plan_batch(unknown, 1, 1)


def test_the_batches_of_all_waves_are_the_fleet_in_the_order_of_the_plan(ledger: Ledger) -> None:
    plan = plan_of(140, waves=(1, 51, 80))
    digest = ledger.record_plan(plan)
    header = ledger.plan_header(digest)
    assert [(wave.number, wave.gateways, wave.batches) for wave in header.waves] == [
        (0, 8, 1),
        (1, 1, 1),
        (2, 51, 2),
        (3, 80, 2),
    ]
    for wave in plan.waves:
        size = ledger.plan_wave(digest, wave.number)
        batches = [ledger.plan_batch(digest, wave.number, n + 1) for n in range(size.batches)]
        assert max(map(len, batches)) <= BATCH
        told = [row for batch in batches for row in batch]
        assert tuple(row.gateway.name for row in told) == wave.gateways
        assert {row.wave for row in told} == {wave.number}
    left = ledger.plan_batch(digest, 0, 1)
    assert {row.skipped for row in left} == {"does not answer"}
    assert {row.gateway.name for row in left} == {skipped.gateway for skipped in plan.skipped}


def test_a_few_gateways_are_found_wherever_they_are_in_the_plan(ledger: Ledger) -> None:
    plan = plan_of(140, waves=(1, 51, 80))
    digest = ledger.record_plan(plan)
    names = ("gw-00139", "gw-00003", "gw-00060")
    found = ledger.plan_gateways(digest, names)
    assert [row.gateway for row in found] == [plan.fleet.gateway(name) for name in sorted(names)]
    assert [(row.wave, row.known_good, row.sessions) for row in found] == [
        (0, OLD, 7),
        (3, OLD, 7),
        (1, OLD, 7),
    ]
    with pytest.raises(BadInput, match="knows no gateway gw-99999"):
        ledger.plan_gateways(digest, ("gw-00003", "gw-99999"))
    with pytest.raises(BadInput, match="501 gateways at once"):
        ledger.plan_gateways(digest, [f"gw-{n}" for n in range(501)])


def test_every_field_of_a_plan_is_in_its_header_or_told_of_each_gateway() -> None:
    """Whoever gives plans another field decides here where workflows find it."""
    header, each = set(PlanHeader.model_fields), set(PlanGateway.model_fields)
    assert set(Plan.model_fields) - header == {"known_good", "sessions", "skipped"}
    assert {"known_good", "sessions", "skipped"} <= each
    assert set(Fleet.model_fields) - header == {"name", "gateways"}  # there as `fleet` and `gateway`


async def test_no_part_of_the_largest_plan_is_larger_than_a_payload(ledger: Ledger) -> None:
    plan = plan_of(2000, waves=(1, 499, 1400))
    book, run = LedgerActivities(ledger), ActivityEnvironment().run
    digest = ledger.record_plan(plan)
    header = await run(book.read_plan_header, digest)
    batch = await run(book.read_plan_batch, BatchQuestion(digest=digest, wave=3, batch=28))
    named = PlanQuestion(digest=digest, gateways=tuple(row.gateway.name for row in batch))
    assert len(header.model_dump_json()) < 16_384
    assert len(batch) == BATCH
    assert sum(len(row.model_dump_json()) + 1 for row in batch) < LARGEST_PAYLOAD
    assert set(await run(book.read_plan_gateways, named)) == set(batch)
    size = await run(book.read_plan_wave, BatchQuestion(digest=digest, wave=3))
    assert (size.gateways, size.batches) == (1400, 28)
