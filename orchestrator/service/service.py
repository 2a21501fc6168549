"""The service: everything a frontend may ask, each question and command authorised, audited and done here.

Frontends parse, ask and show; they import this package and nothing below it.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple, TypeVar
from weakref import WeakValueDictionary

from activities.drivers.store.snapshots import SnapshotArchive
from activities.files import FleetFiles
from activities.refusals import PolicyInvalid
from activities.releases import Admitted
from orchestrator.noticing.rules import RulesFile
from orchestrator.refusals import Refusals
from orchestrator.service.acting import Acting
from orchestrator.service.agent_certificates import AgentCertificateService
from orchestrator.service.approvals import AnyPlan
from orchestrator.service.auditing import AuditService
from orchestrator.service.background import FLEETS, LOOKS, PLANS, PREVIEWS
from orchestrator.service.caller_refusals import CallerRefusals
from orchestrator.service.changes import ChangeService, LockHolder, Turned
from orchestrator.service.chat import ChatService
from orchestrator.service.chat_links import ChatLinks
from orchestrator.service.chat_sessions import ChatSessions
from orchestrator.service.checkpoints import Checkpoints
from orchestrator.service.complaints import ComplaintService
from orchestrator.service.decisions import DecisionRow, DecisionView, decision_of, decisions_of
from orchestrator.service.desired import (
    AppliedUpgrade,
    DesiredService,
    UpgradeApplied,
    Wish,
    action_to_apply,
    is_following,
    require_following,
    upgrade_in,
)
from orchestrator.service.doctor import DoctorService, Finding
from orchestrator.service.drains import Drains, DrainService
from orchestrator.service.drift import Drift, DriftService
from orchestrator.service.drills import DrillService
from orchestrator.service.due import DueService
from orchestrator.service.engine_health import EngineHealth
from orchestrator.service.enrolment import EnrolmentService, EnrolmentToken
from orchestrator.service.evidence import Evidence
from orchestrator.service.fleets import Fleets, record_for
from orchestrator.service.foreign_files import read_upgrade
from orchestrator.service.glances import Glance, glances_of
from orchestrator.service.handovers import HandoverService
from orchestrator.service.notices import NoticeService
from orchestrator.service.one_person import KnownNames, one_person
from orchestrator.service.page_logins import PageLogins
from orchestrator.service.patience import AUTHORISERS, authorised, recognised, recognised_here
from orchestrator.service.people import SUPERUSER, PeopleFile
from orchestrator.service.pins import pinned
from orchestrator.service.planning import PlanService, PlanView
from orchestrator.service.quarantine import QuarantineService, Returned
from orchestrator.service.rebuilding import RebuildingService, Rebuilt
from orchestrator.service.releases import ReleaseService
from orchestrator.service.reports import ReportService
from orchestrator.service.signals import signals_about
from orchestrator.service.standing import Standing, standing_of
from orchestrator.service.surveys import Surveyed
from orchestrator.service.telling import ChangeView, told_of
from orchestrator.service.tokens import TokenService
from orchestrator.service.traffic import TrafficService
from orchestrator.service.ways_back import WaysBack, require_shown
from orchestrator.service.windows import WindowService
from orchestrator.store.later import LateEntries
from orchestrator.store.ledger import Ledger
from orchestrator.store.states import GatewayRow
from orchestrator.store.stories import StoryRow
from orchestrator.store.tokens import TOKENS_BEGIN
from policies.access import (
    NEEDS_FILE,
    SAFE_DIRECTION,
    Action,
    action_of,
    is_known_to,
    may,
    may_there,
    open_to,
    refusal_of,
)
from policies.adoption import apart
from policies.harm_asked import harmed_by
from policies.model.adoption import Examined
from policies.model.approval import Approval
from policies.model.change import (
    MOVES_NOBODY,
    ChangeKind,
    ChangeRecord,
    HistoryRow,
    Outcome,
    Phase,
)
from policies.model.changelog import headline
from policies.model.command import Command, CommandKind, CommandReceipt, StoredCommand, StoredOrder
from policies.model.desired import AppliedKind, Pin, StartWhen, WishState
from policies.model.drain import DrainEnding, DrainExtension
from policies.model.errors import (
    BadInput,
    Conflict,
    NotAllowed,
    PenstockError,
    Refused,
    TooMany,
    Unavailable,
    Unknown,
)
from policies.model.fleet import Fleet
from policies.model.handover import Duty
from policies.model.offer import Offer, Verb
from policies.model.path import PathWalked
from policies.model.people import EVERY_FLEET, Caller, Via
from policies.model.plan import ReleaseRef, Strategy
from policies.model.plan_part import PlanHeader
from policies.model.release import ReleaseRow
from policies.model.request import Answer
from policies.model.signal import Signals
from policies.model.snapshot import SnapshotRow
from policies.model.status import ChangeStatus, EventRow
from policies.model.value import Digest, Value
from policies.model.way_back import RELEASE_OF_BEFORE, RollbackAsked, RollbackPreview
from policies.model.windows import WindowOverride
from policies.planning.outline import PlanOutline, outlined
from policies.rebuilding import nothing_starts
from policies.status.stored import after_stored
from policies.traffic import Traffic

T = TypeVar("T")


def is_beginning(written: str, digest: str) -> bool:
    """Return whether somebody wrote this digest, or enough of its beginning."""
    return digest.removeprefix("sha256:").startswith(written.removeprefix("sha256:").removeprefix("p-"))


MOST_SNAPSHOTS = 200
"""Snapshots that are listed, the newest; older ones are found by their change."""

ANOTHER_PERSONS = {CommandKind.PROMOTE, CommandKind.APPROVE}
"""What whoever asked for a change cannot give it themselves."""

SHOWN_WITHIN_SECONDS = 2.0
"""How long an order that was heard waits for the ledger to tell of it, which is what every screen reads."""

PREVIEWED_WITHIN_SECONDS = 3.0
"""How long a caller waits for what a rollback does."""

ASKED_AT_ONCE = 32
"""Changes that the engine is asked about side by side."""

SHORT_HISTORY = 50
"""Changes that are listed beside how their fleet stands; longer lists wait among the long answers."""

OF_DRAINS = (Verb.DRAINS, Verb.EXTEND, Verb.END)


class FleetStatus(Value):
    """How a fleet stands: what its newest change tells, what it is on, and who was left out."""

    fleet: str
    change: ChangeStatus | None = None
    standing: Standing
    fault: str | None = None
    """What is wrong with its file; then the fleet is shown as it was when an upgrade was last planned."""
    concern: str | None = None
    """Why its change may not go on, or no change can begin: no worker runs, or the engine is away."""
    stored: tuple[StoredCommand, ...] = ()
    """Commands that the engine has stored for its change, and that no worker has carried out yet."""
    unbegun: StoredOrder | None = None
    """The order of a newer change than `change`, which no worker has begun yet."""
    offers: tuple[Offer, ...] = ()
    pin: Pin | None = None
    """The release that the fleet went back from last, and does not get by itself."""
    unconfirmed: str | None = None
    """Why the fleet is pinned against every release: its ledger was restored or rebuilt."""
    signals: Signals | None = Signals()
    """What people said while its newest change went on; None where that is not known now."""
    duty: Duty | None = None
    """Who has the fleet, where anybody ever handed it over."""
    silent_rooms: tuple[str, ...] = ()
    """Rooms of the fleet in which the process of the chat receives nothing, each with why."""
    recurring: str | None = None
    """What begins by itself next, or what keeps it; None in a fleet that asks for no recurring upgrades."""

    @property
    def outcome(self) -> Outcome | None:
        """How the newest change ended, None while it goes on or when there never was one."""
        return self.change.outcome if self.change is not None else None


class _Known(NamedTuple):
    """What the ledger knows of a fleet at one moment, the same for every caller."""

    standing: Standing
    recurring: str | None
    silent_rooms: tuple[str, ...]
    newest: ChangeRecord | None
    change: ChangeStatus | None = None
    """What the newest change reports."""
    offers: tuple[Offer, ...] = ()
    pin: Pin | None = None
    unconfirmed: str | None = None
    signals: Signals | None = Signals()
    duty: Duty | None = None


class Service:
    """One installation, as everybody may use it."""

    def __init__(
        self,
        *,
        fleets: FleetFiles,
        people: PeopleFile,
        ledger: Ledger,
        changes: ChangeService,
        plans: PlanService,
        traffic: TrafficService,
        releases: ReleaseService,
        archive: SnapshotArchive,
        checkpoints: Checkpoints,
        complaints: ComplaintService,
        doctor: DoctorService,
        enrolment: EnrolmentService,
        health: EngineHealth,
        late: LateEntries,
        page: str | None = None,
        notices: RulesFile | None = None,
        safe_ledger: Ledger | None = None,
    ) -> None:
        """Take the parts; `safe_ledger` is the ledger by connections that only the safe direction uses."""
        self.people = people
        self._refusals = Refusals(ledger)
        self._noting = set[asyncio.Task[None]]()
        refused = CallerRefusals(ledger, late)
        self._refused = refused
        self._fleets = Fleets(fleets, refused)
        self._ledger = ledger
        self._safe = safe_ledger or ledger
        self._acts = Acting(ledger, late, self._safe, refused)
        self._changes = changes
        self._stops = ChangeService(changes.client, self._safe, AUTHORISERS)
        self._drains = DrainService(changes.client, changes)
        self._drift = DriftService(changes)
        self._quarantine = QuarantineService(changes)
        self._plans = plans
        self._traffic = traffic
        self._releases = releases
        self._rebuilding = RebuildingService(ledger, changes, releases)
        self._archive = archive
        self.reports = ReportService(ledger, self._fleets, self._acts, partial(told_of, ledger))
        self.notices = NoticeService(ledger, self._fleets, self._acts, notices)
        self.drills = DrillService(ledger, self._acts)
        self.handovers = HandoverService(ledger, self._fleets, self._acts)
        self.audit = AuditService(ledger, checkpoints, self._fleets, self._acts)
        self.tokens = TokenService(ledger, people, self._acts)
        self.page_logins = PageLogins(ledger, people, self._acts, page, self._safe, self._refusals)
        self.chat_links = ChatLinks(ledger, people, self._acts, page, self._safe)
        sessions = ChatSessions(ledger, changes.surveys)
        self.chat = ChatService(self, ledger, fleets, self.chat_links, self._acts, sessions, self._refusals)
        self.certificates = AgentCertificateService(ledger, self._fleets)
        self.desired = DesiredService(self._fleets, fleets, ledger, people, self._acts)
        self.windows = WindowService(self._fleets, fleets, ledger, self._acts)
        self.due = DueService(ledger, self.desired, self.windows)
        self.complaints = complaints
        self._doctor = doctor
        self._enrolment = enrolment
        self._health = health
        self._late = late
        self._one_examination = asyncio.Lock()
        self._own_turns = WeakValueDictionary[str, asyncio.Lock]()

    # --- who asks --------------------------------------------------------------------

    async def caller_of_token(self, token: str, caller_at: str) -> Caller:
        """Return who shows this: a machine its token, a person what the identity provider gave them.

        Raises:
            NotAllowed: It is good for nothing, or for nothing any more.
            Unavailable: The key that it names is not held, and the identity provider does not answer.
        """
        if token.startswith(TOKENS_BEGIN):
            found = await recognised(partial(self._safe.caller_of, token, Via.API))
            self._note_use(token)
        else:
            reading = await recognised(partial(self.people.reading_for, token))
            if reading is not None:  # in no thread: a hold or a rollback needs it
                await reading.wait()
            found = await recognised(partial(self._logged_in, token))
        return found.model_copy(update={"address": caller_at})

    def _logged_in(self, token: str) -> Caller:
        return one_person(self._safe, self.people.of_login(token))

    async def caller_at_the_socket(self, uid: int) -> Caller:
        """Return who has this user number on the orchestrator's host.

        Raises:
            NotAllowed: Nobody who is known has it.
            BadInput: The file of people is wrong, and this is not root.
        """
        look_up, is_known = partial(self.people.at_the_socket, uid), self.people.is_known(uid)
        return await recognised_here(look_up, is_root=uid == SUPERUSER, is_known=is_known)

    def _note_use(self, token: str) -> None:
        """Write down beside the request that the token was used."""

        async def note() -> None:
            with suppress(Unavailable):
                await asyncio.to_thread(self._ledger.note_use, token)

        noting = asyncio.create_task(note())
        self._noting.add(noting)
        noting.add_done_callback(self._noting.discard)

    def note_refused_token(self, caller_at: str, refused: NotAllowed) -> None:
        """Count a token that is good for nothing; the record has such refusals in sum."""
        self._refusals.note(Via.API, "token refused", caller_at, str(refused))

    async def read_people(self) -> None:
        """Have the user numbers of people known, by which their connections are told from those of others."""
        with suppress(BadInput, OSError):  # of a file that is wrong, the version before it counts
            await asyncio.to_thread(self.people.read_users)

    async def remember_people(self) -> None:
        """Have the ledger know by what each person of people.yaml is recognised, also who does nothing.

        Raises:
            Unavailable: The ledger does not answer.
        """
        with suppress(BadInput):  # of a file that is wrong, the version before it is remembered
            await asyncio.to_thread(lambda: self._ledger.know_people(self.people.identified()))

    async def write_refusals(self) -> int:
        """Write the refusals that were counted and are due; return how many entries.

        Raises:
            Unavailable: The ledger does not answer; what is due stays.
        """
        strangers = await asyncio.to_thread(self._refusals.write)
        return strangers + await asyncio.to_thread(self._refused.write)

    async def fleets(self, caller: Caller) -> tuple[str, ...]:
        """Return the fleets where the caller has a role."""
        return await asyncio.to_thread(self._fleets.names, caller)

    async def read_files(self) -> None:
        """Have every fleet's file and the trust policy read: who asks first does not wait for them.

        A trust policy that is wrong is told to whoever needs it.
        """
        await asyncio.to_thread(self._fleets.read)
        with suppress(PolicyInvalid):
            await asyncio.to_thread(self._releases.read_trust)

    async def deliver_late_entries(self) -> int:
        """Write into the record what the ledger could not take before; return how many entries."""
        return await asyncio.to_thread(self._late.deliver, self._ledger)

    # --- questions -------------------------------------------------------------------

    async def status(self, caller: Caller, fleet: str) -> FleetStatus:
        """Return how the fleet stands, from the ledger; the engine is only asked whether changes run.

        Raises:
            TooMany: The caller asks about too many fleets at once.
        """
        named, fault = await self._seen_and_fault(caller, fleet)
        known = await FLEETS.run(partial(self._known, named), caller.person, key=("status", fleet, id(named)))
        change = known.change
        is_open = known.newest is not None and known.newest.outcome is None
        look = self._changes.seen_by_engine(fleet, is_open=is_open)
        concern, seen = await asyncio.gather(self._health.concern(), look)
        offers = known.offers
        if is_open:
            offers = (*seen.helps, *after_stored(offers, seen.stored))
        if known.unconfirmed is not None:
            offers += (Offer(verb=Verb.UNPIN, fleet=fleet),)
        if known.pin is not None:
            offers += (Offer(verb=Verb.UNPIN, fleet=fleet, release=known.pin.version),)
        if change is not None:
            offers = tuple(one for one in offers if not _is_quarantined(one, known.standing, change))
        return FleetStatus(
            fleet=fleet,
            change=change,
            standing=known.standing,
            fault=fault,
            concern=seen.concern or concern,
            stored=seen.stored,
            unbegun=seen.unbegun,
            offers=_open_to(caller, offers, fault, fleet),
            pin=known.pin,
            unconfirmed=known.unconfirmed,
            signals=known.signals,
            duty=known.duty,
            silent_rooms=known.silent_rooms,
            recurring=known.recurring,
        )

    def _known(self, fleet: Fleet) -> _Known:
        """Return what the ledger knows of the fleet now."""
        newest, standing = self._ledger.last_change(fleet.name), standing_of(fleet, self._ledger)
        silent = tuple(one.why for one in self._ledger.silent_rooms() if one.fleet == fleet.name)
        known = _Known(standing, self.due.told(fleet), silent, newest)
        drains = [Offer(verb=verb, fleet=fleet.name) for verb in OF_DRAINS if standing.held_drains]
        if newest is None:
            first = (Verb.PLAN,) if standing.taking else (Verb.EXAMINE, Verb.INSTALL)
            begins = [Offer(verb=verb, fleet=fleet.name) for verb in first]
            return known._replace(offers=(*begins, *drains))
        change = told_of(self._ledger, newest, datetime.now(UTC))
        offers = (*_without_silent(change, standing), *change.can_do, *drains)
        if newest.outcome is not None:
            offers = WaysBack(self._ledger).offered(fleet, offers + self._ways_back(newest))
        duty = self._ledger.duty(fleet.name)
        ledger = self._ledger.unconfirmed(fleet.name)
        return known._replace(
            change=change,
            offers=offers,
            pin=self.desired.pins.last(fleet.name),
            unconfirmed=nothing_starts(ledger) if ledger is not None else None,
            signals=signals_about(self._ledger, newest, len(fleet.gateways)),
            duty=duty if duty != Duty() else None,
        )

    async def stored(self, fleet: str) -> tuple[StoredCommand, ...]:
        """Return the commands that are stored for the fleet's change; the caller may read the fleet."""
        return await self._changes.stored(fleet)

    async def change_to_stop(self, fleet: str) -> ChangeStatus | None:
        """Return how the newest change stands, for an operator who may hold it or roll it back.

        Raises:
            Unavailable: The ledger does not answer soon; neither order needs this answer.
        """

        def told() -> ChangeStatus | None:
            newest = self._safe.last_change(fleet)
            return told_of(self._safe, newest) if newest is not None else None

        return await self._acts.patience.ask(told)

    async def require_readable(self, caller: Caller, fleet: str) -> None:
        """Return when the caller may look at the fleet.

        Raises:
            Unknown: There is no such fleet, as far as the caller may know.
        """
        await self._seen(caller, fleet)

    async def require_command(self, caller: Caller, kind: CommandKind, fleet: str) -> None:
        """Return when the caller may give the fleet this command.

        Raises:
            Unknown: There is no such fleet, as far as the caller may know.
            NotAllowed: The caller has another role there.
        """
        await self._of_change(caller, action_of(kind), fleet)

    async def glances(self, caller: Caller) -> tuple[Glance, ...]:
        """Return how every fleet stands that the caller may look at, those that need somebody first."""
        known = {fleet.name: fleet for fleet in await asyncio.to_thread(self._fleets.of, caller)}
        faults = dict[str, str | None]()
        for name in {*await asyncio.to_thread(self._fleets.names, caller)} - known.keys():
            with suppress(PenstockError):  # nobody may look at it, or nothing was ever planned
                known[name], faults[name] = await self._seen_and_fault(caller, name)
        fleets = [fleet for name, fleet in known.items() if may(caller, Action.READ, name)]
        shared = ("glances", *map(id, fleets))
        found = await FLEETS.run(partial(glances_of, self._ledger, fleets), caller.person, key=shared)
        turn = asyncio.Semaphore(ASKED_AT_ONCE)

        concern, running = await asyncio.gather(self._health.concern(), self._changes.running())

        async def with_concern(one: Glance) -> Glance:
            stuck, is_open = None, one.change is not None and one.change.under_way
            if is_open or one.fleet in running:
                look = self._changes.seen_by_engine(one.fleet, is_open=is_open, with_stored=False)
                async with turn:
                    stuck = (await look).concern
            more = {"concern": stuck or concern, "fault": faults.get(one.fleet)}
            return one.model_copy(update=more)

        return tuple(sorted(await asyncio.gather(*map(with_concern, found)), key=lambda one: one.urgency))

    async def history(
        self, caller: Caller, fleet: str, limit: int, before: str | None = None
    ) -> tuple[HistoryRow, ...]:
        """Return the fleet's changes, the newest first.

        Raises:
            TooMany: The caller has too many long requests under way.
        """
        await self._seen(caller, fleet)
        find = partial(self._history, fleet, limit, before)
        pool = FLEETS if limit <= SHORT_HISTORY else LOOKS
        return await pool.run(find, caller.person, key=("history", fleet, limit, before))

    def _history(self, fleet: str, limit: int, before: str | None) -> tuple[HistoryRow, ...]:
        rows = self._ledger.history(fleet, limit, before)
        said = self._ledger.changelogs({row.release_digest for row in rows if row.release_digest})
        return tuple(
            row.model_copy(update={"headline": headline(said.get(row.release_digest or "", ""))})
            for row in rows
        )

    async def change(self, caller: Caller, name: str) -> ChangeView:
        """Return one change of whatever fleet the caller may look at, and what it tells."""
        record = await self._record(caller, Action.READ, name)
        status = await asyncio.to_thread(told_of, self._ledger, record, datetime.now(UTC))
        described = await asyncio.to_thread(self._fleets.described, record.fleet)
        gateways = len(described.gateways) if described is not None else sum(status.counts.values())
        signals = await asyncio.to_thread(signals_about, self._ledger, record, gateways)
        harm = await asyncio.to_thread(self._ledger.newest_harm, record.name)
        return ChangeView(record=record, status=status, signals=signals, harm=harm)

    async def decisions(self, caller: Caller, name: str, after: int, limit: int) -> tuple[DecisionRow, ...]:
        """Return a page of what the gates of a change decided, from the ledger alone."""
        record = await self._record(caller, Action.READ, name)
        find = partial(decisions_of, self._ledger, record.name, after, limit)
        key = ("decisions", self, record.name, after, limit)
        return await LOOKS.run(find, caller.person, key=key)

    async def decision(self, caller: Caller, name: str, number: int) -> DecisionView:
        """Return one decision of a change, with the rules that made it; from the ledger alone."""
        record = await self._record(caller, Action.READ, name)
        find = partial(decision_of, self._ledger, record, number)
        return await LOOKS.run(find, caller.person, key=("decision", self, record.name, number))

    async def evidence(self, caller: Caller, name: str) -> Evidence:
        """Return what reads, in a pool, how the gates of one change measured and decided."""
        return Evidence(self._ledger, await self._record(caller, Action.READ, name))

    async def events_of_change(
        self, caller: Caller, name: str, after: int, limit: int = 200
    ) -> tuple[EventRow, ...]:
        """Return what happened in one change after the event of that number."""
        record = await self._record(caller, Action.READ, name)
        return await asyncio.to_thread(self._ledger.events_of_change, record.name, after, limit)

    async def events(self, caller: Caller, fleet: str, after: int, limit: int = 200) -> tuple[EventRow, ...]:
        """Return what happened in the fleet after the event of that number."""
        await self._seen(caller, fleet)
        return await asyncio.to_thread(self._ledger.events_of_fleet, fleet, after, limit)

    async def sessions(self, caller: Caller, fleet: str) -> Surveyed:
        """Return what is true of every gateway, as of the answer's `as_of`.

        Callers who may start changes have every gateway asked now. All others share one survey.
        """
        return await self._surveyed(caller, await self._seen(caller, fleet))

    async def _surveyed(self, caller: Caller, fleet: Fleet) -> Surveyed:
        surveys = self._changes.surveys
        if may(caller, Action.START, fleet.name):
            return await surveys.fresh(fleet, caller.person)
        return await surveys.shared(fleet)

    async def walk(self, caller: Caller, fleet: str, gateway: str) -> PathWalked:
        """Return what keeps users' packets from passing through the gateway; of each person one at a time.

        Callers who may start changes have a tunnel tried now. All others share what was found.

        Raises:
            BadInput: The fleet has no such gateway.
            TooMany: Tunnels of the fleet were tried too often for callers who may start no changes.
            Unavailable: Its agent does not answer.
        """
        asked, surveys = await self._seen(caller, fleet), self._changes.surveys
        walk = surveys.walk if may(caller, Action.START, fleet) else surveys.walk_shared
        own_turn = self._own_turns.setdefault(caller.person, asyncio.Lock())
        async with own_turn:
            return await walk(asked, gateway)

    async def gateways(self, caller: Caller, fleet: str, after: str, limit: int) -> tuple[GatewayRow, ...]:
        """Return what gateways said of themselves when they were last looked at; none is asked now.

        Args:
            caller: Who asks.
            fleet: Whose gateways.
            after: Only those whose name comes after this one.
            limit: How many at most.
        """
        named = await self._seen(caller, fleet)
        names = sorted(one.name for one in named.gateways if one.name > after)[:limit]
        return await asyncio.to_thread(self._ledger.gateway_rows, fleet, names)

    async def gateway(self, caller: Caller, fleet: str, gateway: str) -> GatewayRow:
        """Return what one gateway said of itself when it was last looked at; Unknown without such a one."""
        named = await self._seen(caller, fleet)
        names = _named_in(named, (gateway,))
        return (await asyncio.to_thread(self._ledger.gateway_rows, fleet, names))[0]

    async def traffic(self, caller: Caller, fleet: str) -> Traffic:
        """Return how many sessions live on which release now, by the fleet's metrics."""
        named = await self._seen(caller, fleet)
        newest = await asyncio.to_thread(self._ledger.last_change, fleet)
        header = None
        if newest is not None and newest.plan is not None:
            header = await asyncio.to_thread(self._ledger.plan_header, newest.plan)
        return await self._traffic.of(named, header.release if header is not None else None)

    async def drains(self, caller: Caller, fleet: str) -> Drains:
        """Return what drains on the fleet's gateways, with the counts of `sessions`."""
        named = await self._seen(caller, fleet)
        survey = await self._surveyed(caller, named)
        return Drains(drains=await self._drains.drains(named, survey), as_of=survey.as_of)

    async def drift(self, caller: Caller, fleet: str) -> Drift:
        """Return where what runs, the fleet's file and the agents' files differ."""
        named = await self._seen(caller, fleet)
        return await self._drift.drift(named, caller.person, await self._surveyed(caller, named))

    async def releases(self, caller: Caller) -> tuple[ReleaseRow, ...]:
        """Return the releases of the products of the fleets that the caller may look at.

        Raises:
            TooMany: The caller has too many long requests under way.
        """
        products = {fleet.product for fleet in await asyncio.to_thread(self._fleets.of, caller)}
        rows = await LOOKS.run(self._ledger.releases, caller.person, key=("releases", self))
        return tuple(row for row in rows if row.release.product in products)

    async def plan(self, caller: Caller, fleet: str, to: str, strategy: Strategy) -> PlanView:
        """Return what an upgrade would do, and what the fleet's traffic can prove; no gateway is changed.

        The plan is kept, so that others can approve it.
        """
        named = await self._asked(caller, Action.PLAN, fleet)
        made = await self._plans.plan(named, to, strategy, caller.person)

        def kept() -> PlanOutline:
            self._ledger.record_plan(made, caller.person)
            return outlined(made)

        view = await self._plans.view(await PLANS.run(kept, caller.person), named, caller.person, PLANS)
        return view.model_copy(update={"window": await self.windows.sentence_for(made)})

    async def planned(self, caller: Caller, plan: str) -> PlanView:
        """Return a plan that somebody made, by its digest or the beginning of it, and who approved it."""
        found = await self._plan_of(caller, Action.READ, plan)
        fleet = await self._seen(caller, found.fleet)
        view = await self._plans.view(found, fleet, caller.person)
        if view.release is None:  # a reload waits for no window
            return view
        whole = await LOOKS.run(partial(self._ledger.plan, found.digest), caller.person)
        return view.model_copy(update={"window": await self.windows.sentence_for(whole)})

    async def examine(self, caller: Caller) -> tuple[Finding, ...]:
        """Return what is well and what is not, of the fleets that the caller may look at."""
        fleets = await asyncio.to_thread(self._fleets.of, caller)
        unread = await asyncio.to_thread(self._fleets.faults, caller, {fleet.name for fleet in fleets})
        everything = may_there(caller, Action.READ, EVERY_FLEET)
        anew = any(may(caller, Action.START, fleet.name) for fleet in fleets)
        own_turn = self._own_turns.setdefault(caller.person, asyncio.Lock())
        async with own_turn, self._one_examination:  # whoever asks a hundred times is one of those who wait
            return await self._doctor.examine(fleets, unread, everything=everything, anew=anew)

    async def release(self, caller: Caller, name: str) -> ReleaseRow:
        """Return one release of a product that the caller has to do with, and what it changes."""
        rows = await self.releases(caller)
        row = await asyncio.to_thread(self._releases.named, name, rows)
        said = await asyncio.to_thread(self._ledger.changelogs, [row.release.digest])
        return row.model_copy(update={"changelog": said.get(row.release.digest, "")})

    async def snapshots(
        self, caller: Caller, fleet: str, change: str | None = None
    ) -> tuple[SnapshotRow, ...]:
        """Return which evidence of failures is kept of the fleet, the newest first."""
        await self._seen(caller, fleet)
        find = partial(self._ledger.kept_snapshots, fleet, change, limit=MOST_SNAPSHOTS)
        return await LOOKS.run(find, caller.person)

    async def snapshot(self, caller: Caller, fleet: str, name: str) -> bytes:
        """Return one failure's evidence, its digest checked again."""
        await self._asked(caller, Action.READ_SNAPSHOTS, fleet)
        row = await asyncio.to_thread(self._ledger.snapshot_named, fleet, name)
        return await asyncio.to_thread(self._archive.read, row.digest)

    # --- commands --------------------------------------------------------------------

    async def start(
        self,
        caller: Caller,
        fleet: str,
        to: str,
        strategy: Strategy,
        reason: str,
        *,
        digest: str | None = None,
        even_if_unusual: bool = False,
        in_window: bool = False,
        ticket: str | None = None,
        key: str | None = None,
    ) -> str | None:
        """Start an upgrade; return the change's name, None until a worker has given it one.

        Raises:
            Conflict: Another change is under way, or the plan is another one now.
            ApprovalRequired: The plan needs more people than have approved it.
            Refused: Its fleet is outside of every window or frozen, and it is neither to wait (`in_window`)
                nor overrides that, which takes a `ticket` and one person more than the plan needs.
        """
        named = await self._asked(caller, Action.START, fleet)

        async def begin(request: str | None) -> str | None:
            plan = await self._plans.plan(named, to, strategy, caller.person)
            if not plan.waves:
                raise Refused(f"there is nothing to do: {to} would change no gateway of {fleet}")
            if caller.machine:  # a person who names the release knows what became of it: the plan says so
                await asyncio.to_thread(self.desired.pins.require_none, fleet, plan.release.digest)
            again = Offer(verb=Verb.PLAN, fleet=fleet, release=to)
            outline = await PLANS.run(partial(outlined, plan), caller.person)
            people = await self._require(caller, outline, digest, again, more=1 if ticket else 0)
            override, start_by = None, None
            if ticket:
                override = WindowOverride(
                    person=caller.person,
                    reason=reason,
                    ticket=ticket,
                    at=datetime.now(UTC),
                    approved_by=people,
                )
            else:
                start_by = (await self.windows.terms(plan, in_window=in_window)).start_by
                needed = await asyncio.to_thread(self._plans.approvals.required, outline)
                start_by = (
                    start_by if needed.count else None
                )  # what nobody approved for a night has all of them
            return await self._changes.start(
                plan,
                self._releases.repository,
                caller.person,
                reason,
                even_if_unusual=even_if_unusual,
                start_by=start_by,
                override=override,
                key=request,
            )

        asked = {"to": to, "reason": reason, "in_window": in_window, "overrides_windows": ticket}
        return await self._begun_once(caller, "upgrade asked for", fleet, asked, key, begin)

    async def apply_upgrade(
        self, caller: Caller, fleet: str, asked: UpgradeApplied, *, key: str | None = None
    ) -> AppliedUpgrade:
        """Bring the fleet to the release of a file, as far as that says; a repeat changes nothing.

        Raises:
            Refused: The fleet went back from it, or the file may be older than what was applied last.
            Conflict: Another change is under way, or the plan is another one now.
            ApprovalRequired: The plan needs more people than have approved it.
        """
        await self._asked(caller, Action.PLAN, fleet)  # before the file is parsed, which takes time
        wanted = upgrade_in(await read_upgrade(asked.file, PLANS, caller.person), fleet)
        named = await self._asked(caller, action_to_apply(wanted), fleet)
        if begun := await self._changes.begun_before(caller.request(key)):
            return AppliedUpgrade(state=WishState.UNDER_WAY, start=wanted.start, change=begun, started=True)

        async def look() -> Wish:
            found = await asyncio.to_thread(self.desired.wish, named, wanted)
            if found.pin is not None and found.state is not WishState.REACHED:
                raise pinned(fleet, found.pin)
            if found.unconfirmed is not None:
                await asyncio.to_thread(self.desired.pins.require_confirmed, fleet)
            if found.state is WishState.WANTED:
                require_following(found.last, asked)
            if found.state is WishState.BUSY:
                sentence = f"{found.change} is under way, which leads {fleet} elsewhere; apply it afterwards"
                raise Conflict(sentence, Offer(verb=Verb.WATCH, fleet=fleet))
            return found

        said = {"release": wanted.release, "commit": asked.commit, "reason": wanted.reason}
        found = await self._acts.audited(caller, "upgrade applied", fleet, said, look)
        starts = found.state is WishState.WANTED and wanted.start is not StartWhen.NEVER
        change = found.change
        if starts:
            change = await self.start(
                caller,
                fleet,
                wanted.release,
                wanted.strategy,
                wanted.reason,
                digest=asked.plan,
                in_window=wanted.start is StartWhen.IN_WINDOW,
                key=key,
            )
        if is_following(found.last, asked):  # what is there anyway does not make an older commit the newest
            record = partial(self._ledger.record_revision, fleet, AppliedKind.UPGRADE, asked.file.text)
            await asyncio.to_thread(record, caller.person, commit=asked.commit, author=asked.author)
        in_window = starts and wanted.start is StartWhen.IN_WINDOW
        waits = await self.windows.waited_for(change) if in_window else None
        return AppliedUpgrade(
            state=found.state, start=wanted.start, change=change, started=starts, waits=waits
        )

    async def approve_plan(self, caller: Caller, plan: str, reason: str) -> Approval:
        """Approve a plan that somebody else means to start; it binds to everything the plan names."""
        found = await self._plan_of(caller, Action.ANSWER, plan)

        async def approve() -> Approval:
            return await asyncio.to_thread(self._plans.approvals.approve, found, caller, reason)

        asked = {"plan": found.digest, "reason": reason}
        return await self._acts.audited(caller, "approval asked for", found.fleet, asked, approve)

    async def command(
        self,
        caller: Caller,
        fleet: str,
        kind: CommandKind,
        reason: str,
        *,
        key: str | None = None,
        hold_of: str | None = None,
        approves: str | None = None,
        change: str | None = None,
    ) -> CommandReceipt:
        """Give the fleet's change a command in the caller's own name, if it is still the one that was shown.

        Raises:
            Conflict: It makes no sense now, or another change is the newest.
        """
        safe = kind in SAFE_DIRECTION
        own = kind is CommandKind.RESUME and hold_of in {None, caller.person}
        action = Action.STOP if own else action_of(kind)  # who may hold may lift their own hold
        await self._of_change(caller, action, fleet)
        if caller.machine and kind is CommandKind.PROMOTE:
            sentence = f"{caller.person} is a machine: two people promote without proof"
            raise await self._acts.refuse(caller, fleet, sentence)
        command = Command(
            id=caller.request(key) or f"{kind}-{secrets.token_hex(6)}",
            kind=kind,
            person=caller.person,
            reason=reason,
            hold_of=hold_of,
            approves=approves,
        )

        async def give() -> CommandReceipt:
            await self._refuse_stale(fleet, change, safe=safe)
            given = command
            if kind in ANOTHER_PERSONS:
                names = await asyncio.to_thread(self._other_names, caller.person, fleet)
                given = command.model_copy(update={"known_as": names})
            if kind is CommandKind.PROMOTE and approves is None:
                await asyncio.to_thread(self._refuse_unbound_vote, fleet)
            changes = self._stops if safe else self._changes
            if kind is CommandKind.RESUME and harmed_by(hold_of) is not None:
                return await changes.accept_harm(fleet, given, caller.via)
            return await self._shown(fleet, await changes.command(fleet, given))

        what, asked = f"{kind.replace('_', ' ')} asked for", {"reason": reason, "id": command.id}
        return await self._acts.audited(caller, what, fleet, asked, give, safe=safe)

    async def roll_back(
        self,
        caller: Caller,
        fleet: str,
        reason: str,
        *,
        asked: RollbackAsked = RELEASE_OF_BEFORE,
        change: str | None = None,
        shown: Digest | None = None,
        key: str | None = None,
    ) -> CommandReceipt:
        """Roll the fleet back, whatever is going on, unless it does something else than was shown.

        `shown` is the digest of the preview; without it `change` is the newest change that was shown. Where
        the ledger does not answer, neither is compared. A change under way goes back though no file describes
        its fleet any more and the ledger is silent. After its end both are asked; of a fleet without a file
        it counts how it was planned for last.
        """
        await self._of_change(caller, Action.GO_BACK, fleet)
        request = caller.request(key)

        async def back() -> CommandReceipt:
            if shown is None:
                await self._refuse_stale(fleet, change, safe=True)
            else:
                await self._refuse_unlike(fleet, asked, shown, request)
            turned = None
            if asked.is_plain and not asked.force:
                turned = await self._stops.turn_round(fleet, caller.person, reason, key=request)
                if turned.receipt is not None and turned.receipt.only_waits:
                    turned = await self._go_beyond(fleet, turned, caller.person, reason)
                if turned.receipt is not None:
                    receipt = await self._shown(fleet, turned.receipt)
                    return await self._with_what_serves(fleet, receipt)
            named = await self._described(fleet)
            release = await authorised(partial(self._release_to, self._safe, asked, named))
            if caller.machine and release is not None:
                ways_back = WaysBack(self._safe)
                await authorised(partial(ways_back.require_unpinned, named, release, force=asked.force))
            return await self._stops.roll_back(
                named,
                caller.person,
                reason,
                via=caller.via,
                to=release,
                source=self._releases.source,
                of=asked.of,
                settings=asked.settings,
                force=asked.force,
                key=request,
                before=turned,
                shown=shown,
            )

        said = {"reason": reason, **asked.model_dump(), "id": request}
        return await self._acts.audited(caller, "rollback asked for", fleet, said, back, safe=True)

    async def _go_beyond(self, fleet: str, turned: Turned, person: str, reason: str) -> Turned:
        """Roll back what a way back that only waits does not take back, where anybody describes the fleet."""
        try:
            async with asyncio.timeout(SHOWN_WITHIN_SECONDS):
                described = await self._described(fleet)
        except (TimeoutError, PenstockError):
            return turned
        return await self._stops.go_beyond(described, turned, person, reason)

    async def rollback_preview(self, caller: Caller, fleet: str, asked: RollbackAsked) -> RollbackPreview:
        """Return which release each gateway of the fleet serves after a rollback that is asked for now.

        Callers who may order it wait for no caller who may only look.

        Raises:
            Unavailable: It is not found out soon; a rollback does not need this answer.
        """
        is_safe = may(caller, Action.GO_BACK, fleet)
        changes, pool = (self._stops, PREVIEWS) if is_safe else (self._changes, FLEETS)
        try:
            async with asyncio.timeout(PREVIEWED_WITHIN_SECONDS):
                if not is_safe:
                    await self._seen(caller, fleet)
                under_way = await changes.may_be_under_way(fleet, asked)
                look = partial(self._preview, changes.ledger, fleet, asked, under_way=under_way)
                return await pool.run(look, caller.person, key=("rollback", fleet, asked, under_way))
        except TooMany as busy:
            raise Unavailable(str(busy)) from busy
        except TimeoutError as error:
            late = (
                f"what a rollback does was not found out within {PREVIEWED_WITHIN_SECONDS:.0f} s; ask again"
            )
            raise Unavailable(late) from error

    def _preview(
        self, ledger: Ledger, fleet: str, asked: RollbackAsked, *, under_way: bool
    ) -> RollbackPreview:
        named = self._fleets.described(fleet) or ledger.fleet_as_planned(fleet)
        if named is None:
            raise _undescribed(fleet)
        release = self._release_to(ledger, asked, named)
        return WaysBack(ledger).preview(named, asked, release, under_way=under_way)

    async def _refuse_unlike(
        self, fleet: str, asked: RollbackAsked, shown: Digest, request: str | None
    ) -> None:
        """Refuse a rollback that does something else now than was shown; a silent ledger refuses nothing.

        Raises:
            Conflict: It does; nothing was done.
        """
        try:
            async with asyncio.timeout(SHOWN_WITHIN_SECONDS):
                if await self._stops.begun_before(request):
                    return  # a repeat of what has begun
                named = await self._described(fleet)
                release = await authorised(partial(self._release_to, self._safe, asked, named))
                now = await self._stops.rollback_preview(named, asked, release)
        except (TimeoutError, PenstockError):
            return  # the rollback itself refuses what cannot be, and needs no preview
        require_shown(fleet, shown, now)

    def _release_to(self, ledger: Ledger, asked: RollbackAsked, fleet: Fleet) -> ReleaseRef | None:
        if not asked.to:
            return None
        try:
            return WaysBack(ledger).release_called(fleet, asked.to, force=asked.force)
        except Unknown:
            WaysBack(ledger).require_known(fleet)  # an older ledger does not know it any more
            raise

    async def _with_what_serves(self, fleet: str, receipt: CommandReceipt) -> CommandReceipt:
        """Return the receipt with what each gateway serves then, where the ledger answers soon.

        Of a way back that waits for gateways the receipt names these: nobody knows whether they get there.
        """
        if receipt.incomplete:
            return receipt
        with suppress(TimeoutError, PenstockError):  # the order is given, whatever is known of it
            async with asyncio.timeout(SHOWN_WITHIN_SECONDS):
                holder = LockHolder(receipt.change) if receipt.change else await self._stops.holder(fleet)
                if holder.unopened:
                    return receipt
                ways_back = WaysBack(self._safe)
                find = partial(ways_back.taken_back, holder.name, holder.order)
                if taken_back := await self._acts.patience.ask(find):
                    described = await self._described(fleet)
                    then = await self._acts.patience.ask(partial(ways_back.then, described, taken_back))
                    sentence = f"{receipt.sentence} Then {then}."
                    return receipt.model_copy(update={"sentence": sentence})
        return receipt

    async def install(
        self, caller: Caller, fleet: str, to: str, reason: str, key: str | None = None
    ) -> str | None:
        """Bring up the fleet's gateways that serve nobody yet; return as `start` does."""
        named = await self._asked(caller, Action.START, fleet)

        async def begin(request: str | None) -> str | None:
            release = await asyncio.to_thread(self._ledger.release, to, named.product)
            if caller.machine:
                await asyncio.to_thread(self.desired.pins.require_none, fleet, release.digest)
            await self._plans.require_credentials(named, release)
            source = self._releases.repository
            return await self._changes.install(named, release, source, caller.person, reason, key=request)

        asked = {"to": to, "reason": reason}
        return await self._begun_once(caller, "install asked for", fleet, asked, key, begin)

    async def reload(
        self,
        caller: Caller,
        fleet: str,
        reason: str,
        *,
        older: bool = False,
        unserved: bool = False,
        at_once: bool = False,
        digest: str | None = None,
        key: str | None = None,
    ) -> str | None:
        """Give what runs on the fleet its hosts' present credentials; return as `start` does.

        Raises:
            ApprovalRequired: The plan needs more people than have approved it; it names the plan.
        """
        named = await self._asked(caller, Action.RELOAD, fleet)
        asked = {
            "reason": reason,
            "older": older,
            "unserved": unserved,
            "at_once": at_once,
            "plan": digest,
        }

        async def begin(request: str | None) -> str | None:
            plan = await self._reload_plan(caller, named, digest) if digest else None
            plan = plan or await self._changes.plan_reload(named, unserved=unserved, at_once=at_once)
            await self._require(caller, plan)
            return await self._changes.reload(named, plan, caller.person, reason, older=older, key=request)

        return await self._begun_once(caller, "reload asked for", fleet, asked, key, begin)

    async def plan_settings(self, caller: Caller, fleet: str) -> PlanView:
        """Return what the settings of the fleet's file would change where; the plan is kept.

        Raises:
            Refused: The gateways have them already.
        """
        named = await self._asked(caller, Action.PLAN, fleet)
        found = await self._changes.plan_settings(named)
        return await self._plans.view(found, named, caller.person, PLANS)

    async def configure(
        self, caller: Caller, fleet: str, reason: str, *, digest: str | None = None, key: str | None = None
    ) -> str | None:
        """Give the fleet's gateways the settings of its file; return as `start` does.

        Raises:
            Conflict: Another change is under way, or the plan is another one now.
            ApprovalRequired: The plan needs more people than have approved it; it names the plan.
        """
        named = await self._asked(caller, Action.START, fleet)

        async def begin(request: str | None) -> str | None:
            plan = await self._changes.plan_settings(named)
            again = Offer(verb=Verb.CONFIGURE, fleet=fleet, plan=plan.digest)
            await self._require(caller, plan, digest, again)
            return await self._changes.reload(named, plan, caller.person, reason, key=request)

        asked = {"reason": reason, "plan": digest}
        return await self._begun_once(caller, "change of settings asked for", fleet, asked, key, begin)

    async def ended_for(self, change: str | None) -> str | None:
        """Return how a rollback that only waited has ended for a change that has just begun."""
        return await self._changes.ended_for(change)

    async def _begun_once(
        self,
        caller: Caller,
        action: str,
        fleet: str,
        asked: object,
        key: str | None,
        begin: Callable[[str | None], Awaitable[str | None]],
    ) -> str | None:
        """Begin a change unless the request of that key has begun it before.

        Raises:
            Refused: A machine asks, and the ledger may lack what keeps it from that.
        """
        request = caller.request(key)
        if begun := await self._changes.begun_before(request):
            return begun

        async def confirmed() -> str | None:
            if caller.machine:
                await asyncio.to_thread(self.desired.pins.require_confirmed, fleet)
            return await begin(request)

        return await self._acts.audited(caller, action, fleet, asked, confirmed)

    async def _require(
        self, caller: Caller, plan: AnyPlan, shown: str | None = None, *instead: Offer, more: int = 0
    ) -> tuple[str, ...]:
        """Return who approved the plan.

        Refuse one that is not the one that was shown, or that too few people have approved.
        """
        if shown is not None and not is_beginning(shown, plan.digest):
            sentence = f"{shown} is not, or not any more, what would be done: that is {plan.digest}"
            raise Conflict(sentence, *instead)
        require = partial(self._plans.approvals.require, plan, caller.person, more=more)
        return await asyncio.to_thread(require)

    async def _reload_plan(self, caller: Caller, fleet: Fleet, digest: str) -> PlanHeader:
        """Return the plan of a reload of credentials that somebody made; Conflict for any other one."""
        plan = await self._plan_of(caller, Action.RELOAD, digest)
        if not isinstance(plan, PlanHeader) or plan.settings or plan.fleet != fleet.name:
            raise Conflict(f"{digest} is no plan of a reload of credentials of {fleet.name}")
        return plan

    async def adopt(
        self,
        caller: Caller,
        fleet: str,
        gateways: tuple[str, ...],
        without: tuple[str, ...],
        reason: str,
        key: str | None = None,
    ) -> str | None:
        """Adopt gateways that serve by themselves, all when none is named; return as `start` does.

        Raises:
            Unknown: The fleet has no gateway of that name.
        """
        named = await self._asked(caller, Action.START, fleet)
        names = _named_in(named, gateways)

        async def begin(request: str | None) -> str | None:
            return await self._changes.adopt(named, names, without, caller.person, reason, key=request)

        asked = {"gateways": list(gateways), "without": list(without), "reason": reason}
        return await self._begun_once(caller, "adoption asked for", fleet, asked, key, begin)

    async def hand_back(
        self,
        caller: Caller,
        fleet: str,
        gateways: tuple[str, ...],
        reason: str,
        key: str | None = None,
    ) -> str | None:
        """Give gateways back to the daemons that were adopted on them; return as `start` does.

        Raises:
            Unknown: The fleet has no gateway of that name.
            Refused: One of them was never adopted.
        """
        named = await self._asked(caller, Action.START, fleet)
        names = _named_in(named, gateways)

        async def begin(request: str | None) -> str | None:
            return await self._changes.hand_back(named, names, caller.person, reason, key=request)

        asked = {"gateways": list(gateways), "reason": reason}
        return await self._begun_once(caller, "hand-back asked for", fleet, asked, key, begin)

    async def examine_gateways(self, caller: Caller, fleet: str, gateways: tuple[str, ...]) -> Examined:
        """Return what serves these gateways by themselves and what is in the way of adopting it.

        Raises:
            Unknown: The fleet has no gateway of that name.
            BadInput: More are asked than one answer holds.
        """
        named = await self._asked(caller, Action.START, fleet)
        surveys = self._changes.surveys
        examined = await surveys.examine(named, _named_in(named, gateways))
        if named.nat:  # where each gateway translates addresses, pools may be the same
            return examined
        taken = await surveys.pools_beside(named, {one.gateway for one in examined.found})
        return examined.model_copy(update={"found": apart(examined.found, taken)})

    async def rebuild(self, caller: Caller, fleet: str, reason: str) -> Rebuilt:
        """Write down again what the fleet's gateways go back to, where the ledger has lost it."""
        named = await self._asked(caller, Action.ADMINISTER, fleet)

        async def ask() -> Rebuilt:
            return await self._rebuilding.rebuild(named, caller.person, reason)

        return await self._acts.audited(caller, "rebuild asked for", fleet, {"reason": reason}, ask)

    async def verify_release(self, caller: Caller, fleet: str, digest: str) -> Admitted:
        """Verify a release of the repository for the fleet, without adding it.

        It is fetched, and the record says for whom: that is more than to look at what is there already.
        """
        named = await self._asked(caller, Action.PLAN, fleet)
        return await self._releases.verify(named, digest, caller.person)

    async def add_release(self, caller: Caller, fleet: str, digest: str) -> ReleaseRow:
        """Verify a release for the fleet and have it in the ledger."""
        named = await self._asked(caller, Action.ADD_RELEASES, fleet)

        async def add() -> ReleaseRow:
            return await self._releases.add(named, digest, caller.person)

        return await self._acts.audited(
            caller, "release asked for", fleet, {"release": digest}, add, about=digest
        )

    async def yank_release(self, caller: Caller, name: str, reason: str) -> bool:
        """Withdraw a release everywhere; return whether it was offered until now.

        Raises:
            NotAllowed: There are fleets of its product of which the caller may not withdraw any.
        """
        row = await self.release(caller, name)
        if refusal := await asyncio.to_thread(self._no_withdrawal, caller, row):
            raise await self._acts.refuse(caller, None, f"{row.release.version}: {refusal}")

        async def withdraw() -> bool:
            return await asyncio.to_thread(self._ledger.yank, row.release.digest, reason, caller.person)

        asked = {"reason": reason}
        return await self._acts.audited(
            caller, "withdrawal asked for", None, asked, withdraw, about=row.release.digest
        )

    async def tell_drains(
        self, caller: Caller, fleet: str, gateway: str | None, command: DrainExtension | DrainEnding
    ) -> tuple[CommandReceipt, ...]:
        """Give the drains of one gateway, or of all, a command in the caller's own name."""
        named = await self._of_gateways(caller, Action.DRAIN, fleet)
        mine = command.model_copy(update={"person": caller.person})
        what = (
            "drain extension asked for" if isinstance(command, DrainExtension) else "end of drain asked for"
        )

        async def tell() -> tuple[CommandReceipt, ...]:
            return await self._drains.tell(named, gateway, mine)

        asked = {"reason": command.reason}
        about = "/".join(filter(None, (fleet, gateway or "*", command.slot)))
        return await self._acts.audited(caller, what, fleet, asked, tell, about=about)

    async def leave_out(self, caller: Caller, fleet: str, gateways: tuple[str, ...], reason: str) -> str:
        """Leave gateways out of changes."""
        named = await self._of_gateways(caller, Action.QUARANTINE, fleet)

        async def leave() -> str:
            return await self._quarantine.leave_out(named, gateways, caller.person, reason)

        about, asked = _about(fleet, gateways, reason)
        return await self._acts.audited(caller, "quarantine asked for", fleet, asked, leave, about=about)

    async def take_in(self, caller: Caller, fleet: str, gateways: tuple[str, ...], reason: str) -> Returned:
        """Let gateways take part again."""
        named = await self._of_gateways(caller, Action.QUARANTINE, fleet)

        async def take() -> Returned:
            return await self._quarantine.take_in(named, gateways, caller.person, reason)

        about, asked = _about(fleet, gateways, reason)
        return await self._acts.audited(caller, "return asked for", fleet, asked, take, about=about)

    async def enrol_gateway(self, caller: Caller, fleet: str, gateway: str) -> EnrolmentToken:
        """Make a one-time token with which the gateway's host gets its first certificate."""
        named = await self._asked(caller, Action.ENROL, fleet)

        async def enrol() -> EnrolmentToken:
            return await self._enrolment.enrol(named, gateway, caller.person)

        return await self._acts.audited(
            caller, "enrolment asked for", fleet, {}, enrol, about=f"{fleet}/{gateway}"
        )

    async def revoke_gateway(self, caller: Caller, fleet: str, gateway: str, reason: str) -> tuple[int, bool]:
        """Make all certificates of the gateway worthless.

        Returns:
            How many of our own it had, and whether the fleet's file knows it at all.
        """
        await self._of_change(caller, Action.REVOKE, fleet)
        described = await asyncio.to_thread(self._fleets.described, fleet)
        names = {one.name for one in described.gateways} | {*described.clusters} if described else set()
        known = gateway in names

        async def revoke() -> tuple[int, bool]:
            return await self._enrolment.revoke(fleet, gateway, caller.person, reason), known

        asked = {"reason": reason}
        return await self._acts.audited(
            caller, "revocation asked for", fleet, asked, revoke, about=f"{fleet}/{gateway}"
        )

    async def complain(self, fleet: str, body: bytes, at: str, signature: str) -> bool:
        """Take a complaint of whoever holds the fleet's key; return whether it is new."""
        complaint = await asyncio.to_thread(self.complaints.read, fleet, body, at, signature)
        named = await asyncio.to_thread(self._fleets.named, fleet)
        return await asyncio.to_thread(self.complaints.record, named, complaint)

    async def ticket(self, fleet: str, body: bytes, at: str, signature: str) -> bool:
        """Take how a ticket stands from whoever holds the key of tickets; return whether that is new."""
        told = await asyncio.to_thread(self.complaints.read_ticket, fleet, body, at, signature)
        named = await asyncio.to_thread(self._fleets.named, fleet)
        return await asyncio.to_thread(self.complaints.record_ticket, named, told)

    async def once(
        self,
        caller: Caller,
        key: str,
        content: bytes,
        work: Callable[[], Awaitable[Answer]],
        *,
        safe: bool = False,
    ) -> Answer:
        """Do the work once for each key of the caller; see `Acting.once`."""
        return await self._acts.once(caller, key, content, work, safe=safe)

    # --- one place for each thing that all of them need --------------------------------

    async def _asked(self, caller: Caller, action: Action, fleet: str) -> Fleet:
        return await asyncio.to_thread(self._fleets.for_action, caller, action, fleet)

    async def _seen(self, caller: Caller, fleet: str) -> Fleet:
        """Return the fleet for whoever looks at it, whatever has become of its file."""
        return (await self._seen_and_fault(caller, fleet))[0]

    async def _of_gateways(self, caller: Caller, action: Action, fleet: str) -> Fleet:
        """Return the fleet for what is done to its gateways, whatever has become of its file."""
        return (await self._named_and_fault(caller, action, fleet))[0]

    async def _seen_and_fault(self, caller: Caller, fleet: str) -> tuple[Fleet, str | None]:
        return await self._named_and_fault(caller, Action.READ, fleet)

    async def _named_and_fault(self, caller: Caller, action: Action, fleet: str) -> tuple[Fleet, str | None]:
        """Return the fleet for whoever may do that there, and what is wrong with its file.

        Where something is, the fleet is as it was when an upgrade of it was last planned.
        """
        try:
            return await self._asked(caller, action, fleet), None
        except BadInput as wrong:
            find = partial(self._ledger.fleet_as_planned, fleet)
            planned = await FLEETS.run(find, caller.person, key=("planned", fleet))
            if planned is None:
                raise
            return planned, str(wrong)

    async def _of_change(self, caller: Caller, action: Action, fleet: str) -> None:
        """Return once the caller may do that with changes of the fleet, whatever has become of its file."""
        if await authorised(partial(self._fleets.stopped, caller, action, fleet)) is not None:
            return
        try:
            remembered = await self._acts.patience.ask(partial(self._safe.last_change, fleet))
        except Unavailable:
            return  # nobody knows better than who gives the order
        if remembered is None:
            goes_on = False
            with suppress(Unavailable):
                goes_on = await self._changes.is_under_way(fleet)
            if not goes_on:
                await self._asked(caller, action, fleet)

    async def _described(self, fleet: str) -> Fleet:
        """Return the fleet as its file describes it, or as it was when an upgrade of it was last planned."""
        found = await authorised(partial(self._fleets.described, fleet))
        found = found or await authorised(partial(self._safe.fleet_as_planned, fleet))
        if found is None:
            raise _undescribed(fleet)
        return found

    async def _record(self, caller: Caller, action: Action, change: str) -> ChangeRecord:
        """Return a change's line; of a fleet that the caller may not know, as if there were none."""
        return await asyncio.to_thread(record_for, self._ledger, self._fleets, caller, action, change)

    async def _plan_of(self, caller: Caller, action: Action, name: str) -> AnyPlan:
        """Return a recorded plan; of a fleet that the caller may not know, as if there were none."""
        known = await asyncio.to_thread(self._fleets.names, caller)
        digest, fleet = await asyncio.to_thread(self._ledger.plan_named, name, known)
        await self._asked(caller, action, fleet)
        return await asyncio.to_thread(self._ledger.outline, digest)

    def _no_withdrawal(self, caller: Caller, row: ReleaseRow) -> str | None:
        """Return why the caller may not withdraw the release wherever it could be installed."""
        for name in self._fleets.names_of_product(row.release.product):
            if refusal := refusal_of(caller, Action.WITHDRAW_RELEASES, name):
                if is_known_to(caller, name):
                    return refusal
                return (
                    f"a withdrawal is for every fleet, and {caller.person} has no say in all of them: "
                    "that takes operator on '*'"
                )
        return None

    def _other_names(self, person: str, fleet: str) -> tuple[str, ...]:
        """Return the person's other names, none of which asked for the fleet's change or voted on it.

        Raises:
            NotAllowed: One did.
        """
        newest = self._safe.last_change(fleet)
        involved, makers, since = set[str](), tuple[str, ...](), None
        if newest is not None:
            story = self._safe.story(newest.name)
            involved = {newest.requested_by, *(story.told.votes if story is not None else ())}
            makers, since = self._safe.makers_of(newest.requested_by), newest.began
        return KnownNames(self._ledger, self.people).others(person, involved, makers, since)

    async def _shown(self, fleet: str, receipt: CommandReceipt) -> CommandReceipt:
        """Return the receipt once every screen shows what was ordered, which it is already.

        The change tells the ledger a moment after it has answered. No order waits long for that: without a
        worker, or with a ledger that is away, the screens follow later.
        """
        tells = partial(self._tells_of, fleet, receipt.id)
        with suppress(TimeoutError, Unavailable):
            async with asyncio.timeout(SHOWN_WITHIN_SECONDS):
                while not await self._acts.patience.ask(tells):  # noqa: ASYNC110 - another process writes
                    await asyncio.sleep(SHOWN_WITHIN_SECONDS / 40)
        return receipt

    def _tells_of(self, fleet: str, command: str) -> bool:
        story = self._newest_story(fleet)
        return story is not None and command in story.told.commands

    def _newest_story(self, fleet: str) -> StoryRow | None:
        """Return what the fleet's newest change told when it was last heard, None when it never was."""
        newest = self._safe.last_change(fleet)
        return self._safe.story(newest.name) if newest is not None else None

    async def _refuse_stale(self, fleet: str, shown: str | None, *, safe: bool) -> None:
        """Refuse what was asked of a change that is not the fleet's newest any more.

        Where nobody knows, only what is `safe` goes on.
        """
        newest = None
        if shown is not None:
            try:
                newest = await self._acts.patience.ask(partial(self._safe.last_change, fleet))
            except Unavailable:
                if not safe:
                    raise
        if newest is not None and newest.name != shown:
            sentence = f"{shown} is not the newest change of {fleet} any more: {newest.name} is"
            raise Conflict(sentence, Offer(verb=Verb.STATUS, fleet=fleet))

    def _refuse_unbound_vote(self, fleet: str) -> None:
        """Refuse a vote that names no verdict, where there is one to vote on.

        Raises:
            Conflict: There is; the sentence has it.
        """
        newest = self._ledger.last_change(fleet)
        now = told_of(self._ledger, newest) if newest is not None else None
        if now is not None and now.ballot is not None and now.decision is not None:
            sentence = (
                "a vote names the verdict that it was shown: send `ballot` of the change as `approves`. The "
                f"verdict now is {now.decision.verdict.value.replace('_', ' ')}: {now.decision.reason}"
            )
            raise Conflict(sentence, Offer(verb=Verb.STATUS, fleet=fleet))

    def _ways_back(self, newest: ChangeRecord) -> tuple[Offer, ...]:
        """Return which ways back there are besides those that the newest change offers by itself.

        One that adopted is passed over by a rollback; gateways on which something was adopted once are given
        back by name.
        """
        fleet, offers = newest.fleet, list[Offer]()
        if newest.kind in MOVES_NOBODY:
            offers.append(Offer(verb=Verb.ROLL_BACK, fleet=fleet))
        if newest.kind is ChangeKind.CONFIGURE and newest.outcome is not Outcome.REFUSED and not newest.cause:
            offers.append(Offer(verb=Verb.ROLL_BACK, fleet=fleet, settings=True))
        return (*offers, *WaysBack(self._ledger).handing_back(fleet))


def _undescribed(fleet: str) -> Unknown:
    return Unknown(f"no file describes {fleet}, and no upgrade of it was ever planned")


def _is_quarantined(offer: Offer, standing: Standing, change: ChangeStatus) -> bool:
    """Return whether the offer quarantines a gateway that is quarantined, and that no rollback waits for."""
    out = standing.quarantined.keys() | standing.ejected.keys()
    done = offer.verb is Verb.QUARANTINE and offer.gateway in out
    return done and offer.gateway not in change.waits_for


def _without_silent(change: ChangeStatus, standing: Standing) -> tuple[Offer, ...]:
    """Return how a held change goes on without a gateway that is silent by now: its verdict is older."""
    if change.phase is not Phase.HELD or any(one.verb is Verb.QUARANTINE for one in change.can_do):
        return ()
    silent = sorted(standing.silent.keys() - standing.quarantined.keys() - standing.ejected.keys())
    return tuple(Offer(verb=Verb.QUARANTINE, fleet=standing.fleet, gateway=name) for name in silent[:1])


def _open_to(caller: Caller, offers: Iterable[Offer], fault: str | None, fleet: str) -> tuple[Offer, ...]:
    """Return the offers that the caller may take; none that needs the fleet's file where that is wrong."""
    usable = (offer for offer in offers if fault is None or offer.verb not in NEEDS_FILE)
    return tuple(offer for offer in usable if open_to(caller, offer, fleet))


def _about(fleet: str, gateways: tuple[str, ...], reason: str) -> tuple[str, dict[str, object]]:
    """Return what an entry of the record is about, and what was asked of it."""
    if len(gateways) == 1:
        return f"{fleet}/{min(gateways)}", {"reason": reason}
    return f"{fleet}/*", {"reason": reason, "gateways": sorted(gateways)}


def _named_in(fleet: Fleet, gateways: tuple[str, ...]) -> tuple[str, ...]:
    """Return the gateways that are meant: all when none is named; Unknown for one that is not there."""
    known = [gateway.name for gateway in fleet.gateways]
    if strangers := sorted(set(gateways) - set(known)):
        raise Unknown(f"{fleet.name} has no gateway {strangers[0]}; look it up in the fleet's file")
    return gateways or tuple(known)
