"""A whole snapshot of a gateway whose configuration was filled with a secret."""

from datetime import UTC, datetime
from pathlib import Path

from activities.drivers.daemon.openvpn.daemon import OpenVpn
from activities.drivers.runtime.host.slot_folders import SlotFolders
from activities.drivers.runtime.host.snapshots import HostSnapshots
from activities.snapshots import Evidence
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

    async def observe() -> GatewayState:
        return GatewayState(
            gateway=here.name, instances=(), steering=Steering(), epoch=1, observed_at=datetime.now(UTC)
        )

    async def steering() -> str:
        return f"hook failed: {SECRET}"

    operation = Operation(
        rollout="r-1", epoch=1, gateway=here.name, step="snapshot", digest="sha256:" + "0" * 64
    )
    snapshots = HostSnapshots(folders, observe, steering)
    digest = await snapshots.freeze(operation, Evidence(reason=f"it ended: {OLDER}"))
    frozen = snapshots.read_frozen(digest).decode()
    assert SECRET not in frozen
    assert OLDER not in frozen
    assert "plugin /opt/duo.so" in frozen
    assert "verb 4" in frozen


def test_the_last_line_of_an_instance_is_reported_without_the_secret_that_it_quotes(tmp_path: Path) -> None:
    folders = SlotFolders(gateway("gw-1"), tmp_path, OpenVpn())
    folder = next(iter(folders))
    given(folder.path, SECRET, f"Options error: {SECRET}: no such plugin\n")
    assert folder.last_words() == "Options error: [removed]: no such plugin"
