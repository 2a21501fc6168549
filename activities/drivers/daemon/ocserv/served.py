"""The certificate that an ocserv serves, as whoever connects to its own port sees it."""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from activities.drivers.daemon.ocserv.credentials import leaves_in, roles_in
from activities.drivers.daemon.port import Environment
from activities.drivers.daemon.template import FOLDER
from activities.drivers.handshake import certificate_shown
from policies.model.errors import Unavailable

WITHIN = timedelta(seconds=5)
ONE_LOOK = timedelta(seconds=2)
POLL_SECONDS = 0.05


async def until_served(environment: Environment, config: str) -> None:
    """Return when a handshake shows one of the certificates that the instance's config names.

    A handshake that ends well proves the certificate's key, too.

    Raises:
        Unavailable: It does not within five seconds.
    """
    folder = environment.config / FOLDER
    wanted = set[bytes]()
    for certificate, _ in roles_in(config).pairs:
        wanted |= first_of(leaves_in((folder / certificate).read_text()))
    await until_one_of(environment, wanted)


def first_of(chain: Sequence[x509.Certificate]) -> set[bytes]:
    """Return the certificate of a chain that is served, in DER."""
    return {leaf.public_bytes(Encoding.DER) for leaf in chain[:1]}


async def until_one_of(
    environment: Environment, wanted: Collection[bytes], advice: str = "look at its log"
) -> None:
    """Return when a handshake shows one of these certificates, in DER; at once where there are none.

    Raises:
        Unavailable: It does not within five seconds; the sentence ends with the advice.
    """
    if not wanted:
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(WITHIN.total_seconds()):
            while True:
                if await _served(environment) in wanted:
                    return
                await asyncio.sleep(POLL_SECONDS)
    raise Unavailable(
        f"ocserv in slot {environment.slot.name} of {environment.gateway.name} was told to reload and does "
        f"not serve its new certificate within {WITHIN.total_seconds():.0f} s; {advice}"
    )


async def _served(environment: Environment) -> bytes | None:
    """Return the certificate served at the instance's own port in DER, None when no handshake ends well."""
    with suppress(OSError, TimeoutError):
        return await certificate_shown(environment.gateway.addresses[0], environment.slot.port, ONE_LOOK)
    return None
