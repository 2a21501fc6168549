"""A probe of one OpenVPN instance: a real client and its pings through the instance's own port.

The client lives in namespaces of its own (`client`), where it makes its device and routes by itself.
"""

import re

from activities.drivers.daemon.client import client
from activities.drivers.daemon.login import ProbeLogin, target_of
from activities.drivers.daemon.openvpn.options import LAST_WORDS, options, typed
from activities.drivers.daemon.port import Environment
from activities.drivers.daemon.progress import Progress
from policies.model.instance import Probe

# With `explicit-exit-notify` the server lets go of the probe at once, and not after its keepalive.
CLIENT = """
pings=$1 user=$2; shift 2
set -- --client --dev tunnel --dev-type tun --verb 3 --suppress-timestamps --auth-nocache "$@"
openvpn "$@" 2>&1 4<<TYPED &
$user
$password
TYPED
client=$!
read -r connected
[ -z "$connected" ] || { ip route replace "$target" dev tunnel; ping -n -i 0.1 -c "$pings" -w 3 "$target"; }
kill -TERM $client 2>/dev/null; wait $client
"""
_MARKS = (
    re.compile(r"^TLS: Initial packet from "),
    re.compile(r"^VERIFY OK: depth=0"),
    re.compile(r"Peer Connection Initiated with "),
    re.compile(r"^Initialization Sequence Completed"),
)
_SAYS_WHY = re.compile(
    r"^(?!Note:|DEPRECATED).*(?:ERROR|AUTH|refused|VERIFY|Cannot|Options|failed|CONNECTION)", re.IGNORECASE
)


async def probe(environment: Environment, login: ProbeLogin, transport: str) -> Probe:
    """Log in by certificate, password or both, ping, log out; report the stage reached, or what failed.

    Raises:
        BadInput: the login has no certificate, or names a file that is not there.
        Unavailable: the probe could not be made ready here, which says nothing about the instance.
    """
    progress = Progress(_MARKS, _SAYS_WHY)
    arguments = (str(login.pings), login.user, *options(environment, login, transport, login.options))
    async with client(environment, CLIENT, target_of(environment, login), *arguments) as caller:
        out = await caller.connect(typed(login))
        await progress.hear(caller, out, login.pings, lambda line: line.endswith(LAST_WORDS))
    return progress.verdict(environment, f"port {environment.slot.port}")
