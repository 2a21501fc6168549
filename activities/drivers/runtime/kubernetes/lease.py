"""The driver's lock: a Lease of the cluster, so that two drivers of one fleet never act at once.

Clocks of two hosts are never compared: a lease is over when it has not changed for as long as it lasts,
by the clock of whoever waits. A driver that is started anew in the same folder is the same holder.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from activities.drivers.runtime.kubernetes.answers import Absent, Stale, Unread
from activities.drivers.runtime.kubernetes.api import Api, Call
from activities.drivers.runtime.kubernetes.rights import CREATE_LEASE, GET_LEASE, UPDATE_LEASE
from activities.drivers.runtime.kubernetes.words import FLEET, Share
from policies.model.errors import Unavailable

LASTS = 30
"""Seconds for which nobody else may act, counted from the last time that the lease was renewed."""
RENEWED = 10.0
"""Seconds after which a lease is renewed before the next write."""
LOOK = 1.0
"""Seconds between looks at somebody else's lease."""
FREED_WITHIN = 40.0
"""Seconds that a write waits for another driver to end."""


@dataclass
class _Looked:
    """Somebody else's lease, and since when it is as it is by our own clock."""

    version: str
    since: float


class DriverLease:
    """One fleet's lock in one cluster; held only while something is written."""

    def __init__(self, api: Api, share: Share, holder: str, *, lasts: int = LASTS) -> None:
        """Be `holder` in the lease: the same for whoever goes on in this driver's folder, and nobody else."""
        self._api = api
        self._share = share
        self._holder = holder
        self._lasts = lasts
        self._lock = asyncio.Lock()
        self._renewed = float("-inf")
        self._mine: Any = None
        self._looked: _Looked | None = None

    async def hold(self) -> None:
        """Return when the next write may begin; nobody else begins one for seconds from now.

        Raises:
            Unavailable: Another driver acts for the fleet and goes on doing so.
            As `Api.call` does.
        """
        async with self._lock:
            until = time.monotonic() + FREED_WITHIN
            while time.monotonic() - self._renewed > min(RENEWED, self._lasts / 3):
                holder = await self._try()
                if holder is None:
                    continue
                if time.monotonic() > until:
                    raise Unavailable(
                        f"another driver, {holder}, acts for {self._share.fleet} in {self._share.cluster} "
                        f"(lease {self._share.lease}): end one of the two"
                    )
                await asyncio.sleep(LOOK)

    async def let_go(self) -> None:
        """Have another driver act without waiting, where this one is told to end. As `hold` raises."""
        async with self._lock:
            self._renewed, self._mine = float("-inf"), None
            found = await self._read()
            if found is not None and _holder(found) == self._holder:
                await self._write(found, "")

    async def _try(self) -> str | None:
        """Renew or take the lease; return who else has it, None where it is to be looked at again."""
        begun = time.monotonic()
        try:
            found = self._mine or await self._read()
            self._mine = None
            if found is None:
                self._mine = await self._make()
            elif (holder := _holder(found)) in ("", self._holder) or self._is_over(found):
                self._mine = await self._write(found, self._holder)
            else:
                return holder
        except (Stale, Unread):  # somebody was faster, or we were: the next look tells
            return None
        self._renewed = begun
        return None

    def _is_over(self, found: Mapping[str, Any]) -> bool:
        version, now = str((found.get("metadata") or {}).get("resourceVersion")), time.monotonic()
        if self._looked is None or self._looked.version != version:
            self._looked = _Looked(version, now)
        spec = found.get("spec") or {}
        return now - self._looked.since > float(spec.get("leaseDurationSeconds") or self._lasts)

    async def _read(self) -> Any:
        try:
            return await self._api.call(
                Call(GET_LEASE, f"{self._path}/{self._share.lease}", about=self._share.lease)
            )
        except Absent:
            return None

    async def _make(self) -> Any:
        body = self._body({"name": self._share.lease, "labels": {FLEET: self._share.fleet}}, self._holder)
        return await self._api.call(
            Call(CREATE_LEASE, self._path, "POST", body=body, about=self._share.lease)
        )

    async def _write(self, found: Mapping[str, Any], holder: str) -> Any:
        body = self._body(dict(found.get("metadata") or {}), holder)  # with the version that was read
        path = f"{self._path}/{self._share.lease}"
        try:
            return await self._api.call(Call(UPDATE_LEASE, path, "PUT", body=body, about=self._share.lease))
        except Absent as error:
            raise Stale(f"lease {self._share.lease} was deleted: it is made again") from error

    def _body(self, metadata: dict[str, Any], holder: str) -> dict[str, Any]:
        metadata.pop("managedFields", None)
        spec = {
            "holderIdentity": holder,
            "leaseDurationSeconds": self._lasts,
            "renewTime": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
        }
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}

    @property
    def _path(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self._share.namespace}/leases"


def _holder(found: Mapping[str, Any]) -> str:
    return str((found.get("spec") or {}).get("holderIdentity") or "")
