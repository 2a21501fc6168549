"""A TLS handshake with a daemon on this host, and the certificate that it shows; nobody logs in."""

import asyncio
import ssl
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address


async def certificate_shown(address: IPv4Address | IPv6Address, port: int, within: timedelta) -> bytes | None:
    """Return the certificate that a handshake shows, in DER; whoever signed it is not asked.

    A handshake that ends well proves the certificate's key, too.

    Raises:
        OSError: The connection or the handshake fails.
        TimeoutError: It does not end within that time.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with asyncio.timeout(within.total_seconds()):
        _, writer = await asyncio.open_connection(str(address), port, ssl=context)
    secured: ssl.SSLObject = writer.get_extra_info("ssl_object")
    writer.close()
    return secured.getpeercert(binary_form=True)
