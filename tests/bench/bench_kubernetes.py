"""Kubernetes: upgrades of whole fleets on a real API server, beside `kubectl rollout` and Argo Rollouts.

API server, controllers and peers are real; nodes are SIMULATED by kwok, and every new pod is Ready after two
seconds, whoever upgrades it. Peers end old pods while they upgrade. Ours has old pods serve their users for
as long as those stay, and ends each one by one after that: `cleared_s` is what that takes when nobody stays.
"""

import argparse
import asyncio
import itertools
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from activities.drivers.runtime.kubernetes.pace import Pace
from deploy.cluster import programs
from deploy.cluster.api import make_nodes
from deploy.cluster.audit import Request
from deploy.cluster.control_plane import Choices, ControlPlane, running
from policies.model.errors import Unavailable
from tests.bench.cluster_peers import (
    ARGO,
    KUBECTL,
    READY_AFTER,
    SETS,
    argo_controller,
    argo_rollout,
    kubectl_rollout,
)
from tests.cluster.driver.conftest import NAMED
from tests.cluster.driver.driving import AGENT, BORNE, CLUSTER, driver, installed, order, release

SIZES = (100, 1000)
STEPS = (1, 5, 25, 100)
"""Percent, up to a hundred gateways; more go in windows of a hundred, or of a tenth where that is more."""
WINDOW = 100
WHOLE = 1000
"""Up to so many gateways `kubectl` is measured, too, and the shipped pace over all waves; else over one."""
NEEDED = (*SETS, "helm")
MOST_CALLS, MOST_OF_ARGO, MOST_A_SECOND = 2.5, 1.2, 50
SPACE = "peers"
_PATIENCE = 900.0
_MEGABYTE = 1_000_000
_LISTS = re.compile(r'resource="(nodes|pods)".*verb="LIST"')


@dataclass(frozen=True)
class Figures:
    """Of one size of fleet."""

    gateways: int
    waves: int
    calls_per_gateway: float
    wall_s: float
    """Until every gateway is proven to run the new release."""
    argo_wall_s: float
    cleared_s: float
    """From there until every old pod has ended."""
    abort_to_serving_s: float
    """Until the old pods of a quarter are proven to serve while they live; users go back before that.

    Above a thousand gateways it is a quarter of one wave.
    """
    argo_abort_to_serving_s: float
    argo_calls_per_gateway: float
    paced_wall_s: float
    paced_requests_per_s: int
    """In the busiest second."""
    list_megabytes: float
    """Of nodes and pods, as they were sent."""
    driver_cpu_ms_per_gateway: float
    nodes_ready_s: float
    kubectl_wall_s: float | None = None
    kubectl_undo_s: float | None = None
    kubectl_calls: int | None = None


def main(json_path: Path | None, arguments: list[str]) -> int:
    """Measure each size; 1 when calls, seconds or requests a second are more than they may be."""
    parser = argparse.ArgumentParser(prog="bench kubernetes")
    parser.add_argument("--gateways", type=int, action="append", help=f"a size; {SIZES} unless given")
    asked = parser.parse_args(arguments)
    if (why := programs.why_not_here(*NEEDED)) is not None:
        print(f"bench: {why}", file=sys.stderr)
        return Unavailable.exit_code
    print("SIMULATED nodes on a real API server; pods are Ready after 2 s, whoever upgrades", flush=True)
    found = [asyncio.run(_measured(many)) for many in asked.gateways or SIZES]
    print(_table(found))
    if json_path is not None:
        json_path.write_text(json.dumps([asdict(one) for one in found], indent=2) + "\n")
    return 0 if all(_is_good(one) for one in found) else 1


async def _measured(many: int) -> Figures:
    with tempfile.TemporaryDirectory(prefix="penstock-bench-kubernetes-") as folder:
        choices = Choices(people=(NAMED, ARGO, KUBECTL))
        with running(Path(folder), choices) as plane:
            for manifest in installed():
                plane.admin.apply(manifest, manager="installer")
            space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}}
            plane.admin.apply(space)
            names = [f"gw-{number:05}" for number in range(many)]
            begun = time.monotonic()
            make_nodes(plane.api(NAMED.name), names, labels={BORNE: "true"}, within=1800)
            ready = time.monotonic() - begun
            return await _compared(plane, names, ready)


async def _compared(plane: ControlPlane, names: list[str], ready: float) -> Figures:
    many, waves = len(names), list(_waves(names))
    fast, paced = _Ours(plane, Pace(10_000, 1000)), _Ours(plane, Pace())
    old = await fast.upgrade(waves, 1, at_once=True)
    listed = _listed_bytes(plane)
    place, cpu, begun = plane.audit.position(), time.process_time(), time.monotonic()
    new = await fast.upgrade(waves, 2)
    proven = time.monotonic()
    await fast.clear(names, 2, old)
    cleared, cpu = time.monotonic() - proven, time.process_time() - cpu
    asked, listed = _asked(plane, place), _listed_bytes(plane) - listed
    place, paced_begun = plane.audit.position(), time.monotonic()
    again = waves if many <= WHOLE else waves[:1]
    last, changed = await paced.upgrade(again, 3), [name for wave in again for name in wave]
    paced_wall = time.monotonic() - paced_begun
    await paced.clear(changed, 3, new)
    busiest = _busiest(_asked(plane, place))
    back = await fast.go_back(changed[: len(changed) // 4 or 1], 4, last)
    by_kubectl = await _by_kubectl(plane, many) if many <= WHOLE else {}
    weights = STEPS if many <= WINDOW else [100 * (n + 1) // len(waves) for n in range(len(waves))]
    with argo_controller(plane):
        of_argo, aborted = await asyncio.to_thread(argo_rollout, plane, SPACE, many, weights)
    return Figures(
        gateways=many,
        waves=len(waves),
        calls_per_gateway=round(len(asked) / many, 2),
        wall_s=round(proven - begun, 2),
        cleared_s=round(cleared, 2),
        argo_wall_s=round(of_argo.seconds, 2),
        abort_to_serving_s=round(back, 3),
        argo_abort_to_serving_s=round(aborted, 3),
        argo_calls_per_gateway=round(of_argo.calls / many, 2),
        paced_wall_s=round(paced_wall, 2),
        paced_requests_per_s=busiest,
        list_megabytes=round(listed / _MEGABYTE, 2),
        driver_cpu_ms_per_gateway=round(1000 * cpu / many, 2),
        nodes_ready_s=round(ready, 2),
        **by_kubectl,
    )


async def _by_kubectl(plane: ControlPlane, many: int) -> dict[str, Any]:
    window = min(_window(many), many)
    took, undone = await asyncio.to_thread(kubectl_rollout, plane, SPACE, many, window)
    return {
        "kubectl_wall_s": round(took.seconds, 2),
        "kubectl_undo_s": round(undone, 2),
        "kubectl_calls": took.calls,
    }


class _Ours:
    """The cluster driver as it is shipped, with the chart's rights, at this pace."""

    def __init__(self, plane: ControlPlane, pace: Pace) -> None:
        one = driver(plane, pace=pace, up=_PATIENCE, gone=_PATIENCE)
        self._vouched, self._cluster = one.vouched, one.cluster

    async def upgrade(self, waves: Sequence[list[str]], number: int, *, at_once: bool = False) -> str:
        """Have these gateways run a release beside what they run, wave after wave; return its slot."""
        image = _image(0 if at_once else READY_AFTER, number)
        self._vouched.images[release(number).digest] = image
        slot = ""
        for nodes in waves:
            operation = order(CLUSTER, number, f"rollout-{number}")
            slot = (await self._cluster.prepare(operation, release(number), "")).slot
            await asyncio.gather(
                *(self._cluster.place(order(node, number), node, slot, image) for node in nodes)
            )
        return slot

    async def clear(self, nodes: Sequence[str], number: int, slot: str) -> None:
        """End what runs in this slot of these gateways, and wait until it is gone."""
        removing = (self._cluster.remove(order(node, number), node, slot, None) for node in nodes)
        ends = await asyncio.gather(*removing)
        assert all(one.gone for one in ends)

    async def go_back(self, nodes: list[str], number: int, old: str) -> float:
        """Have these run a new release beside the old; return how long it takes to prove the old again."""
        new = await self.upgrade([nodes], number)
        image = _image(READY_AFTER, number - 1)
        begun = time.monotonic()
        placing = (self._cluster.place(order(node, number), node, old, image) for node in nodes)
        back = await asyncio.gather(*placing)
        took = time.monotonic() - begun
        assert {one.slot for one in back} == {old}
        await self.clear(nodes, number, new)
        return took


def _image(ready_after: int, number: int) -> str:
    return f"sha256:5ec0{ready_after}{number:059x}"


def _window(many: int) -> int:
    return max(WINDOW, many // 10)


def _waves(names: list[str]) -> Iterator[list[str]]:
    window = _window(len(names))
    if len(names) > window:
        yield from (names[first : first + window] for first in range(0, len(names), window))
        return
    ends = sorted({max(1, len(names) * percent // 100) for percent in STEPS})
    yield from (names[first:last] for first, last in itertools.pairwise([0, *ends]))


def _asked(plane: ControlPlane, place: int) -> list[Request]:
    return [request for request in plane.audit.since(place) if request.agent == AGENT]


def _busiest(requests: list[Request]) -> int:
    return max(Counter(int(request.at.timestamp()) for request in requests).values(), default=0)


def _listed_bytes(plane: ControlPlane) -> float:
    """Return how much the server has sent in lists of nodes and pods, as it was sent."""
    found = plane.admin.ask("GET", "/metrics")
    lines = re.findall(r"^apiserver_response_sizes_sum\{(.*)\} (\S+)$", found, re.MULTILINE)
    counted = (float(size) for labels, size in lines if _LISTS.search(labels))
    return sum(counted)


def _is_good(found: Figures) -> bool:
    return (
        found.calls_per_gateway <= MOST_CALLS
        and found.wall_s <= MOST_OF_ARGO * found.argo_wall_s
        and found.paced_requests_per_s <= MOST_A_SECOND
    )


def _table(found: list[Figures]) -> str:
    rows = [asdict(one) for one in found]
    return "\n".join(
        f"{name:28}" + "".join(f"{'-' if row[name] is None else row[name]:>12}" for row in rows)
        for name in rows[0]
    )
