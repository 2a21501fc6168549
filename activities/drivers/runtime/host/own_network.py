"""A network of an instance's own: what a daemon with fixed ports needs to stand beside another one.

The network namespace belongs to the instance's process, and a cable (veth) leads from it to the host. When
the process ends, for whatever reason, the kernel removes namespace, cable and the routes along it: nothing
has to be cleaned up, and no packet of a user finds a network in which nobody lives.

Packets come in by the cable, sent there by the steering table, and what the tunnels carry goes out by it
again: the host has a route of the slot's pool to the instance, and the instance leaves by the host. Of the
pool, the first address is the instance's own, as probes and users meet it.
"""

from collections.abc import Sequence
from pathlib import Path

from policies.model.errors import BadInput
from policies.model.fleet import Gateway, Slot

FORWARDS = Path("/proc/sys/net/ipv4/ip_forward")

# The host's namespace stays open as descriptor 9 until the instance begins. A cable of the instance before
# may still be there for a moment, since the kernel removes it in its own time.
_OUTSIDE = """set -e
exec 9< /proc/self/ns/net
ip link delete "$1" 2> /dev/null || true
exec unshare -n sh -c "$0" "$0" "$@"
"""
_INSIDE = """set -e
cable=$1 address=$2 host=$3 pool=$4 own=$5; shift 5
ip link add eth0 type veth peer name "$cable" netns /proc/self/fd/9
ip -batch - << END
link set lo up
address add $address/31 dev eth0
address add $own/32 dev lo
link set eth0 up
route add default via $host
END
[ "$(cat /proc/sys/net/ipv4/ip_forward)" = 1 ] || echo 1 > /proc/sys/net/ipv4/ip_forward
nsenter --net=/proc/self/fd/9 ip -batch - << END
address add $host/31 dev $cable
link set $cable up
route replace $pool via $address dev $cable
END
exec "$@" 9<&-
"""


def in_own_network(slot: Slot, command: Sequence[str]) -> list[str]:
    """Return the command line that runs this command in a network of its own, made for the slot.

    Raises:
        BadInput: the slot has no address, and so no network of its own.
    """
    if slot.cable is None:
        raise BadInput(f"slot {slot.name} has no address for a network of its own")
    host = next(address for address in slot.cable if address != slot.address)
    parts = (slot.device, str(slot.address), str(host), str(slot.pool4), str(slot.pool4[1]))
    return ["sh", "-c", _OUTSIDE, _INSIDE, *parts, *command]


def does_not_forward(gateway: Gateway) -> tuple[str, ...]:
    """Return why instances' own networks would be cut off here: a host that passes no packets on."""
    if FORWARDS.read_text().strip() == "1":
        return ()
    said = f"{gateway.name} forwards no packets, and each instance has a network of its own behind it"
    return (f"{said}; set net.ipv4.ip_forward = 1 for good (sysctl.d(5))",)
