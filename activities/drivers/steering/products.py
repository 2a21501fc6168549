"""What steers a gateway, by the name that its fleet's file gives it."""

from collections.abc import Callable, Mapping
from pathlib import Path

from activities.drivers.steering.haproxy import balancer_of
from activities.drivers.steering.haproxy_process import HaproxyProcess
from activities.drivers.steering.haproxy_steering import FOLDER, read_haproxy
from activities.drivers.steering.hook import HookSteering, read_shown
from activities.drivers.steering.nftables import NftablesTable, read_table, step_aside
from activities.drivers.steering.orders import SteeringOrders
from activities.drivers.steering.port import Means, Reads, SteeringDriver
from activities.drivers.steering.redirect import redirect_of
from policies.model.fleet import Gateway

STEERINGS: Mapping[str, Callable[[SteeringOrders, Means], SteeringDriver]] = {
    "nftables": NftablesTable,
    "redirect": redirect_of,
    "haproxy": balancer_of,
    "hook": HookSteering,
}
READERS: Mapping[str, Reads] = {
    "nftables": read_table,
    "redirect": read_haproxy,
    "haproxy": read_haproxy,
    "hook": read_shown,
}
"""What reads it for a process that changes nothing."""


async def retire_others(gateway: Gateway, root: Path) -> bool:
    """Have what steered before steer nobody new any more, once what the file names now is there.

    Return whether something did.
    """
    if gateway.steering != "nftables":
        return await step_aside(gateway)
    before = HaproxyProcess(root / FOLDER, gateway.name)
    if before.running is None:
        return False
    await before.end()
    return True
