"""Whoever takes orders through a relay under one name: where its certificate is, and how it connects."""

from pathlib import Path
from typing import Protocol

from temporalio.client import Client

from activities.refusals import Hears
from orchestrator.engine.client import connect
from orchestrator.engine.secured import secured
from orchestrator.enrolment.host import HostFiles
from orchestrator.enrolment.names import RELAY_NAME
from orchestrator.tracing.chosen import tracing_at
from policies.model.errors import BadInput


class Enrolled(Protocol):
    """What the own file of an agent, or of a cluster's driver, says of its way to the engine."""

    @property
    def temporal_address(self) -> str:
        """Host and port of a relay, or of the engine itself."""

    @property
    def temporal_namespace(self) -> str:
        """The engine's namespace."""

    @property
    def certificate(self) -> Path | None:
        """By which relays know it; None where no relay is between."""

    @property
    def key(self) -> Path | None:
        """The certificate's key."""

    @property
    def authority(self) -> Path | None:
        """Who vouches for relays."""

    @property
    def server_name(self) -> str | None:
        """What the certificate over there names, where it is not a relay's."""

    @property
    def api_key(self) -> Path | None:
        """The engine's API key, where no relay is between."""

    @property
    def payload_keys(self) -> Path | None:
        """What its orders are sealed with."""

    @property
    def tracing_url(self) -> str | None:
        """The collector of traces."""


def files_for(settings: Enrolled, fleet: str, name: str, file: str) -> HostFiles:
    """Return where the certificate of this name is kept; `file` is what its own file is called.

    Raises:
        BadInput: The file does not say.
    """
    if settings.certificate is None or settings.key is None or settings.authority is None:
        raise BadInput(f"{file} names no place for a certificate: add certificate, key and authority")
    return HostFiles(
        fleet=fleet,
        gateway=name,
        certificate=settings.certificate,
        key=settings.key,
        authority=settings.authority,
        payload_keys=settings.payload_keys,
    )


def server_name_of(settings: Enrolled) -> str | None:
    """Return what the certificate of the other side has to name."""
    return settings.server_name or (RELAY_NAME if settings.certificate is not None else None)


async def connected_for(settings: Enrolled, queue: str, refused: Hears, *, process: str, file: str) -> Client:
    """Return a client of the relay, or of the engine, for this queue, with what lies in the files now.

    `refused` hears of every payload that is not opened; `process` is what traces call it, `file` its own
    file's name.

    Raises:
        Unavailable: It does not answer.
        NotAllowed: It refuses this certificate.
        BadInput: A file is missing or wrong.
    """
    shown = secured(
        settings.temporal_address,
        authority=settings.authority,
        certificate=settings.certificate,
        key=settings.key,
        server_name=server_name_of(settings),
        api_key=settings.api_key,
    )
    return await connect(
        settings.temporal_address,
        settings.temporal_namespace,
        payload_keys=settings.payload_keys,
        queue=queue,
        refused=refused,
        shown=shown,
        traced=[tracing_at(settings.tracing_url, process)] if settings.tracing_url is not None else [],
        peer="the engine" if settings.certificate is None else "the relay",
        mend=f"check temporal_address in {file}",
    )
