"""Examining an installation: what everything rests on, each with one sentence and what to do."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TypeVar

from temporalio.client import Client
from temporalio.service import RPCError

from activities.drivers.daemon.ocserv.settings import refused_settings
from activities.drivers.metrics.prometheus import PrometheusSource
from activities.drivers.metrics.replicas import Replicas
from activities.drivers.trust_files import load_trust
from activities.files import FleetFiles, load_gates
from activities.releases import ABSENT
from orchestrator.engine.sealing import sealing_keys
from orchestrator.noticing.rules import RulesFile
from orchestrator.service.checkpoints import Checkpoints
from orchestrator.service.drift import behind_of
from orchestrator.service.engine_health import EngineHealth
from orchestrator.service.identity import IdentityProvider
from orchestrator.service.people import PeopleFile
from orchestrator.service.provider_keys import ProviderKeys
from orchestrator.service.releases import ReleaseService
from orchestrator.service.standing import looked_at_within
from orchestrator.service.telling import as_ended
from orchestrator.service.updates import is_unconnected, silence_of
from orchestrator.store.ledger import Ledger
from policies.adoption import uncounted_logins
from policies.judge.counts import LEFT_BY_RESTART
from policies.judge.whole import SCRAPE_WITH_ONE
from policies.model.change import PENSTOCK, Outcome, Quarantine
from policies.model.errors import BadInput, PenstockError
from policies.model.fleet import Fleet
from policies.model.gates import GatePolicy, required_of_exporters
from policies.model.instance import GatewayState, is_silence
from policies.model.offer import Offer, Verb
from policies.model.plan import ReleaseRef
from policies.model.refusals import DowngradeRefused, TrustError
from policies.model.value import Value
from policies.rebuilding import nothing_starts
from policies.trust.lifetimes import WARNED_BEFORE, ending, unmet
from policies.trust.ways_back import no_way_back

WITHIN = timedelta(seconds=2)
"""How long each look may take; what does not answer by then is what is found."""

CLOCKS_APART = timedelta(seconds=2)
CHECKPOINT_WITHIN = timedelta(hours=2)
LEAST_FREE, LEAST_SHARE = 1 << 30, 0.05
NAMED = 5
"""Gateways that a sentence names."""

READER = ThreadPoolExecutor(1, thread_name_prefix="doctor")
T = TypeVar("T")
Said = tuple[dict[str, GatewayState], dict[str, str]]
"""What gateways said of themselves, and why others were silent."""

BOOTED = "vpngw_boot_info{$cohort}"
"""What every exporter says, whatever runs beside it."""
EVERY = 'instance!=""'
SECOND = timedelta(seconds=1)
FALLS_WITHIN = "5m"
"""How far back falls of counters are looked for, as Prometheus writes it."""


@dataclass(frozen=True)
class Heard:
    """Which instances Prometheus has fresh values of, by what is asked."""

    asked: tuple[str, ...]
    """What gates require of every gateway that serves."""
    there: Mapping[str, frozenset[str]]
    senseless: Mapping[str, frozenset[str]]
    """Those whose value is not a number."""
    twice: frozenset[str]
    """Those that are there twice: a pair of servers answers without deduplication."""
    fallen: frozenset[str]
    """Those of which a counter fell by too little for a restart."""

    def of(self, selector: str) -> frozenset[str]:
        """Return the instances with a fresh value of it."""
        return self.there.get(selector, frozenset())

    def wrong(self, serving: Mapping[str, str]) -> str:
        """Return what holds every upgrade of these gateways, by instance; empty when nothing does."""
        if twice := sorted(serving[one] for one in self.twice & serving.keys()):
            return (
                f"Prometheus has each series of {_named(twice)} twice, so every upgrade is held; query an "
                "address that deduplicates the servers of a pair"
            )
        if fallen := sorted(serving[one] for one in self.fallen & serving.keys()):
            fell = f"a counter of {_named(fallen)} fell without a restart, so every upgrade is held"
            return f"{fell}; {SCRAPE_WITH_ONE}"
        missing = {one: serving.keys() - self.of(one) for one in self.asked}
        senseless = {one: serving.keys() & self.senseless[one] for one in self.asked}
        found = [*_lacking("no", missing, serving), *_lacking("no number for", senseless, serving)]
        if not found:
            return ""
        return (
            f"every upgrade is held: Prometheus has {' and '.join(found)}, which gates require; read why on "
            "such a host: journalctl -u penstock-exporter"
        )


@dataclass(frozen=True)
class WaysBack:
    """What a fleet's gateways go back to, and what of it a host with this trust policy would not start."""

    gateways: Mapping[ReleaseRef, Sequence[str]]
    refused: Mapping[str, TrustError]
    """By digest; those of which no signature is kept here, too."""
    withdrawn: Collection[str]
    """Digests that somebody has withdrawn in the ledger, of which hosts know nothing."""

    @property
    def unsigned(self) -> list[str]:
        """The releases that too few signers whom the policy names have signed."""
        return [
            f"{one.product} {one.version}"
            for one, refusal in self._refused
            if not self._is_given_up(one, refusal)
        ]

    @property
    def wrong(self) -> list[str]:
        """Why gateways could not go back once what serves is stopped; a sentence for each release."""
        return [
            f"{_named(self.gateways[one])}: "
            + (_leave(one, refusal) if self._is_given_up(one, refusal) else no_way_back(one, refusal))
            for one, refusal in self._refused
        ]

    @property
    def doubtful(self) -> list[str]:
        """What else there is to know of ways back; a sentence for each release."""
        refused = {one.digest for one, _ in self._refused}
        withdrawn = "was withdrawn; it still serves as a way back: plan an upgrade to another release soon"
        unknown = "may not start again: its signatures are not kept here; penstock release add shows it"
        return [
            f"{_named(names)}: {one.product} {one.version} "
            + (withdrawn if one.digest in self.withdrawn else unknown)
            for one, names in self.gateways.items()
            if one.digest not in refused and one.digest in {*self.withdrawn, *self.refused}
        ]

    def _is_given_up(self, release: ReleaseRef, refusal: TrustError) -> bool:
        """Return whether somebody has decided that there is no way back to it."""
        decided = isinstance(refusal, DowngradeRefused) or refusal.reason == "manifest"
        return decided or release.digest in self.withdrawn

    @property
    def _refused(self) -> list[tuple[ReleaseRef, TrustError]]:
        found = [(one, self.refused[one.digest]) for one in self.gateways if one.digest in self.refused]
        return [(one, refusal) for one, refusal in found if refusal.reason != ABSENT]


def _lacking(how: str, lost: Mapping[str, Collection[str]], serving: Mapping[str, str]) -> Iterator[str]:
    """Yield which gateways lack which series, once for those that lack the same."""
    series: dict[tuple[str, ...], dict[str, None]] = {}
    for selector, instances in lost.items():
        if instances:
            who = tuple(sorted(serving[one] for one in instances))
            series.setdefault(who, {})[selector.partition("{")[0]] = None
    for who, names in series.items():
        yield f"{how} {', '.join(names)} of {_named(who)}"


def _leave(release: ReleaseRef, refusal: TrustError) -> str:
    return (
        f"{release.product} {release.version} would not be started again, as somebody has decided: plan an "
        f"upgrade to another release; {refusal.code}: {refusal}"
    )


class Health(StrEnum):
    """How something is."""

    WELL = "well"
    DOUBTFUL = "doubtful"
    """It works, or nothing is known of it: an operator should look."""
    WRONG = "wrong"


class Finding(Value):
    """What one look has found."""

    about: str
    health: Health
    sentence: str
    next: tuple[Offer, ...] = ()
    mend: str = ""
    """What mends it, where no command of penstock alone does."""


SHOW = "penstock runbook show"
MENDS = {
    "engine": f"{SHOW} worker-or-temporal-down",
    "worker": f"{SHOW} worker-or-temporal-down",
    "ledger": f"{SHOW} ledger-restore",
    "metrics": f"{SHOW} metrics-blind",
    "sealing": "set PENSTOCK_PAYLOAD_KEYS",
    "files": "penstock check FILE",
    "audit": f"{SHOW} audit-broken",
    "disk": f"{SHOW} disk-full",
    "signers": f"{SHOW} signature-refused",
    "notices": "penstock notice test SINK",
    "certificates": f"{SHOW} certificate-ends",
    "logins": "mend the provider; until then log in by the link of: penstock page",
}
"""What mends a finding that names no command of its own, by what it is about."""
REPEATED = "after the restrictions are repeated"
"""When an operator confirms a ledger that was restored or rebuilt."""
OF_FLEET = ("gateways", "known-good", "certificates", "metrics")
"""What is looked at in every fleet."""


@dataclass(frozen=True)
class DoctorService:
    """Looks at everything an installation rests on; nothing is changed by it."""

    client: Client
    ledger: Ledger
    files: FleetFiles
    checkpoints: Checkpoints
    metrics: Replicas
    gates: Path
    folders: tuple[Path, ...]
    """Where the installation keeps what it must not lose."""
    health: EngineHealth
    people: PeopleFile
    releases: ReleaseService
    notices: RulesFile | None = None
    """Who is told what without asking; None where nobody is."""

    async def examine(
        self, fleets: Sequence[Fleet], unread: Mapping[str, str], *, everything: bool, anew: bool = True
    ) -> tuple[Finding, ...]:
        """Return what was found, of these fleets; of files and disks only where everything may be told.

        Args:
            fleets: Those that are looked at.
            unread: What is wrong with the files of others, by fleet.
            everything: Whether files and disks are looked at, too.
            anew: Whether a worker carries out a step now; otherwise one of the last seconds counts, too.
        """
        looks: list[tuple[str, Callable[[], Awaitable[Finding]]]] = [
            ("engine", self._engine),
            ("worker", partial(self._worker, anew=anew)),
            ("ledger", partial(self._ledger, fleets)),
            ("metrics", self._metrics),
        ]
        if everything:
            looks += [
                ("sealing", self._sealing),
                ("files", self._files),
                ("audit", self._audit),
                ("disk", self._disk),
                ("signers", self._signers),
                ("notices", partial(self._notices, self.notices)),
            ]
        if everything and (provider := await self._provider()) is not None:
            looks.append(("logins", partial(self._logins, provider.keys)))
        found = list(await asyncio.gather(*[_bounded(about, look) for about, look in looks]))
        heard = asyncio.ensure_future(self._heard())
        unsigned = list[str]()
        for fleet in fleets:  # one after the other: the installation has other things to do
            within = looked_at_within(len(fleet.gateways))
            said = asyncio.ensure_future(_read(self.ledger.states, fleet.name, within))
            ways = asyncio.ensure_future(_read(self._ways_back, fleet))
            of_fleet = (
                partial(self._gateways, fleet, asyncio.shield(said)),
                partial(self._known_good, fleet, asyncio.shield(ways)),
                partial(self._certificates, fleet, asyncio.shield(said)),
                partial(self._series, fleet, asyncio.shield(heard)),
            )
            for name, look_at in zip(OF_FLEET, of_fleet, strict=True):
                found.append(await _bounded(f"{fleet.name}: {name}", look_at))
            if ways.done() and ways.exception() is None:
                unsigned += [f"{one} of {fleet.name}" for one in ways.result().unsigned]
        if unsigned:
            found = [_without_signers(one, unsigned) if one.about == "signers" else one for one in found]
        await asyncio.wait([heard])
        found += [
            Finding(
                about=f"{fleet}: {name}",
                health=Health.DOUBTFUL,
                sentence=f"not looked at: {why}",
                mend=MENDS["files"],
            )
            for fleet, why in sorted(unread.items())
            for name in OF_FLEET
        ]
        return tuple(map(_with_what_mends, found))

    async def _engine(self) -> Finding:
        await self.client.service_client.check_health(timeout=WITHIN)
        return _well("engine", "it answers")

    async def _worker(self, *, anew: bool) -> Finding:
        refusal = await self.health.refusal(anew=anew)
        if refusal is not None:
            return Finding(about="worker", health=Health.WRONG, sentence=refusal)
        return _well("worker", f"one has just carried out a step; {await self.health.workers()} ask for work")

    async def _ledger(self, fleets: Sequence[Fleet]) -> Finding:
        head = await asyncio.to_thread(self.ledger.audit_head)
        kind = self.ledger.engine.dialect.name
        unconfirmed = {
            fleet.name: found
            for fleet in fleets
            if (found := await asyncio.to_thread(self.ledger.unconfirmed, fleet.name)) is not None
        }
        if not unconfirmed:
            return _well("ledger", f"{kind} answers; its audit record has {head.seq} entries")
        names = sorted(unconfirmed)
        sentence = f"{_named(names)}: {nothing_starts(unconfirmed[names[0]])}"
        confirm = tuple(Offer(verb=Verb.UNPIN, fleet=name, note=REPEATED) for name in names[:NAMED])
        return Finding(about="ledger", health=Health.DOUBTFUL, sentence=sentence, next=confirm)

    async def _metrics(self) -> Finding:
        found = await asyncio.gather(*map(_clock_off, self.metrics.sources), return_exceptions=True)
        away = [str(one) for one in found if isinstance(one, PenstockError)]
        if away:
            alone = len(away) < len(found)
            sentence = f"{'; '.join(away)}{'; readings come from the other replicas' if alone else ''}"
            health = Health.DOUBTFUL if alone else Health.WRONG
            return Finding(about="metrics", health=health, sentence=sentence)
        apart = max(_raised(one) for one in found)
        if apart > CLOCKS_APART.total_seconds():
            sentence = f"Prometheus' clock is {apart:.1f} s from this one: windows are read at another time"
            return Finding(about="metrics", health=Health.DOUBTFUL, sentence=sentence)
        return _well("metrics", "Prometheus answers, and its clock is this one's")

    async def _sealing(self) -> Finding:
        if names := sealing_keys(self.client.data_converter):
            return _well("sealing", f"what travels through the engine is sealed, for: {', '.join(names)}")
        sentence = "nothing is sealed: whoever reaches the engine gives orders; set PENSTOCK_PAYLOAD_KEYS"
        return Finding(about="sealing", health=Health.DOUBTFUL, sentence=sentence)

    async def _files(self) -> Finding:
        wrong = [*await asyncio.to_thread(self.files.wrong)]
        try:
            await asyncio.to_thread(load_gates, self.gates)
        except BadInput as error:
            wrong.append(error)
        known = await asyncio.to_thread(self.files.all)
        wrong += await asyncio.to_thread(lambda: [*_refused(known)])
        if wrong:
            return Finding(about="files", health=Health.WRONG, sentence="; ".join(map(str, wrong)))
        return _well("files", f"{len(known)} fleets and the gates are described as they must be")

    async def _audit(self) -> Finding:
        newest = await asyncio.to_thread(self.checkpoints.newest)
        signed = newest.seq if newest is not None else 0
        unsigned = await asyncio.to_thread(self.ledger.audit_entries, signed, limit=1)
        head = await asyncio.to_thread(self.ledger.audit_head)
        if head.seq < signed:
            sentence = (
                f"the record ends with entry {head.seq}, and {signed} were signed; penstock audit verify"
            )
            return Finding(about="audit", health=Health.WRONG, sentence=sentence)
        since = datetime.fromisoformat(unsigned[0].at) if unsigned else None
        if since is not None and datetime.now(UTC) - since > CHECKPOINT_WITHIN:
            entered = f"what was entered since {since:%Y-%m-%d %H:%M} UTC is not signed"
            sentence = f"{entered}; a worker does it every hour"
            return Finding(about="audit", health=Health.DOUBTFUL, sentence=sentence)
        return _well(
            "audit", f"{signed} of {head.seq} entries are signed; what is new waits for an hour at most"
        )

    async def _disk(self) -> Finding:
        scarce = []
        for folder in self.folders:
            place = next(one for one in (folder, *folder.absolute().parents) if one.exists())
            usage = await asyncio.to_thread(shutil.disk_usage, place)
            if usage.free < max(LEAST_FREE, usage.total * LEAST_SHARE):
                scarce.append(f"{folder} has {usage.free >> 20} MB left")
        if scarce:
            return Finding(about="disk", health=Health.WRONG, sentence="; ".join(scarce))
        return _well("disk", "there is room where the installation writes")

    async def _signers(self) -> Finding:
        try:
            trust = await asyncio.to_thread(load_trust, self.releases.trust)
        except BadInput as error:
            return Finding(about="signers", health=Health.WRONG, sentence=str(error), mend=MENDS["files"])
        now = datetime.now(UTC)
        named = ending(trust.policy, trust.pinned, now)
        soon = "; ".join(one.told(now) for one in named)
        if lacking := [f"{rule.product}/{rule.channel}" for rule in unmet(trust.policy, trust.pinned, now)]:
            sentence = f"too few signers are left for a new release of {', '.join(lacking)}: {soon}"
            return Finding(about="signers", health=Health.WRONG, sentence=sentence)
        if any(one.fault for one in named):
            return Finding(about="signers", health=Health.WRONG, sentence=soon, mend=MENDS["files"])
        if soon:
            sentence = f"{soon}; new releases need other signers from then on, known-good ones none"
            return Finding(about="signers", health=Health.DOUBTFUL, sentence=sentence)
        return _well("signers", f"no key of {self.releases.trust.name} ends within {WARNED_BEFORE.days} days")

    async def _notices(self, rules: RulesFile | None) -> Finding:
        if rules is None:
            sentence = "penstock sends no notice, also when a change waits for an operator: no file has sinks"
            return Finding(
                about="notices", health=Health.DOUBTFUL, sentence=sentence, mend="set PENSTOCK_NOTICES"
            )
        wrong = await asyncio.to_thread(rules.wrong)
        if wrong is not None:
            sentence = f"{wrong}; what was good before counts until then"
            return Finding(about="notices", health=Health.WRONG, sentence=sentence)
        pushed, faults = (
            await asyncio.to_thread(rules.pushed),
            await asyncio.to_thread(self.ledger.sink_faults),
        )
        if unseen := sorted(pushed - faults.keys()):
            sentence = (
                f"no worker has looked at the files of {', '.join(unseen)} yet; it does within a minute"
            )
            return Finding(about="notices", health=Health.DOUBTFUL, sentence=sentence)
        if unready := {sink: fault for sink, fault in faults.items() if fault and sink in pushed}:
            sentence = "; ".join(f"the sink {sink} tells nobody: {why}" for sink, why in unready.items())
            return Finding(about="notices", health=Health.WRONG, sentence=sentence)
        health = await asyncio.to_thread(self.ledger.sink_health)
        bad = {sink: one for sink, one in sorted(health.items()) if one.given_up or one.failing}
        if bad:
            said = [
                f"{sink} did not take {one.failing} and never took {one.given_up}: {one.error}"
                for sink, one in bad.items()
            ]
            lost = any(one.given_up for one in bad.values())
            sentence = f"{'; '.join(said)}; mend it, then penstock notice test {next(iter(bad))}"
            return Finding(
                about="notices", health=Health.WRONG if lost else Health.DOUBTFUL, sentence=sentence
            )
        waiting = sum(one.waiting for one in health.values())
        return _well("notices", f"every sink takes what it is told; {waiting} are on their way")

    async def _provider(self) -> IdentityProvider | None:
        """Return the identity provider, None without one; a people.yaml that is wrong is another's look."""
        with suppress(BadInput):
            return await asyncio.to_thread(self.people.provider)
        return None

    async def _logins(self, keys: ProviderKeys) -> Finding:
        if (reading := keys.again()) is not None:
            await reading.wait()
        held = keys.held()
        if (failure := keys.failure) is not None:
            since, until = (f"{one:%Y-%m-%d %H:%M} UTC" for one in (held.at, held.until))
            sentence = f"{failure}; its keys of {since} count until {until}, and new logins wait for it"
            return Finding(about="logins", health=Health.DOUBTFUL, sentence=sentence)
        return _well("logins", f"{keys.issuer} answers; signing keys: {len(held.keys)}")

    async def _gateways(self, fleet: Fleet, said: Awaitable[Said]) -> Finding:
        about = f"{fleet.name}: gateways"
        states, silent = await said
        left_out = await _read(self.ledger.quarantined, fleet.name)
        not_back = await _read(_not_back, self.ledger, fleet.name, left_out)
        broken = {one: why for one, why in silent.items() if one not in not_back and not is_silence(why)}
        quiet = {one: why for one, why in silent.items() if one not in not_back and one not in broken}
        aside = [one.gateway for one in left_out if one.gateway not in not_back]
        unseen = [one.name for one in fleet.gateways if one.name not in states and one.name not in silent]
        parts: list[str] = []
        offers: list[Offer] = []
        if not_back:
            parts.append(f"a rollback waits for {_with_reason(not_back)}")
            offers.append(Offer(verb=Verb.STATUS, fleet=fleet.name))
        if broken:
            parts.append(f"{len(broken)} cannot be read, as their agents answer: {_with_reason(broken)}")
            offers.append(Offer(verb=Verb.DOCTOR, fleet=fleet.name, gateway=min(broken)))
        if quiet or unseen:
            who = _with_reason(quiet | dict.fromkeys(unseen, ""))
            parts.append(f"{len(quiet)} are silent and {len(unseen)} were not looked at lately: {who}")
            offers.append(Offer(verb=Verb.SESSIONS, fleet=fleet.name))
        if aside:
            parts.append(f"{len(aside)} are in quarantine, and take part in no change: {_named(aside)}")
            offers.append(Offer(verb=Verb.RETURN, fleet=fleet.name, gateway=aside[0]))
        if not parts:
            return _well(about, f"all {len(states)} have answered within {looked_at_within(len(states))}")
        health = Health.WRONG if not_back or broken else Health.DOUBTFUL
        return Finding(about=about, health=health, sentence="; ".join(parts), next=tuple(offers))

    def _ways_back(self, fleet: Fleet) -> WaysBack:
        """Return what gateways go back to, and what of it would not start again; in a thread."""
        known = self.ledger.known_good(fleet.name)
        gateways: dict[ReleaseRef, list[str]] = {}
        for name, release in known.items():
            gateways.setdefault(release, []).append(name)
        try:
            refused = self.releases.refused_again(fleet, gateways)
        except BadInput:  # the line `signers` says what is wrong with the trust policy
            refused = {}
        withdrawn = self.ledger.withdrawn([release.digest for release in gateways])
        return WaysBack(gateways, refused, withdrawn)

    async def _known_good(self, fleet: Fleet, ways: Awaitable[WaysBack]) -> Finding:
        about = f"{fleet.name}: known-good"
        known = await _read(self.ledger.known_good, fleet.name)
        within = looked_at_within(len(fleet.gateways))
        if ahead := (await _read(self.ledger.ahead, {fleet.name: within})).get(fleet.name):
            return Finding(about=about, health=Health.WRONG, sentence=ahead.sentence, next=ahead.next)
        back = await ways
        if wrong := back.wrong:
            mend = f"{SHOW} known-good-lost"
            return Finding(about=about, health=Health.WRONG, sentence="; ".join(wrong), mend=mend)
        without = [gateway.name for gateway in fleet.gateways if gateway.name not in known]
        if without:
            sentence = f"{len(without)} have none, so no upgrade takes them along: {_named(without)}"
            asks = tuple(Offer(verb=verb, fleet=fleet.name) for verb in (Verb.EXAMINE, Verb.INSTALL))
            return Finding(about=about, health=Health.DOUBTFUL, sentence=sentence, next=asks)
        if behind := await _read(behind_of, self.ledger, fleet):
            first, state = next(iter(behind.gateways.items()))
            why = f" ({behind.reasons[first]})" if first in behind.reasons else ""
            sentence = (
                f"{behind.change} promoted {behind.release} without {len(behind.gateways)}: "
                f"{_named([*behind.gateways])}; {first}: {state}{why}"
            )
            along = Offer(verb=Verb.PLAN, fleet=fleet.name, release=behind.release)
            if first in behind.left_out:
                along = Offer(verb=Verb.RETURN, fleet=fleet.name, gateway=first)
            return Finding(about=about, health=Health.DOUBTFUL, sentence=sentence, next=(along,))
        if doubtful := back.doubtful:
            mend = f"{SHOW} known-good-lost"
            return Finding(about=about, health=Health.DOUBTFUL, sentence="; ".join(doubtful), mend=mend)
        return _well(about, f"all {len(known)} gateways have what they go back to")

    async def _certificates(self, fleet: Fleet, said: Awaitable[Said]) -> Finding:
        about = f"{fleet.name}: certificates"
        states, _ = await said
        late = {name: state.unrenewed for name, state in sorted(states.items()) if state.unrenewed}
        if late:
            first, why = next(iter(late.items()))
            sentence = f"{len(late)} do not get the next one: {_named([*late])}; {first} {why}"
            return Finding(about=about, health=Health.DOUBTFUL, sentence=sentence)
        if not states:
            sentence, asks = (
                "not known: no gateway answered lately",
                Offer(verb=Verb.SESSIONS, fleet=fleet.name),
            )
            return Finding(about=about, health=Health.DOUBTFUL, sentence=sentence, next=(asks,))
        return _well(about, f"none of the {len(states)} gateways that answered lacks its next certificate")

    async def _series(self, fleet: Fleet, heard: Awaitable[Heard]) -> Finding:
        about, seen = f"{fleet.name}: metrics", await heard
        missing = [one.name for one in fleet.gateways if one.metrics_target not in seen.of(BOOTED)]
        if missing:
            sentence = (
                f"Prometheus hears nothing of {len(missing)}, which cannot be judged: {_named(missing)}"
            )
            return Finding(about=about, health=Health.DOUBTFUL, sentence=sentence)
        known = await _read(self.ledger.known_good, fleet.name)
        serving = {one.metrics_target: one.name for one in fleet.gateways if one.name in known}
        if wrong := seen.wrong(serving):
            return Finding(about=about, health=Health.WRONG, sentence=wrong)
        asked = f", and the {len(seen.asked)} series that gates require" if serving and seen.asked else ""
        sentence = f"Prometheus hears every gateway's exporter{asked}"
        if uncounted := uncounted_logins(known):
            sentence = f"{sentence}; {uncounted}, so the next upgrade is judged by limits alone there"
            plan = Offer(verb=Verb.PLAN, fleet=fleet.name)
            return Finding(about=about, health=Health.DOUBTFUL, sentence=sentence, next=(plan,))
        return _well(about, sentence)

    async def _heard(self) -> Heard:
        """Return which targets have a fresh value of what gates require, and of which it is no evidence."""
        try:
            policy = await asyncio.to_thread(load_gates, self.gates)
        except PenstockError:
            policy = GatePolicy()
        asked = required_of_exporters(policy) if policy.gates else ()
        return await self.metrics.whole(partial(_hear, policy, asked))


async def _clock_off(source: PrometheusSource) -> float:
    """Return by how many seconds the clock of that server is off."""
    began = datetime.now(UTC)
    shown = await source.clock()
    return abs(shown - (began + (datetime.now(UTC) - began) / 2).timestamp())


def _raised(found: float | BaseException) -> float:
    if isinstance(found, BaseException):
        raise found
    return found


async def _hear(policy: GatePolicy, asked: Sequence[str], source: PrometheusSource) -> Heard:
    """Read from one server, for all fleets at once, of which instances it has each of these."""
    now = datetime.now(UTC)
    fresh = round(policy.fresh_within.total_seconds())

    async def instances(expression: str) -> frozenset[str]:
        found = await source.summed(f"count by (instance) ({expression})", now, SECOND, SECOND)
        return frozenset(one.instance for one in found)

    selectors = {one: one.replace("$cohort", EVERY) for one in dict.fromkeys((BOOTED, *asked))}
    there = {one: instances(f"last_over_time({name}[{fresh}s])") for one, name in selectors.items()}
    # Only what is no number differs from itself.
    senseless = {one: instances(f"{selectors[one]} != {selectors[one]}") for one in asked}
    twice = instances(f"(count by (instance) ({policy.presence.replace('$cohort', EVERY)})) > 1")
    falls = [instances(_falling(selectors[one])) for one in asked if one in policy.counters]
    found = await asyncio.gather(*there.values(), *senseless.values(), twice, *falls)
    last = len(there) + len(senseless)
    return Heard(
        asked=tuple(asked),
        there=dict(zip(there, found, strict=False)),
        senseless=dict(zip(senseless, found[len(there) :], strict=False)),
        twice=found[last],
        fallen=frozenset().union(*found[last + 1 :]),
    )


def _falling(counter: str) -> str:
    """Return the expression for series of a counter that fell lately and leave no room for a restart.

    None of their values is as low as LEFT_BY_RESTART of another one, so no fall was.
    """
    samples = f"{counter}[{FALLS_WITHIN}]"
    lowest = f"min_over_time({samples}) > {LEFT_BY_RESTART} * max_over_time({samples})"
    return f"resets({samples}) > 0 and {lowest}"


async def _read(look: Callable[..., T], *arguments: object) -> T:
    """Read in a thread that nobody else waits for: of many fleets it is much."""
    return await asyncio.get_running_loop().run_in_executor(READER, partial(look, *arguments))


async def _bounded(about: str, look: Callable[[], Awaitable[Finding]]) -> Finding:
    """Look, and say what did not answer; one look that fails hides no other."""
    try:
        async with asyncio.timeout(WITHIN.total_seconds() * 2):
            return await look()
    except TimeoutError:
        sentence = f"it did not answer within {WITHIN.total_seconds() * 2:g} s"
    except RPCError as error:
        sentence = silence_of(error)
    except RuntimeError as error:
        # The text of the engine's client about its first connection is for programmers.
        sentence = "the engine cannot be reached" if is_unconnected(error) else _fault(error)
    except (PenstockError, OSError) as error:
        sentence = f"it does not answer: {str(error) or type(error).__name__}"
    except (ValueError, KeyError, TypeError, IndexError) as error:
        sentence = f"its answer cannot be read: {error}"
    except Exception as error:  # noqa: BLE001 - one look that fails hides no other
        sentence = _fault(error)
    return Finding(about=about, health=Health.WRONG, sentence=sentence)


def _fault(error: Exception) -> str:
    """Return that a look failed by a fault of penstock, with the line that names the fault."""
    line = str(error).partition("\n")[0][:200]
    return f"this look failed, so nothing is known of it ({type(error).__name__}: {line}); report it"


def _with_what_mends(found: Finding) -> Finding:
    """Return the finding with what mends it, where it is not well and names nothing itself."""
    if found.health is Health.WELL or found.next or found.mend:
        return found
    kind = found.about.rpartition(": ")[2]
    return found.model_copy(update={"mend": MENDS.get(kind, MENDS["ledger"])})


def _refused(fleets: Mapping[str, Fleet]) -> Iterator[BadInput]:
    """Yield the first setting of each fleet that no gateway takes."""
    for name, fleet in sorted(fleets.items()):
        if found := next(refused_settings(fleet), None):
            yield BadInput(f"{name}: {found[1]}; `penstock check` names the line")


def _not_back(ledger: Ledger, fleet: str, left_out: Iterable[Quarantine]) -> dict[str, str]:
    """Return the gateways that a rollback still waits for, each with the reason."""
    found = {one.gateway: one.reason for one in left_out if one.person == PENSTOCK}
    newest = ledger.last_change(fleet)
    story = ledger.story(newest.name) if newest is not None else None
    if newest is not None and story is not None:
        told = as_ended(newest, story.told)
        if told.outcome is Outcome.ROLLBACK_INCOMPLETE:
            found |= told.not_back | told.failed
    return found


def _with_reason(found: Mapping[str, str]) -> str:
    """Return the first few names, with the reason of the first that has one."""
    why = next((f"; {name}: {why}" for name, why in sorted(found.items()) if why), "")
    return f"{_named([*found])}{why}"


def _without_signers(signers: Finding, releases: Sequence[str]) -> Finding:
    """Return what was found of signers, with the known-good releases that too few of them have signed."""
    sentence = f"too few signers of trust.yaml have signed what gateways go back to: {', '.join(releases)}"
    if signers.health is not Health.WELL:
        sentence = f"{signers.sentence}; {sentence}"
    mend = signers.mend or f"{SHOW} known-good-lost"
    return signers.model_copy(update={"health": Health.WRONG, "sentence": sentence, "mend": mend})


def _well(about: str, sentence: str) -> Finding:
    return Finding(about=about, health=Health.WELL, sentence=sentence)


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
