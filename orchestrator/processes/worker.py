"""The orchestrator's worker: every workflow, and the steps that belong to no gateway."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from temporalio.service import RPCError
from temporalio.worker import Worker

from activities.admission import ReleaseActivities
from activities.drill_turns import DrillTurnActivities
from activities.drivers.credentials import Credentials
from activities.drivers.metrics.ports import PortProbes
from activities.drivers.metrics.records import FolderRecorder
from activities.drivers.signature.host_lines import first_fault
from activities.drivers.store.blobs import BlobStore
from activities.drivers.store.snapshots import SnapshotArchive
from activities.drivers.trust_files import compose_releases, load_trust, open_source
from activities.facts import FactActivities
from activities.files import FleetFiles
from activities.host_record import CollectingActivities
from activities.ledger import LedgerActivities
from activities.normality import NormalityActivities
from activities.observation import ObservationActivities
from activities.plans import PlanActivities
from activities.sampling import LedgerSampler
from activities.snapshots import ArchiveActivities
from activities.threads import OwnLoop, to_its_end
from activities.watching import WatchActivities
from activities.windows import WindowActivities
from orchestrator.engine.client import enter_network_namespace
from orchestrator.engine.drill_schedules import keep_drilling
from orchestrator.engine.keys import read_keys
from orchestrator.engine.schedules import keep_reconciling
from orchestrator.installation import refuse_strangers
from orchestrator.monitoring.ends import IndexEnds
from orchestrator.monitoring.installation import InstallationFacts
from orchestrator.monitoring.shown import ShownInstallation
from orchestrator.noticing.around import Wrong
from orchestrator.noticing.delivering import Delivering
from orchestrator.noticing.keeping import keep_noticing
from orchestrator.noticing.rules import RulesFile
from orchestrator.noticing.shown import ShownNotices
from orchestrator.processes.beside import begun_again
from orchestrator.processes.composition import checkpoints_of, engine_client, promoted_anywhere
from orchestrator.processes.leaving import leave
from orchestrator.processes.monitored import (
    engine_look,
    keep_fetching,
    keep_reading,
    ledger_look,
    looking,
    monitored,
)
from orchestrator.processes.process import make_worker, run_until_told
from orchestrator.prometheus import prometheus_of
from orchestrator.service.changes import TAKEN_WITHIN, ChangeService
from orchestrator.service.checkpoints import Checkpoints
from orchestrator.service.service import ASKED_AT_ONCE
from orchestrator.settings import Settings, read_settings
from orchestrator.store.complaints import ComplaintList, ComplaintLists
from orchestrator.store.later import LateEntries
from orchestrator.store.ledger import Ledger
from orchestrator.store.requests import REMEMBERED
from orchestrator.store.tickets import TicketLists
from orchestrator.umask import keep_to_itself
from policies.model.change import PENSTOCK
from policies.model.errors import BadInput, PenstockError, Unavailable
from policies.model.fleet import Fleet
from policies.notices.states import NoticeState
from workflows.adopt import Adopt, Examine
from workflows.bake import Bake
from workflows.batch import Batch
from workflows.change import Change
from workflows.drain import Drain
from workflows.install import Install
from workflows.last_look import LastLook
from workflows.patch_window import Opened
from workflows.path import WalkPath
from workflows.preflight import Preflight
from workflows.reconcile import Reconcile
from workflows.reload import Reload
from workflows.restore import Restore
from workflows.snapshot import Snapshot
from workflows.spare_drill import SpareDrill
from workflows.steps import CONTROL_QUEUE
from workflows.survey import Survey
from workflows.watch import Watch
from workflows.wave import Wave

INDEXES = ThreadPoolExecutor(1, thread_name_prefix="indexes")
EXPIRE_EVERY = timedelta(hours=1)
NOTE_EVERY = timedelta(seconds=30)
KEPT_AT_LEAST = timedelta(days=30)
"""How long evidence is kept while no fleet's file says so."""

SWEPT_AFTER = timedelta(days=1)
"""How long what is on no list may still be on its way there."""

_log = logging.getLogger(__name__)

WORKFLOWS = (
    Change,
    Wave,
    Batch,
    Watch,
    Restore,
    Drain,
    Bake,
    Snapshot,
    Survey,
    LastLook,
    Preflight,
    Install,
    Reload,
    Adopt,
    Examine,
    WalkPath,
    Reconcile,
    Opened,
    SpareDrill,
)

Step = Callable[..., Any]
"""An activity."""


async def compose(settings: Settings, fleets: FleetFiles) -> Worker:
    """Return the worker of these fleets, with the drivers that the settings choose."""
    if settings.payload_keys is not None:
        read_keys(settings.payload_keys)  # an API's keys would open no gateway's answer
    client = await engine_client(settings, "worker")
    book = Ledger.open(settings.ledger_url)
    ledger = LedgerActivities(book)
    archive = ArchiveActivities(SnapshotArchive(settings.snapshots), book)
    promoted = promoted_anywhere(book, fleets)
    admission = compose_releases(settings.store, settings.trust, promoted=promoted, fetched=book.note_fetch)
    releases = ReleaseActivities(admission)
    metrics = prometheus_of(settings)
    observation = ObservationActivities(
        metrics,
        offenders=metrics,
        replicas=metrics.sources,
        probes=PortProbes(fleets, book),
        complaints=ComplaintLists(book.engine, fleets),
        tickets=TicketLists(book, fleets),
        recorder=FolderRecorder(settings.windows),
        sampler=LedgerSampler(book),
    )
    windows = WindowActivities(book, fleets, settings.fleets_at_once)
    return make_worker(
        client,
        CONTROL_QUEUE,
        workflows=WORKFLOWS,
        activities=control_activities(
            releases.admit_release,
            WatchActivities(book, observation).watch_wave,
            NormalityActivities(metrics, book).ask_whether_normal,
            windows.ask_window,
            record_activities(
                ledger,
                PlanActivities(book),
                FactActivities(book, fleets),
                CollectingActivities(book, first_fault),
                archive,
                DrillTurnActivities(book, fleets, windows),
            ),
        ),
    )


def control_activities(
    admit_release: Step,
    watch_wave: Step,
    ask_whether_normal: Step,
    ask_window: Step,
    records: Sequence[Step],
) -> list[Step]:
    """Return every step that the workflows may ask a worker for.

    Those that ask the world are given by name, so that whoever scripts them in a worker of its own has all.
    """
    return [admit_release, watch_wave, ask_whether_normal, ask_window, *records]


def record_activities(
    ledger: LedgerActivities,
    plans: PlanActivities,
    facts: FactActivities,
    collecting: CollectingActivities,
    archive: ArchiveActivities,
    turns: DrillTurnActivities,
) -> list[Step]:
    """Return the steps that write down what happened, and read it again."""
    return [
        ledger.open_change,
        ledger.require_open,
        ledger.require_goes_back,
        ledger.close_change,
        ledger.close_others,
        ledger.read_open_changes,
        ledger.find_due_bakes,
        ledger.ends_bakes,
        ledger.record_verdict,
        ledger.record_story,
        ledger.record_gateways,
        ledger.has_moved,
        ledger.quarantine_gateway,
        ledger.leave_to_operators,
        ledger.return_gateways,
        ledger.record_event,
        ledger.record_tests,
        plans.read_header,
        plans.read_part,
        plans.find_moved,
        plans.find_members,
        plans.find_parts,
        plans.promote_part,
        plans.take_back_part,
        plans.record_adopted,
        facts.read_fleet,
        facts.record_states,
        facts.find_short_of_capacity,
        facts.find_strays,
        facts.plan_missed,
        facts.plan_return,
        facts.record_tries,
        facts.plan_undo,
        facts.plan_what_stands,
        facts.find_left_out,
        facts.find_handed_over,
        collecting.collect_host_record,
        archive.keep_snapshot_piece,
        archive.record_snapshot,
        turns.ask_drill_turn,
        turns.record_spare_drill,
    ]


async def main() -> None:
    """Run until told to stop."""
    settings = read_settings()
    enter_network_namespace(settings.network_namespace)
    await run_beside(settings)


@asynccontextmanager
async def watched(
    settings: Settings, worker: Worker, fleets: FleetFiles, notices: Delivering | None = None
) -> AsyncIterator[None]:
    """Tell for the length of the body how the worker is, and what goes on in the installation.

    Raises:
        BadInput: Nobody can be answered at the address of the settings.
    """
    if settings.worker_metrics_address is None:
        yield
        return

    async def runs() -> None:
        if not worker.is_running:
            raise Unavailable("it takes no work")

    book = Ledger.open(settings.ledger_url)
    facts = InstallationFacts(book, fleets, checkpoints_of(settings, book))
    shown = ShownInstallation(IndexEnds(partial(fetch_index, settings)))
    told = [ShownNotices(book, notices)] if notices is not None else []
    works = {"reading what goes on": partial(keep_reading, facts, shown)}
    if settings.source is not None:
        works["fetching indexes"] = partial(keep_fetching, shown)
    looks = {"worker": runs, "engine": engine_look(worker.client), "ledger": ledger_look(book)}
    async with (
        looking(looks) as readiness,
        monitored(settings, "worker", settings.worker_metrics_address, readiness, [shown, *told]),
    ):
        keeping = [asyncio.create_task(begun_again(what, work)) for what, work in works.items()]
        try:
            yield
        finally:
            for task in keeping:
                task.cancel()


async def fetch_index(settings: Settings, product: str, channel: str) -> bytes:
    """Return the index statement of a channel from the release repository of the settings.

    A repository or a Vault that answers nothing holds no thread that a step uses.

    Raises:
        PenstockError: It cannot be had; the sentence says why.
    """
    if settings.source is None:
        raise BadInput("no release repository is set; set PENSTOCK_SOURCE")
    step = OwnLoop(partial(_fetched_index, settings, settings.source, product, channel))
    return await to_its_end(step, give_up=step.give_up, threads=INDEXES)


async def _fetched_index(settings: Settings, repository: str, product: str, channel: str) -> bytes:
    trust = load_trust(settings.trust)
    source = open_source(repository, trust, BlobStore(settings.store), Credentials(os.environ))
    statement, _ = await source.index(product, channel)
    return statement


async def run_beside(settings: Settings) -> None:
    """Run the worker of an engine that answers already, until told to stop."""
    refuse_strangers()
    fleets = FleetFiles(settings.fleet, of=settings.fleet_owner_number)
    worker = await compose(settings, fleets)
    for wrong in await asyncio.to_thread(fleets.wrong):
        _log.warning("a fleet is left alone until its file is mended: %s", wrong)
    beside = [
        asyncio.create_task(keep_reconciling(worker.client, lambda: fleets.all().values())),
        asyncio.create_task(keep_drilling(worker.client, lambda: fleets.all().values())),
        asyncio.create_task(keep_expiring(settings, fleets)),
        asyncio.create_task(keep_noting(settings)),
    ]
    notices = None
    if settings.notices is not None:
        book, rules = Ledger.open(settings.ledger_url), RulesFile(settings.notices)
        notices = Delivering(book, rules)
        points = checkpoints_of(settings, book)
        beside += keep_noticing(
            book, rules, notices, partial(whats_wrong, ChangeService(worker.client, book), points)
        )
    try:
        async with watched(settings, worker, fleets, notices):
            await run_until_told(worker)
    finally:
        for task in beside:
            task.cancel()


async def whats_wrong(changes: ChangeService, points: Checkpoints) -> Wrong:
    """Return what of penstock's own is not as it must be, and which changes may not go on by themselves."""
    parts, wedged = dict[NoticeState, str](), dict[tuple[str, str], str]()
    unbegun = dict[str, str | None]()
    try:
        await engine_look(changes.client)()
    except (RPCError, RuntimeError) as error:
        parts[NoticeState.PART_AWAY] = f"the engine does not answer, so no change goes on: {error}"
    if fault := await asyncio.to_thread(points.quick_fault):
        parts[NoticeState.AUDIT_BROKEN] = fault
    if NoticeState.PART_AWAY not in parts:
        turn = asyncio.Semaphore(ASKED_AT_ONCE)

        async def ask(fleet: str, name: str | None) -> None:
            async with turn:
                seen = await changes.seen_by_engine(fleet, is_open=name is not None, with_stored=False)
            if not seen.silent:
                order = seen.unbegun
                waits = order is not None and datetime.now(UTC) - order.at >= TAKEN_WITHIN
                unbegun[fleet] = seen.concern if waits else None
            if name is not None and seen.unbegun is None and seen.concern:
                wedged[fleet, name] = seen.concern

        found, waiting, running = await asyncio.gather(
            asyncio.to_thread(changes.ledger.every_open_change),
            asyncio.to_thread(changes.ledger.waiting_notices),
            changes.running(),
        )
        told = {one.notice.fleet for one in waiting if one.notice.state == NoticeState.UNBEGUN}
        others = (running | told) - {one.fleet for one in found}
        asked = [(one.fleet, one.name) for one in found] + [(fleet, None) for fleet in sorted(others)]
        await asyncio.gather(*(ask(fleet, name) for fleet, name in asked))
    return Wrong(parts, wedged, unbegun)


async def keep_noting(settings: Settings) -> None:
    """Sign the audit record's head: every hour, after many entries, and soon after what people answer for."""
    book = Ledger.open(settings.ledger_url)
    points, late = checkpoints_of(settings, book), LateEntries(settings.audit_late)
    while True:
        try:
            await asyncio.to_thread(points.publish)
            soon = await asyncio.to_thread(book.is_to_be_signed_since, points.newest_entry)
            await asyncio.to_thread(points.note, now=soon)
            await asyncio.to_thread(late.deliver, book)
        except (PenstockError, OSError) as error:
            _log.warning("the audit record's head was not noted: %s", error)
        await asyncio.sleep(NOTE_EVERY.total_seconds())


def expire_snapshots(book: Ledger, archive: SnapshotArchive, fleets: Iterable[Fleet], now: datetime) -> None:
    """Let go of each fleet's snapshots when `limits.snapshots_kept` is over; of others after 30 days."""
    moments = {fleet.name: now - fleet.limits.snapshots_kept for fleet in fleets}
    for digest in book.expire_snapshots(now - KEPT_AT_LEAST, PENSTOCK, of_fleets=moments):
        archive.discard(digest)
    archive.sweep(book.listed_digests(), now - SWEPT_AFTER)


async def keep_expiring(settings: Settings, fleets: FleetFiles) -> None:
    """Let go of evidence that has been kept long enough, every hour."""
    archive = SnapshotArchive(settings.snapshots)
    book = Ledger.open(settings.ledger_url)
    windows = FolderRecorder(settings.windows)
    while True:
        found = await asyncio.to_thread(fleets.all)
        longest = max((fleet.limits.snapshots_kept for fleet in found.values()), default=KEPT_AT_LEAST)
        now = datetime.now(UTC)
        before = now - longest
        try:
            await asyncio.to_thread(expire_snapshots, book, archive, found.values(), now)
            for fleet in found.values():
                await asyncio.to_thread(ComplaintList(book.engine, fleet).expire, before)
            await asyncio.to_thread(book.expire_tickets, before)
            await asyncio.to_thread(book.forget_states, before)
            await asyncio.to_thread(book.expire_requests, datetime.now(UTC) - REMEMBERED)
            await asyncio.to_thread(windows.expire, before)
        except (PenstockError, OSError) as error:
            _log.warning("old evidence was not removed: %s", error)
        await asyncio.sleep(EXPIRE_EVERY.total_seconds())


if __name__ == "__main__":
    keep_to_itself()
    asyncio.run(main())
    leave(0)
