"""What decided a change, asked of the API and of a copy of its ledger, while everything else is away."""

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from orchestrator.processes.ledger_copy import LedgerCopy
from orchestrator.store.ledger import Ledger
from orchestrator.words.explained import change_lines
from policies.model.verdict import (
    Action,
    Against,
    Decision,
    Differing,
    GateReading,
    GateVerdict,
    Otherwise,
)
from policies.status.awaited import finds_harm
from tests.service.command_line import CommandLine
from tests.service.test_api import under_way
from tests.service.test_every_state import STATES, decision, written

AT = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
HOSTILE = "9 of 60 bad \x1b[31m<b>red</b>\nNext: rm"


def decided(ledger: Ledger) -> str:
    """Write down a change that was watched and then rolled back; return its name."""
    name = under_way(ledger, phase="rolling_back")
    nothing = Decision(
        action=Action.CONTINUE, verdict=GateVerdict.NOT_ENOUGH_DATA, reason="nothing is proven yet"
    )
    reading = GateReading(
        gate="logins",
        verdict=GateVerdict.UNHEALTHY,
        reason=HOSTILE,
        numbers={"canary_bad": 9, "canary_total": 60, "evidence_worse": 5000},
        against=Against.CONTROL,
    )
    least = Otherwise(gate="logins", differing=Differing.FEWER_BAD, count=3, then=GateVerdict.NOT_ENOUGH_DATA)
    worse = Decision(
        action=Action.ROLL_BACK,
        verdict=GateVerdict.UNHEALTHY,
        reason=HOSTILE,
        readings=(reading,),
        otherwise=(least,),
    )
    ledger.record_verdict(name, 1, nothing, AT)
    ledger.record_verdict(name, 1, worse, AT + timedelta(minutes=4))
    return name


async def test_decisions_are_told_from_the_ledger_alone(api: httpx.AsyncClient, ledger: Ledger) -> None:
    name = decided(ledger)
    listed = (await api.get(f"/changes/{name}/decisions")).json()
    assert [(row["number"], row["action"]) for row in listed["decisions"]] == [
        (1, "continue"),
        (2, "roll_back"),
    ]
    rest = (await api.get(f"/changes/{name}/decisions", params={"after": 1})).json()
    assert [row["number"] for row in rest["decisions"]] == [2]
    found = (await api.get(f"/changes/{name}/decisions/2")).json()
    assert found["decision"]["otherwise"][0]["count"] == 3
    assert found["decision"]["readings"][0]["numbers"]["canary_total"] == 60


async def test_harm_after_a_promotion_is_explained_before_the_decision_that_promoted(
    api: httpx.AsyncClient, ledger: Ledger
) -> None:
    written(ledger, STATES["promoted"])
    promotes = decision(Action.PROMOTE, GateVerdict.HEALTHY)
    found = ("9 of 10 logins fail", Action.HOLD), ("7 of 10 logins fail", Action.ROLL_BACK)
    ledger.record_verdict("edge-1", 1, promotes, AT)
    for number, (why, action) in enumerate(found, 1):
        reading = GateReading(gate="tunnels", verdict=GateVerdict.UNHEALTHY, reason=why, numbers={"bad": 0.9})
        harm = Decision(action=action, verdict=GateVerdict.UNHEALTHY, reason=why, readings=(reading,))
        ledger.record_verdict("edge-1", 0, harm, AT + timedelta(minutes=number))
        assert finds_harm(harm)
    ledger.record_verdict("edge-1", 0, promotes, AT + timedelta(minutes=5))
    asked = (await api.get("/changes/edge-1")).json()
    for answer in (asked, LedgerCopy(ledger).get("changes", "edge-1")):
        said = " ".join(" ".join(change_lines(answer)).split())
        harm_line = "Harm 2026-11-23 09:32:00 UTC after the last wave: 7 of 10 logins fail Gate tunnels:"
        assert harm_line in said, said
        assert said.index("Harm ") < said.index("Decision ")
        assert "9 of 10" not in said


async def test_a_decision_that_there_is_not_is_refused(api: httpx.AsyncClient, ledger: Ledger) -> None:
    name = decided(ledger)
    for number in ("3", "0", "x", "99999999999"):
        assert (await api.get(f"/changes/{name}/decisions/{number}")).status_code in {400, 404, 422}
    assert (await api.get("/changes/edge-99/decisions")).status_code == 404


async def test_a_decision_is_explained_with_what_would_have_changed_it(
    penstock: CommandLine, ledger: Ledger
) -> None:
    name = decided(ledger)
    said = await penstock("explain", f"{name}#2")
    assert said.code == 0, said.err
    assert "had the newest 3 of the 9 bad events been good: not proven either way" in said.out
    assert "2 would have changed nothing" in said.out
    assert "runbooks/canary-rejected.md" in said.out
    assert "\x1b" not in said.out
    listed = await penstock("explain", name, "--decisions")
    assert f"{name}#1" in listed.out
    assert f"{name}#2" in listed.out
    assert "\x1b" not in listed.out


async def test_a_decision_that_there_is_not_is_refused_with_where_they_are_listed(
    penstock: CommandLine, ledger: Ledger
) -> None:
    name = decided(ledger)
    said = await penstock("explain", f"{name}#9")
    assert (said.code, f"penstock explain {name} --decisions" in said.err) == (2, True)


async def test_without_a_word_several_fleets_are_named(penstock: CommandLine, ledger: Ledger) -> None:
    decided(ledger)
    said = await penstock("explain")
    assert (said.code, "core, edge" in said.err) == (2, True)


@pytest.mark.sweep
async def test_a_copy_of_the_ledger_says_the_same_without_any_api(
    penstock: CommandLine, ledger: Ledger, tmp_path: Path
) -> None:
    name = decided(ledger)
    asked = (await penstock("explain", f"{name}#2", "-o", "json")).out
    copy, backup = tmp_path / "copied.db", tmp_path / "backup"
    for beside in ("", "-wal"):
        if (tmp_path / f"ledger.db{beside}").exists():
            shutil.copyfile(tmp_path / f"ledger.db{beside}", f"{copy}{beside}")
    url = {"PENSTOCK_LEDGER_URL": f"sqlite:///{tmp_path / 'ledger.db'}"}
    made = await penstock("ledger", "backup", str(backup), **url)
    assert made.code == 0, made.err
    nobody = {"PENSTOCK_SOCKET": str(tmp_path / "nobody.sock")}
    for file in (copy, backup):
        before = file.read_bytes()
        said = await penstock("explain", f"{name}#2", "--ledger", str(file), "-o", "json", **nobody)
        assert said.code == 0, said.err
        assert json.loads(said.out) == json.loads(asked)
        newest = await penstock("explain", "--ledger", str(file), **nobody)
        assert name in newest.out
        assert file.read_bytes() == before


async def test_what_is_no_ledger_is_refused(penstock: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("nothing of the kind\n")
    said = await penstock("explain", "edge-1", "--ledger", str(tmp_path / "other"))
    assert (said.code, "no database and no whole backup" in said.err) == (2, True)


async def test_explain_names_no_page_of_a_safe_fleet_while_harm_waits_for_an_operator(
    penstock: CommandLine, ledger: Ledger
) -> None:
    """The page said `Nothing. The fleet is safe` of an upgrade that went on against proven harm."""
    written(ledger, STATES["going on against its verdict"])
    ledger.record_verdict("edge-1", 1, decision(Action.ROLL_BACK, GateVerdict.UNHEALTHY), AT)
    for word in ("edge", "edge-1#1", "unhealthy"):
        explained = await penstock("explain", word)
        assert explained.code == 0
        assert "Runbook     runbooks/held-decide.md" in explained.out, explained.out
    assert "Needs you   HARM FOUND" in (await penstock("explain", "edge")).out
