"""A whole snapshot of a gateway whose configuration was filled with a secret."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from activities.drivers.daemon.ocserv.daemon import Ocserv
from activities.drivers.daemon.openvpn.daemon import OpenVpn
from activities.drivers.runtime.host.own_evidence import OwnEvidence
from activities.drivers.runtime.host.slot_folders import SlotFolders
from activities.drivers.runtime.host.snapshots import HostSnapshots
from activities.snapshots import Evidence
from policies.model.adoption import ADOPTED
from policies.model.instance import GatewayState, Steering
from policies.model.operation import Operation
from tests.unit.fleets import gateway

SECRET, OLDER = "Kd8sJs83jdks93KD", "Qm4xTz71pwoe55LA"


def given(folder: Path, secret: str, log: str) -> None:
    (folder / "conf/credentials").mkdir()
    (folder / "conf/credentials/duo").write_text(f"{secret}\n")
    (folder / "conf/openvpn.conf").write_text(
        f"verb 4\nplugin /opt/duo.so 'DI1 {secret} a'\ndomain {secret}\n"
    )
    (folder / "log").write_text(log)


async def test_no_part_of_a_snapshot_has_a_secret_that_its_gateway_was_given(tmp_path: Path) -> None:
    """The log of one slot may quote what another slot was given, and so may reasons and steering."""
    here = gateway("gw-1")
    folders = SlotFolders(here, tmp_path, OpenVpn())
    first, second = list(folders)[:2]
    given(first.path, SECRET, f"bad word {SECRET} and {OLDER}\n")
    given(second.path, OLDER, "well\n")

    frozen = await frozen_of(folders, reason=f"it ended: {OLDER}", steered=f"hook failed: {SECRET}")
    assert SECRET not in frozen
    assert OLDER not in frozen
    assert "plugin /opt/duo.so" in frozen
    assert "verb 4" in frozen


async def frozen_of(folders: SlotFolders, *, reason: str = "it ended", steered: str = "") -> str:
    here = folders.gateway

    async def observe() -> GatewayState:
        return GatewayState(
            gateway=here.name, instances=(), steering=Steering(), epoch=1, observed_at=datetime.now(UTC)
        )

    async def steering() -> str:
        return steered

    operation = Operation(
        rollout="r-1", epoch=1, gateway=here.name, step="snapshot", digest="sha256:" + "0" * 64
    )
    snapshots = HostSnapshots(folders, observe, steering)
    return snapshots.read_frozen(await snapshots.freeze(operation, Evidence(reason=reason))).decode()


BODIES = {
    "openconnect": (
        '<?xml version="1.0" encoding="UTF-8"?>\n<config-auth client="vpn" type="auth-reply"><session-token/>'
        f"<auth><username>ana</username><password>{SECRET}</password></auth></config-auth>\n'"
    ),
    "a second password": (
        '<config-auth client="vpn" type="auth-reply">\n'
        f"<auth><secondary_password>{SECRET}</secondary_password></auth></config-auth>'"
    ),
    "a form": f"username=ana&password={SECRET}'",
    "a body that is cut": f"<config-auth>\n<auth><username>ana</username><password>{SECRET}",
}


@pytest.mark.parametrize("adopted", [False, True], ids=["of ours", "adopted"])
@pytest.mark.parametrize("client", BODIES)
async def test_no_snapshot_has_the_password_that_a_user_of_ocserv_has_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: str, *, adopted: bool
) -> None:
    """From level 4 on, ocserv logs each request."""
    folders = SlotFolders(gateway("gw-1"), tmp_path, Ocserv())
    folder = next(iter(folders))
    worker = "ocserv[812]: worker: 203.0.113.7"
    log = f"{worker} HTTP POST /auth\n{worker} POST body: '{BODIES[client]}\n{worker} sending message\n"

    async def own_evidence(*_: object) -> OwnEvidence:
        return OwnEvidence(log=log)

    if adopted:
        monkeypatch.setattr("activities.drivers.runtime.host.snapshots.own_evidence", own_evidence)
        slot = folder.slot.model_copy(update={"name": ADOPTED})
        own = {"slot": slot.model_dump(mode="json"), "config": "", "control": "", "unit": ""}
        (tmp_path / "slots" / ADOPTED).mkdir()
        (tmp_path / "slots" / ADOPTED / "own.json").write_text(json.dumps(own))
    else:
        (folder.path / "log").write_text(log)
    frozen = await frozen_of(folders)
    assert SECRET not in frozen
    assert "HTTP POST /auth" in frozen
    assert "sending message" in frozen


def test_the_last_line_of_an_instance_is_reported_without_the_secret_that_it_quotes(tmp_path: Path) -> None:
    folders = SlotFolders(gateway("gw-1"), tmp_path, OpenVpn())
    folder = next(iter(folders))
    given(folder.path, SECRET, f"Options error: {SECRET}: no such plugin\n")
    assert folder.last_words() == "Options error: [removed]: no such plugin"
