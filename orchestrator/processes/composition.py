"""The composition root of everything that asks: the service with the drivers that the settings choose."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from temporalio.client import Client

from activities.drivers.store.snapshots import SnapshotArchive
from activities.files import FleetFiles
from orchestrator.engine.client import connect
from orchestrator.engine.secured import Secured, secured
from orchestrator.noticing.rules import RulesFile
from orchestrator.processes.page_name import named
from orchestrator.processes.read_again import ReadAgain
from orchestrator.prometheus import prometheus_of
from orchestrator.service.approvals import ApprovalService
from orchestrator.service.changes import ChangeService
from orchestrator.service.checkpoints import Checkpoints, Sink, to_syslog, to_webhook
from orchestrator.service.complaints import ComplaintService
from orchestrator.service.doctor import DoctorService
from orchestrator.service.engine_health import EngineHealth
from orchestrator.service.enrolment import EnrolmentService
from orchestrator.service.people import PeopleFile
from orchestrator.service.planning import PlanService
from orchestrator.service.releases import ReleaseService
from orchestrator.service.service import Service
from orchestrator.service.traffic import TrafficService
from orchestrator.settings import Settings
from orchestrator.store.later import LateEntries
from orchestrator.store.ledger import Ledger
from orchestrator.tracing.chosen import tracing_at
from orchestrator.tracing.interceptor import RunOf
from policies.model.errors import BadInput

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Installation:
    """One installation's service, and the parts of which it is made."""

    settings: Settings
    ledger: Ledger
    changes: ChangeService
    approvals: ApprovalService
    plans: PlanService
    releases: ReleaseService
    service: Service


def checkpoints_of(settings: Settings, ledger: Ledger) -> Checkpoints:
    """Return what signs the audit record's head, and sends it to where the settings say."""
    sinks: list[Sink] = [to_syslog] if settings.audit_syslog else []
    if settings.audit_webhook is not None:
        sinks.append(to_webhook(settings.audit_webhook))
    return Checkpoints(ledger, settings.audit_key, settings.audit_checkpoints, sinks)


def promoted_anywhere(ledger: Ledger, fleets: FleetFiles) -> Callable[[], frozenset[str]]:
    """Return what returns the digests that any gateway of any fleet goes back to."""
    return lambda: frozenset(one.digest for name in fleets.all() for one in ledger.known_good(name).values())


def shown_to_the_engine(settings: Settings) -> Secured:
    """Return how this installation's processes prove themselves to the engine."""
    return secured(
        settings.temporal_address,
        tls=settings.temporal_tls,
        authority=settings.temporal_authority,
        certificate=settings.temporal_certificate,
        key=settings.temporal_key,
        server_name=settings.temporal_server_name,
        api_key=settings.temporal_api_key,
    )


def shown_to_the_engine_now(settings: Settings) -> Callable[[], Secured]:
    """Return what tells how this process proves itself, read again when one of the files has changed.

    Raises:
        BadInput: As of `shown_to_the_engine`.
    """
    files = (
        settings.temporal_authority,
        settings.temporal_certificate,
        settings.temporal_key,
        settings.temporal_api_key,
    )
    what = "what the engine is shown"
    return ReadAgain(what, files, partial(shown_to_the_engine, settings)).value


async def engine_client(
    settings: Settings, process: str, *, lazily: bool = False, run_of: RunOf | None = None
) -> Client:
    """Return a client of this installation's engine, which seals with its keys and traces where it is to.

    `process` is who asks, in its traces, and `run_of` finds the change there that a command is for.

    One that connects lazily finds an engine that does not answer yet.

    Raises:
        Unavailable: It does not answer.
        BadInput: A file for it is missing or wrong, or the packages for tracing are.
    """
    url = settings.tracing_url
    return await connect(
        settings.temporal_address,
        settings.temporal_namespace,
        payload_keys=settings.payload_keys,
        lazily=lazily,
        shown=shown_to_the_engine(settings),
        traced=[tracing_at(url, process, run_of)] if url is not None else [],
    )


SAFE_BUSY_MILLISECONDS = 1_000
"""How long a write of the safe direction waits for other writers; it goes on without the ledger then."""

EVERY_ADDRESS = frozenset({"0.0.0.0", "[::]", "::", ""})  # noqa: S104 - nothing is bound here


def page_of(settings: Settings) -> str | None:
    """Return where people reach the page: as the settings say, or at the API's own address.

    An address of this host without TLS has the installation's own name in its place. None where the API's
    address is every address of this host: no browser opens it, and no provider sends anybody there.
    """
    if settings.page_url is not None:
        return named(settings.page_url, settings.page_name)
    if settings.api_address is None:
        return None
    if settings.api_address.rpartition(":")[0] in EVERY_ADDRESS:
        return None
    scheme = "http" if settings.api_certificate is None else "https"
    return named(f"{scheme}://{settings.api_address}", settings.page_name)


def _page_of(settings: Settings) -> str | None:
    """Return where people reach the page; a page without a name keeps nobody from holding a change."""
    try:
        return page_of(settings)
    except BadInput as error:
        _log.error("there is no page: %s", error)
        return None


async def compose(settings: Settings) -> Installation:
    """Return the service of this installation; the engine need not answer yet."""
    ledger = Ledger.open(settings.ledger_url)
    safe_ledger = Ledger.open(settings.ledger_url, SAFE_BUSY_MILLISECONDS)
    client = await engine_client(settings, "api", lazily=True, run_of=ledger.newest_run)
    changes = ChangeService(client, ledger)
    people = PeopleFile(settings.people)
    approvals = ApprovalService(ledger=ledger, people=people, store=settings.store, trust=settings.trust)
    metrics = prometheus_of(settings)
    plans = PlanService(
        ledger=ledger,
        changes=changes,
        gates=settings.gates,
        trust=settings.trust,
        metrics=metrics,
        approvals=approvals,
    )
    files, points = (
        FleetFiles(settings.fleet, of=settings.fleet_owner_number),
        checkpoints_of(settings, ledger),
    )
    releases = ReleaseService(
        ledger=ledger,
        store=settings.store,
        trust=settings.trust,
        source=settings.source,
        promoted=promoted_anywhere(ledger, files),
    )
    rules = RulesFile(settings.notices) if settings.notices is not None else None
    folders = (settings.store, settings.snapshots, settings.windows, settings.audit_checkpoints.parent)
    health = EngineHealth(client)
    service = Service(
        fleets=files,
        people=people,
        ledger=ledger,
        changes=changes,
        plans=plans,
        traffic=TrafficService(ledger, metrics),
        releases=releases,
        archive=SnapshotArchive(settings.snapshots),
        checkpoints=points,
        doctor=DoctorService(
            *(client, ledger, files, points, metrics, settings.gates, folders, health, people),
            releases=releases,
            notices=rules,
        ),
        health=health,
        complaints=ComplaintService(ledger.engine, settings.complaints_key, settings.tickets_key),
        enrolment=EnrolmentService(ledger, settings.authority),
        late=LateEntries(settings.audit_late),
        page=_page_of(settings),
        notices=rules,
        safe_ledger=safe_ledger,
    )
    return Installation(settings, ledger, changes, approvals, plans, releases, service)
