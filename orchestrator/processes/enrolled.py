"""Whoever takes orders through a relay under one name: where its certificate is, and how it connects."""

from temporalio.client import Client

from activities.refusals import Hears
from orchestrator.engine.client import connect
from orchestrator.engine.secured import secured
from orchestrator.enrolment.host import HostFiles
from orchestrator.enrolment.names import RELAY_NAME
from orchestrator.processes.enrolled_file import EnrolledSettings
from orchestrator.tracing.chosen import tracing_at
from policies.model.errors import BadInput


def files_for(settings: EnrolledSettings, fleet: str, name: str, whose: str) -> HostFiles:
    """Return where the certificate of this name is kept; `whose` is the group of commands for its own file.

    Raises:
        BadInput: The file does not say.
    """
    if settings.certificate is None or settings.key is None or settings.authority is None:
        raise BadInput(
            f"the {whose}'s file names no place for a certificate: add certificate, key and authority"
        )
    return HostFiles(
        fleet=fleet,
        gateway=name,
        certificate=settings.certificate,
        key=settings.key,
        authority=settings.authority,
        payload_keys=settings.payload_keys,
        whose=whose,
    )


def server_name_of(settings: EnrolledSettings) -> str | None:
    """Return what the certificate of the other side has to name."""
    return settings.server_name or (RELAY_NAME if settings.certificate is not None else None)


async def connected_for(settings: EnrolledSettings, queue: str, refused: Hears, *, whose: str) -> Client:
    """Return a client of the relay, or of the engine, for this queue, with what lies in the files now.

    `refused` hears of every payload that is not opened; `whose` is what traces call it, and its own file.

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
        traced=[tracing_at(settings.tracing_url, whose)] if settings.tracing_url is not None else [],
        peer="the engine" if settings.certificate is None else "the relay",
        mend=f"check temporal_address in the {whose}'s file",
    )
