"""What gates measured and decided, as pages of changes read it: bounded, shared, and for callers who wait."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from deploy.lab.lab import write_yaml
from orchestrator.page import live
from orchestrator.page.live import Lookout
from orchestrator.service import evidence
from orchestrator.service.background import EVIDENCE
from orchestrator.service.evidence import Evidence
from orchestrator.service.service import Service
from orchestrator.store.ledger import Ledger
from policies.model.change import ChangeKind, ChangeOpening
from policies.model.people import Member, People, Role
from policies.model.sample import Sample
from policies.model.verdict import Action, Decision, GateReading, GateVerdict
from tests.patience import PATIENCE, until
from tests.service.conftest import PAGE
from tests.service.test_repeated_looks import Gate, gate

__all__ = ["gate"]

AT = datetime(2030, 1, 2, 3, tzinfo=UTC)
UID = 20_001
HEALTHY = GateVerdict.HEALTHY
SAID = Decision(
    action=Action.CONTINUE,
    verdict=HEALTHY,
    reason="all is well",
    readings=(GateReading(gate="logins", verdict=HEALTHY, reason="few fail", numbers={"canary": 1.0}),),
    failed=("edge-1",),
    own={"edge-1": "it crashed"},
)


def changes(ledger: Ledger, count: int, decisions: int = 1) -> list[str]:
    """Return names of changes, each with so many decisions and samples."""
    names = []
    for number in range(count):
        opening = ChangeOpening(
            key=f"k{number}",
            fleet="edge",
            kind=ChangeKind.UPGRADE,
            requested_by="ana",
            reason="CVE",
            release="1.3.0",
        )
        names.append(ledger.open_change(opening))
        for tick in range(decisions):
            at = AT + timedelta(seconds=15 * tick)
            sample = Sample(at=at, wave=1, gate="logins", verdict=HEALTHY, numbers={"canary": float(tick)})
            ledger.record_verdict(names[-1], 1, SAID, at)
            ledger.record_samples(names[-1], 1, at, [sample, sample])
    return names


@pytest.fixture
async def vera(api: httpx.AsyncClient, ledger: Ledger, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """The browser of a viewer."""
    del api  # it answers for as long as the fixture stands
    member = Member(name="vera", system_users=(f"uid:{UID}",), roles={"edge": frozenset({Role.VIEWER})})
    write_yaml(tmp_path / "people.yaml", People(api_version="penstock/v1", people=(member,)))
    ledger.keep_page_link("link", "vera", UID, timedelta(hours=1))
    ledger.open_page_link("link", "session", timedelta(hours=1), "127.0.0.1")
    transport = httpx.AsyncHTTPTransport(uds=os.fspath(tmp_path / "penstock.sock"), verify=False)
    cookies = {"penstock": "session"}
    async with httpx.AsyncClient(
        transport=transport, base_url=PAGE, cookies=cookies, timeout=PATIENCE
    ) as client:
        yield client


class Reads(list[tuple[str, str]]):
    """The change and the thread of each read that began, none of which ends before the gate is open."""

    @property
    def threads(self) -> set[str]:
        return {thread.rpartition("_")[0] for _, thread in self}


@pytest.fixture
def reads(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reads]:
    begun, samples = Reads(), Evidence.samples

    def slow(self: Evidence, after: datetime | None = None) -> tuple[Sample, ...]:
        if after is None:  # not what came since
            begun.append((self.change.name, threading.current_thread().name))
            gate.passed()
        return samples(self, after)

    monkeypatch.setattr(Evidence, "samples", slow)
    yield begun
    gate.open.set()


async def test_pages_of_changes_are_read_in_threads_of_their_own_a_few_of_each_person(
    api: httpx.AsyncClient, ledger: Ledger, vera: httpx.AsyncClient, reads: Reads, gate: Gate
) -> None:
    """R12: every page was read at once, in threads that an operator's requests need."""
    names = changes(ledger, 24)
    pages = [asyncio.create_task(vera.get(f"/changes/{name}")) for name in names]
    await until(lambda: sum(one.done() for one in pages) == len(names) - 16)
    for refused in (one.result() for one in pages if one.done()):
        assert refused.status_code == 429
        assert "vera has 16 long requests under way" in refused.text
    hold = {"kind": "hold", "reason": "harm"}
    heard = await api.post("/fleets/edge/commands", json=hold, headers={"Idempotency-Key": "1"})
    assert heard.json()["code"] == "NotOrdered"  # its engine is away; nothing was waited for
    assert (len(reads), reads.threads) == (2, {"evidence"})
    gate.open.set()
    assert {(await one).status_code for one in pages} <= {200, 429}
    assert (await vera.get(f"/changes/{names[0]}")).status_code == 200


async def test_viewers_of_one_change_share_what_is_read(
    ledger: Ledger, vera: httpx.AsyncClient, reads: Reads, gate: Gate
) -> None:
    (name,) = changes(ledger, 1)
    first = asyncio.create_task(vera.get(f"/changes/{name}"))
    await until(lambda: len(reads) == 1)
    more = [asyncio.create_task(vera.get(f"/changes/{name}")) for _ in range(3)]
    await until(lambda: len(reads) == 2)
    gate.open.set()
    assert [(await one).status_code for one in (first, *more)] == [200] * 4
    assert len(reads) == 2  # all who asked after the first one have another


async def test_the_page_of_a_change_is_not_read_for_a_viewer_who_has_left(
    ledger: Ledger, vera: httpx.AsyncClient, reads: Reads, gate: Gate
) -> None:
    *names, left = changes(ledger, 3)
    pages = [asyncio.create_task(vera.get(f"/changes/{name}")) for name in names]
    await until(lambda: len(reads) == 2)
    leaving = asyncio.create_task(vera.get(f"/changes/{left}"))
    await until(lambda: EVIDENCE._tasks["vera"] == 3)
    leaving.cancel()
    await until(lambda: EVIDENCE._tasks["vera"] == 2)
    gate.open.set()
    assert [(await one).status_code for one in pages] == [200, 200]
    assert {name for name, _ in reads} == {*names}


async def test_only_the_newest_evidence_of_a_change_is_read_and_with_its_numbers(
    service: Service, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "KEPT_VERDICTS", 5)
    monkeypatch.setattr(evidence, "KEPT_SAMPLES", 7)
    monkeypatch.setattr(evidence, "PAGE", 2)
    (name,) = changes(ledger, 1, decisions=12)
    judged = await Lookout(service).judged(service.people.at_the_socket(0), name)
    assert [one["number"] for one in judged.verdicts] == [8, 9, 10, 11, 12]
    assert [one["numbers"]["canary"] for one in judged.samples] == [8.0, 9.0, 9.0, 10.0, 10.0, 11.0, 11.0]
    assert judged.verdicts[-1]["decision"].keys() == {"action", "verdict", "readings"}


async def test_the_evidence_of_all_changes_together_has_a_bound_in_memory(
    service: Service, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = changes(ledger, 6, decisions=3)
    root, lookout = service.people.at_the_socket(0), Lookout(service)
    one = (await lookout.judged(root, names[0])).size
    monkeypatch.setattr(live, "KEPT_READINGS", 2 * one)
    for name in names:
        assert (await lookout.judged(root, name)).size == one
    assert [name for name in names if lookout.known(name) is not None] == names[-2:]
    monkeypatch.setattr(live, "KEPT_READINGS", one - 1)
    assert (await lookout.judged(root, names[0])).size == one
    assert not [name for name in names if lookout.known(name) is not None]
