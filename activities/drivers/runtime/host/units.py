"""Units of the host's own service manager: which one runs a process, and whether it starts at boot.

systemctl(1) speaks to systemd, which alone writes to the host's configuration; so it does from within the
agent's sandbox, too. Hosts without systemd have no units, and nothing is done on them.
"""

import re
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from activities.drivers.programs import run
from activities.drivers.runtime.host.process import PROC
from policies.lines import lines_in
from policies.model.errors import Unavailable

BOOTED = Path("/run/systemd/system")
"""There exactly where systemd is the host's service manager (sd_booted(3))."""

WITHIN = timedelta(seconds=30)
"""How long a unit may take to start or to stop; what it does after that is asked of the process."""

# The manager's own unit decides; the script of System V that some packages have beside it is not touched.
_SYSTEMCTL = ("env", "SYSTEMCTL_SKIP_SYSV=1", "systemctl", "--no-ask-password", "--quiet")
_NAME = re.compile(r"/([^/\n]+\.service)(?=/|$)", re.MULTILINE)
_STARTS_AT_BOOT = frozenset({"enabled", "enabled-runtime"})


class Units:
    """The units of this host."""

    async def of(self, pid: int) -> str:
        """Return the service whose main process this is, empty where there is none.

        A process that a supervisor, a login or a user's own manager started is in a service without being
        its main process: that service is not the process's own.
        """
        try:
            found = _NAME.findall((PROC / str(pid) / "cgroup").read_text())
        except OSError:  # it has ended
            return ""
        own = bool(found) and (await self._shown(found[-1])).get("MainPID") == str(pid)
        return found[-1] if own else ""

    async def started_at_boot(self, unit: str) -> tuple[str, ...]:
        """Return what starts the unit at boot, of itself and of the sockets that start it when users come."""
        names = [*(await self._shown(unit)).get("TriggeredBy", "").split(), unit]
        return tuple([name for name in names if await self.state(name) in _STARTS_AT_BOOT])

    async def state(self, unit: str) -> str:
        """Return what systemd says of the unit's file, such as enabled, disabled or static."""
        return (await self._shown(unit)).get("UnitFileState", "")

    async def disable(self, units: Sequence[str]) -> None:
        """Ensure that these are not started at boot; what runs goes on. Unavailable when systemd refuses."""
        await self._order("disable", units)

    async def enable(self, units: Sequence[str]) -> None:
        """Ensure that these are started at boot; Unavailable when systemd refuses."""
        await self._order("enable", units)

    async def start(self, units: Sequence[str]) -> None:
        """Ensure that these run; Unavailable when one does not."""
        await self._order("start", units)

    async def stop(self, unit: str) -> None:
        """Ensure that the unit does not run, and no socket starts it; Unavailable when it does not end."""
        await self._order("stop", [*(await self._shown(unit)).get("TriggeredBy", "").split(), unit])

    async def _shown(self, unit: str) -> dict[str, str]:
        """Return what systemd knows of the unit; nothing where there is no systemd."""
        if not _has_systemd():
            return {}
        said = await run([*_SYSTEMCTL, "show", "--property=MainPID,TriggeredBy,UnitFileState", "--", unit])
        if said.status:
            raise Unavailable(f"systemctl show {unit}: {said.last_words}")
        return dict(line.split("=", 1) for line in lines_in(said.out) if "=" in line)

    async def _order(self, verb: str, units: Sequence[str]) -> None:
        if not units:
            return
        done = await run([*_SYSTEMCTL, verb, "--", *units], within=WITHIN)
        if done.status:
            raise Unavailable(f"systemctl {verb} {' '.join(units)}: {done.last_words}")


def _has_systemd() -> bool:
    return BOOTED.is_dir()
