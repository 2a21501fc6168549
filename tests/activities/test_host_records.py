"""Hosts' own records in the ledger: collected twice, at once, and from hosts that write what they like."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from temporalio.testing import ActivityEnvironment

from activities.drivers.runtime.host.audit import HostAudit
from activities.drivers.signature.host_lines import first_fault
from activities.host_record import (
    FIRST,
    LONGEST_PAGE,
    MOST_A_DAY,
    Collected,
    CollectedPage,
    CollectingActivities,
    HostRecordPage,
)
from orchestrator.store.ledger import Ledger


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    opened = Ledger.open(url)
    yield opened
    opened.close()


@pytest.fixture
def host(tmp_path: Path) -> HostAudit:
    made = HostAudit(tmp_path / "audit.jsonl", tmp_path / "audit.key")
    for number in range(3):
        made.record("break-glass", f"reset {number}", "root")
    return made


async def collect(ledger: Ledger, page: HostRecordPage, asked: int = 0) -> None:
    collecting = CollectingActivities(ledger, first_fault)
    given = CollectedPage(fleet="edge", gateway="gw-1", asked=asked, page=page)
    await ActivityEnvironment().run(collecting.collect_host_record, given)


def told(ledger: Ledger) -> list[str]:
    return [one.action for one in ledger.audit_entries()]


def faults(ledger: Ledger) -> list[str]:
    return [
        json.loads(one.body)["fault"] for one in ledger.audit_entries() if one.action == "host record broken"
    ]


def signed(folder: Path, number: int, **said: object) -> str:
    """Return a line that the host's key signed and the host's program would never write."""
    key = load_pem_private_key((folder / "audit.key").read_bytes(), None)
    assert isinstance(key, Ed25519PrivateKey)
    entry = {
        "number": number,
        "at": "",
        "before": FIRST,
        "person": "x",
        "action": "x",
        "sentence": "x",
    } | said
    signature = base64.b64encode(key.sign(json.dumps(entry, sort_keys=True).encode())).decode()
    return json.dumps({"entry": entry, "signature": signature}, sort_keys=True)


async def test_a_page_that_is_collected_twice_accuses_nobody(ledger: Ledger, host: HostAudit) -> None:
    """Its worker was killed after the commit, or two surveys looked at once."""
    for _ in range(2):
        await collect(ledger, host.page(0))
    assert told(ledger) == ["on the host: break-glass"] * 3


async def test_a_page_that_comes_after_a_newer_one_accuses_nobody(ledger: Ledger, host: HostAudit) -> None:
    older = host.page(0)
    host.record("break-glass", "reset 3", "root")
    await collect(ledger, host.page(0))
    await collect(ledger, older)
    host.record("break-glass", "reset 4", "root")
    await collect(ledger, host.page(2), asked=2)
    assert told(ledger) == ["on the host: break-glass"] * 5
    assert ledger.collected("edge", ["gw-1"])["gw-1"].number == 5


async def test_another_line_in_the_place_of_a_collected_one_is_named(
    ledger: Ledger, host: HostAudit, tmp_path: Path
) -> None:
    await collect(ledger, host.page(0))
    other = HostAudit(tmp_path / "other.jsonl", tmp_path / "audit.key")
    for number in range(4):
        other.record("break-glass", f"another {number}", "root")
    for _ in range(2):
        await collect(ledger, other.page(0))
    assert faults(ledger) == ["line 3 is not the one that was collected"]
    assert len(told(ledger)) == 4


async def test_a_page_of_a_host_that_was_set_up_anew_meanwhile_is_left_for_the_next_look(
    ledger: Ledger, host: HostAudit
) -> None:
    await collect(ledger, host.page(2), asked=2)
    assert told(ledger) == []


async def test_lines_that_are_gone_before_they_were_collected_are_named_and_the_rest_is_collected(
    ledger: Ledger, tmp_path: Path
) -> None:
    host = HostAudit(tmp_path / "audit.jsonl", tmp_path / "audit.key", largest=20_000)
    host.record("break-glass", "the first", "root")
    await collect(ledger, host.page(0))
    while not (page := host.page(1)).after > 1:
        host.record("break-glass", "one more", "root")
    for _ in range(2):
        await collect(ledger, page, asked=1)
    assert faults(ledger) == [f"lines 2 to {page.after} are gone"]
    host.record("break-glass", "the last", "root")
    await collect(ledger, host.page(page.recorded), asked=page.recorded)
    assert ledger.collected("edge", ["gw-1"])["gw-1"].number == page.recorded + 1
    assert len(faults(ledger)) == 1


async def test_a_record_that_is_shortened_after_it_was_collected_is_whole(
    ledger: Ledger, tmp_path: Path
) -> None:
    host = HostAudit(tmp_path / "audit.jsonl", tmp_path / "audit.key", largest=20_000)
    asked = 0
    while not host.page(0).after > 0:
        host.record("break-glass", "one more", "root")
        await collect(ledger, host.page(asked), asked=asked)
        asked = ledger.collected("edge", ["gw-1"])["gw-1"].number
    assert faults(ledger) == []
    assert told(ledger)[-1] == "on the host: record shortened"


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"action": 5}, "line 1 does not tell who did what"),
        ({"person": {"": 1}}, "line 1 does not tell who did what"),
        ({"action": "\0", "person": "\0" * 300}, None),
    ],
    ids=["a number", "an object", "what no database takes"],
)
async def test_no_line_that_a_host_signs_is_too_much_for_the_ledger(
    ledger: Ledger, host: HostAudit, tmp_path: Path, said: dict[str, object], fault: str | None
) -> None:
    page = HostRecordPage(
        public_key=host.public_key, after=0, recorded=1, lines=(signed(tmp_path, 1, **said),)
    )
    await collect(ledger, page)
    assert faults(ledger) == ([fault] if fault else [])
    assert len(told(ledger)) == 1


async def test_a_line_that_is_nested_too_deep_is_an_altered_one(ledger: Ledger, host: HostAudit) -> None:
    page = HostRecordPage(public_key=host.public_key, after=0, recorded=1, lines=("[" * 4000,))
    await collect(ledger, page)
    assert faults(ledger) == ["line 1 was altered, or another key signed it"]


async def test_a_key_with_other_letters_in_it_is_none(ledger: Ledger, host: HostAudit) -> None:
    """It decoded to the same 32 bytes, and was longer than its column."""
    page = host.page(0).model_copy(update={"public_key": "!" * 60 + host.public_key})
    await collect(ledger, page)
    assert faults(ledger) == ["line 1 comes with something that is no key"]


def taken_on(monkeypatch: pytest.MonkeyPatch, day: str) -> None:
    monkeypatch.setattr("activities.host_record.today", lambda: day)


async def look(ledger: Ledger, host: HostAudit) -> int:
    """Collect what is next of the host's record, as each look does; return how many lines are here then."""
    known = ledger.collected("edge", ["gw-1"]).get("gw-1", Collected()).number
    await collect(ledger, host.page(known), asked=known)
    return ledger.collected("edge", ["gw-1"])["gw-1"].number


async def test_a_host_that_records_without_end_adds_a_bounded_number_of_bytes_a_day_and_is_named_once(
    ledger: Ledger, host: HostAudit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.host_record.MOST_A_DAY", 20_000)
    monkeypatch.setattr("activities.host_record.LONGEST_PAGE", 6_000)
    for _ in range(60):
        host.record("order refused", '"' * 900)
    taken_on(monkeypatch, "2030-01-01")
    numbers = [await look(ledger, host) for _ in range(10)]
    lines = [json.loads(one.body)["line"] for one in ledger.audit_entries() if one.via == "host"]
    assert numbers[-1] == numbers[-2] == len(lines) < 30
    assert 17_000 < sum(map(len, lines)) <= 20_000
    assert faults(ledger) == ["20000 bytes of it were collected on 2030-01-01; later days take the rest"]


async def test_what_a_host_recorded_beyond_its_bound_of_a_day_is_collected_on_the_next_days(
    ledger: Ledger, host: HostAudit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("activities.host_record.MOST_A_DAY", 20_000)
    for _ in range(57):
        host.record("order refused", '"' * 900)
    for day in range(1, 9):
        taken_on(monkeypatch, f"2030-01-{day:02}")
        for _ in range(3):
            number = await look(ledger, host)
    assert number == 60
    assert len([one for one in told(ledger) if one.startswith("on the host: ")]) == 60


async def test_a_host_whose_record_is_broken_in_another_way_each_time_adds_a_bounded_number_of_entries_a_day(
    ledger: Ledger, host: HostAudit, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken_on(monkeypatch, "2030-01-01")
    for number in range(60):
        page = host.page(0).model_copy(update={"recorded": number})
        await collect(ledger, page, asked=100)
    assert len(faults(ledger)) == MOST_A_DAY // LONGEST_PAGE
    taken_on(monkeypatch, "2030-01-02")
    await collect(ledger, host.page(0))
    assert told(ledger)[-1] == "on the host: break-glass"
