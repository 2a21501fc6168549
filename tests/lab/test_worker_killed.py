"""A rollout on the real lab while strangers and thieves attack it and its worker is killed; a lost ledger."""

import json
from typing import Any

import pytest

from deploy.lab import preflight
from tests.house.leftovers import nothing_is_left
from tests.lab.own_state import own_state
from tests.lab.played import HANGS_AFTER, played

pytestmark = [
    pytest.mark.lab,
    pytest.mark.sweep,
    pytest.mark.skipif(not preflight.is_able(), reason="needs root and /dev/net/tun"),
    pytest.mark.timeout(HANGS_AFTER),
]

STORY = """
import asyncio, json, shutil, sqlite3, sys, time
from pathlib import Path
from deploy.lab.lab import FLEET, OPERATOR, Shape, lab
from orchestrator.processes.composition import compose
from policies.model.errors import Refused
from policies.model.plan import Strategy
from policies.model.change import Phase
from orchestrator.processes.leaving import leave
from tests.lab.attack import Thief, crowds
from tests.patience import PATIENCE
from workflows.reconcile import Reconcile, ReconcileOrder
from workflows.steps import CONTROL_QUEUE

async def until(built, phase):
    while (await built.status()).phase is not phase:
        await asyncio.sleep(0.2)

async def main():
    async with lab(print, Shape(prefix="pstw-", folder="lab-worker", sites=4)) as built:
        older = older_ledger(built)
        before = built.figures()
        plan = await built.plan(built.newer, Strategy.CANARY)
        await built.start(plan, "a worker is killed")
        await until(built, Phase.OBSERVING)
        with crowds(built):
            attacks = await Thief(built, plan.waves[-1].gateways[-1]).tries()
            built.worker.kill()
            await asyncio.sleep(2)
            built.worker.start()
            await until(built, Phase.ENDED)
        told = await asyncio.wait_for(collected(built.installation.ledger), PATIENCE)
        print("ATTACKED", json.dumps({"attacks": attacks, "recorded": told}), flush=True)
        result, after = await built.result(), built.figures()
        running = {s.serving.executable for s in (await built.every_state()).values() if s.serving}
        print("RESULT", json.dumps({
            "outcome": result.outcome, "reason": result.reason, "lost": after["lost"] - before["lost"],
            "pings_lost": after["pings"]["lost"], "running": sorted(running),
            "newer": built.newer.executable,
        }), flush=True)
        await restored(built, older)
        await rebuild(built)

async def collected(ledger):
    # Hosts' own records come with the next look at the fleet, which the killed worker may have missed.
    while True:
        told = [entry.action for entry in ledger.audit_entries()]
        refused = {action.removeprefix("on the host: refused: ") for action in told}
        if refused >= {"BeyondHostLimits", "ForeignOrder", "payload"}:
            return told
        await asyncio.sleep(0.5)

def times_ready(worker):
    return sum(line.startswith("ready:") for line in worker.last_lines(100_000))

def ledger_files(built):
    database = built.ledger_file
    return database, [*database.parent.glob("ledger.db*")]

def older_ledger(built):
    database, _ = ledger_files(built)
    older = database.with_name("older.db")
    with sqlite3.connect(database) as now, sqlite3.connect(older) as kept:
        now.backup(kept)
    return older

async def restored(built, older):
    # The ledger as it was before the change; its worker looks at gateways that it knows less of than they do.
    built.worker.stop()
    database, files = ledger_files(built)
    for file in files:
        file.unlink()
    shutil.copy(older, database)
    before = times_ready(built.worker)
    built.worker.start()
    while times_ready(built.worker) == before:
        await asyncio.sleep(0.1)
    installation = await compose(built.installation.settings)
    looked = await installation.changes.client.execute_workflow(
        Reconcile.run, ReconcileOrder(fleet=FLEET), id="looked", task_queue=CONTROL_QUEUE
    )
    findings = await installation.service.examine(OPERATOR)
    try:
        await installation.service.add_release(OPERATOR, FLEET, built.faulty.digest)
        await installation.plans.plan(built.fleet, built.faulty.digest, Strategy.CANARY)
        refused = ""
    except Refused as refusal:
        refused = str(refusal)
    rebuilt = await installation.service.rebuild(OPERATOR, FLEET, "an older copy was restored")
    running = {s.serving.executable for s in (await built.every_state()).values() if s.serving}
    print("RESTORED", json.dumps({
        "looked": looked.sentence, "refused": refused, "versions": rebuilt.versions,
        "running": sorted(running), "newer": built.newer.executable, "known": built.newer.version,
        "doctor": [one.sentence for one in findings if one.about == f"{FLEET}: known-good"],
    }), flush=True)

async def rebuild(built):
    built.worker.stop()
    settings = built.installation.settings
    for file in ledger_files(built)[1]:
        file.unlink()
    installation = await compose(settings)
    before = times_ready(built.worker)
    built.worker.start()
    while times_ready(built.worker) == before:
        await asyncio.sleep(0.1)
    service = installation.service
    rebuilt = await service.rebuild(OPERATOR, FLEET, "the disk has died")
    await service.add_release(OPERATOR, FLEET, built.faulty.digest)
    planned = await installation.plans.plan(built.fleet, built.faulty.digest, Strategy.CANARY)
    print("REBUILT", json.dumps({
        "change": rebuilt.change, "versions": rebuilt.versions, "lost": rebuilt.lost,
        "newer": built.newer.version, "changing": sum(len(wave.gateways) for wave in planned.waves),
        "fault": installation.ledger.verify_audit(),
    }), flush=True)

asyncio.run(main())
leave(0)
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the story has told."""
    folder = own_state(tmp_path_factory.mktemp("state"))
    with nothing_is_left("pstw-"):
        done = played("-c", STORY, state=folder)
    return done.stdout + done.stderr


def told_in(said: str, what: str) -> dict[str, Any]:
    lines = [line for line in said.splitlines() if line.startswith(f"{what} ")]
    assert lines, said
    found: dict[str, Any] = json.loads(lines[0].removeprefix(f"{what} "))
    return found


def test_a_rollout_ends_the_same_way_when_it_is_attacked_and_its_worker_is_killed_in_the_window(
    said: str,
) -> None:
    told = told_in(said, "RESULT")
    assert told["outcome"] == "promoted", told
    assert (told["lost"], told["pings_lost"]) == (0, 0)
    assert told["running"] == [told["newer"]]


REFUSED = {
    "the engine from a gateway's network": "nobody answers",
    "another gateway's queue": "nothing came",
    "a change by a gateway's certificate": "may not",
    "a list by a gateway's certificate": "may not",
    "a plain order": "BadInput: what it says is sealed",
    "an epoch of 2^53": "ahead of the clock of",
    "an order for another gateway": "is for gw-9, and this host is",
    "the sessions of the slot that serves": "gets new sessions, so none of its sessions is ended",
    "a load of the slot that serves": "gets new sessions, so it is not loaded",
    "logins mirrored to the slot that serves": "gets new sessions, so no logins are mirrored to it",
    "a trial of a day": "is not one that gw-",
    "an empty slot for good": "nothing runs in slot",
    "a release that nobody signed": "",
}
"""What was tried in the middle of the rollout, and what the refusal says."""


def test_every_attack_on_a_rollout_is_refused_by_name_and_recorded(said: str) -> None:
    told = told_in(said, "ATTACKED")
    assert told["attacks"].keys() == REFUSED.keys()
    for name, words in REFUSED.items():
        assert words in told["attacks"][name], (name, told["attacks"][name])
        assert told["attacks"][name] not in {"obeyed", "done", "reached"}, name
    refused = {action for action in told["recorded"] if "refused" in action}
    assert refused >= {
        "call refused",
        "on the host: refused: BeyondHostLimits",
        "on the host: refused: ForeignOrder",
        "on the host: refused: payload",
    }


def test_a_ledger_that_is_lost_is_rebuilt_from_the_gateways_and_the_next_upgrade_plans(said: str) -> None:
    told = told_in(said, "REBUILT")
    assert told["versions"] == {told["newer"]: 4}
    assert told["lost"] == {}
    assert told["change"] == "lab-101"
    assert told["changing"] == 4
    assert told["fault"] is None


def test_an_older_copy_of_the_ledger_moves_nobody_and_is_rebuilt_by_a_persons_word(said: str) -> None:
    told = told_in(said, "RESTORED")
    older = "the ledger is older than its gateways: gw-1 was last steered by lab-"
    assert told["looked"].startswith(older)
    assert "gw-1 (was last steered by lab-" in told["refused"]
    assert [sentence.startswith(older) for sentence in told["doctor"]] == [True]
    assert told["running"] == [told["newer"]]
    assert told["versions"] == {told["known"]: 4}
