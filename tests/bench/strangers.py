"""The table of attackers: what one probe takes alone, and while each attacker is at work.

A half of the bench (the API's, the relay's) has a stage, a probe and its attackers. `against` measures the
probe without any attacker first, in the same run, so that every figure has its ratio beside it.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

S = TypeVar("S")

UNATTACKED = "baseline"
SETTLE_SECONDS = 2.0
"""How long an attack goes on before the probe begins."""

NICE = 10
"""How far an attacker gives way: in the field it has a processor of its own, and here it shares ours."""


@dataclass(frozen=True)
class Attacker(Generic[S]):
    """One caller of lower rights, or of none, at its worst."""

    name: str
    at_work: Callable[[S], AbstractAsyncContextManager[None]]
    """Attacks for the length of the body."""


@dataclass(frozen=True)
class Half:
    """One half of the bench: what it measures, and which bars its figures miss."""

    name: str
    measure: Callable[[float], Coroutine[Any, Any, dict[str, Any]]]
    """Take seconds for each attacker; return figures by name."""
    misses: Callable[[dict[str, Any]], list[str]]
    """Return a sentence for each bar that the figures miss."""


def percentile(taken: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of all values is not above."""
    ordered = sorted(taken)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


async def against(
    stage: S,
    attackers: Sequence[Attacker[S]],
    probe: Callable[[S], Awaitable[dict[str, Any]]],
) -> dict[str, dict[str, Any]]:
    """Return what the probe reports without an attacker, then while each is at work, by its name."""
    found = {UNATTACKED: await probe(stage)}
    _show(UNATTACKED, found[UNATTACKED])
    for one in attackers:
        async with one.at_work(stage):
            await asyncio.sleep(SETTLE_SECONDS)
            found[one.name] = await probe(stage)
        _show(one.name, found[one.name])
    return found


def ratios(found: dict[str, dict[str, Any]], figure: str) -> dict[str, float]:
    """Return how many times the baseline's this figure is while each attacker is at work."""
    alone = found[UNATTACKED][figure]
    return {
        name: round(one[figure] / alone, 2) for name, one in found.items() if name != UNATTACKED and alone
    }


@asynccontextmanager
async def program(module: str, *arguments: str) -> AsyncIterator[None]:
    """Have an attack program run for the length of the body; end it by its own process id.

    Raises:
        SystemExit: It ended by itself, so nothing attacked.
    """
    process = await asyncio.create_subprocess_exec(
        *["nice", "-n", str(NICE), sys.executable, "-m", module, *arguments]
    )
    try:
        yield
        if process.returncode is not None:
            raise SystemExit(f"bench: {module} {arguments[0]} ended by itself with {process.returncode}")
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _show(name: str, figures: dict[str, Any]) -> None:
    print(f"  {name:34}" + "  ".join(f"{key} {value}" for key, value in figures.items()), flush=True)
