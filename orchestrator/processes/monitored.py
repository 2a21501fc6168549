"""The door of penstock's own processes for Prometheus and for whoever asks whether they are ready."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.registry import Collector
from temporalio.client import Client

from activities.drivers.metrics.certificates import CertificateLives
from orchestrator.monitoring.installation import EVERY, InstallationFacts
from orchestrator.monitoring.readiness import WITHIN, Look, Readiness, in_a_thread
from orchestrator.monitoring.shown import ShownInstallation, ShownProcess
from orchestrator.processes.beside import begun_again
from orchestrator.processes.scraping import Door, answering_scrapes
from orchestrator.settings import Settings
from orchestrator.store.ledger import Ledger
from policies.model.errors import PenstockError

CONNECTIONS = 64
"""Callers at once at such a door: Prometheus has one or two, what asks for readiness as many."""

_log = logging.getLogger(__name__)


def engine_look(client: Client) -> Look:
    """Return the look that asks the engine whether it serves."""
    return partial(client.service_client.check_health, timeout=WITHIN)


def ledger_look(ledger: Ledger) -> Look:
    """Return the look that reads the head of the ledger's record."""
    return in_a_thread(ledger.audit_head, "ledger-look")


@asynccontextmanager
async def looking(looks: Mapping[str, Look]) -> AsyncIterator[Readiness]:
    """Look at these parts now and then for the length of the body, and yield what is found."""
    readiness = Readiness(looks)
    task = asyncio.create_task(begun_again("looking whether parts answer", readiness.keep_looking))
    try:
        yield readiness
    finally:
        task.cancel()


@asynccontextmanager
async def monitored(
    settings: Settings,
    process: str,
    address: str | None,
    readiness: Readiness,
    collectors: Sequence[Collector] = (),
    certificates: Mapping[str, Path | None] | None = None,
) -> AsyncIterator[None]:
    """Answer there for the length of the body what this process tells; without an address nobody is answered.

    `collectors` tell of the installation and its fleets: only to callers of whom a token or a certificate is
    asked, since everybody on a host reaches its loopback. `certificates` are files that the process shows or
    needs, by what they are for.

    Raises:
        BadInput: Others could read along, a file is not as it must be, or nobody can listen there.
    """
    if address is None:
        yield
        return
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    files = {"engine": settings.temporal_certificate, "metrics": settings.metrics_certificate}
    ends = CertificateLives("penstock", {**files, **(certificates or {})})
    asked = settings.metrics_token is not None or settings.metrics_clients is not None
    if not asked:
        _log.warning(
            "at %s everybody on this host may ask, so nothing is told there of the installation; set "
            "PENSTOCK_METRICS_TOKEN, and show it in the jobs of Prometheus",
            address,
        )
    for one in (ShownProcess(process, readiness), ends, *(collectors if asked else ())):
        registry.register(one)
    door = Door(
        certificate=settings.metrics_certificate,
        key=settings.metrics_key,
        clients=settings.metrics_clients,
        token=settings.metrics_token,
        connections=CONNECTIONS,
        spelled=lambda name: f"PENSTOCK_METRICS_{name.upper()}",
        where="in the settings",
    )
    host, _, port = address.rpartition(":")
    mend = f"set PENSTOCK_{process.upper()}_METRICS_ADDRESS to another HOST:PORT"

    def fault() -> str | None:
        return readiness.sentence

    async with answering_scrapes(registry, door, host.strip("[]"), int(port), mend, fault):
        yield


async def keep_reading(facts: InstallationFacts, shown: ShownInstallation) -> None:
    """Show what goes on in the installation, read now and then until cancelled."""
    silent = False
    while True:
        try:
            shown.facts = await asyncio.to_thread(facts.read)
            silent = False
        except (PenstockError, OSError, ValueError) as error:
            if not silent:  # once, and not every few seconds for as long as a ledger is away
                _log.warning("what goes on cannot be read for the metrics: %s", error)
            silent = True
        await asyncio.sleep(EVERY.total_seconds())


async def keep_fetching(shown: ShownInstallation) -> None:
    """Know when the channels' indexes end, looked at now and then until cancelled."""
    while True:
        if shown.facts is not None:
            await shown.indexes.refresh(shown.facts.channels)
        await asyncio.sleep(EVERY.total_seconds())
