"""A load on one ocserv instance: many tunnels of the probe's user that carry as much as they can.

All of them live in one namespace, each with a device of its own; their pings fill the tunnels both ways
and are answered by the gateway's own end, so that nobody else on the network has a part in it.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

from activities.drivers.daemon.client import COUNTS, WITHIN, address_of, client
from activities.drivers.daemon.login import ProbeLogin, password_of, target_of
from activities.drivers.daemon.ocserv.login import options
from activities.drivers.daemon.port import Burden, Environment
from policies.model.errors import Unavailable
from policies.model.release_tests import Load

ENDS_WITHIN = timedelta(seconds=10)
HANDSHAKES_FOR = 1.0
"""Seconds of each kind of handshake."""
PAYLOAD = 1200
HEADERS = 28
BITS_BOTH_WAYS = 2 * 8 * (PAYLOAD + HEADERS)

SCRIPT = r"""
for kind in all default; do echo 0 > "/proc/sys/net/ipv4/conf/$kind/rp_filter"; done
sessions=$1 seconds=$2 patience=$3 payload=$4; shift 4
n=0; clients=
while [ $n -lt "$sessions" ]; do
  printf '%s\n' "$password" | openconnect --protocol=anyconnect --passwd-on-stdin --non-inter \
    --interface="load$n" --reconnect-timeout=1 --compression=none --script='
      [ "$reason" = connect ] || exit 0
      ip link set "$TUNDEV" up mtu "$INTERNAL_IP4_MTU" || exit 1
      ip address add "$INTERNAL_IP4_ADDRESS/32" dev "$TUNDEV" || exit 1
      ip route add "$PROBE_TARGET" dev "$TUNDEV" metric "$((100 + ${TUNDEV#load}))"' "$@" > /dev/null 2>&1 &
  clients="$clients $!"; n=$((n + 1))
done
up() { ip route show "$target" | wc -l; }
end=$(($(date +%s) + patience))
until [ "$(up)" -ge "$sessions" ] || [ "$(date +%s)" -ge $end ]; do sleep 0.1; done
sleep 0.5
echo "penstock: sessions $(up)"
read -r go
pings=
for device in $(ip route show "$target" | sed 's/.* dev \([^ ]*\).*/\1/'); do
  ping -n -q -f -l 16 -I "$device" -s "$payload" -w "$seconds" "$target" & pings="$pings $!"
done
wait $pings
echo "penstock: sessions $(up)"
read -r end
kill -INT $clients 2>/dev/null; wait
"""


async def burden(
    environment: Environment, login: ProbeLogin, load: Load, cpu: Callable[[], float | None]
) -> Burden:
    """Carry the load and return what the instance did with it; `cpu` is asked before and after the traffic.

    Raises:
        BadInput: the login's password cannot be read.
        Unavailable: the clients could not be made ready here, which says nothing about the instance.
    """
    if not environment.own_networks:
        raise Unavailable(
            f"a load needs many clients with networks of their own, which an agent on a node may not make: "
            f"take `tests.load` out, or let it name a gateway on a host instead of {environment.gateway.name}"
        )
    asked = (str(load.sessions), str(load.seconds), f"{WITHIN.total_seconds():.0f}", str(PAYLOAD))
    arguments = (*asked, *options(environment, login))
    most = WITHIN + timedelta(seconds=load.seconds) + ENDS_WITHIN
    async with client(environment, SCRIPT, target_of(environment, login), *arguments) as callers:
        out = await callers.connect(password_of(login))
        try:
            async with asyncio.timeout(most.total_seconds()):
                begun, _ = await _until_counted(out)
                before, at = cpu(), time.monotonic()
                await callers.say("go\n")
                held, answered = await _until_counted(out)
                took, after = time.monotonic() - at, cpu()
                await callers.say("end\n")
                await callers.process.wait()
        except TimeoutError as late:
            where = f"slot {environment.slot.name} on {environment.gateway.name}"
            raise Unavailable(
                f"the load on {where} did not end within {most.total_seconds():.0f} s"
            ) from late
    full, resumed = await asyncio.to_thread(_handshakes, environment)
    return Burden(
        sessions=min(begun, held),
        megabits=answered * BITS_BOTH_WAYS / 1e6,
        seconds=took,
        cpu_seconds=None if before is None or after is None else max(0.0, after - before),
        handshakes=full,
        resumed=resumed,
    )


async def _until_counted(out: asyncio.StreamReader) -> tuple[int, int]:
    """Return how many sessions there are, and how many pings came back until that was said."""
    answered, words = 0, "they said nothing"
    async for raw in out:
        line = raw.decode(errors="replace").strip()
        if line.startswith("penstock: sessions "):
            return int(line.rpartition(" ")[2]), answered
        if found := COUNTS.search(line):
            answered += int(found[2])
        words = line or words
    raise Unavailable(f"the clients of a load ended early: {words}")


def _handshakes(environment: Environment) -> tuple[float, float]:
    """Return how many full and how many resumed handshakes a second one client completes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    # A session of TLS 1.3 comes after the handshake, when something is read, and nothing is said here.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    where = str(address_of(environment)), environment.slot.port
    kept = _handshake(context, where, None)
    full = _per_second(lambda: _handshake(context, where, None) is not None)

    def is_resumed() -> bool:
        return kept is not None and _handshake(context, where, kept) is not None

    return full, _per_second(is_resumed)


def _per_second(succeeds: Callable[[], bool]) -> float:
    done, begun = 0, time.monotonic()
    while time.monotonic() - begun < HANDSHAKES_FOR:
        done += succeeds()
    return done / (time.monotonic() - begun)


def _handshake(
    context: ssl.SSLContext, where: tuple[str, int], session: ssl.SSLSession | None
) -> ssl.SSLSession | None:
    """Complete a handshake and leave in order, so that its session can be resumed; None when it fails."""
    try:
        with (
            socket.create_connection(where, timeout=HANDSHAKES_FOR) as plain,
            context.wrap_socket(plain, session=session) as secured,
        ):
            if session is not None and not secured.session_reused:
                return None
            given = secured.session
            with suppress(OSError):
                secured.unwrap()
            return given
    except OSError:
        return None
