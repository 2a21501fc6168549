"""An agent that is killed at a named line of a named step: `python -m tests.drivers.dying_agent …`."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from activities.drivers.daemon.ocserv.daemon import Ocserv
from activities.drivers.runtime.host import reloads, versions
from activities.drivers.runtime.host.before import Before
from activities.drivers.runtime.host.journal import Journal
from activities.drivers.runtime.host.slot_folders import SlotFolder, SlotFolders
from activities.drivers.runtime.host.versions import Versions
from activities.drivers.steering.nftables import NftablesTable
from policies.model.settings import Setting
from tests.drivers.gateway_lab import GatewayLab, TreeAdmission, operation

LINES: dict[str, tuple[Any, str, str]] = {
    "fenced": (Journal, "fence", "after"),
    "admitted": (Journal, "admit", "after"),
    "unpacked": (TreeAdmission, "unpack", "after"),
    "verified": (Versions, "verify", "after"),
    "renamed": (versions, "write_whole", "before"),
    "rendered": (Ocserv, "render", "after"),
    "assigned": (SlotFolder, "assign", "after"),
    "meant": (SlotFolder, "launch", "before"),
    "launched": (SlotFolder, "launch", "after"),
    "ended": (SlotFolder, "record_intent", "after"),
    "written": (NftablesTable, "_write", "after"),
    "prepared": (Ocserv, "renew", "after"),
    "reconfigured": (Ocserv, "reconfigure", "after"),
    "before kept": (Before, "keep", "after"),
    "settings kept": (SlotFolders, "keep_settings", "after"),
    "answered": (SlotFolders, "answer_settings", "after"),
    "checked": (Ocserv, "check", "after"),
    "half put": (Path, "replace", "after"),
    "put": (reloads, "put", "after"),
    "told": (Ocserv, "reload", "after"),
    "given": (reloads.SlotReloads, "_give", "after"),
    "unreported": (Journal, "finish", "before"),
}


def die_at(line: str) -> None:
    """Let this process die by SIGKILL when it reaches that line."""
    owner, name, when = LINES[line]
    original: Callable[..., Any] = getattr(owner, name)

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    async def deadly_async(*args: Any, **named: Any) -> None:
        if when == "after":
            await original(*args, **named)
        die()

    def deadly(*args: Any, **named: Any) -> None:
        if when == "after":
            original(*args, **named)
        die()

    setattr(owner, name, deadly_async if asyncio.iscoroutinefunction(original) else deadly)


async def steer(lab: GatewayLab, step: str) -> None:
    """Send new sessions to slot b for a time or for good, or back."""
    match step:
        case "trial":
            await lab.table.start_trial(operation("trial"), "b", timedelta(seconds=30))
        case "keep":
            await lab.table.make_permanent(operation("keep new"), "b")
        case _:
            await lab.table.end_trial(operation("back"))


async def work(lab: GatewayLab, step: str, version: str) -> None:
    """Do one step of release `version` as its rollout's orders say."""
    release = lab.admission.release(version)
    match step:
        case "stage":
            await lab.slots.stage(operation("stage", digest=release.digest), release, "lab")
        case "start":
            await lab.slots.start(operation("start", digest=release.digest), release)
        case "trial" | "keep" | "back":
            await steer(lab, step)
        case "restore":
            known_good = lab.admission.release("1")
            await lab.slots.restore(operation("restore", rollout="r-back", epoch=2), known_good)
        case "stop":
            await lab.slots.stop(operation("stop"), "a")
        case "reload":
            await lab.slots.reload(operation("reload"), older=False)
        case "configure":
            await lab.slots.configure(operation("configure"), (Setting(key="dpd", values=("77",)),))
        case "probe":
            await lab.slots.probe("a")
        case _:
            raise SystemExit(f"no step {step}")


def main(lab: type[GatewayLab]) -> None:
    """Be the agent of the lab that the command line names."""
    folder, tag, step, version, *line = sys.argv[1:]
    agent = lab(Path(folder), tag)
    agent.compose()
    if line:
        die_at(line[0])
    asyncio.run(work(agent, step, version))


if __name__ == "__main__":
    main(GatewayLab)
