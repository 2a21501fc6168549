"""A probe by a TLS handshake alone: the least that says that users could reach a daemon on this host."""

import asyncio
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address

from activities.drivers.handshake import certificate_shown
from policies.model.instance import Probe

WITHIN = timedelta(seconds=5)


async def probe_handshake(address: IPv4Address | IPv6Address, port: int) -> Probe:
    """Complete a handshake and say so; whose certificate it is, is not asked, and nobody logs in."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    try:
        await certificate_shown(address, port, WITHIN)
    except (OSError, TimeoutError) as error:
        why = str(error) or f"no answer within {WITHIN.total_seconds():.0f} s"
        return Probe(passed=False, stage="tls", reason=f"port {port} of {address}: {why}")
    reason = "it completes a handshake; its accounts are its own, so nobody was logged in"
    return Probe(passed=True, stage="tls", reason=reason, connect_seconds=loop.time() - begun)
