"""An agent has its gateway's certificate renewed when it is due, by a process of its own."""

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from activities.drivers.certificate.dropped import DroppedFiles
from activities.drivers.certificate.folder import CertificateFolder
from activities.drivers.certificate.port import Source
from activities.drivers.certificate.renewal import CertificateRenewal
from activities.drivers.certificate.settings import AcmeSettings, FileSettings, VaultSettings
from activities.drivers.certificate.vault import Vault
from activities.drivers.credentials import Credentials
from activities.drivers.programs import run
from orchestrator.processes.agent_file import AgentSettings
from policies.model.errors import BadInput, Conflict, PenstockError, Unavailable
from policies.renewal import FIRST_AGAIN

LOOK = timedelta(minutes=1)
"""How often it is looked whether the certificate is due."""
WITHIN = timedelta(minutes=15)
"""How long the process that asks may take: an authority and a DNS server take their time."""

_log = logging.getLogger(__name__)


def certificate_renewal(settings: AgentSettings) -> CertificateRenewal:
    """Return who renews the certificate of this host's gateway.

    Raises:
        BadInput: The agent's file names no source of certificates.
    """
    given = settings.server_certificate
    if given is None:
        raise BadInput("the agent's file says nothing of server_certificate; docs/certificates.md shows it")
    path = settings.certificate_folder
    folder = CertificateFolder(path, given.names)
    whose, users_trust = settings.gateway.name, settings.probe.authority
    match given.source:
        case FileSettings() as files:
            dropped = DroppedFiles(files)
            return CertificateRenewal(
                whose, given.names, users_trust, folder, lambda: dropped, dropped.has_another
            )
        case VaultSettings() as vault:
            asked: Callable[[], Source] = partial(Vault, vault, Credentials(os.environ))
        case AcmeSettings() as acme:
            asked = partial(_acme, acme, path)
    return CertificateRenewal(whose, given.names, users_trust, folder, asked)


def _acme(given: AcmeSettings, path: Path) -> Source:
    from activities.drivers.certificate.acme import Acme  # noqa: PLC0415 - 8 MB that no agent needs
    from activities.drivers.certificate.shown import ShownInDns, ShownOverHttp  # noqa: PLC0415 - as above

    hook, port = given.dns_hook, given.http_port or 80
    shown = ShownInDns(hook) if hook is not None else ShownOverHttp(port)
    return Acme(given, path / "account.pem", shown, Credentials(os.environ))


async def ask_when_due(config: Path) -> None:
    """Have a process of its own get the next certificate.

    Raises:
        Conflict: Somebody else is getting it.
        Unavailable: There is none; the sentence is what that process said.
    """
    command = (sys.executable, "-m", "orchestrator", "agent", "certify", "--config", str(config))
    asked = await run(command, within=WITHIN)
    if asked.status == Conflict.exit_code:
        raise Conflict("another process gets the certificate")
    if asked.status:
        raise Unavailable(asked.err.strip().removeprefix("penstock: ")[-1000:] or "it did not say why")


async def keep_renewed(renewal: CertificateRenewal, ask: Callable[[], Awaitable[None]]) -> None:
    """Have the certificate renewed whenever it is due, until cancelled; what fails is noted and waits."""
    while True:
        if await asyncio.to_thread(renewal.is_due, datetime.now(UTC)):
            try:
                await ask()
                _log.info("the gateway has a new certificate; a reload of credentials has it served")
            except Conflict:
                _log.info("another process gets the gateway's certificate")
            except PenstockError as error:
                await _noted(renewal, error)
        await asyncio.sleep(LOOK.total_seconds())


async def _noted(renewal: CertificateRenewal, error: PenstockError) -> None:
    """Note that it failed; where nothing can be written, wait here for as long as the first note would."""
    again = datetime.now(UTC) + FIRST_AGAIN
    try:
        again = renewal.note(error, datetime.now(UTC)).again
    except OSError as full:
        _log.warning("that the certificate is not renewed cannot be noted: %s", full.strerror)
        await asyncio.sleep(FIRST_AGAIN.total_seconds())
    _log.warning(
        "the gateway's certificate was not renewed, and is asked for again at %s: %s",
        f"{again:%H:%M} UTC",
        error,
    )
