"""One tested session with an OpenVPN instance: what its client was given, and what was on the wire."""

import asyncio
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

from activities.drivers.daemon.client import Client, client
from activities.drivers.daemon.held import PINGS, SMALL, Held, PingCounts, watched
from activities.drivers.daemon.login import ProbeLogin, target_of
from activities.drivers.daemon.openvpn.options import LAST_WORDS, options, typed
from activities.drivers.daemon.port import Environment
from policies.model.errors import Unavailable

HANDSHAKE_SECONDS = 5
"""An instance without users answers at once; one that refuses a client over UDP says nothing for so long."""
WITHIN = timedelta(seconds=12)
"""How long a login, its pings and its goodbye may take together."""

SCRIPT = r"""
pings=$1 small=$2 pattern=$3 user=$4; shift 4
set -- --client --dev tunnel --dev-type tun --verb 3 --suppress-timestamps --auth-nocache "$@"
openvpn "$@" 2>&1 4<<TYPED &
$user
$password
TYPED
client=$!
read -r connected
if [ -n "$connected" ]; then
  ip route replace "$target" dev tunnel
  mtu=$(ip -o link show dev tunnel | sed 's/.* mtu \([0-9]*\) .*/\1/')
  echo "penstock: mtu $mtu"
  echo penstock: small; ping -n -i 0.02 -c "$pings" -w 2 -p "$pattern" -s $((small - 28)) "$target"
  echo penstock: full; ping -n -i 0.02 -c "$pings" -w 2 -p "$pattern" -M do -s $((mtu - 28)) "$target"
fi
kill -TERM $client 2>/dev/null; wait $client
"""
EVERYTHING = "0.0.0.0/0"
"""What `redirect-gateway` sends into the tunnel."""
_ANSWERED = re.compile(r"^TLS: Initial packet from ")
_CIPHER = re.compile(r"^Data Channel: cipher '([^']+)'")
_PUSHED = re.compile(r"^PUSH: Received control message: '(.*)'$")
_SAYS_WHY = re.compile(
    r"^(?!Note:|NOTE:|DEPRECATED)"
    r".*(?:Error|ERROR|AUTH_FAILED|refused|VERIFY ERROR|Cannot|Bad |failed|CONNECTION)"
)
"""What may be why a client fails; a note is about a default, whatever words it has."""
_CANNOT = re.compile(r"^(?:Options error: .*|Unsupported cipher .*|.*: No such file or directory.*)$")


@dataclass
class Session(Held):
    """How far a client got, what it was given, and how its pings fared."""

    answered: bool = False
    """Whether the instance answered its first packet."""
    cipher: str = ""
    cannot: str = ""
    """Why the client here could not even try."""


async def hold_session(
    environment: Environment,
    login: ProbeLogin,
    transport: str,
    setup: Sequence[str],
    *,
    shown: tuple[Path, Path] | None = None,
    password: str | None = None,
) -> Session:
    """Log in as a client that is set up so, ping with small and full-size packets, and log out.

    Another certificate or password may be shown than the login's own.

    Raises:
        BadInput: the login has neither certificate nor password, or an option names a file that is not there.
        Unavailable: the client could not be made ready here, or the wire cannot be read, which says
            nothing about the instance.
    """
    session, payload = Session(), secrets.token_bytes(16)
    told = options(environment, login, transport, setup, HANDSHAKE_SECONDS, shown)
    arguments = (str(PINGS), str(SMALL), payload.hex(), login.user, *told)
    async with client(environment, SCRIPT, target_of(environment, login), *arguments) as caller:
        out = await caller.connect(password or typed(login))
        try:
            async with asyncio.timeout(WITHIN.total_seconds()):
                with watched(caller, payload, session.wire):
                    await _listen(caller, out, session)
                    await caller.process.wait()
        except TimeoutError:
            session.words = f"nothing more came within {WITHIN.total_seconds():.0f} s after {session.words!r}"
    if session.cannot:
        raise Unavailable(f"the openvpn of this host cannot be such a client: {session.cannot}")
    return session


async def _listen(caller: Client, out: asyncio.StreamReader, session: Session) -> None:
    pings = PingCounts(session)
    async for raw in out:
        line = raw.decode(errors="replace").strip()
        if pings.take(line):
            continue
        _note(session, line)
        if line.startswith("Initialization Sequence Completed") and not session.let_in:
            session.let_in = True
            await caller.say("connected\n")
        elif not session.let_in and line.endswith(LAST_WORDS):
            await caller.say("\n")


def _note(session: Session, line: str) -> None:
    session.answered |= _ANSWERED.match(line) is not None
    if found := _CIPHER.match(line):
        session.cipher = found[1]
    elif line.startswith("penstock: mtu "):
        session.mtu = int(line.rpartition(" ")[2])
    elif found := _PUSHED.match(line):
        session.routes |= routes_in(found[1].split(","))
    elif _CANNOT.match(line) and not session.answered:
        session.cannot = session.cannot or line
    if _SAYS_WHY.search(line):
        session.words = line


def routes_in(options_pushed: Sequence[str]) -> set[str]:
    """Return the networks that these pushed options have clients send into the tunnel.

    A route to what is no network is returned as it is written: OpenVPN 2.6 leaves out a route to a host name,
    which it takes with `allow-pull-fqdn` alone, and one with a word for a netmask.
    """
    found = set[str]()
    for option in options_pushed:
        match option.split():
            case ["route", to, mask, "net_gateway", *_]:
                pass  # it leads past the tunnel
            case ["route", to]:
                found.add(_network(to))
            case ["route", to, mask, *_]:
                found.add(_network(f"{to}/{mask}"))
            case ["route-ipv6", to, *_]:
                found.add(_network(to))
            case ["redirect-gateway", *_]:
                found.add(EVERYTHING)
            case _:
                pass
    return found


def _network(written: str) -> str:
    try:
        return str(ip_network(written, strict=False))
    except ValueError:
        return written.removesuffix("/255.255.255.255")
