"""A probe of one OpenVPN instance: a real client and its pings through the instance's own port.

The client lives in namespaces of its own (`client`), where it makes its device and routes by itself.
"""

import asyncio
import re
import time
from dataclasses import dataclass

from activities.drivers.daemon.client import ANSWERED, COUNTS, WITHIN, Client, client
from activities.drivers.daemon.login import ProbeLogin, target_of
from activities.drivers.daemon.openvpn.options import LAST_WORDS, options
from activities.drivers.daemon.port import Environment
from policies.model.instance import Probe

STAGES = ("tcp", "tls", "auth", "tunnel", "ping")
"""As of every product; the first is an answer at all, also over UDP."""
MOST_LOST = 0.2

# With `explicit-exit-notify` the server lets go of the probe at once, and not after its keepalive.
CLIENT = """
pings=$1; shift
openvpn --client --dev tunnel --dev-type tun --verb 3 --suppress-timestamps --auth-nocache "$@" 2>&1 &
client=$!
read -r connected
[ -z "$connected" ] || { ip route replace "$target" dev tunnel; ping -n -i 0.1 -c "$pings" -w 3 "$target"; }
kill -TERM $client 2>/dev/null; wait $client
"""
_MARKS = (
    ("tcp", re.compile(r"^TLS: Initial packet from ")),
    ("tls", re.compile(r"^VERIFY OK: depth=0")),
    ("auth", re.compile(r"Peer Connection Initiated with ")),
    ("tunnel", re.compile(r"^Initialization Sequence Completed")),
    ("ping", COUNTS),
)
_SAYS_WHY = re.compile(r"Error|ERROR|AUTH|refused|VERIFY|Cannot|Options|failed|CONNECTION", re.IGNORECASE)


@dataclass
class _Progress:
    reached: int = 0
    words: str = "it said nothing"
    connect_seconds: float | None = None
    last: int = 0
    """The last ping that was answered."""
    sent: int = 0
    received: int = 0


async def probe(environment: Environment, login: ProbeLogin, transport: str) -> Probe:
    """Log in by certificate, ping, log out; report the stage reached, or the failed one and why.

    Raises:
        BadInput: the login has no certificate, or names a file that is not there.
        Unavailable: the probe could not be made ready here, which says nothing about the instance.
    """
    progress = _Progress()
    arguments = (str(login.pings), *options(environment, login, transport, login.options))
    async with client(environment, CLIENT, target_of(environment, login), *arguments) as caller:
        out = await caller.connect("")
        try:
            async with asyncio.timeout(WITHIN.total_seconds()):
                await _listen(caller, out, progress, login.pings)
        except TimeoutError:
            late = f"nothing more came within {WITHIN.total_seconds():.0f} s"
            progress.words = f"{late} after {progress.words!r}"
    return _verdict(environment, progress)


async def _listen(caller: Client, out: asyncio.StreamReader, progress: _Progress, pings: int) -> None:
    """Note what the client says, until it has left; have it ping once it is connected."""
    begun = time.monotonic()
    async for raw in out:
        line = raw.decode(errors="replace").strip()
        before = progress.reached
        _note(progress, line, begun)
        if before < progress.reached == STAGES.index("ping"):
            await caller.say("connected\n")
        elif line.endswith(LAST_WORDS) and progress.reached < STAGES.index("ping"):
            await caller.say("\n")
    if progress.received >= pings:
        progress.sent = progress.last
    await caller.process.wait()


def _note(progress: _Progress, line: str, begun: float) -> None:
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
    if progress.reached < len(STAGES) and _SAYS_WHY.search(line):
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
