"""A probe of one strongSwan instance: a real charon, its login and pings, straight to the instance's address.

It lives in namespaces of its own (`client`) with folders of its own. `encap` has it come as users do, whose
packets are always wrapped in UDP, since the steering translates where they go.
"""

import asyncio
import re
import time
from dataclasses import dataclass

from activities.drivers.daemon.client import ANSWERED, COUNTS, WITHIN, Client, client
from activities.drivers.daemon.login import ProbeLogin, target_of
from activities.drivers.daemon.port import Environment
from policies.model.errors import BadInput
from policies.model.instance import Probe

STAGES = ("tcp", "tls", "auth", "tunnel", "ping")
"""As of every product; the first is an answer at all, also over UDP, the second is IKE_SA_INIT."""
MOST_LOST = 0.2

# charon writes its pid to /run, and swanctl reads the key from a folder beside its file: /run is the probe's
# own, in memory, and what is read from files is opened before that.
CLIENT = """
inside=$1 authority=$2 certificate=$3 key=$4; shift 4
exec 3< "$authority" 4< "$certificate" 5< "$key"
exec unshare -m --propagation private sh -c "$inside" inside "$target" "$@"
"""
INSIDE = """
target=$1 pings=$2 config=$3
mount -t tmpfs -o mode=700,size=1m probe /run; mkdir /run/private
cat <&3 > /run/authority; cat <&4 > /run/certificate; cat <&5 > /run/private/key
printf '%s' "$config" > /run/strongswan.conf
STRONGSWAN_CONF=/run/strongswan.conf /usr/lib/ipsec/charon 2>&1 &
client=$!
read -r connected
[ -z "$connected" ] || ping -n -i 0.1 -c "$pings" -w 3 "$target"
kill -TERM $client 2>/dev/null; wait $client
"""
CONFIG = """
charon {{
  load = random nonce openssl kdf pem pubkey pkcs1 pkcs8 x509 constraints kernel-libipsec kernel-netlink \
socket-default vici
  retransmit_tries = 2
  retransmit_timeout = 1.5
  plugins {{
    vici {{
      socket = unix:///run/charon.vici
    }}
  }}
  filelog {{
    stderr {{
      default = 1
    }}
  }}
  start-scripts {{
    load = /usr/sbin/swanctl --load-all --noprompt --file /run/strongswan.conf --uri unix:///run/charon.vici
  }}
}}
swanctl {{
  load = random nonce openssl pem pubkey pkcs1 pkcs8 x509
}}
connections {{
  probe {{
    version = 2
    remote_addrs = {address}
    vips = 0.0.0.0
    encap = yes
    local {{
      auth = pubkey
      certs = /run/certificate
    }}
    remote {{
      auth = pubkey
      id = {name}
      cacerts = /run/authority
    }}
    children {{
      probe {{
        remote_ts = 0.0.0.0/0
        start_action = start
      }}
    }}
  }}
}}
"""
_MARKS = (
    ("tcp", re.compile(r"\[NET\] received packet: from ")),
    ("tls", re.compile(r"parsed IKE_SA_INIT response 0 \[ SA KE ")),
    ("auth", re.compile(r"IKE_SA probe\[\d+\] established")),
    ("tunnel", re.compile(r"CHILD_SA probe\{\d+\} established")),
    ("ping", COUNTS),
)
_OVER = re.compile(
    r"giving up after|received \w+ notify error|establishing .* failed|invalid config|failed to load|"
    r"no acceptable|not found|constraint check failed|destroying IKE_SA|received \w+ notify, no CHILD_SA"
)
_SAYS_WHY = re.compile(r"notify|failed|giving up|no trusted|retransmit|unacceptable|constraint|mismatch")


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
    """Log in by certificate, ping, log out; report the stage reached, or the failed one and why.

    Raises:
        BadInput: the login has no certificate.
        Unavailable: the probe could not be made ready here, which says nothing about the instance.
    """
    if login.certificate is None or login.key is None:
        raise BadInput(
            "the probe was given no certificate; name `certificate` and `key` under `probe` in agent.yaml"
        )
    progress, target = _Progress(), target_of(environment, login)
    files = (str(login.authority), str(login.certificate), str(login.key))
    config = CONFIG.format(address=environment.slot.address, name=login.name or environment.gateway.address4)
    async with client(environment, CLIENT, target, INSIDE, *files, str(login.pings), config) as caller:
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
    begun, told = time.monotonic(), False
    async for raw in out:
        line = raw.decode(errors="replace").strip()
        before = progress.reached
        _note(progress, line, begun)
        if before < progress.reached == STAGES.index("ping"):
            told = True
            await caller.say("connected\n")
        elif _OVER.search(line) and not told:
            told = True
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
    where = f"slot {environment.slot.name} on {environment.gateway.name}, at {environment.slot.address}"
    said = f"{lost} of {progress.sent} pings lost" if progress.sent else progress.words
    return Probe(
        passed=passed,
        stage=stage,
        reason=f"{where}: {'login and tunnel work, ' if passed else ''}{said}",
        connect_seconds=progress.connect_seconds,
        pings_sent=progress.sent,
        pings_lost=lost,
    )
