"""A probe of one ocserv instance: a real login and pings through its own port, from its own host.

The client lives in network and pid namespaces that belong to one process, which dies with us
(PR_SET_PDEATHSIG): after a kill -9 the kernel itself takes down client, namespaces and cable.
Its tunnel and routes exist only there, so the host's own routes are never touched.
"""

import asyncio
import re
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Address
from pathlib import Path

from activities.drivers.daemon.port import Environment
from activities.drivers.programs import run, start
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
    try:
        password = login.password.read_text().splitlines()[0]
    except (OSError, IndexError) as error:
        raise BadInput(f"the probe's password cannot be read at {login.password}") from error
    progress, cable = _Progress(), f"probe{secrets.token_hex(3)}"
    process = await start(
        _command(environment, login),
        stderr=asyncio.subprocess.STDOUT,
        environment={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PROBE_TARGET": _target(environment, login)},
    )
    try:
        async with asyncio.timeout(WITHIN.total_seconds()) as patience:
            await _converse(process, cable, password, progress, patience)
    except TimeoutError:
        progress.words = f"nothing more came within {WITHIN.total_seconds():.0f} s after {progress.words!r}"
        if not progress.asked:
            raise Unavailable(
                f"the probe of slot {environment.slot.name} on {environment.gateway.name} got no network "
                f"of its own within {WITHIN.total_seconds():.0f} s: this host is too busy; it is tried again"
            ) from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
        await process.wait()
        # The kernel removes the cable with the namespace, but in its own time.
        await run(["ip", "link", "delete", cable])
    return _verdict(environment, progress)


async def _converse(
    process: asyncio.subprocess.Process,
    cable: str,
    password: str,
    progress: _Progress,
    patience: asyncio.Timeout,
) -> None:
    """Tell the client to ask, and note what it says; its time begins when its own network is there."""
    out, given = process.stdout, process.stdin
    if out is None or given is None:  # pragma: no cover - both were asked for
        raise Unavailable("the probe's client has no pipes")
    if (await out.readline()).strip() != b"ready":
        raise Unavailable("the probe's client could not be given a network of its own")
    near, far = _addresses()
    await _lay_cable(process.pid, cable, near)
    given.write(f"{near} {far}\n{password}\n".encode())
    await given.drain()
    while (line := await out.readline()) not in (b"asking\n", b""):
        progress.words = line.decode(errors="replace").strip()
    if not line:
        raise Unavailable(f"the probe's client ended before it asked anything: {progress.words}")
    progress.asked, begun = True, time.monotonic()
    patience.reschedule(asyncio.get_running_loop().time() + WITHIN.total_seconds())
    async for line in out:
        _note(progress, line.decode(errors="replace").strip(), begun)
    await process.wait()


def _addresses() -> tuple[str, str]:
    """Return two link-local addresses of one /30 (RFC 3927: never routed), different for every probe."""
    block = secrets.randbelow(2**13) * 4
    first = IPv4Address("169.254.64.0") + block
    return str(first + 1), str(first + 2)


async def _lay_cable(pid: int, cable: str, near: str) -> None:
    lines = f"link add {cable} type veth peer name probe netns {pid}\naddress add {near}/30 dev {cable}\n"
    result = await run(["ip", "-batch", "-"], given=f"{lines}link set {cable} up\n")
    if result.status:
        raise Unavailable(f"the probe's cable could not be laid: {result.last_words}")


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


def _target(environment: Environment, login: ProbeLogin) -> str:
    return login.target or str(environment.slot.pool4[1])


def _command(environment: Environment, login: ProbeLogin) -> list[str]:
    address = next(a for a in environment.gateway.addresses if a.version == 4)  # noqa: PLR2004 - the IP version
    resolve = [f"--resolve={login.name}:{address}"] if login.name else []
    url = f"https://{login.name or address}:{environment.slot.port}"
    alone = ["setpriv", "--pdeathsig", "KILL", "unshare", "-n", "-p", "--fork", "--kill-child", "sh", "-c"]
    client = [f"--user={login.user}", f"--cafile={login.authority}", *resolve, url]
    return [*alone, CLIENT, "probe", _target(environment, login), str(login.pings), *client]
