"""A SIMULATED fleet in a real ledger: a change in the middle of its waves, and what was before it."""

import json
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import ceil
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from sqlalchemy import Engine, Table, insert, update

from deploy.lab.lab import write_yaml
from orchestrator.store import tables
from orchestrator.store.chain import chain
from orchestrator.store.database import writing
from orchestrator.store.ledger import Ledger
from orchestrator.store.record import head_of
from policies.model.audit import AuditHead
from policies.model.change import ChangeKind, ChangeOrder, Outcome, Phase
from policies.model.fleet import Fleet
from policies.model.people import EVERY_FLEET, Member, People, Role
from policies.model.plan import Plan, ReleaseRef
from policies.model.report import GatewayProgress
from policies.model.status import Event
from policies.model.verdict import Action, Against, Decision, GateReading, GateVerdict
from policies.status.told import Told
from tests.bench.bench_fleet import LAB, Size, begin, keep_fresh, plan_of
from tests.bench.simulated_agents import FLEET, fleet, release
from tests.fakes.stage import Stage

GATEWAYS = 10_000
OTHER_FLEETS, OTHERS_UNDER_WAY = 299, 20
CHANGES, RELEASES, ENTRIES = 500, 200, 100_000
HOURS = 2
EVENTS_A_MINUTE = 50
VERDICT_SECONDS = 15
GATES = (
    "logins",
    "login-time",
    "drops",
    "crashes",
    "memory",
    "descriptors",
    "rekeys",
    "mtu",
    "throughput",
    "loss",
    "complaints",
    "probes",
)
SILENT, LEFT_OUT, QUARANTINED = 300, 400, 150
REVOKED = 4
"""Which of each hundred gateways had its certificates revoked."""
UNDECIDED = 0.2
"""How many of the gates' answers are that not enough was seen."""

PRODUCT = "ocserv"
"""As simulated fleets call what they run."""

WAVE = 3
"""The wave that is under way, of four."""

FIRST_USER = 20_000
"""The number of the first viewer's user on this host."""


class Signed(NamedTuple):
    """A real release: what an installation has of it that verified it, and by whose word."""

    release: ReleaseRef
    store: Path
    trust: Path


async def signed(folder: Path) -> Signed:
    """Return the release that the change brings, published, signed and verified as any other."""
    with Stage(folder / "stage", product=PRODUCT) as stage:
        return Signed((await stage.admit()).reference, stage.folder / "store", stage.lab.trust_policy)


def plan(count: int, release: ReleaseRef) -> Plan:
    """Return the plan of the change that is under way."""
    return plan_of(count, Size(gateways=count), LAB, release)


def write_files(folder: Path, large: Fleet, viewers: int) -> None:
    """Write the files of all fleets, and of the people who look at them."""
    write_yaml(folder / "fleets" / f"{large.name}.yaml", large)
    site = fleet(1).model_dump(mode="json", exclude_none=True, exclude={"gateways": {"__all__": {"fleet"}}})
    for name in _others():
        write_yaml(folder / "fleets" / f"{name}.yaml", site | {"name": name})
    people = tuple(
        Member(
            name=person,
            system_users=(f"uid:{FIRST_USER + number}",),
            roles={EVERY_FLEET: frozenset({Role.OPERATOR, Role.AUDITOR})},
        )
        for number, person in enumerate(persons(viewers))
    )
    write_yaml(folder / "people.yaml", People(api_version="penstock/v1", people=people))


def persons(count: int) -> list[str]:
    """Return the names of so many viewers."""
    return [f"viewer-{number:03}" for number in range(count)]


def log_in(book: Ledger, count: int) -> list[str]:
    """Return a session's secret for each of so many viewers."""
    lives = timedelta(hours=1)
    for number, person in enumerate(persons(count)):
        book.keep_page_link(f"link-{person}", person, FIRST_USER + number, lives)
        book.open_page_link(f"link-{person}", f"session-{person}", lives, "127.0.0.1")
    return [f"session-{person}" for person in persons(count)]


def fill(book: Ledger, planned: Plan) -> None:
    """Write what was before the change: releases, changes, the audit record, and how other fleets stand."""
    begin(book, planned.fleet)
    book.record_plan(planned, "viewer-000")
    now = datetime.now(UTC)
    _insert(book.engine, tables.releases, [_release_row(number, now, planned) for number in range(RELEASES)])
    before = [_change_row(FLEET, number, now) for number in range(2, CHANGES + 1)]
    others = [_change_row(name, 1, now) for name in _others()]
    for row in others[:OTHERS_UNDER_WAY]:
        row |= {"outcome": None, "ended": None, "sentence": ""}
    _insert(book.engine, tables.changes, before + others)
    _insert(book.engine, tables.gateway_states, [_state_row(name, now) for name in _others()])
    names = [gateway.name for gateway in planned.fleet.gateways]
    share = len(names) / GATEWAYS
    mixed = random.Random(1).sample(names, len(names))
    quarantine = [
        {"fleet": FLEET, "gateway": name, "reason": "its disk fails", "person": "viewer-000", "since": now}
        for name in mixed[: ceil(QUARANTINED * share)]
    ]
    _insert(book.engine, tables.quarantine, quarantine)
    _insert(book.engine, tables.gateway_certificates, _certificate_rows(names, now))
    _insert(book.engine, tables.gateway_revocations, _revocation_rows(names, now))
    silent = dict.fromkeys(mixed[-ceil(SILENT * share) :], "no answer within 5 s, by its relay")
    keep_fresh(book)
    with writing(book.engine) as connection:
        table = tables.gateway_states
        for name, why in silent.items():
            which = (table.c.fleet == FLEET, table.c.gateway == name)
            connection.execute(update(table).where(*which).values(silent=why, state=None, takes=None))
    _fill_audit(book.engine)


@dataclass
class UnderWay:
    """The change that everybody looks at; nobody but this simulation tells how it goes on."""

    book: Ledger
    plan: Plan
    name: str
    told: Told = field(init=False)
    order: ChangeOrder = field(init=False)
    number: int = 0
    turn: Lock = field(default_factory=Lock)
    """Events have their numbers one after the other, whoever tells."""

    def __post_init__(self) -> None:
        self.order = ChangeOrder(
            fleet=FLEET,
            kind=ChangeKind.UPGRADE,
            plan=self.plan.digest,
            source="http://simulated",
            requested_by="viewer-000",
            reason="the fix of a hole that is exploited already",
        )
        waves = {wave.number: wave.gateways for wave in self.plan.waves}
        done = {number: {"kept": len(of)} for number, of in waves.items() if number < WAVE}
        going = [*waves[WAVE]]
        aside = dict.fromkeys(
            going[: min(LEFT_OUT, len(going) // 5)], "its new instance ended by itself, twice in a minute"
        )
        counts = {
            "left out": len(aside),
            "starting": len(going) // 20,
            "probing": len(going) // 20,
            "waiting": len(going) // 8,
        }
        counts["on trial"] = len(going) - sum(counts.values())
        self.told = Told(
            name=self.name,
            phase=Phase.OBSERVING,
            wave=WAVE,
            counts=done | {WAVE: counts},
            aside=aside,
            decision=decision(0),
            moved=True,
            switching=True,
            gateways={name: GatewayProgress(gateway=name, wave=WAVE, state="left out") for name in aside},
            short=("group-03 has room for 41 of 500",),
        )

    def fill(self, now: datetime) -> None:
        """Write two hours of events and verdicts."""
        begun = now - timedelta(hours=HOURS)
        events = [self._event(begun + timedelta(seconds=60 / EVENTS_A_MINUTE * n)) for n in range(6000)]
        rows = [
            {"fleet": FLEET, "change": self.name, "number": first, "at": event.at, "sentence": event.sentence}
            for first, event in enumerate(events)
        ]
        with writing(self.book.engine) as connection:
            connection.execute(tables.events.delete().where(tables.events.c.change == self.name))
        _insert(self.book.engine, tables.events, rows)
        self.number = len(events)
        ticks = HOURS * 3600 // VERDICT_SECONDS
        verdicts = [self._verdict(begun, tick) for tick in range(ticks)]
        _insert(self.book.engine, tables.verdicts, verdicts)
        self.tell("two hours have been simulated")

    def tell(self, sentence: str) -> None:
        """Have the change tell something new, as its worker would."""
        with self.turn:
            event = Event(at=datetime.now(UTC), sentence=sentence)
            counts = dict(self.told.counts[WAVE])
            moved = min(1, counts["waiting"])
            counts["on trial"], counts["waiting"] = counts["on trial"] + moved, counts["waiting"] - moved
            self.told = self.told.model_copy(update={"counts": self.told.counts | {WAVE: counts}})
            self.book.record_story(self.order, self.told, self.number, [event])
            self.number += 1

    def judge(self) -> None:
        """Have a verdict written down, as its worker would."""
        with self.turn:
            self.told = self.told.model_copy(update={"decision": decision(self.number)})
            self.book.record_verdict(self.name, WAVE, decision(self.number), datetime.now(UTC))

    def _event(self, at: datetime) -> Event:
        self.number += 1
        return Event(at=at, sentence=f"gw-{self.number % GATEWAYS:05} left out and sent back: exit code 1")

    def _verdict(self, begun: datetime, tick: int) -> dict[str, Any]:
        said = decision(tick)
        return {
            "rollout": self.name,
            "wave": 1 + tick * WAVE // (HOURS * 3600 // VERDICT_SECONDS),
            "at": begun + timedelta(seconds=VERDICT_SECONDS * tick),
            "action": said.action.value,
            "verdict": said.verdict.value,
            "decision": said.model_dump_json(),
        }


def decision(number: int) -> Decision:
    """Return what twelve gates say at one tick."""
    chance = random.Random(number)
    readings = tuple(
        GateReading(
            gate=gate,
            verdict=GateVerdict.NOT_ENOUGH_DATA if chance.random() < UNDECIDED else GateVerdict.HEALTHY,
            reason=f"{gate}: 3 of 1200 on the new release, 2 of 1100 on the old one; 1.5 more are allowed",
            numbers={
                "canary_total": 1200,
                "canary_bad": chance.randint(0, 9),
                "control_total": 1100,
                "control_bad": chance.randint(0, 9),
                "limit": 0.015,
            },
            against=Against.CONTROL,
        )
        for gate in GATES
    )
    return Decision(
        action=Action.CONTINUE,
        verdict=GateVerdict.NOT_ENOUGH_DATA,
        reason=f"logins: {chance.randint(1, 99)} % of what has to be seen was seen",
        readings=readings,
    )


def _certificate_rows(names: list[str], now: datetime) -> list[dict[str, Any]]:
    """Return certificates of a month; of each hundred gateways five have none, or one that is old."""
    days = {1: -31, 2: -29, 3: -25}
    rows = list[dict[str, Any]]()
    for number, name in enumerate(names):
        if number % 100 in {0, REVOKED}:
            continue
        issued = now + timedelta(days=days.get(number % 100, -(number % 20)))
        row = {"serial": f"{number:x}", "fleet": FLEET, "gateway": name, "issued_at": issued}
        rows.append(row | {"expires": issued + timedelta(days=30), "renews": None})
    return rows


def _revocation_rows(names: list[str], now: datetime) -> list[dict[str, Any]]:
    row = {"fleet": FLEET, "at": now, "person": "viewer-000", "reason": "its host was stolen"}
    return [row | {"gateway": name} for number, name in enumerate(names) if number % 100 == REVOKED]


def _others() -> list[str]:
    return [f"site-{number:03}" for number in range(OTHER_FLEETS)]


def _insert(engine: Engine, table: Table, rows: list[dict[str, Any]]) -> None:
    with writing(engine) as connection:
        for first in range(0, len(rows), 1000):
            connection.execute(insert(table), rows[first : first + 1000])


def _release_row(number: int, now: datetime, planned: Plan) -> dict[str, Any]:
    made = planned.release if number == RELEASES - 1 else release(f"1.2.{number}")
    changes = "\n".join(f"- a fix of defect {number}-{line}, which was met outside" for line in range(20))
    return {
        **made.model_dump(),
        "source": "http://simulated",
        "signers": json.dumps(["release signer", "second signer"]),
        "manifest": json.dumps({"changelog": f"Changes\n\n{changes}", "tree": ["file"] * 500}),
        "added_at": now - timedelta(days=RELEASES - number),
        "added_by": "viewer-000",
    }


def _change_row(of_fleet: str, number: int, now: datetime) -> dict[str, Any]:
    began = now - timedelta(hours=10 * (CHANGES - number) + 4)
    made = release(f"1.2.{number % (RELEASES - 1)}")
    return {
        "name": f"{of_fleet}-{number}",
        "fleet": of_fleet,
        "number": number,
        "key": f"{of_fleet} {number}",
        "kind": ChangeKind.UPGRADE.value,
        "requested_by": "viewer-000",
        "reason": f"the upgrade of week {number}",
        "release": made.model_dump_json(),
        "release_digest": made.digest,
        "began": began,
        "ended": began + timedelta(hours=3),
        "outcome": Outcome.PROMOTED.value,
        "sentence": "promoted: every gateway takes its sessions on it",
        "moved": 10_000,
    }


def _state_row(of_fleet: str, now: datetime) -> dict[str, Any]:
    takes = release("1.2.5").digest
    return {
        "fleet": of_fleet,
        "gateway": "gw-00000",
        "state": "{}",
        "takes": takes,
        "silent": None,
        "at": now,
    }


def _fill_audit(engine: Engine) -> None:
    """Append entries until there are as many as in years."""
    with writing(engine) as connection:
        head = head_of(connection)
        rows = []
        while head.seq < ENTRIES:
            number = head.seq
            of_fleet = FLEET if number % 3 else f"site-{number % OTHER_FLEETS:03}"
            action = "drain held for a person" if number % 500 == 0 else "decision"
            subject = f"gw-{number % GATEWAYS:05}/{FLEET}-{number % CHANGES}"
            said = {"sentence": "slot a: sessions are above its limit", "action": "continue", "wave": 3}
            at = "2026-01-01T00:00:00.000+00:00"
            entry = chain(head, at, "penstock", "rollout", action, subject, json.dumps(said), of_fleet)
            rows.append(entry.model_dump())
            head = AuditHead(seq=entry.seq, hash=entry.hash)
        for first in range(0, len(rows), 1000):
            connection.execute(insert(tables.audit), rows[first : first + 1000])
