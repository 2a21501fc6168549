"""A probe of one ocserv instance: a real login and pings through its own port, from its own host.

The client lives in namespaces of its own (`client`).
"""

import asyncio
import re
import time
from dataclasses import dataclass

from activities.drivers.daemon.client import ANSWERED, COUNTS, WITHIN, Client, address6_of, client
from activities.drivers.daemon.login import ProbeLogin, password_of, target_of
from activities.drivers.daemon.ocserv.login import options, shadow_options
from activities.drivers.daemon.ocserv.tunnel_end import program
from activities.drivers.daemon.port import Environment
from policies.model.instance import Probe
from policies.model.mirror import Family, ShadowLogin

STAGES = ("tcp", "tls", "auth", "tunnel", "ping")
MOST_LOST = 0.2
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
    ("tcp", re.compile(r"^Connected to [0-9\[]")),
    ("tls", re.compile(r"^Connected to HTTPS on ")),
    ("auth", re.compile(r"^Got CONNECT response: HTTP/1\.1 200")),
    ("tunnel", re.compile(r"^penstock: tunnel")),
    ("ping", COUNTS),
)


@dataclass
class _Progress:
    reached: int = 0
    words: str = "it said nothing"
    connect_seconds: float | None = None
    last: int = 0
    """The last ping that was answered."""
    sent: int = 0
    received: int = 0


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
    password, progress = password_of(login), _Progress()
    script, end = (CLIENT, []) if environment.own_networks else (WITHOUT_DEVICE, [program()])
    arguments = (str(pings), *end, *told)
    target = target_of(environment, login)
    async with client(environment, script, target, *arguments, family=family) as caller:
        out = await caller.connect(password)
        try:
            async with asyncio.timeout(WITHIN.total_seconds()):
                await _listen(caller, out, progress, pings)
        except TimeoutError:
            progress.words = (
                f"nothing more came within {WITHIN.total_seconds():.0f} s after {progress.words!r}"
            )
    return _verdict(environment, progress)


async def _listen(caller: Client, out: asyncio.StreamReader, progress: _Progress, pings: int) -> None:
    """Note what the client says, until it has left."""
    begun = time.monotonic()
    async for line in out:
        _note(progress, line.decode(errors="replace").strip(), begun)
    if progress.received >= pings:
        progress.sent = progress.last
    await caller.process.wait()


def _note(progress: _Progress, line: str, begun: float) -> None:
    if not line or line.startswith(("---", "rtt ")):
        return
    if answered := ANSWERED.search(line):
        progress.last = max(progress.last, int(answered[1]))
    for number, (stage, mark) in enumerate(_MARKS, start=1):
        found = mark.search(line)
        if found is None:
            continue
        progress.reached = max(progress.reached, number)
        if stage == "tunnel":
            progress.connect_seconds = time.monotonic() - begun
        if stage == "ping":
            progress.sent, progress.received = int(found[1]), int(found[2])
    if progress.reached < len(STAGES):
        progress.words = line


def _verdict(environment: Environment, progress: _Progress) -> Probe:
    lost = progress.sent - progress.received
    passed = progress.reached == len(STAGES) and lost <= MOST_LOST * progress.sent
    stage = STAGES[min(progress.reached, len(STAGES) - 1)]
    where = f"slot {environment.slot.name} on {environment.gateway.name}, port {environment.slot.port}"
    said = f"{lost} of {progress.sent} pings lost" if progress.sent else progress.words
    return Probe(
        passed=passed,
        stage=stage,
        reason=f"{where}: {'login and tunnel work, ' if passed else ''}{said}",
        connect_seconds=progress.connect_seconds,
        pings_sent=progress.sent,
        pings_lost=lost,
    )
