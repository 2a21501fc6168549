"""Traffic of fleets, as Prometheus has it: asked once in a while for everybody who looks."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

from activities.drivers.metrics.promql import matcher
from activities.drivers.metrics.replicas import Replicas
from orchestrator.service.looks import Looks
from orchestrator.service.standing import UNKNOWN_RELEASE
from orchestrator.store.ledger import Ledger
from policies.judge.counts import Series
from policies.model.errors import PenstockError
from policies.model.fleet import Fleet
from policies.model.plan import ReleaseRef
from policies.model.value import Value
from policies.traffic import Traffic, on_release

KEPT_FOR = timedelta(seconds=5)
LOOKBACK, STEP = timedelta(minutes=10), timedelta(seconds=15)
NAMED_AT_MOST = 500
"""Gateways that a question names one by one; of a larger fleet it names the label of its targets."""

MOST_RELEASES = 100
"""Executables on which sessions of one fleet may live."""

COUNTED = ("vpngw_sessions", "openvpn_server_connected_clients")
"""Who counts a gateway's sessions: our exporter, else an openvpn_exporter, which knows no releases."""

NOBODY_COUNTED = (
    "Prometheus has counted none of its sessions lately; `penstock monitoring targets` gives it the gateways"
)


class Counted(Value):
    """Sessions by the digest of the executable that they live on, and how many gateways were counted."""

    sessions: Mapping[str, tuple[tuple[float, float], ...]]
    seen: int
    steady: bool = True
    """Whether as many gateways were counted all the time: only then did sessions end that are missing."""
    unknown: str = ""


@dataclass(frozen=True)
class TrafficService:
    """Counts the sessions of fleets."""

    ledger: Ledger
    source: Replicas
    _looks: Looks[Counted] = field(default_factory=partial(Looks, KEPT_FOR), init=False, repr=False)

    async def of(self, fleet: Fleet, newer: ReleaseRef | None) -> Traffic:
        """Return the fleet's sessions by release, of which one is that of the change that is looked at.

        Releases that differ in their configuration alone have one executable, and are counted together.
        """
        counted = await self._looks.at(fleet, partial(self._count, fleet))
        versions = await asyncio.to_thread(self.ledger.versions_of, frozenset(counted.sessions))
        executable = newer.executable if newer is not None else None
        if newer is not None:
            versions[newer.executable] = newer.version
        rows = [
            on_release(versions.get(digest, UNKNOWN_RELEASE), samples, newer=digest == executable)
            for digest, samples in counted.sessions.items()
            if samples and (samples[-1][1] or digest == executable)
        ]
        if not counted.steady:
            rows = [row.model_copy(update={"per_minute": None, "ended_at": None}) for row in rows]
        return Traffic(
            releases=tuple(sorted(rows, key=lambda row: (not row.newer, row.version))),
            seen=counted.seen,
            gateways=len(fleet.gateways),
            unknown=counted.unknown,
            at=datetime.now(UTC),
        )

    async def _count(self, fleet: Fleet) -> Counted:
        now = datetime.now(UTC)
        if len(fleet.gateways) <= NAMED_AT_MOST:
            whose = matcher([gateway.metrics_target for gateway in fleet.gateways])
        else:
            whose = f'fleet="{fleet.name}"'
        sessions = " or on (instance) ".join(f"{name}{{{whose}}}" for name in COUNTED)
        by_instance = f"count by (instance) ({sessions})"
        try:
            sums, seen = await asyncio.gather(
                self.source.summed(f"sum by (digest) ({sessions})", now, LOOKBACK, STEP, MOST_RELEASES),
                self.source.summed(f"count({by_instance})", now, LOOKBACK, STEP, 1),
            )
        except PenstockError as error:
            return Counted(sessions={}, seen=0, unknown=str(error))
        since = (now - 2 * STEP).timestamp()  # what nobody counts any more is none of the sessions now
        counts = seen[0].samples if seen and _is_fresh(seen[0], since) else ()
        return Counted(
            sessions={one.labels.get("digest", ""): one.samples for one in sums if _is_fresh(one, since)},
            seen=int(counts[-1][1]) if counts else 0,
            steady=len({count for _, count in counts}) == 1,
            unknown="" if counts else NOBODY_COUNTED,
        )


def _is_fresh(series: Series, since: float) -> bool:
    return bool(series.samples) and series.samples[-1][0] >= since
