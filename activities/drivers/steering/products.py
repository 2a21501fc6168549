"""What steers a gateway, by the name that its fleet's file gives it."""

from collections.abc import Callable, Mapping

from activities.drivers.steering.haproxy import balancer_of
from activities.drivers.steering.haproxy_steering import read_haproxy
from activities.drivers.steering.nftables import NftablesTable, read_table
from activities.drivers.steering.orders import SteeringOrders
from activities.drivers.steering.port import Means, Reads, SteeringDriver
from activities.drivers.steering.redirect import redirect_of

STEERINGS: Mapping[str, Callable[[SteeringOrders, Means], SteeringDriver]] = {
    "nftables": NftablesTable,
    "redirect": redirect_of,
    "haproxy": balancer_of,
}
READERS: Mapping[str, Reads] = {"nftables": read_table, "redirect": read_haproxy, "haproxy": read_haproxy}
"""What reads it for a process that changes nothing."""
