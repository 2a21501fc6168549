"""A snapshot of a real gateway with a real user: what it tells of that user, and how long it is kept."""

import json
import os
import re
import secrets
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from activities.drivers.runtime.host.snapshots import HostSnapshots, read_fleet_key
from activities.snapshots import Evidence
from policies.model.adoption import ADOPTED
from policies.model.errors import BadInput
from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, built_lab, lab  # noqa: F401 - fixtures
from tests.drivers.gateway_lab import GatewayLab, operation
from tests.drivers.unprepared import Unprepared
from tests.patience import PATIENCE

pytestmark = ON_A_REAL_GATEWAY

SAID = "curl --api-token hunter2 https://ana:hunter3@192.0.2.99/x failed"


async def frozen(snapshots: HostSnapshots, name: str) -> str:
    digest = await snapshots.freeze(operation(name), Evidence(reason=SAID))
    return snapshots.read_frozen(digest).decode()


def fleet_key(folder: Path) -> Path:
    path = folder / "pseudonyms.key"
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(32))
    return path


def told_of_sessions(snapshot: str, slot: str) -> dict[str, Any]:
    [session] = json.loads(snapshot)["sessions"][slot]
    assert isinstance(session, dict)
    return session


async def test_a_snapshot_has_what_an_adopted_daemon_is_configured_with_and_has_logged_without_its_users(
    lab: GatewayLab,  # noqa: F811
) -> None:
    daemon = Unprepared(lab, more="log-level = 3\nbanner = password=hunter2\n")
    await lab.client(1).up()
    await lab.adoption.adopt(operation("adopt"), ())
    shown = await frozen(lab.snapshots, "adopted")
    slot = json.loads(shown)["slots"][ADOPTED]
    assert "ipv4-network = 10.90.9.0/24" in slot["config"][str(daemon.config)]
    assert "user logged in" in slot["log"]
    assert slot["missing"] == []
    for secret in ("user1", "10.77.0.11", "hunter"):
        assert not re.search(rf"(?<![\w.:-]){re.escape(secret)}(?![\w.-])", shown), secret
    daemon.config.unlink()
    daemon.process.kill()
    daemon.process.wait(PATIENCE)
    without = json.loads(await frozen(lab.snapshots, "ended"))["slots"][ADOPTED]
    assert (without["config"], without["log"]) == ({}, "")
    assert without["missing"] == [
        f"its configuration {daemon.config} cannot be read: No such file or directory",
        "what it has logged is not known: it has ended",
    ]


async def test_a_users_address_and_name_are_in_no_part_of_a_snapshot(
    lab: GatewayLab,  # noqa: F811
    tmp_path: Path,
) -> None:
    slot = await lab.running("1.1.6")
    await lab.table.make_permanent(operation("serve"), slot)
    client = lab.client(1)
    await client.up()
    await lab.table.start_trial(operation("trial"), await lab.running("1.1.6-2"), timedelta(seconds=60))
    [session] = (await lab.folders.live())[slot] or ()
    log = lab.folders.of(slot).log.read_text()
    names = lab.folders.daemon.names_in(log)
    assert names
    assert session.remote_address in log

    keyed = HostSnapshots(lab.folders, lab.slots.observe, lab.table.words, fleet_key(tmp_path))
    shown = [
        await frozen(lab.snapshots, "without key"),
        await frozen(keyed, "one"),
        await frozen(keyed, "two"),
    ]
    for snapshot in shown:
        for secret in (session.remote_address, session.vpn_address, *names, "hunter", "192.0.2.99"):
            assert not re.search(rf"(?<![\w.:-]){re.escape(secret)}(?![\w.-])", snapshot), secret
        assert str(lab.gateway.addresses[0]) in snapshot
        assert "table inet penstock" in snapshot
    left_out, one, two = (told_of_sessions(snapshot, slot)["remote_address"] for snapshot in shown)
    assert left_out == "[address]"
    assert one == two
    assert one in json.loads(shown[1])["slots"][slot]["log"]
    assert one in json.loads(shown[1])["steering"], "a pin is known by the same word"


async def test_a_host_keeps_snapshots_no_longer_than_it_is_told(
    lab: GatewayLab,  # noqa: F811
) -> None:
    snapshots = HostSnapshots(lab.folders, lab.slots.observe, lab.table.words, kept_for=timedelta(days=1))
    await frozen(snapshots, "old")
    [old] = (lab.root / "snapshots").glob("sha256-*.json")
    ago = time.time() - 2 * 86400
    os.utime(old, (ago, ago))
    await frozen(snapshots, "new")
    [kept] = (lab.root / "snapshots").glob("sha256-*.json")
    assert kept != old


async def test_a_key_that_is_none_or_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = fleet_key(tmp_path)
    assert len(read_fleet_key(path)) == 32
    path.chmod(0o640)
    with pytest.raises(BadInput, match="chmod 600"):
        read_fleet_key(path)
    path.chmod(0o600)
    for wrong in ("", "short", "00" * 31, "zz" * 32):
        path.write_text(wrong)
        with pytest.raises(BadInput, match="64 hex digits"):
            read_fleet_key(path)
    with pytest.raises(BadInput, match="cannot be read"):
        read_fleet_key(tmp_path / "none")
