"""Plans as people see them: what would happen, to whom, what the traffic can prove, and what starts it."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from activities.drivers.daemon.ocserv.template import credentials_in
from activities.drivers.metrics.prometheus import PrometheusSource
from activities.drivers.trust_files import compose_releases
from activities.files import load
from orchestrator.service.approvals import AnyPlan, ApprovalService
from orchestrator.service.changes import ChangeService
from orchestrator.service.login_rate import attempts_per_minute
from orchestrator.service.standing import looked_at_within
from orchestrator.store.ledger import Ledger
from policies.adoption import is_adopted
from policies.credentials import lacking, untold
from policies.drift import disagreements
from policies.judge.offline.predict import Prediction, Proof, predict, what_logins_prove
from policies.model.approval import Approved
from policies.model.errors import BadInput, Refused
from policies.model.fleet import Fleet
from policies.model.gates import GatePolicy, lint
from policies.model.instance import GatewayState
from policies.model.offer import Offer, Verb
from policies.model.plan import Plan, ReleaseRef, Skipped, Strategy
from policies.model.plan_part import PlanHeader
from policies.model.value import Digest, Value, digest_of
from policies.planning.pools import POOLS, WITH_A_LARGER_POOL
from policies.planning.summary import describe
from policies.status.told import listed

NAMED = 50
"""Gateways left alone that a view names; more are counted."""


class PlanView(Value):
    """A plan without its gateways: its digest, what it does in sentences, and what can be proven."""

    digest: Digest
    fleet: str
    release: Digest | None
    """None where it leads to none: then it gives running instances other files."""
    version: str
    strategy: Strategy | None
    waves: tuple[int, ...]
    """How many gateways each wave changes."""
    sentences: tuple[str, ...]
    left_alone: tuple[Skipped, ...]
    left_alone_count: int
    signers: tuple[str, ...]
    changelog: str = ""
    """What the signers say that the release changes."""
    known_good: dict[str, int]
    """Versions that gateways go back to, each with how many."""
    predictions: tuple[Prediction, ...] = ()
    proofs: tuple[Proof, ...] = ()
    warnings: tuple[str, ...] = ()
    approved: Approved
    """How many people must approve it, and whose word counts; that of whoever asks only if they gave it."""
    offers: tuple[Offer, ...] = ()


@dataclass(frozen=True)
class PlanService:
    """Makes plans of the files as they are now; who may ask is asked before, by `Service`."""

    ledger: Ledger
    changes: ChangeService
    gates: Path
    trust: Path
    prometheus_url: str
    approvals: ApprovalService

    async def plan(self, fleet: Fleet, to: str, strategy: Strategy) -> Plan:
        """Return what an upgrade would do; no gateway is changed.

        Raises:
            DoesNotFit: The release may not follow what one of the gateways would go back to, or its signers
                give the drains another time.
        """
        release = await asyncio.to_thread(self.ledger.release, to, fleet.product)
        gates, trust = await asyncio.to_thread(self._read_files)
        plan = await self.changes.plan(fleet, release, strategy, gates, trust, self._asked_for)
        await asyncio.to_thread(self.approvals.require_as_signed, plan)
        return plan

    async def require_credentials(self, fleet: Fleet, release: ReleaseRef) -> None:
        """Return if no gateway that serves nobody yet is known to lack a credential of its first release.

        Raises:
            Refused: Some lack one; the sentence names gateways and credentials.
            DigestMismatch: The release is not in this installation's store.
        """
        states = (await self.changes.surveys.of(fleet)).states
        asked = await asyncio.to_thread(self._asked_for, release)
        empty = {name: state for name, state in states.items() if state.steering.serving is None}
        without = {name: why for name, state in empty.items() if (why := lacking(state, asked))}
        if without:
            raise Refused(f"{listed(without)}; mend their agents' files, and install again")

    def _asked_for(self, release: ReleaseRef) -> frozenset[str]:
        """Return the names of the credentials that instances of the release are to be given."""
        releases = compose_releases(self.approvals.store, self.trust)
        return credentials_in(releases.template(release.digest))

    async def view(self, plan: AnyPlan, person: str) -> PlanView:
        """Return the plan as that person sees it."""
        if isinstance(plan, PlanHeader):
            return await asyncio.to_thread(self._view_of_reload, plan, person)
        predictions = await self._predict(plan)
        return await asyncio.to_thread(self._view, plan, predictions, person)

    def _view(self, plan: Plan, predictions: tuple[Prediction, ...], person: str) -> PlanView:
        row = next((row for row in self.ledger.releases() if row.release == plan.release), None)
        versions: dict[str, int] = {}
        for release in plan.known_good.values():
            versions[release.version] = versions.get(release.version, 0) + 1
        start = Offer(
            verb=Verb.START,
            fleet=plan.fleet.name,
            release=plan.release.version,
            plan=plan.digest,
            strategy=plan.strategy,
        )
        found = self.approvals.seen_by(plan, person)
        return PlanView(
            digest=plan.digest,
            fleet=plan.fleet.name,
            release=plan.release.digest,
            version=plan.release.version,
            strategy=plan.strategy,
            waves=tuple(len(wave.gateways) for wave in plan.waves),
            sentences=describe(plan),
            left_alone=plan.skipped[:NAMED],
            left_alone_count=len(plan.skipped),
            signers=row.signers if row is not None else (),
            changelog=self.ledger.changelogs([plan.release.digest]).get(plan.release.digest, ""),
            known_good=dict(sorted(versions.items())),
            predictions=predictions,
            proofs=_proofs(plan),
            warnings=self._warnings(plan),
            approved=found,
            offers=_offers(found, start) if plan.waves else (),
        )

    def _view_of_reload(self, plan: PlanHeader, person: str) -> PlanView:
        """Return the plan of a reload as that person sees it."""
        found = self.approvals.seen_by(plan, person)
        verb = Verb.CONFIGURE if plan.settings else Verb.RELOAD
        start = Offer(verb=verb, fleet=plan.fleet, plan=plan.digest)
        waves = tuple(wave.gateways for wave in plan.waves)
        first = f"{plan.changing} of {plan.gateways} gateways in waves of {', '.join(map(str, waves))}"
        touched = "no session is touched: whoever logs in afterwards meets what is new"
        pools = (WITH_A_LARGER_POOL,) * bool(POOLS & set(plan.settings))
        return PlanView(
            digest=plan.digest,
            fleet=plan.fleet,
            release=None,
            version="settings" if plan.settings else "credentials",
            strategy=None,
            waves=waves,
            sentences=(first, touched, *pools, *plan.differences),
            left_alone=(),
            left_alone_count=plan.gateways - plan.changing,
            signers=(),
            known_good={},
            approved=found,
            offers=_offers(found, start),
        )

    def _warnings(self, plan: Plan) -> tuple[str, ...]:
        """Say that the fleet went back from this release before, what nobody counts, where files disagree."""
        row, warned = self.ledger.went_back(plan.fleet.name, plan.release.digest), list[str]()
        if row is not None:
            ended = f" at {row.ended:%Y-%m-%d %H:%M} UTC" if row.ended else ""
            warned.append(f"{plan.release.version} was rolled back here{ended} by {row.name}: {row.sentence}")
        states, _ = self.ledger.states(plan.fleet.name, looked_at_within(len(plan.fleet.gateways)))
        changing = {name: states[name] for wave in plan.waves for name in wave.gateways if name in states}
        unknown = untold(changing, self._asked_for(plan.release))
        return (*warned, *_uncounted(plan), *unknown, *_disagreements(plan.fleet, states))

    async def _predict(self, plan: Plan) -> tuple[Prediction, ...]:
        """Return when each required gate of wave one will have decided; empty when traffic is unknown."""
        if not plan.waves:
            return ()
        source = PrometheusSource(self.prometheus_url)
        try:
            rate = await attempts_per_minute(source, plan.fleet)
        finally:
            source.close()
        canaries = len(plan.waves[0].gateways)
        controls = max(1, len(plan.fleet.gateways) - canaries)
        return predict(plan.gates, rate, canaries=canaries, controls=controls) if rate else ()

    def _read_files(self) -> tuple[GatePolicy, str]:
        gates = load(self.gates, GatePolicy)
        if problems := lint(gates):
            raise BadInput(f"{self.gates} is not safe to judge by: {problems[0]}")
        try:
            trust = self.trust.read_bytes()
        except OSError as error:
            why = error.strerror
            raise BadInput(
                f"the trust policy {self.trust} cannot be read ({why}); write it, or say where it is: "
                "PENSTOCK_TRUST"
            ) from error
        return gates, digest_of(trust)


def _offers(approved: Approved, start: Offer) -> tuple[Offer, ...]:
    """Return how the plan is begun, and before that how it is approved as long as people lack."""
    if not approved.lacking:
        return (start,)
    note = f"by {approved.lacking} who did not ask for it"
    return Offer(verb=Verb.APPROVE, fleet=start.fleet, plan=start.plan, note=note), start


def _disagreements(fleet: Fleet, states: Mapping[str, GatewayState]) -> tuple[str, ...]:
    """Say where agents' files describe their gateways in another way than the fleet's file."""
    gateways = [gateway for gateway in fleet.gateways if gateway.name in states]
    found = {one.name: said[0] for one in gateways if (said := disagreements(one, states[one.name]))}
    if not found:
        return ()
    more = f" and {len(found) - 1} more gateways" if len(found) > 1 else ""
    name, first = next(iter(found.items()))
    return (f"files differ on {name}{more}: {first}",)


def _uncounted(plan: Plan) -> tuple[str, ...]:
    """Say whose logins are in no metric: an exporter reads the logs of slots, and no daemon's own."""
    found = [name for name, release in sorted(plan.known_good.items()) if is_adopted(release)]
    if not found:
        return ()
    more = f" and {len(found) - 1} more gateways" if len(found) > 1 else ""
    said = (
        f"logins to the daemon that was adopted are not counted on {found[0]}{more}: gates that compare with "
        "them wait for logins elsewhere, or for a person"
    )
    return (said,)


def _proofs(plan: Plan) -> tuple[Proof, ...]:
    """Return what the first wave can prove at usual rates of logins."""
    if not plan.waves:
        return ()
    canaries = len(plan.waves[0].gateways)
    controls = len(plan.fleet.gateways) - canaries
    return what_logins_prove(plan.gates, canaries=canaries, controls=controls)
