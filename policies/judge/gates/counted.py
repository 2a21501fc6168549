"""What gates that count bad events among events have in common: proof of harm, proof of health."""

from dataclasses import dataclass

from pydantic import Field, model_validator

from policies.judge.gates.kind import GateState, Kind, Response, Setup
from policies.judge.health import Health, HealthState, health_step, health_value
from policies.judge.look import Look
from policies.judge.placebo import excess_of, placebo_step, stands_out
from policies.judge.sle import (
    Counts,
    Evidence,
    Margin,
    SleState,
    baseline_share,
    evidence_of,
    proven_worse,
    sle_init,
    sle_step,
)
from policies.judge.tick import Finding, Tick
from policies.words.verdict import Cohorts, GateReading, GateVerdict

MOST_RECENT = 20
_SHOWN_CEILING = 1e12


class Counted(Kind):
    """Bad events among events, compared scrape by scrape with control's."""

    required: bool = False
    share: float = Field(default=0.2, gt=0, le=1, description="part of the error budget")
    margin: Margin = Margin()
    health: Health | None = None
    placebo: bool = False
    optional: bool = Field(default=False, description="says nothing where no gateway exports it")

    @model_validator(mode="after")
    def _promises_fit(self) -> "Counted":
        if self.required and self.optional:
            raise ValueError(f"gate {self.id}: what is required cannot be optional")
        if self.required and self.health is None:
            raise ValueError(f"gate {self.id}: required, but says no health to prove; add health.delta")
        if self.health is not None and self.health.delta <= self.margin.delta:
            raise ValueError(f"gate {self.id}: health.delta must be larger than margin.delta")
        return self

    @property
    def compares(self) -> bool:
        """Whether the gate has nothing to say without control: so it is."""
        return True

    @property
    def must_prove(self) -> bool:
        """Whether nothing is promoted before this gate is proven healthy."""
        return self.required

    @property
    def missable(self) -> str:
        """An optional gate's total: a gateway that has shown it once must go on."""
        return self.promised[0] if self.optional else ""

    def blind(self, look: Look) -> str:
        """Return why this gate cannot be read now; counters are folded together, so one lost blinds all."""
        read = (*self.promised, look.presence, *(look.counters if self.counters else ()))
        unexported = self.optional and not look.last_shown[self.id]
        return look.unread(read) or ("" if unexported else look.unfresh(self.promised))

    def find(self, look: Look) -> Finding:
        """Return events and bad events per instance since the last fold; nothing between folds."""
        if look.growth is None:
            return Finding()
        totals, bads = self.count(look)
        counts = {
            instance: (round(total), max(0, min(round(bads.get(instance, 0.0)), round(total))))
            for instance, total in sorted(totals.items())
        }
        return Finding(counts=counts)

    def count(self, look: Look) -> tuple[dict[str, float], dict[str, float]]:
        """Return events, and bad events, per instance."""
        raise NotImplementedError

    def judge(self, setup: Setup, state: GateState, tick: Tick) -> tuple[GateState, GateReading]:
        """Fold the scrape's counts into both proofs."""
        found = tick.counts.get(self.id)
        sle = state.sle or sle_init(setup.horizon, *tick.baseline.get(self.id, (0, 0)))
        if found is None:
            return state, self._reading(setup, state, sle)
        counts = _sides(found, setup.cohorts)
        memory = max(1, min(MOST_RECENT, round(self.margin.over / setup.scrape)))
        share = baseline_share(sle, self.margin.delta)
        after = sle_step(sle, counts, self.margin, memory)
        health = state.health
        if self.health is not None:
            health = health_step(health or HealthState(), counts, share, self.health)
        placebo = state.placebo
        if self.placebo:
            placebo = placebo_step(
                placebo, found, setup.cohorts.control, self.margin, horizon=setup.horizon, memory=memory
            )
        moved = GateState(sle=after, health=health, placebo=placebo)
        return moved, self._reading(setup, moved, after)

    def gentle(self) -> "Counted":
        """Return the gate as the bake asks it."""
        return self.model_copy(update={"action": Response.HOLD, "required": False})

    def _reading(self, setup: Setup, state: GateState, sle: SleState) -> GateReading:
        evidence, needed = evidence_of(sle), _Needed.of(self, setup)
        proof = health_value(state.health, self.health) if state.health and self.health else 0.0
        numbers = {
            "canary_total": evidence.canary_total,
            "canary_bad": evidence.canary_bad,
            "control_total": evidence.control_total,
            "control_bad": round(evidence.control_share * evidence.control_total),
            "excess": round(evidence.excess, 6),
            "evidence_worse": _shown(evidence.equal),
            "evidence_worse_needed": round(1 / needed.alpha_equal, 6),
            "evidence_margin": _shown(evidence.margin),
            "evidence_margin_needed": round(1 / needed.alpha_margin, 6),
            "evidence_healthy": _shown(proof),
            "evidence_healthy_needed": needed.proof,
        }
        seen = (
            f"{self.id}: {evidence.canary_bad} of {evidence.canary_total} bad on the canary, "
            f"{numbers['control_bad']:.0f} of {evidence.control_total} on control"
        )
        if proven_worse(sle, self.margin, needed.alpha_margin, needed.alpha_equal):
            verdict, more = self._crossed(needed, state, evidence)
        elif self.health is not None and evidence.control_share > self.health.calm:
            verdict, more = GateVerdict.NOT_ENOUGH_DATA, "control fails as well, so nothing is proven"
        elif self.health is not None and proof >= needed.proof:
            verdict, more = GateVerdict.HEALTHY, "proven not worse"
        else:
            verdict, more = GateVerdict.NOT_ENOUGH_DATA, "neither worse nor healthy is proven yet"
        return GateReading(gate=self.id, verdict=verdict, reason=f"{seen}; {more}", numbers=numbers)

    def _crossed(self, needed: "_Needed", state: GateState, evidence: Evidence) -> tuple[GateVerdict, str]:
        """Return unhealthy, or conflicting when control gateways cross as well."""
        excesses = {instance: excess_of(sle) for instance, sle in state.placebo.items()}
        crossed = [
            instance
            for instance, sle in state.placebo.items()
            if proven_worse(sle, self.margin, needed.alpha_margin, needed.alpha_equal)
        ]
        if crossed and not stands_out(evidence.excess, excesses):
            return (
                GateVerdict.CONFLICTING,
                f"but control gateway {crossed[0]} stands out from its peers as well",
            )
        return GateVerdict.UNHEALTHY, f"worse by {100 * evidence.excess:.1f} points, proven"


@dataclass(frozen=True, slots=True)
class _Needed:
    """How much evidence decides."""

    alpha_equal: float
    alpha_margin: float
    proof: float

    @classmethod
    def of(cls, gate: Counted, setup: Setup) -> "_Needed":
        proof = 1 / gate.health.error if gate.health else 0.0
        return cls(setup.alpha_equal * gate.share, setup.alpha_margin, proof)


def _sides(found: dict[str, tuple[int, int]], cohorts: Cohorts) -> Counts:
    def total(instances: tuple[str, ...], part: int) -> int:
        return sum(found.get(instance, (0, 0))[part] for instance in instances)

    return Counts(
        total(cohorts.canary, 0),
        total(cohorts.canary, 1),
        total(cohorts.control, 0),
        total(cohorts.control, 1),
    )


def _shown(value: float) -> float:
    return float(f"{min(value, _SHOWN_CEILING):.6g}")
