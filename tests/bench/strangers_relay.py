"""The relay's half of `bench strangers`: calls of another agent while one certificate floods the relay.

The relay is the process of production, with its HAProxy. Its engine is away: the calls that are measured are
answered by the relay itself, so that the figures are the relay's alone.
"""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from deploy.ports import free_port
from orchestrator.enrolment.authority import Authority
from orchestrator.store.ledger import Ledger
from tests.bench.strangers import Attacker, Half, against, percentile, program, ratios
from tests.fakes.ledgers import new_ledger
from tests.relay.flooded import CONNECTIONS, noticed, resident_mb
from tests.relay.floods import KINDS
from tests.relay.installation import Shown, issued, settings_of
from tests.relay.test_processes import relay_process

OTHER_MS = 200.0
GROWTH_MB = 100.0
PER_SECOND = 15
"""Calls of the other agent in each second that an attacker is at work."""

GOOD, REVOKED = "good", "revoked"
P99 = "p99_ms"


@dataclass(frozen=True)
class Stage:
    """The relay that is attacked."""

    address: str
    authority: bytes
    other: Shown
    files: dict[str, Path]
    """Certificate and key of the attacker, one file for each kind of certificate."""
    pid: int
    resident: int
    """Megabytes of relay and HAProxy before any attack."""
    calls: int


async def measure(seconds: float) -> dict[str, Any]:
    """Return p99 of another agent's calls for each flood, and how much the relay's memory grew."""
    async with _stage(seconds) as stage:
        attackers = [
            Attacker(f"{kind}, {whose} certificate", partial(_at_work, kind, whose))
            for kind in KINDS
            for whose in (GOOD, REVOKED)
        ]
        found = await against(stage, attackers, probe)
    return {
        "relay_other_p99_ms": {name: one[P99] for name, one in found.items()},
        "relay_other_ratio": ratios(found, P99),
        "relay_rss_growth_mb": max(one["grew_mb"] for one in found.values()),
        "relay": found,
    }


def misses(figures: dict[str, Any]) -> list[str]:
    """Return which floods delay another agent, have its calls fail, or take memory."""
    slow = [
        f"{name}: a call of another agent took {took:.0f} ms (p99); {OTHER_MS:.0f} at most"
        for name, took in figures["relay_other_p99_ms"].items()
        if took > OTHER_MS
    ]
    failed = [
        f"{name}: {one['failed']} of {one['asked']} calls of another agent failed"
        for name, one in figures["relay"].items()
        if one["failed"]
    ]
    grew = figures["relay_rss_growth_mb"]
    full = [f"the relay grew by {grew} MB; {GROWTH_MB:.0f} at most"] if grew > GROWTH_MB else []
    return slow + failed + full


HALF = Half("relay", measure, misses)


async def probe(stage: Stage) -> dict[str, Any]:
    """Return p99 in milliseconds, failures, and how much memory relay and HAProxy have more than at first."""
    found = await noticed(stage.address, stage.other, stage.authority, stage.calls)
    return {
        P99: round(percentile(found.seconds, 0.99) * 1000, 1),
        "asked": stage.calls,
        "failed": len(found.failures),
        "grew_mb": resident_mb(stage.pid) - stage.resident,
    }


@asynccontextmanager
async def _at_work(kind: str, whose: str, stage: Stage) -> AsyncIterator[None]:
    shown = str(stage.files[whose])
    async with program("tests.relay.floods", kind, stage.address, shown, str(CONNECTIONS)):
        yield


@asynccontextmanager
async def _stage(seconds: float) -> AsyncIterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="penstock-bench-strangers-") as name:
        folder = Path(name)
        settings = settings_of(folder, "default", f"127.0.0.1:{free_port()}")
        ledger = Ledger.open(new_ledger(folder / "ledger.db"))
        authority = Authority.open(settings.authority)
        files = {whose: folder / f"{whose}.pem" for whose in (GOOD, REVOKED)}
        for whose, file in files.items():
            shown = issued(authority, whose)
            file.write_bytes(shown.certificate + shown.key)
        ledger.revoke_certificates("edge", REVOKED, "bench", "stolen")
        ledger.close()
        async with relay_process(settings) as process:
            assert settings.relay_address is not None
            other, calls = issued(authority, "other"), round(seconds * PER_SECOND)
            await noticed(settings.relay_address, other, authority.pem, calls=20)
            before = resident_mb(process.pid)
            yield Stage(settings.relay_address, authority.pem, other, files, process.pid, before, calls)
