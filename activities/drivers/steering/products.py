"""What steers a gateway, by the name that its fleet's file gives it."""

from collections.abc import Callable, Mapping

from activities.drivers.steering.nftables import NftablesTable, read_table
from activities.drivers.steering.orders import SteeringOrders
from activities.drivers.steering.port import Means, Reads, SteeringDriver

STEERINGS: Mapping[str, Callable[[SteeringOrders, Means], SteeringDriver]] = {"nftables": NftablesTable}
READERS: Mapping[str, Reads] = {"nftables": read_table}
"""What reads it for a process that changes nothing."""
