"""Plans as people see them: what would happen, to whom, what the traffic can prove, and what starts it."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

from activities.drivers.daemon.ocserv.settings import refused_settings
from activities.drivers.daemon.template import credentials_in
from activities.drivers.trust_files import compose_releases
from activities.files import load_gates
from activities.observation import MetricsSource
from orchestrator.service.approvals import AnyPlan, ApprovalService
from orchestrator.service.background import LOOKS, PLANS, Pool
from orchestrator.service.changes import ChangeService
from orchestrator.service.login_rate import attempts_per_minute
from orchestrator.service.standing import looked_at_within
from orchestrator.store.ledger import Ledger
from orchestrator.store.states import AgentsFile
from policies.credentials import lacking, untold
from policies.drift import described_by, digest_of_file, disagreements
from policies.judge.offline.predict import Prediction, Proof, predict
from policies.model.approval import Approved
from policies.model.change import Outcome
from policies.model.errors import BadInput, Refused
from policies.model.fleet import Fleet
from policies.model.gates import GatePolicy
from policies.model.offer import Offer, Verb
from policies.model.plan import Plan, ReleaseRef, Skipped, Strategy
from policies.model.plan_part import PlanHeader
from policies.model.rollback_progress import how_left
from policies.model.value import Digest, Value, digest_of
from policies.pins import pin_of
from policies.planning.outline import PlanOutline
from policies.planning.pools import POOLS, WITH_A_LARGER_POOL
from policies.status.told import listed
from policies.steering import promised


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
    window: str = ""
    """Whether its first wave may start now, and when otherwise."""
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
    metrics: MetricsSource
    approvals: ApprovalService
    _described: dict[str, tuple[Fleet, Mapping[str, Digest | None]]] = field(default_factory=dict, init=False)
    """How files describe the gateways of fleets, by fleet."""

    async def plan(self, fleet: Fleet, to: str, strategy: Strategy, person: str = "") -> Plan:
        """Return what an upgrade would do, for that person; no gateway is changed.

        Raises:
            DoesNotFit: The release may not follow what one of the gateways would go back to, or its signers
                give the drains another time.
        """
        release = await asyncio.to_thread(self.ledger.release, to, fleet.product)
        gates, trust = await asyncio.to_thread(self._read_files)
        asked_for = self._asked_for
        plan = await self.changes.plan(fleet, release, strategy, gates, trust, asked_for, person=person)
        await PLANS.run(partial(self.approvals.require_as_signed, plan), person)
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

    async def view(self, plan: AnyPlan, fleet: Fleet, person: str, pool: Pool = LOOKS) -> PlanView:
        """Return the plan of that fleet, as its file describes it now, as that person sees it.

        `pool` is PLANS for whoever has just made the plan.
        """
        if isinstance(plan, PlanHeader):
            return await pool.run(partial(self._view_of_reload, plan, person), person)
        predictions = await self._predict(plan, fleet)
        return await pool.run(partial(self._view, plan, fleet, predictions, person), person)

    def _view(
        self, plan: PlanOutline, fleet: Fleet, predictions: tuple[Prediction, ...], person: str
    ) -> PlanView:
        row = self.ledger.release_row(plan.release.digest)
        start = Offer(
            verb=Verb.START,
            fleet=plan.fleet,
            release=plan.release.version,
            plan=plan.digest,
            strategy=plan.strategy,
        )
        found = self.approvals.seen_by(plan, person)
        return PlanView(
            digest=plan.digest,
            fleet=plan.fleet,
            release=plan.release.digest,
            version=plan.release.version,
            strategy=plan.strategy,
            waves=plan.waves,
            sentences=(*plan.sentences, *promised(fleet, plan.changing)),
            left_alone=plan.left_alone,
            left_alone_count=plan.left_alone_count,
            signers=row.signers if row is not None else (),
            changelog=self.ledger.changelogs([plan.release.digest]).get(plan.release.digest, ""),
            known_good=plan.versions,
            predictions=predictions,
            proofs=plan.proofs,
            warnings=self._warnings(plan, fleet),
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
        without = (plan.passed_over,) * bool(plan.passed_over)
        pools = (WITH_A_LARGER_POOL,) * bool(POOLS & set(plan.settings))
        return PlanView(
            digest=plan.digest,
            fleet=plan.fleet,
            release=None,
            version="settings" if plan.settings else "credentials",
            strategy=None,
            waves=waves,
            sentences=(first, *without, touched, *pools, *plan.differences),
            left_alone=(),
            left_alone_count=plan.gateways - plan.changing,
            signers=(),
            known_good={},
            approved=found,
            offers=_offers(found, start),
        )

    def _warnings(self, plan: PlanOutline, fleet: Fleet) -> tuple[str, ...]:
        """Say that the fleet went back from this release before, what nobody counts, where files disagree."""
        row, warned = self.ledger.went_back(plan.fleet, plan.release.digest), list[str]()
        if row is not None:
            ended = f" at {row.ended:%Y-%m-%d %H:%M} UTC" if row.ended else ""
            some = " on some gateways only" if row.outcome is Outcome.ROLLBACK_INCOMPLETE else ""
            back = f"was rolled back here{some}{ended}"
            warned.append(f"{plan.release.version} {back} by {row.name}: {row.sentence}")
        elif (taken_back := self._taken_back(plan)) is not None:
            warned.append(taken_back)
        told = self.ledger.agents_files(plan.fleet, looked_at_within(len(fleet.gateways)))
        vaults = {name: told[name].elsewhere for name in plan.changing if name in told}
        unknown = untold(vaults, self._asked_for(plan.release))
        refused = tuple(f"no gateway takes these {why}" for _, why in islice(refused_settings(fleet), 1))
        return (*warned, *plan.uncounted, *unknown, *refused, *self._disagreements(fleet, told))

    def _taken_back(self, plan: PlanOutline) -> str | None:
        """Return that the release was promoted here and taken back since, None where it was not."""
        newest = self.ledger.newest_to(plan.fleet, plan.release.digest)
        if newest is None or newest.taken_back_by is None:
            return None
        pin = pin_of(newest, self.ledger.change(newest.taken_back_by))
        if pin is None:
            return None
        at = f"{pin.at:%Y-%m-%d %H:%M} UTC" if pin.at else ""
        return f"{plan.release.version} {how_left(newest.taken_back_by, pin.rollback, at)}: {pin.why}"

    def _disagreements(self, fleet: Fleet, told: Mapping[str, AgentsFile]) -> tuple[str, ...]:
        """Say where agents' files describe their gateways in another way than the fleet's file."""
        files = {name: file for name, one in told.items() if (file := one.described) is not None}
        found = [name for name, ours in self._described_by(fleet).items() if files.get(name, ours) != ours]
        if not found:
            return ()
        (row,) = self.ledger.gateway_rows(fleet.name, found[:1])
        if row.state is None:
            return ()
        first = disagreements(fleet.gateway(row.gateway), row.state.described)
        more = f" and {len(found) - 1} more gateways" if len(found) > 1 else ""
        return tuple(f"files differ on {row.gateway}{more}: {said}" for said in first[:1])

    def _described_by(self, fleet: Fleet) -> Mapping[str, Digest | None]:
        """Return the digest of how the fleet's file describes each gateway; made once for each file."""
        known = self._described.get(fleet.name)
        if known is None or known[0] is not fleet:
            digests = {one.name: digest_of_file(described_by(one)) for one in fleet.gateways}
            known = self._described[fleet.name] = (fleet, digests)
        return known[1]

    async def _predict(self, plan: PlanOutline, fleet: Fleet) -> tuple[Prediction, ...]:
        """Return when each required gate of wave one will have decided; empty when traffic is unknown."""
        if not plan.waves:
            return ()
        rate = await attempts_per_minute(self.metrics, fleet)
        if not rate:
            return ()
        return predict(plan.gates, rate, canaries=plan.waves[0], controls=plan.controls)

    def _read_files(self) -> tuple[GatePolicy, str]:
        gates = load_gates(self.gates)
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
