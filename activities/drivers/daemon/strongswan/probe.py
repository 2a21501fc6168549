"""A probe of one strongSwan instance: a real charon, its login and pings, straight to the instance's address.

It lives in namespaces of its own (`client`) with folders of its own. `encap` has it come as users do, whose
packets are always wrapped in UDP, since the steering translates where they go.
"""

import re

from activities.drivers.daemon.client import client
from activities.drivers.daemon.login import ProbeLogin, target_of
from activities.drivers.daemon.port import Environment
from activities.drivers.daemon.progress import Progress
from policies.model.errors import BadInput
from policies.model.instance import Probe

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
    re.compile(r"\[NET\] received packet: from "),
    re.compile(r"parsed IKE_SA_INIT response 0 \[ SA KE "),
    re.compile(r"IKE_SA probe\[\d+\] established"),
    re.compile(r"CHILD_SA probe\{\d+\} established"),
)
"""TLS's place has IKE_SA_INIT."""
_OVER = re.compile(
    r"giving up after|received \w+ notify error|establishing .* failed|invalid config|failed to load|"
    r"no acceptable|not found|constraint check failed|destroying IKE_SA|received \w+ notify, no CHILD_SA"
)
_SAYS_WHY = re.compile(r"notify|failed|giving up|no trusted|retransmit|unacceptable|constraint|mismatch")


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
    progress, target = Progress(_MARKS, _SAYS_WHY), target_of(environment, login)
    files = (str(login.authority), str(login.certificate), str(login.key))
    config = CONFIG.format(address=environment.slot.address, name=login.name or environment.gateway.address4)
    async with client(environment, CLIENT, target, INSIDE, *files, str(login.pings), config) as caller:
        out = await caller.connect("")
        await progress.hear(caller, out, login.pings, lambda line: _OVER.search(line) is not None)
    return progress.verdict(environment, f"at {environment.slot.address}")
