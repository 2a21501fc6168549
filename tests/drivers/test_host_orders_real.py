"""Orders that a real host refuses whoever gives them, and the glass that a person on it may break."""

import asyncio
import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from activities.drivers.runtime.host.audit import HostAudit
from activities.drivers.runtime.host.path import GatewayPath
from activities.drivers.signature.host_lines import first_fault
from orchestrator.processes.agent import Host
from orchestrator.processes.break_glass import break_glass
from policies.model.errors import BadInput, BeyondHostLimits, Fenced, InstanceGone
from policies.model.operation import Operation
from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, built_lab, lab  # noqa: F401 - fixtures
from tests.drivers.gateway_lab import GatewayLab, operation

pytestmark = ON_A_REAL_GATEWAY


async def serving(lab: GatewayLab) -> str:  # noqa: F811
    slot = await lab.running("1")
    await lab.table.make_permanent(operation("keep"), slot)
    return slot


def host_of(lab: GatewayLab, folder: Path) -> Host:  # noqa: F811
    return Host(
        audit=HostAudit(folder / "audit.jsonl", folder / "audit.key"),
        journal=lab.journal,
        folders=lab.folders,
        table=lab.table,
        runtime=lab.slots,
        snapshots=lab.snapshots,
        adoption=lab.adoption,
        path=GatewayPath(lab.folders, lab.table),
        known_good=tuple,
    )


async def test_nobody_makes_an_empty_slot_permanent(lab: GatewayLab) -> None:  # noqa: F811
    """C1: make_permanent pointed new users at an empty slot."""
    old = await serving(lab)
    empty = next(slot.name for slot in lab.gateway.slots if slot.name != old)
    with pytest.raises(InstanceGone, match=f"nothing runs in slot {empty}"):
        await lab.table.make_permanent(operation("evil"), empty)
    assert (await lab.table.read()).serving == old


async def test_nobody_ends_the_sessions_of_the_slot_that_serves(lab: GatewayLab) -> None:  # noqa: F811
    """C1: end_sessions with leave=0 and exempt_too cut the user."""
    old = await serving(lab)
    client = lab.client(1)
    await client.up()
    with pytest.raises(BeyondHostLimits, match=f"slot {old} of gw-1 gets new sessions"):
        await lab.sessions.end(operation("evil"), old, 10, exempt_too=True)
    assert await lab.sessions.count(old) == 1


async def test_nobody_is_on_trial_for_a_day(lab: GatewayLab) -> None:  # noqa: F811
    await serving(lab)
    new = await lab.running("2")
    with pytest.raises(BeyondHostLimits, match="a lease of 1 day"):
        await lab.table.start_trial(operation("evil"), new, timedelta(days=1))
    assert (await lab.table.read()).trial is None


@pytest.mark.sweep
async def test_a_person_on_the_host_takes_it_back_from_whoever_owns_it(
    lab: GatewayLab,  # noqa: F811
    tmp_path: Path,
) -> None:
    old = await serving(lab)
    new = await lab.running("2")
    ahead = lab.journal.bounds.epoch_now + 300_000
    evil = Operation(rollout="evil", epoch=ahead, gateway="gw-1", step="keep", digest="sha256:" + "1" * 64)
    await lab.table.make_permanent(evil, new)
    owner = operation("back", rollout="edge-9", epoch=lab.journal.bounds.epoch_now)
    with pytest.raises(Fenced):
        await lab.table.make_permanent(owner, old)
    host = host_of(lab, tmp_path)
    done = await break_glass(host, "root", "the engine is not ours", back=True)
    assert (done.steered_to, done.state.steering.serving) == (old, old)
    with pytest.raises(Fenced):  # of before the glass was broken
        await lab.table.make_permanent(owner, new)
    later = operation("forward", rollout="edge-10", epoch=lab.journal.bounds.epoch_now + 1)
    assert (await lab.table.make_permanent(later, new)).serving == new
    lines = (tmp_path / "audit.jsonl").read_text().splitlines()
    entry = json.loads(lines[0])["entry"]
    assert (entry["person"], entry["action"]) == ("root", "break-glass")
    assert entry["sentence"] == f"reset the fence and steer to slot {old}: the engine is not ours"
    assert first_fault(lines, host.audit.public_key) is None


async def test_breaking_the_glass_ends_a_trial(lab: GatewayLab, tmp_path: Path) -> None:  # noqa: F811
    old = await serving(lab)
    new = await lab.running("2")
    await lab.table.start_trial(operation("trial"), new, timedelta(minutes=1))
    done = await break_glass(host_of(lab, tmp_path), "root", "users call", back=True)
    assert (done.state.steering.serving, done.state.steering.trial) == (old, None)


async def test_without_another_instance_there_is_nothing_to_go_back_to(
    lab: GatewayLab,  # noqa: F811
    tmp_path: Path,
) -> None:
    await serving(lab)
    before = lab.journal.epoch
    with pytest.raises(BadInput, match="no other instance runs on gw-1"):
        await break_glass(host_of(lab, tmp_path), "root", "users call", back=True)
    assert lab.journal.epoch == before
    assert not (tmp_path / "audit.jsonl").exists()


@pytest.mark.sweep
async def test_the_command_needs_neither_engine_nor_agent(lab: GatewayLab, tmp_path: Path) -> None:  # noqa: F811
    old = await serving(lab)
    new = await lab.running("2")
    await lab.table.make_permanent(operation("forward", epoch=2), new)
    content = {
        "gateway": lab.gateway.model_dump(mode="json", exclude_none=True) | {"fleet": "edge"},
        "root": str(lab.root),
        "product": "ocserv",
        "channel": "stable",
        "trust": str(tmp_path / "no-trust.yaml"),
        "temporal_address": "127.0.0.1:1",
        "probe": {
            "user": "probe",
            "password": str(lab.folder / "probe"),
            "authority": str(lab.folder / "ca.pem"),
        },
    }
    config = tmp_path / "agent.yaml"
    config.write_text(json.dumps(content))
    break_glass = ["agent", "break-glass", "--config", str(config), "--reason", "users call"]
    said = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "orchestrator", *break_glass, "--slot", old],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    assert f"New sessions go to slot {old}; no session was ended." in said.stdout
    assert (await lab.table.read()).serving == old
    entry = json.loads((lab.root / "audit.jsonl").read_text().splitlines()[-1])["entry"]
    assert (entry["person"], entry["action"]) == ("root", "break-glass")
