"""One tested session with an ocserv instance: what its client was given, and what was on the wire meanwhile.

The client pings through its tunnel with a payload that nobody else has. Whoever finds it between client
and daemon, on the client's own cable, has read what the tunnel should hide.
"""

import asyncio
import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address

from activities.drivers.daemon.client import WITHIN, Client, client
from activities.drivers.daemon.held import PINGS, SMALL, Held, PingCounts, watched
from activities.drivers.daemon.login import ProbeLogin, password_of, target_of
from activities.drivers.daemon.ocserv import tunnel_end
from activities.drivers.daemon.ocserv.login import cause_in, options
from activities.drivers.daemon.port import Environment
from activities.drivers.resolving import Answers, answer_in, program, questions

SCRIPT = r"""
pings=$1 small=$2 pattern=$3 resolving=$4; shift 4
printf '%s\n' "$password" | openconnect --protocol=anyconnect --passwd-on-stdin --non-inter \
  --interface=tunnel --reconnect-timeout=1 --compression=none --script='
    [ "$reason" = connect ] || exit 0
    ip link set tunnel up mtu "$INTERNAL_IP4_MTU" || exit 1
    ip address add "$INTERNAL_IP4_ADDRESS/32" dev tunnel || exit 1
    [ -z "$INTERNAL_IP6_ADDRESS" ] || ip address add "$INTERNAL_IP6_ADDRESS/128" dev tunnel nodad
    for kind in CISCO_SPLIT CISCO_IPV6_SPLIT; do
      eval count=\${${kind}_INC:-0}; n=0
      while [ $n -lt $count ]; do
        eval echo "penstock: route \$${kind}_INC_${n}_ADDR/\$${kind}_INC_${n}_MASKLEN"; n=$((n + 1))
      done
    done
    for server in $INTERNAL_IP4_DNS; do
      case $server in *:*) [ -n "$INTERNAL_IP6_ADDRESS" ] || continue ;; esac
      echo "penstock: dns $server"
    done
    [ -z "$CISCO_SPLIT_DNS" ] || echo "penstock: split-dns $CISCO_SPLIT_DNS"
    env | sed -n "s/^X-CSTP-Tunnel-All-DNS=/penstock: all-dns /p"
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
  echo penstock: carried; read -r questions
  for server in ${questions%% -- *}; do ip route replace "$server" dev tunnel; done
  [ -z "$questions" ] || $resolving $questions
fi
kill -INT $client 2>/dev/null; wait $client
"""
WITHOUT_DEVICE = r"""
pings=$1 small=$2 pattern=$3 end=$4; shift 4
exec 3<&0
printf '%s\n' "$password" | openconnect --protocol=anyconnect --passwd-on-stdin --non-inter \
  --reconnect-timeout=1 --compression=none --script-tun --script="$end hold $pings $small $pattern" "$@" 2>&1
"""
"""The same where no device can be made: the tunnel ends in a program, which pings and asks."""
_GIVEN = re.compile(r"^penstock: (?P<what>route|mtu|dns|split-dns|all-dns) (?P<said>\S+)$")
_TLS = re.compile(r"^Connected to HTTPS on .* with ciphersuite (.+)$")
_DTLS = re.compile(r"^Established DTLS connection .*Ciphersuite (.+?)\.?$")
_LET_IN = "Got CONNECT response: HTTP/1.1 200"


@dataclass
class Session(Held):
    """How far a client got, what it was given, and how its pings fared."""

    tls: str = ""
    dtls: str = ""
    dns: list[str] = field(default_factory=list)
    """DNS servers that were pushed, of the kinds of address that the tunnel has."""
    split_dns: list[str] = field(default_factory=list)
    """Domains that were pushed as the only ones to be asked for inside the tunnel."""
    all_dns: bool = False
    """Whether clients were told to ask for every name inside the tunnel."""
    cause: str = ""
    """The line that names why there is no session; the client ends with one that does not."""
    answers: Answers = field(default_factory=dict)
    """What these servers answered through the tunnel."""


async def hold_session(
    environment: Environment,
    login: ProbeLogin,
    *more: str,
    password: str | None = None,
    names: Sequence[str] = (),
) -> Session:
    """Log in with more options, ping with small and full-size packets, ask for the names, and log out.

    Another password may be given than the login's own.

    Raises:
        BadInput: the login's password cannot be read.
        Unavailable: the client could not be made ready here, or the wire cannot be read, which says
            nothing about the instance.
    """
    session, payload = Session(), secrets.token_bytes(16)
    own = environment.own_networks
    script, does = (SCRIPT, " ".join(program())) if own else (WITHOUT_DEVICE, tunnel_end.program())
    arguments = (str(PINGS), str(SMALL), payload.hex(), does, *more, *options(environment, login))
    async with client(environment, script, target_of(environment, login), *arguments) as caller:
        out = await caller.connect(password or password_of(login))
        try:
            async with asyncio.timeout(WITHIN.total_seconds()):
                with watched(caller, payload, session.wire):
                    await _listen(caller, out, session, names)
                    await caller.process.wait()
        except TimeoutError:
            session.words = f"nothing more came within {WITHIN.total_seconds():.0f} s after {session.words!r}"
    return session


async def _listen(caller: Client, out: asyncio.StreamReader, session: Session, names: Sequence[str]) -> None:
    pings = PingCounts(session)
    async for raw in out:
        line = raw.decode(errors="replace").strip()
        if pings.take(line):
            continue
        if line == "penstock: carried":
            asked = questions(session.dns, names) if session.dns and names else []
            await caller.say(f"{' '.join(asked)}\n")
        else:
            _note(session, line)


def _note(session: Session, line: str) -> None:
    """Take over what the client says of what it was given, and of what it heard."""
    if found := _GIVEN.match(line):
        _given(session, found["what"], found["said"])
    elif found := _TLS.match(line):
        session.tls = found[1]
    elif found := _DTLS.match(line):
        session.dtls = found[1]
    session.answers |= answer_in(line)
    session.let_in |= line.startswith(_LET_IN)
    session.cause = session.cause or cause_in(line)
    if line and not session.pings:
        session.words = session.cause or line


def _given(session: Session, what: str, said: str) -> None:
    match what:
        case "route":
            session.routes.add(said)
        case "mtu":
            session.mtu = int(said)
        case "dns":
            with suppress(ValueError):
                session.dns.append(str(ip_address(said)))
        case "split-dns":
            session.split_dns += said.lower().split(",")
        case _:
            session.all_dns = said == "true"
