"""A probe of one ocserv instance: a real login and pings through its own port, from its own host.

The client lives in namespaces of its own (`client`).
"""

import asyncio
import re
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from activities.drivers.daemon.ocserv.client import Client, address_of, client
from activities.drivers.daemon.port import Environment
from policies.model.errors import BadInput, Unavailable
from policies.model.instance import Probe

STAGES = ("tcp", "tls", "auth", "tunnel", "ping")
WITHIN = timedelta(seconds=15)
MOST_LOST = 0.2

CLIENT = """
echo ready; read -r near far; read -r password
ip link set lo up
ip address add "$far/30" dev probe; ip link set probe up; ip route add default via "$near"
echo asking
target=$1 pings=$2; shift 2
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
_COUNTS = re.compile(r"(\d+) packets transmitted, (\d+) received")
_MARKS = (
    ("tcp", re.compile(r"^Connected to [0-9\[]")),
    ("tls", re.compile(r"^Connected to HTTPS on ")),
    ("auth", re.compile(r"^Got CONNECT response: HTTP/1\.1 200")),
    ("tunnel", re.compile(r"^penstock: tunnel")),
    ("ping", _COUNTS),
)


@dataclass(frozen=True)
class ProbeLogin:
    """Who the probe logs in as: a user of its own, whose password stays in a file."""

    user: str
    password: Path
    authority: Path
    """The certificate authority that must have signed the gateway's certificate."""
    name: str | None = None
    """The name in the gateway's certificate, where it is not the address."""
    pings: int = 5
    target: str | None = None
    """What is pinged through the tunnel; the gateway's own end of it unless given."""


@dataclass
class _Progress:
    asked: bool = False
    """Whether the instance was asked at all: until then a failure is this host's, not the release's."""
    reached: int = 0
    words: str = "it said nothing"
    connect_seconds: float | None = None
    sent: int = 0
    received: int = 0


async def probe(environment: Environment, login: ProbeLogin) -> Probe:
    """Log in, ping, log out; report the stage reached, or the failed one and why.

    Raises:
        Unavailable: the probe could not be made ready here, which says nothing about the instance.
    """
    password = password_of(login)
    progress = _Progress()
    async with client(
        CLIENT, *_arguments(environment, login), environment={"PROBE_TARGET": target_of(environment, login)}
    ) as caller:
        try:
            async with asyncio.timeout(WITHIN.total_seconds()) as patience:
                await _converse(caller, password, progress, patience)
        except TimeoutError:
            progress.words = (
                f"nothing more came within {WITHIN.total_seconds():.0f} s after {progress.words!r}"
            )
            if not progress.asked:
                raise Unavailable(
                    f"the probe of slot {environment.slot.name} on {environment.gateway.name} got no "
                    f"network of its own within {WITHIN.total_seconds():.0f} s: this host is too busy; it is "
                    "tried again"
                ) from None
    return _verdict(environment, progress)


def password_of(login: ProbeLogin) -> str:
    """Return the probe's password; BadInput when its file cannot be read."""
    try:
        return login.password.read_text().splitlines()[0]
    except (OSError, IndexError) as error:
        raise BadInput(f"the probe's password cannot be read at {login.password}") from error


async def _converse(caller: Client, password: str, progress: _Progress, patience: asyncio.Timeout) -> None:
    """Tell the client to ask, and note what it says; its time begins when its own network is there."""
    out = await caller.connect(f"{password}\n")
    while (line := await out.readline()) not in (b"asking\n", b""):
        progress.words = line.decode(errors="replace").strip()
    if not line:
        raise Unavailable(f"the probe's client ended before it asked anything: {progress.words}")
    progress.asked, begun = True, time.monotonic()
    patience.reschedule(asyncio.get_running_loop().time() + WITHIN.total_seconds())
    async for line in out:
        _note(progress, line.decode(errors="replace").strip(), begun)
    await caller.process.wait()


def _note(progress: _Progress, line: str, begun: float) -> None:
    if not line or line.startswith(("---", "rtt ")):
        return
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


def target_of(environment: Environment, login: ProbeLogin) -> str:
    """Return what is pinged through the tunnel."""
    return login.target or str(environment.slot.pool4[1])


def _arguments(environment: Environment, login: ProbeLogin) -> list[str]:
    return [target_of(environment, login), str(login.pings), *options(environment, login)]


def options(environment: Environment, login: ProbeLogin) -> list[str]:
    """Return the options by which openconnect reaches the instance's own port as the probe's user."""
    address = address_of(environment)
    resolve = [f"--resolve={login.name}:{address}"] if login.name else []
    url = f"https://{login.name or address}:{environment.slot.port}"
    return [f"--user={login.user}", f"--cafile={login.authority}", *resolve, url]
