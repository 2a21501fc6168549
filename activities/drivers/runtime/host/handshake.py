"""A TLS handshake with a daemon on this host: the least that says that users could reach it."""

import asyncio
import ssl
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address

from policies.model.instance import Probe

WITHIN = timedelta(seconds=5)


async def probe_handshake(address: IPv4Address | IPv6Address, port: int) -> Probe:
    """Complete a handshake and say so; whose certificate it is, is not asked, and nobody logs in."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    loop = asyncio.get_running_loop()
    begun = loop.time()
    try:
        async with asyncio.timeout(WITHIN.total_seconds()):
            _, writer = await asyncio.open_connection(str(address), port, ssl=context)
    except (OSError, TimeoutError) as error:
        why = str(error) or f"no answer within {WITHIN.total_seconds():.0f} s"
        return Probe(passed=False, stage="tls", reason=f"port {port} of {address}: {why}")
    writer.close()
    reason = "it completes a handshake; its accounts are its own, so nobody was logged in"
    return Probe(passed=True, stage="tls", reason=reason, connect_seconds=loop.time() - begun)
