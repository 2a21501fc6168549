"""A probe of one ocserv instance: a real login and pings through its own port, from its own host.

The client lives in namespaces of its own (`client`).
"""

import re

from activities.drivers.daemon.client import address6_of, client
from activities.drivers.daemon.login import ProbeLogin, password_of, target_of
from activities.drivers.daemon.ocserv.login import CAUSES, options, shadow_options
from activities.drivers.daemon.ocserv.tunnel_end import program
from activities.drivers.daemon.port import Environment
from activities.drivers.daemon.progress import Progress
from policies.model.instance import Probe
from policies.model.mirror import Family, ShadowLogin

PINGS_OF_A_SHADOW = 2

CLIENT = """
pings=$1; shift
printf '%s\\n' "$password" | openconnect --protocol=anyconnect --passwd-on-stdin --non-inter \\
  --interface=tunnel --reconnect-timeout=1 --script='
    [ "$reason" = connect ] || exit 0
    ip link set tunnel up mtu "$INTERNAL_IP4_MTU" && ip address add "$INTERNAL_IP4_ADDRESS/32" dev tunnel &&
    ip route add "$PROBE_TARGET" dev tunnel && echo penstock: tunnel' "$@" 2>&1 &
client=$!
while kill -0 $client 2>/dev/null && ! ip route get "$target" 2>/dev/null | grep -q 'dev tunnel'; do
  sleep 0.02
done
ip route get "$target" | grep -q 'dev tunnel' && ping -n -i 0.1 -c "$pings" -w 3 "$target"
kill -INT $client 2>/dev/null; wait $client
"""
WITHOUT_DEVICE = r"""
pings=$1 end=$2; shift 2
printf '%s\n' "$password" | openconnect --protocol=anyconnect --passwd-on-stdin --non-inter \
  --reconnect-timeout=1 --script-tun --script="$end probe $pings" "$@" 2>&1
"""
"""The same where no device can be made: the tunnel ends in a program, which pings."""
_MARKS = (
    re.compile(r"^Connected to [0-9\[]"),
    re.compile(r"^Connected to HTTPS on "),
    re.compile(r"^Got CONNECT response: HTTP/1\.1 200"),
    re.compile(r"^penstock: tunnel"),
)
_SAYS_WHY = re.compile(r"^(?!---|rtt ).")
"""Whatever openconnect says last; ping's own headings tell nothing."""


async def probe(environment: Environment, login: ProbeLogin) -> Probe:
    """Log in, ping, log out; report the stage reached, or the failed one and why.

    Raises:
        Unavailable: the probe could not be made ready here, which says nothing about the instance.
    """
    return await _tried(environment, login, options(environment, login), login.pings)


async def shadow(environment: Environment, login: ProbeLogin, how: ShadowLogin) -> Probe:
    """Log in as one of many, in the way that is asked for; where the gateway has no IPv6, over IPv4.

    Raises:
        Unavailable: it could not be made ready here, which says nothing about the instance.
    """
    family: Family = 6 if how.family == 6 and address6_of(environment) is not None else 4  # noqa: PLR2004
    told = shadow_options(environment, login, how)
    return await _tried(environment, login, told, PINGS_OF_A_SHADOW, family)


async def _tried(
    environment: Environment, login: ProbeLogin, told: list[str], pings: int, family: Family = 4
) -> Probe:
    password, progress = password_of(login), Progress(_MARKS, _SAYS_WHY, CAUSES)
    script, end = (CLIENT, []) if environment.own_networks else (WITHOUT_DEVICE, [program()])
    arguments = (str(pings), *end, *told)
    target = target_of(environment, login)
    async with client(environment, script, target, *arguments, family=family) as caller:
        out = await caller.connect(password)
        await progress.hear(caller, out, pings)
    return progress.verdict(environment, f"port {environment.slot.port}")
