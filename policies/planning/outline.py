"""Outlines: what people are shown of an upgrade's plan and what approvals ask of it, without gateways."""

from collections import Counter
from collections.abc import Iterator

from policies.adoption import uncounted_logins
from policies.judge.offline.predict import Proof, what_logins_prove
from policies.model.gates import GatePolicy
from policies.model.plan import Plan, ReleaseRef, Skipped, Strategy
from policies.model.value import Digest, Name, Value
from policies.planning.summary import describe

NAMED = 50
"""Gateways left alone that an outline names; more are counted."""


class PlanOutline(Value):
    """A plan without its gateways, in sentences; made when it is recorded, so that nobody reads all of it."""

    digest: Digest
    fleet: Name
    gateways: int
    """Of the fleet, those that the plan leaves alone too."""
    approvals: int
    """People that the fleet's file asks for."""
    release: ReleaseRef
    strategy: Strategy
    trust_policy: Digest
    gates: GatePolicy
    waves: tuple[int, ...]
    """How many gateways each wave changes."""
    changing: tuple[str, ...]
    """The gateways of all waves."""
    sentences: tuple[str, ...]
    left_alone: tuple[Skipped, ...]
    left_alone_count: int
    known_good: tuple[Digest, ...]
    """What gateways go back to, each release once."""
    versions: dict[str, int]
    """The same by version, each with how many gateways."""
    proofs: tuple[Proof, ...]
    """What the first wave can prove at usual rates of logins."""
    uncounted: tuple[str, ...]
    """Whose logins are in no metric, a sentence."""

    @property
    def controls(self) -> int:
        """With how many gateways the first wave is compared, at least one."""
        return max(1, self.gateways - sum(self.waves[:1]))


def outlined(plan: Plan) -> PlanOutline:
    """Return the outline of a plan."""
    versions = Counter(release.version for release in plan.known_good.values())
    return PlanOutline(
        digest=plan.digest,
        fleet=plan.fleet.name,
        gateways=len(plan.fleet.gateways),
        approvals=plan.fleet.approvals,
        release=plan.release,
        strategy=plan.strategy,
        trust_policy=plan.trust_policy,
        gates=plan.gates,
        waves=tuple(len(wave.gateways) for wave in plan.waves),
        changing=tuple(name for wave in plan.waves for name in wave.gateways),
        sentences=describe(plan),
        left_alone=plan.skipped[:NAMED],
        left_alone_count=len(plan.skipped),
        known_good=tuple(sorted({release.digest for release in plan.known_good.values()})),
        versions=dict(sorted(versions.items())),
        proofs=_proofs(plan),
        uncounted=tuple(_uncounted(plan)),
    )


def _proofs(plan: Plan) -> tuple[Proof, ...]:
    if not plan.waves:
        return ()
    canaries = len(plan.waves[0].gateways)
    return what_logins_prove(plan.gates, canaries=canaries, controls=len(plan.fleet.gateways) - canaries)


def _uncounted(plan: Plan) -> Iterator[str]:
    if said := uncounted_logins(plan.known_good):
        yield f"{said}: gates that compare with them wait for logins elsewhere, or for a person"
