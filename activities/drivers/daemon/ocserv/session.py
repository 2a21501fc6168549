"""One tested session with an ocserv instance: what its client was given, and what was on the wire meanwhile.

The client pings through its tunnel with a payload that nobody else has. Whoever finds it between client
and daemon, on the client's own cable, has read what the tunnel should hide.
"""

import asyncio
import re
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta

from activities.drivers.daemon.ocserv.client import Client, client
from activities.drivers.daemon.port import Environment
from policies.model.errors import Unavailable

WITHIN = timedelta(seconds=15)
PINGS = 10
SMALL = 120
"""Bytes of a small ping with its headers."""
ANY_PROTOCOL = 0x0003
"""ETH_P_ALL (packet(7)): what comes and what goes."""
FRAME = 2**17
"""Bytes of the largest frame: the kernel may hand over several segments as one."""

SCRIPT = r"""
echo ready; read -r near far; read -r password
ip link set lo up
ip address add "$far/30" dev probe; ip link set probe up; ip route add default via "$near"
echo asking
target=$1 pings=$2 small=$3 pattern=$4; shift 4
printf '%s\n' "$password" | openconnect --protocol=anyconnect --passwd-on-stdin --non-inter \
  --interface=tunnel --reconnect-timeout=1 --compression=none --script='
    [ "$reason" = connect ] || exit 0
    ip link set tunnel up mtu "$INTERNAL_IP4_MTU" || exit 1
    ip address add "$INTERNAL_IP4_ADDRESS/32" dev tunnel || exit 1
    for kind in CISCO_SPLIT CISCO_IPV6_SPLIT; do
      eval count=\${${kind}_INC:-0}; n=0
      while [ $n -lt $count ]; do
        eval echo "penstock: route \$${kind}_INC_${n}_ADDR/\$${kind}_INC_${n}_MASKLEN"; n=$((n + 1))
      done
    done
    echo "penstock: mtu $INTERNAL_IP4_MTU"
    ip route add "$PROBE_TARGET" dev tunnel && echo penstock: tunnel' "$@" 2>&1 &
client=$!
while kill -0 $client 2>/dev/null && ! ip route get "$target" 2>/dev/null | grep -q 'dev tunnel'; do
  sleep 0.02
done
if ip route get "$target" | grep -q 'dev tunnel'; then
  sleep 0.3
  mtu=$(ip -o link show dev tunnel | sed 's/.* mtu \([0-9]*\) .*/\1/')
  echo penstock: small; ping -n -i 0.02 -c "$pings" -w 3 -p "$pattern" -s $((small - 28)) "$target"
  echo penstock: full; ping -n -i 0.02 -c "$pings" -w 3 -p "$pattern" -M do -s $((mtu - 28)) "$target"
fi
kill -INT $client 2>/dev/null; wait $client
"""
_COUNTS = re.compile(r"(\d+) packets transmitted, (\d+) received")
_TLS = re.compile(r"^Connected to HTTPS on .* with ciphersuite (.+)$")
_DTLS = re.compile(r"^Established DTLS connection .*Ciphersuite (.+?)\.?$")
_LET_IN = "Got CONNECT response: HTTP/1.1 200"


@dataclass
class Wire:
    """What was seen between client and daemon."""

    bytes: int = 0
    plain: int = 0
    """Packets in which the payload of the pings lies open."""


@dataclass
class Session:
    """How far a client got, what it was given, and how its pings fared."""

    asked: bool = False
    let_in: bool = False
    tls: str = ""
    dtls: str = ""
    mtu: int = 0
    routes: set[str] = field(default_factory=set)
    pings: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Sent and received, of `small` and `full` ones."""
    words: str = "it said nothing"
    wire: Wire = field(default_factory=Wire)

    @property
    def carried(self) -> int:
        """Bytes that the pings which came back took through the tunnel, both ways."""
        sizes = {"small": SMALL, "full": self.mtu}
        return sum(2 * sizes[kind] * received for kind, (_, received) in self.pings.items())


async def hold_session(
    environment: Environment, password: str, target: str, options: Sequence[str]
) -> Session:
    """Log in with these options, ping with small and with full-size packets, and log out.

    Raises:
        Unavailable: the client could not be made ready here, or the wire cannot be read, which says
            nothing about the instance.
    """
    session, payload = Session(), secrets.token_bytes(16)
    arguments = (target, str(PINGS), str(SMALL), payload.hex(), *options)
    async with client(SCRIPT, *arguments, environment={"PROBE_TARGET": target}) as caller:
        try:
            async with asyncio.timeout(WITHIN.total_seconds()):
                out = await caller.connect(f"{password}\n")
                with _watched(caller, payload, session.wire):
                    await _listen(out, session)
                    await caller.process.wait()
        except TimeoutError:
            session.words = f"nothing more came within {WITHIN.total_seconds():.0f} s after {session.words!r}"
    if not session.asked:
        raise Unavailable(
            f"a client of slot {environment.slot.name} on {environment.gateway.name} got no network of its "
            f"own: {session.words}"
        )
    return session


async def _listen(out: asyncio.StreamReader, session: Session) -> None:
    kind = "small"
    async for raw in out:
        line = raw.decode(errors="replace").strip()
        if line in ("penstock: small", "penstock: full"):
            kind = line.rpartition(" ")[2]
        elif found := _COUNTS.search(line):
            session.pings[kind] = int(found[1]), int(found[2])
        else:
            _note(session, line)


def _note(session: Session, line: str) -> None:
    """Take over what the client says of what it was given."""
    said = line.rpartition(" ")[2]
    if line == "asking":
        session.asked = True
    elif line.startswith("penstock: route "):
        session.routes.add(said)
    elif line.startswith("penstock: mtu "):
        session.mtu = int(said)
    elif found := _TLS.match(line):
        session.tls = found[1]
    elif found := _DTLS.match(line):
        session.dtls = found[1]
    session.let_in |= line.startswith(_LET_IN)
    if line and not session.pings:
        session.words = line


@contextmanager
def _watched(caller: Client, payload: bytes, wire: Wire) -> Iterator[None]:
    """Look at every packet on the client's cable meanwhile."""
    loop = asyncio.get_running_loop()
    try:
        seen = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ANY_PROTOCOL))
    except OSError as error:
        raise Unavailable(f"the wire of a test cannot be read on this host: {error}; {RIGHT}") from error
    with seen:
        seen.setblocking(False)
        seen.bind((caller.cable, 0))

        def look() -> None:
            with suppress(OSError):  # nothing more to read, or the cable has gone with its client
                while frame := seen.recv(FRAME):
                    wire.bytes += len(frame)
                    wire.plain += payload in frame

        loop.add_reader(seen, look)
        try:
            yield
        finally:
            look()
            loop.remove_reader(seen)


RIGHT = "give the agent CAP_NET_RAW"
