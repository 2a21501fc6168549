"""The unit that started an adopted daemon: it is started at boot while new sessions go to that daemon.

Once an instance of ours has them for good, a reboot must not start the daemon beside it. What was taken
from the unit is written down first, so that it can be given back exactly.
"""

import json
from collections.abc import Callable
from typing import Any

from activities.drivers.disk import write_whole
from activities.drivers.runtime.host.process import Process
from activities.drivers.runtime.host.slot_folders import AdoptedFolder
from activities.drivers.runtime.host.units import Units

Record = Callable[[str, str], None]
"""Writes an action and a sentence to the host's own record."""


class OwnUnit:
    """The unit of what was adopted on one gateway's host, if it has one; safe to repeat at any line."""

    def __init__(self, units: Units, record: Record = lambda _action, _sentence: None) -> None:
        """Take the host's units, and who writes down what was done with one."""
        self._units = units
        self._record = record

    async def of(self, pid: int) -> str:
        """Return the unit whose main process this is, empty where no unit of this host's is its own."""
        return await self._units.of(pid)

    def is_settled(self, folder: AdoptedFolder, *, replaced: bool) -> bool:
        """Whether there is nothing to do for `settle`, as far as is written down."""
        kept = self._kept(folder)
        return not folder.own["unit"] or (kept.get("done") is True if replaced else not kept)

    async def settle(self, folder: AdoptedFolder, *, replaced: bool) -> None:
        """Ensure that the unit is not started at boot while its daemon is `replaced`, and else as before.

        Raises:
            Unavailable: systemd refuses; a repeat tries again.
        """
        if self.is_settled(folder, replaced=replaced):
            return
        if replaced:
            await self._take(folder)
        else:
            await self._give_back(folder)

    async def start(self, folder: AdoptedFolder) -> bool:
        """Ensure that the unit runs; return whether there is one. Unavailable when it does not start."""
        unit = folder.own["unit"]
        if not unit:
            return False
        await self._units.start([*self._kept(folder).get("disabled", ()), unit])
        self._record("own unit started", f"{unit}: the daemon that was adopted is needed again")
        return True

    async def withdraw(self, folder: AdoptedFolder) -> None:
        """Ensure that a unit does not run which `start` has started for nothing."""
        unit = folder.own["unit"]
        await self._units.stop(unit)
        self._record("own unit stopped", f"{unit}: what it runs is not the daemon that was adopted")

    async def stop(self, folder: AdoptedFolder, running: Process) -> None:
        """Have the unit end its daemon, where this is its main process: the unit might start it anew."""
        unit = await self._units.of(running.pid)
        if unit and unit == folder.own["unit"]:
            await self._units.stop(unit)
            self._record("own unit stopped", f"{unit}: nobody uses the daemon that was adopted")

    async def _take(self, folder: AdoptedFolder) -> None:
        unit, kept = folder.own["unit"], self._kept(folder)
        if not kept:
            kept = {"disabled": await self._units.started_at_boot(unit), "done": False}
            self._keep(folder, kept)
        await self._units.disable(kept["disabled"])
        if kept["disabled"]:
            sentence = f"{' and '.join(kept['disabled'])}: an instance of ours serves in its daemon's place"
            self._record("own unit disabled", sentence)
        else:
            state = await self._units.state(unit) or "unknown to systemd"
            self._record("own unit left", f"{unit} is {state}: there is nothing to disable")
        self._keep(folder, kept | {"done": True})

    async def _give_back(self, folder: AdoptedFolder) -> None:
        names = self._kept(folder)["disabled"]
        await self._units.enable(names)
        await self._units.start([*names, folder.own["unit"]])
        if names:
            self._record("own unit enabled", f"{' and '.join(names)}: its daemon serves again")
        (folder.path / "unit.json").unlink(missing_ok=True)

    @staticmethod
    def _kept(folder: AdoptedFolder) -> dict[str, Any]:
        """Return what was written down when the unit was taken; nothing while it is as it was found."""
        try:
            content: dict[str, Any] = json.loads((folder.path / "unit.json").read_text())
        except FileNotFoundError:
            return {}
        return content

    @staticmethod
    def _keep(folder: AdoptedFolder, kept: dict[str, Any]) -> None:
        write_whole(folder.path / "unit.json", json.dumps(kept))
