"""A gateway whose disk is full is looked at, goes back, and comes up again: a real instance, a real disk."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from activities.drivers.runtime.host import slot_folders
from policies.model.instance import InstanceState
from tests.drivers.gateway_fixtures import ON_A_REAL_GATEWAY, built_lab, lab  # noqa: F401 - fixtures
from tests.drivers.gateway_lab import GatewayLab, operation
from tests.drivers.small_disk import fill, small_disk
from tests.patience import until

pytestmark = ON_A_REAL_GATEWAY
LOG_BYTES = 512 * 1024
"""More than half of the disk, so that there is never room for a second one."""


@pytest.fixture
def disk(lab: GatewayLab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:  # noqa: F811
    """The disk of slot a."""
    monkeypatch.setattr(slot_folders, "LOG_BYTES", LOG_BYTES)
    with small_disk(lab.folders.of("a").path) as found:
        lab.compose()
        yield found
        for pid in lab.daemons():
            os.kill(pid, signal.SIGKILL)


async def serving(lab: GatewayLab) -> None:  # noqa: F811
    await lab.table.make_permanent(operation("keep"), await lab.running("1"))


def grow_log(lab: GatewayLab) -> None:  # noqa: F811
    with lab.folders.of("a").log.open("a") as log:
        log.write("x" * LOG_BYTES + "\nlast words\n")


async def reboot(lab: GatewayLab) -> None:  # noqa: F811
    for pid in lab.daemons():
        os.kill(pid, signal.SIGKILL)
    await until(lambda: lab.folders.of("a").process() is None)


async def test_a_long_log_on_a_full_disk_holds_up_no_way_back_and_its_end_is_kept(
    lab: GatewayLab,  # noqa: F811
    disk: Path,
) -> None:
    await serving(lab)
    grow_log(lab)
    fill(disk)
    restored = await lab.slots.restore(operation("back", epoch=2), lab.admission.release("1"))
    assert (restored.back, restored.slot) == (True, "a")
    log = lab.folders.of("a").log
    assert log.stat().st_size < LOG_BYTES
    assert log.with_name("log.1").read_text().endswith("last words\n")
    assert (await lab.slots.fence(operation("fence", epoch=3))).epoch == 3


@pytest.mark.sweep
async def test_what_a_reboot_ended_is_started_again_on_a_disk_that_its_log_has_filled(
    lab: GatewayLab,  # noqa: F811
    disk: Path,
) -> None:
    await serving(lab)
    await reboot(lab)
    grow_log(lab)
    fill(disk)
    assert (await lab.slots.resume()).instance("a").state is InstanceState.RUNNING


@pytest.mark.sweep
async def test_an_agent_comes_up_on_a_full_disk_where_nothing_can_be_started(
    lab: GatewayLab,  # noqa: F811
    disk: Path,
) -> None:
    await serving(lab)
    await reboot(lab)
    fill(disk)
    assert (await lab.slots.resume()).instance("a").state is InstanceState.FAILED
    (disk / "filler").unlink()
    assert (await lab.slots.resume()).instance("a").state is InstanceState.RUNNING
