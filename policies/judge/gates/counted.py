"""What gates that count bad events among events have in common: proof of harm, proof of health."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from statistics import median

from pydantic import Field, model_validator

from policies.judge.gates.kind import Alpha, GateState, Kind, Response, Setup
from policies.judge.guard import Limit, guard_step, harm_value, limit_of
from policies.judge.health import Health, HealthState, absolute, health_step, health_value
from policies.judge.look import Look
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
from policies.model.verdict import Against, GateReading, GateVerdict

MOST_RECENT = 20
FEWEST_CONTROLS, MOST_CONTROLS = 4, 8
"""Control gateways that are tried as placebos; more would only cost time and space."""
TIMES_WORST = 2.0
_SHOWN_CEILING = 1e12


class Counted(Kind):
    """Bad events among events, compared scrape by scrape with control's."""

    required: bool = False
    """Whether nothing is promoted before this gate has proven health."""
    share: float = Field(default=0.2, gt=0, le=1, description="part of the error budget")
    margin: Margin = Margin()
    """How much worse than control is too bad."""
    health: Health | None = None
    """What proves health; a required gate has it."""
    placebo: bool = False
    """Try control gateways as if changed, too: where one of them looks worse, it only holds."""
    worst: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="share of bad events allowed where nobody unchanged is left to compare with",
    )
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
    def missable(self) -> str:
        """An optional gate's total: a gateway that has shown it once must go on."""
        return self.promised[0] if self.optional else ""

    def blind(self, look: Look) -> str:
        """Return why this gate cannot be read now; counters are folded together, so one lost blinds all."""
        read = (*self.promised, look.presence, *(look.counters if self.counters else ()))
        unexported = self.optional and not look.memory.last_shown[self.id]
        return look.unread(read) or (
            "" if unexported else look.unfresh(self.promised, (*self.selectors, *look.counters))
        )

    def find(self, look: Look) -> Finding:
        """Return events and bad events per instance since the last fold; nothing between folds."""
        if look.growth is None:
            return Finding()
        totals, bads = self.count(look)
        return Finding(counts={i: whole(total, bads.get(i, 0.0)) for i, total in sorted(totals.items())})

    def count(self, look: Look) -> tuple[dict[str, float], dict[str, float]]:
        """Return events, and bad events, per instance."""
        raise NotImplementedError

    def judge(self, setup: Setup, state: GateState, tick: Tick) -> tuple[GateState, GateReading]:
        """Fold the scrape's counts into every proof; without control the guard decides."""
        found = tick.counts.get(self.id)
        begun = self._begun(setup, state, tick.baseline.get(self.id, (0, 0)))
        if found is not None:
            state = begun = self._folded(setup, begun, found)
        return state, self.said(setup, begun)

    def said(self, setup: Setup, state: GateState) -> GateReading:
        """Return the verdict on what was folded so far."""
        if state.limit is not None:
            return self._guarded(setup, state, state.limit)
        return self._compared(setup, state)

    def memory(self, scrape: timedelta) -> int:
        """Return how many scrapes count as recent."""
        return max(1, min(MOST_RECENT, round(self.margin.over / scrape)))

    def response(self, reading: GateReading) -> Response:
        """Return what this reading may cause: without a control it may hold and never roll back."""
        return self.action if reading.against is Against.CONTROL else Response.HOLD

    def gentle(self) -> "Counted":
        """Return the gate as the bake asks it."""
        return self.model_copy(update={"action": Response.HOLD, "required": False})

    def _begun(self, setup: Setup, state: GateState, baseline: tuple[int, int]) -> GateState:
        """Return the state with everything that the first fold starts from."""
        update: dict[str, object] = {}
        if state.sle is None:
            update["sle"] = sle_init(setup.horizon, *baseline)
        if state.overall is None and setup.overall is not None:
            update["overall"] = sle_init(setup.horizon * setup.waves, *baseline)
        if not setup.cohorts.control and state.limit is None:
            before = state.overall
            known = (before.baseline, before.baseline_bad) if before else baseline
            leeway = self.health.delta if self.health else max(self.margin.delta, self.margin.min_excess)
            update["limit"] = limit_of(self.worst, leeway, *known)
        return state.model_copy(update=update) if update else state

    def _folded(self, setup: Setup, state: GateState, found: dict[str, tuple[int, int]]) -> GateState:
        cohorts, sle = setup.cohorts, state.sle or sle_init(setup.horizon)
        counts = _sides(found, cohorts.canary, cohorts.control)
        memory = self.memory(setup.scrape)
        share = baseline_share(sle, self.margin.delta)
        health, overall, placebo, guard = state.health, state.overall, state.placebo, state.guard
        if self.health is not None:
            health = health_step(health or HealthState(), counts, share, self.health)
        if overall is not None and setup.overall is not None:
            everyone = _sides(found, (*cohorts.canary, *cohorts.changed_before), cohorts.control)
            overall = sle_step(overall, everyone, self.margin, memory)
        if self.placebo:
            placebo = placebo_step(placebo, found, cohorts.control, self.margin, setup.horizon, memory)
        if state.limit is not None:
            guard = guard_step(guard, counts.canary, counts.canary_bad, state.limit)
        update = {"sle": sle_step(sle, counts, self.margin, memory), "health": health, "overall": overall}
        return state.model_copy(update=update | {"placebo": placebo, "guard": guard})

    def _compared(self, setup: Setup, state: GateState) -> GateReading:
        """Return the verdict from the comparison with control: this wave's, and that over all waves."""
        sle = state.sle or sle_init(setup.horizon)
        evidence, alpha = evidence_of(sle), setup.each_wave.times(self.share)
        proof = health_value(state.health, self.health) if state.health and self.health else 0.0
        needed = 1 / self.health.error if self.health else 0.0
        control_bad = round(evidence.control_share * evidence.control_total)
        numbers = {
            "canary_total": evidence.canary_total,
            "canary_bad": evidence.canary_bad,
            "control_total": evidence.control_total,
            "control_bad": control_bad,
            "excess": round(evidence.excess, 6),
            "evidence_worse": _shown(evidence.equal),
            "evidence_worse_needed": round(1 / alpha.equal, 6),
            "evidence_margin": _shown(evidence.margin),
            "evidence_margin_needed": round(1 / alpha.margin, 6),
            "evidence_healthy": _shown(proof),
            "evidence_healthy_needed": needed,
        }
        changed, others = "the canary", "control"
        worse = proven_worse(sle, self.margin, alpha.margin, alpha.equal)
        if state.overall is not None and setup.overall is not None:
            total, spent = evidence_of(state.overall), setup.overall.times(self.share)
            numbers["evidence_worse_overall"] = _shown(total.equal)
            numbers["evidence_margin_overall"] = _shown(total.margin)
            if not worse and proven_worse(state.overall, self.margin, spent.margin, spent.equal):
                worse, evidence, alpha = True, total, spent
                changed, others = "all changed gateways", "those not yet changed"
        if worse:
            verdict, more = self._crossed(alpha, state, evidence)
        elif self.health is not None and evidence.control_share > self.health.calm:
            verdict, more = GateVerdict.NOT_ENOUGH_DATA, "control fails as well, so nothing is proven"
        elif self.health is not None and evidence.control_total and proof >= needed:
            verdict, more = GateVerdict.HEALTHY, "proven not worse"
        else:
            verdict, more = GateVerdict.NOT_ENOUGH_DATA, "neither worse nor healthy is proven yet"
        counted = f"{evidence.canary_bad} of {evidence.canary_total} bad on {changed}"
        against = f"{control_bad} of {evidence.control_total} on {others}"
        return self.reading(verdict, f"{counted}, {against}; {more}", numbers, Against.CONTROL)

    def _crossed(self, alpha: Alpha, state: GateState, evidence: Evidence) -> tuple[GateVerdict, str]:
        """Return unhealthy, or conflicting when control gateways cross as well."""
        peers = state.placebo.items()
        crossed = [i for i, sle in peers if proven_worse(sle, self.margin, alpha.margin, alpha.equal)]
        if crossed and not stands_out(evidence.excess, [evidence_of(sle).excess for _, sle in peers]):
            more = f"but control gateway {crossed[0]} stands out from its peers as well"
            return GateVerdict.CONFLICTING, more
        return GateVerdict.UNHEALTHY, f"worse by {100 * evidence.excess:.1f} points, proven"

    def _guarded(self, setup: Setup, state: GateState, limit: Limit) -> GateReading:
        """Return the verdict from the limit: nobody unchanged is left."""
        evidence = evidence_of(state.sle or sle_init(setup.horizon))
        harm, needed = harm_value(state.guard), 1 / setup.each_wave.times(self.share).equal
        whose = "the fleet's own baseline" if limit.against is Against.BASELINE else "the guard"
        allowed = f"the {limit.share:.1%} that {whose} allows"
        proof = absolute(state.health, limit.share) if state.health else 0.0
        enough = evidence.canary_bad >= self.margin.min_bad and evidence.bad_ticks >= self.margin.min_ticks
        if harm >= needed and enough:
            verdict, more = GateVerdict.UNHEALTHY, f"proven more than {allowed}"
        elif self.health is not None and proof * self.health.error >= 1:
            verdict, more = GateVerdict.HEALTHY, f"proven less than {allowed}"
        else:
            verdict, more = GateVerdict.NOT_ENOUGH_DATA, f"not proven less than {allowed}"
        numbers = {
            "canary_total": evidence.canary_total,
            "canary_bad": evidence.canary_bad,
            "limit": round(limit.share, 6),
            "evidence_beyond": _shown(harm),
            "evidence_beyond_needed": round(needed, 6),
        }
        counted = f"{evidence.canary_bad} of {evidence.canary_total} bad"
        reason = f"{counted}, and nobody unchanged is left to compare with; {more}"
        return self.reading(verdict, reason, numbers, limit.against)


def placebo_step(
    states: Mapping[str, SleState],
    found: Mapping[str, tuple[int, int]],
    control: Sequence[str],
    margin: Margin,
    horizon: int,
    memory: int,
) -> dict[str, SleState]:
    """Fold one scrape for each control gateway that plays the canary against the others, by the same rule.

    Once one of them has crossed, the fleet itself is uneven, and a crossing of the canary counts only
    when it `stands_out`.
    """
    if len(control) < FEWEST_CONTROLS:
        return {}
    after, everybody = {}, _sides(found, (), control)
    for instance in sorted(control)[:MOST_CONTROLS]:
        mine, bad = found.get(instance, (0, 0))
        counts = Counts(mine, bad, everybody.control - mine, everybody.control_bad - bad)
        after[instance] = sle_step(states.get(instance) or sle_init(horizon), counts, margin, memory)
    return after


def stands_out(canary_excess: float, excesses: Sequence[float]) -> bool:
    """Whether the canary's excess is at least twice the worst control's, over the median gateway."""
    middle = median(excesses)
    return canary_excess - middle >= TIMES_WORST * (max(excesses) - middle)


def whole(total: float, bad: float) -> tuple[int, int]:
    """Return events and bad events as whole numbers, never more bad ones than events."""
    return round(total), max(0, min(round(bad), round(total)))


def _sides(found: Mapping[str, tuple[int, int]], changed: Sequence[str], control: Sequence[str]) -> Counts:
    def total(instances: Sequence[str], part: int) -> int:
        return sum(found.get(instance, (0, 0))[part] for instance in instances)

    return Counts(total(changed, 0), total(changed, 1), total(control, 0), total(control, 1))


def _shown(value: float) -> float:
    return float(f"{min(value, _SHOWN_CEILING):.6g}")
