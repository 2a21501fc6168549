"""What a process costs its host: resident memory, and how much of a core it takes when nobody asks for it."""

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

TICKS = os.sysconf("SC_CLK_TCK")
IDLE_SECONDS = 60.0


def resident_mb(pid: int) -> float:
    """Return the resident memory of one process, in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def cpu_seconds(pid: int) -> float:
    """Return the processor time of one process and of the children that it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


async def costs_of(agents: Mapping[str, int], seconds: float = IDLE_SECONDS) -> dict[str, float]:
    """Return what agents cost, given as pids: `agent_rss_mb` of the largest, `agent_idle_percent` of a core.

    They are idle for that many seconds; nothing else may ask for them meanwhile.
    """
    before = {name: cpu_seconds(pid) for name, pid in agents.items()}
    await asyncio.sleep(seconds)
    used = [cpu_seconds(pid) - before[name] for name, pid in agents.items()]
    return {
        "agent_rss_mb": round(max(resident_mb(pid) for pid in agents.values()), 1),
        "agent_idle_percent": round(100 * fmean(used) / seconds, 2),
    }
