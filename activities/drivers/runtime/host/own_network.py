"""A network of an instance's own: what a daemon with fixed ports needs to stand beside another one.

The network namespace belongs to the instance's process, and a cable (veth) leads from it to the host. When
the process ends, for whatever reason, the kernel removes namespace, cable and the routes along it: nothing
has to be cleaned up, and no packet of a user finds a network in which nobody lives.

Packets come in by the cable, sent there by the steering table. What the tunnels carry goes out by it again:
the host has a route of the slot's pool to the instance, and the instance leaves by the host. Of the
pool, the first address is the instance's own, as probes and users meet it.

Where the gateway names a network namespace as its inside, a second cable leads there, and what the tunnels
carry goes out by that one instead. Both cables have the same addresses, each in another namespace. Then
nothing but tunnels joins the two: what comes from outside and was in none is dropped, as is what would leave
to the outside and be in none.

Networks that a site brings are led to the instance that has the site, by a process that lives as long as the
instance and waits for what the kernel says: nothing of ours has to run for that.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from activities.drivers.programs import run
from policies.model.errors import BadInput
from policies.model.fleet import Gateway, Slot

FORWARDS = Path("/proc/sys/net/ipv4/ip_forward")
NAMES = Path("/run/netns")
"""Where ip-netns(8) keeps namespaces by name."""

# The host's namespace stays open as descriptor 9 until the instance begins. A cable of the instance before
# may still be there for a moment, since the kernel removes it in its own time.
_OUTSIDE = """set -e
exec 9< /proc/self/ns/net
ip link delete "$1" 2> /dev/null || true
[ -z "$6" ] || ip -n "$6" link delete "$1" 2> /dev/null || true
exec unshare -n sh -c "$0" "$0" "$@"
"""
# What has to pass between the planes is in a tunnel, of user space (of whose device nothing is said here) or
# of the kernel, where it has the devices of what it is wrapped in.
_INSIDE = """set -e
cable=$1 address=$2 host=$3 pool=$4 own=$5 inside=$6 follow=$7 pings=$8; shift 8
ip link add eth0 type veth peer name "$cable" netns /proc/self/fd/9
ip -batch - << END
link set lo up
address add $address/32 dev eth0
address add $own/32 dev lo
link set eth0 up
route add unreachable $pool
END
[ "$(cat /proc/sys/net/ipv4/ip_forward)" = 1 ] || echo 1 > /proc/sys/net/ipv4/ip_forward
unshare -m --propagation private sh -c "$pings" 2> /dev/null || true
nsenter --net=/proc/self/fd/9 ip -batch - << END
address add $host/31 dev $cable
link set $cable up
END
if [ -z "$inside" ]; then
  ip route add default via "$host" dev eth0 onlink
  nsenter --net=/proc/self/fd/9 ip route replace "$pool" via "$address" dev "$cable"
else
  ip link add eth1 type veth peer name "$cable" netns "$inside"
  ip -batch - << END
address add $address/32 dev eth1
link set eth1 up
route add default via $host dev eth1 onlink
route add default via $host dev eth0 table 1 onlink
rule add from $address lookup 1
END
  nft -f - << END
add table inet planes
add chain inet planes forward { type filter hook forward priority 0; }
add rule inet planes forward iifname eth0 meta ipsec missing drop
add rule inet planes forward oifname eth0 rt ipsec missing drop
END
  ip -n "$inside" -batch - << END
address add $host/32 dev $cable
link set $cable up
route replace $pool via $address dev $cable onlink
END
fi
setpriv --pdeathsig KILL ip monitor route 2> /dev/null |
  setpriv --pdeathsig KILL sh -c "$follow" follow "$cable" "$address" "$inside" > /dev/null 2>&1 &
exec "$@" 9<&-
"""
# The exporter asks users from there whether they lose packets, so root may ping (icmp(7)). What is said below
# `/proc/sys/net` is said of the namespace alone, but the agent's unit has all of that read-only.
_PINGS = """mount -o remount,bind,rw /proc/sys
echo 0 0 > /proc/sys/net/ipv4/ping_group_range
"""
# charon keeps routes into its tunnels in a table of its own. One address is a user's, whom the pool's route
# leads to; a network is a site's. The instance to which the site came last has its route: what another one
# deletes is that one's own.
_FOLLOW = """cable=$1 address=$2 inside=$3
while read -r one two said; do
  if [ "$one" = Deleted ]; then verb=del net=$two; else verb=replace net=$one said="$two $said"; fi
  case "$net in $said" in */*" table 220 "*) ;; *) continue ;; esac
  set -- route "$verb" "$net" via "$address" dev "$cable" onlink
  if [ -n "$inside" ]; then ip -n "$inside" "$@"; else nsenter --net=/proc/self/fd/9 ip "$@"; fi
done
"""


def in_own_network(gateway: Gateway, slot: Slot, command: Sequence[str]) -> list[str]:
    """Return the command line that runs this command in a network of its own, made for the slot.

    Raises:
        BadInput: the slot has no address, and so no network of its own.
    """
    if slot.host_end is None:
        raise BadInput(f"slot {slot.name} has no address for a network of its own")
    ends = (slot.device, str(slot.address), str(slot.host_end))
    parts = (*ends, str(slot.pool4), str(slot.pool4[1]), gateway.inside or "", _FOLLOW, _PINGS)
    return ["sh", "-c", _OUTSIDE, _INSIDE, *parts, *command]


async def cut_off(gateway: Gateway) -> tuple[str, ...]:
    """Return why what instances' own networks carry would not get on here: where no packets are passed on."""
    reasons = []
    if await asyncio.to_thread(FORWARDS.read_text) != "1\n":
        said = f"{gateway.name} forwards no packets, and each instance has a network of its own behind it"
        reasons.append(f"{said}; set net.ipv4.ip_forward = 1 for good (sysctl.d(5))")
    if gateway.inside is not None:
        inside = f"the inside of {gateway.name}, network namespace {gateway.inside},"
        found = await run(["nsenter", f"--net={NAMES / gateway.inside}", "cat", str(FORWARDS)])
        if found.status:
            reasons.append(f"{inside} is not there: {found.last_words}; make it first (ip-netns(8))")
        elif found.out.strip() != "1":
            reasons.append(f"{inside} forwards no packets; set net.ipv4.ip_forward = 1 there")
    return tuple(reasons)
