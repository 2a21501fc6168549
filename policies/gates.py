"""The gate policy: which questions are asked of the metrics, and what their answers may do."""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from policies.words.verdict import Window
from policies.words.word import Duration, Name, Word, digest_of


def _check_selector(selector: str) -> str:
    """Refuse what would read every instance, or invent values where there are none."""
    name, _, rest = selector.partition("{")
    if not name or not rest.endswith("}") or any(sign in selector for sign in ("(", "[", " or ")):
        raise ValueError(
            'must name raw series, like metric{label="value",$cohort}; sums and rates are the judge\'s'
        )
    if "$cohort" not in rest:
        raise ValueError("would read every instance; put $cohort among the labels")
    return selector


Selector = Annotated[str, AfterValidator(_check_selector)]
"""Raw series of one metric, as Prometheus selects them; `$cohort` stands for the watched instances."""


class Response(StrEnum):
    """What a gate may cause when its answer is bad."""

    ROLL_BACK = "rollback"
    HOLD = "hold"


class Margin(Word):
    """How much worse than control is too bad, and the plain guards beside the statistics.

    `delta` is a difference of shares (0.01 is one point); the odds ratio that follows from it
    is never below `odds_floor`. The guards look at the last `over` of observed scrapes.
    """

    delta: float = Field(default=0.010, gt=0, lt=1)
    odds_floor: float = Field(default=1.5, gt=1)
    min_excess: float = Field(default=0.02, ge=0, lt=1)
    min_bad: int = Field(default=4, ge=1)
    min_ticks: int = Field(default=2, ge=1)
    over: Duration = timedelta(minutes=5)


class Health(Word):
    """What must be shown before promotion: not worse by `delta` or more, wrong in at most `error`.

    While more than `calm` of control's own events are bad, nothing is proven: an outage that all
    share hides the canary's part of the way a login takes.
    """

    delta: float = Field(default=0.03, gt=0, lt=1)
    calm: float = Field(default=0.25, gt=0, le=1)
    error: float = Field(default=0.05, gt=0, lt=0.5)


class _Gate(Word):
    id: Name
    action: Response = Response.ROLL_BACK


class _Counted(_Gate):
    required: bool = False
    share: float = Field(default=0.2, gt=0, le=1, description="part of the error budget")
    margin: Margin = Margin()
    health: Health | None = None
    placebo: bool = False
    optional: bool = Field(default=False, description="says nothing where no gateway exports it")

    @model_validator(mode="after")
    def _promises_fit(self) -> "_Counted":
        if self.required and self.optional:
            raise ValueError(f"gate {self.id}: what is required cannot be optional")
        if self.required and self.health is None:
            raise ValueError(f"gate {self.id}: required, but says no health to prove; add health.delta")
        if self.health is not None and self.health.delta <= self.margin.delta:
            raise ValueError(f"gate {self.id}: health.delta must be larger than margin.delta")
        return self


class Rate(_Counted):
    """Bad events among counted events, from two counters."""

    kind: Literal["rate"]
    bad: Selector
    total: Selector


class Bound(Word):
    """Which histogram bucket separates slow from normal: a fixed one, or control's quantile at the start."""

    fixed: float | None = Field(default=None, gt=0)
    quantile: float = Field(default=0.95, gt=0, lt=1)
    max: float = Field(default=5.0, gt=0, description="seconds above which no bound is taken")


class Exceedance(_Counted):
    """Events slower than a histogram's bucket bound."""

    kind: Literal["exceedance"]
    histogram: Selector
    bound: Bound = Bound()


class Complaints(_Counted):
    """Distinct users who complained, among live sessions; arrives by signed webhook, only ever holds."""

    kind: Literal["complaints"]
    total: Selector
    action: Response = Response.HOLD


class GaugeRatio(_Gate):
    """A gauge (or a counter's rate) per unit, against control's median, averaged over a while."""

    kind: Literal["gauge_ratio"]
    value: Selector
    per: Selector | None = None
    min_per: float = Field(default=20, ge=0, description="below this many units the ratio says nothing")
    counter: bool = Field(default=False, description="take the rate of `value` per second")
    per_counter: bool = Field(default=False, description="take the rate of `per` per second")
    floor: float = Field(default=0.0, ge=0, description="canary values up to this are never too much")
    ratio: float = Field(default=1.5, gt=1)
    ratio_hard: float | None = Field(
        default=None, gt=1, description="ratio that rolls back whatever `action`"
    )
    over: Duration = timedelta(minutes=5)
    action: Response = Response.HOLD


class Slope(_Gate):
    """A gauge that grows on the canary and not on control: a leak; too noisy to roll back.

    A new instance gathers sessions, and files and memory with them: give `per`, or a floor beyond that.
    """

    kind: Literal["slope"]
    value: Selector
    per: Selector | None = None
    min_per: float = Field(default=20, ge=0, description="below this many units the slope says nothing")
    min_span: Duration = timedelta(minutes=20)
    floor_per_minute: float = Field(default=1.0, gt=0)
    action: Literal[Response.HOLD] = Response.HOLD


class Fires(Word):
    """When a raw value is a bad sign; `gone` is a series missing from scrapes that reached its target.

    `value` is the bound, or how large a change must be.
    """

    when: Literal["above", "below", "equals", "changes", "gone"]
    value: float = 0.0


class Hard(_Gate):
    """A sign that needs no statistics, held for a while by the canary and not by a third of control."""

    kind: Literal["hard"]
    value: Selector
    per: Selector | None = None
    fires: Fires
    held: Duration = timedelta(0)
    confirm: bool = Field(default=False, description="believe it only if a probe from here fails too")


class Alerts(_Gate):
    """Alerts that fire for the canary; they only ever hold."""

    kind: Literal["alerts"]
    value: Selector
    action: Literal[Response.HOLD] = Response.HOLD


Gate = Annotated[
    Rate | Exceedance | Complaints | GaugeRatio | Slope | Hard | Alerts, Field(discriminator="kind")
]
Counted = Rate | Exceedance | Complaints


class Identity(Word):
    """Where an instance says which executable gets its new sessions."""

    value: Selector = "vpngw_build_info{$cohort}"
    label: str = "digest"


class Budget(Word):
    """Chances of being wrong over one whole rollout, whatever the number of looks and waves.

    `alpha_equal`: rolling back a release no worse than control, shared out over gates and waves.
    `alpha_margin`: rolling back one exactly at the margin.
    """

    alpha_equal: float = Field(default=0.005, gt=0, lt=0.5)
    alpha_margin: float = Field(default=0.05, gt=0, lt=0.5)
    waves: int = Field(default=1, ge=1)


class Blindness(Word):
    """How long missing evidence is borne before it holds, and before a person is asked."""

    grace: Duration = timedelta(seconds=60)
    cap: Duration = timedelta(minutes=15)


class GatePolicy(Word):
    """The content of gates.yaml. A policy without required gates proves nothing and never promotes."""

    name: Name = "empty"
    version: int = Field(default=1, ge=1)
    scrape: Duration = Field(default=timedelta(seconds=15), gt=timedelta(0))
    poll: Duration = Field(default=timedelta(seconds=5), description="how often hard signals are looked at")
    fresh_within: Duration = timedelta(seconds=45)
    baseline: Duration = Field(
        default=timedelta(hours=1), description="history from which control's share is taken"
    )
    min_controls: int = Field(default=1, ge=1)
    most_controls: int = Field(default=60, ge=1, description="more gateways to compare with add nothing")
    window: Window = Window()
    budget: Budget = Budget()
    blindness: Blindness = Blindness()
    identity: Identity = Identity()
    presence: Selector = 'up{job="vpngw",$cohort}'
    shadow: bool = Field(default=False, description="decisions are recorded, a person acts")
    gates: tuple[Gate, ...] = ()

    @property
    def digest(self) -> str:
        """The identity of this policy, for the audit record."""
        return digest_of(self.model_dump_json().encode())

    def over_waves(self, waves: int) -> "GatePolicy":
        """Return this policy with its error budget shared out over so many waves."""
        return self.model_copy(update={"budget": self.budget.model_copy(update={"waves": max(1, waves)})})

    @property
    def tick(self) -> timedelta:
        """The time between two looks: as often as hard signals need, never more often than scrapes come."""
        return min(self.poll, self.scrape)

    @model_validator(mode="after")
    def _fits_together(self) -> "GatePolicy":
        ids = [gate.id for gate in self.gates]
        twice = sorted({name for name in ids if ids.count(name) > 1})
        if twice:
            raise ValueError(f"gate {twice[0]} is listed twice")
        spent = sum(gate.share for gate in self.gates if isinstance(gate, _Counted))
        if spent > 1 + 1e-9:
            raise ValueError(f"the shares of the gates add up to {spent:g}; at most 1 is there to share out")
        window = self.window
        if not timedelta(0) < window.minimum <= window.nominal <= window.cap:
            raise ValueError("window: minimum, nominal and cap must grow in this order")
        if self.fresh_within < 2 * self.scrape:
            raise ValueError("fresh_within must be at least two scrapes")
        return self


def lint(policy: GatePolicy) -> tuple[str, ...]:
    """Return, as sentences, what is well-formed in the policy and yet cannot work as meant."""
    sentences = []
    if not any(isinstance(gate, _Counted) and gate.required for gate in policy.gates):
        sentences.append("no gate is required, so nothing could ever be promoted")
    if policy.blindness.cap < policy.blindness.grace:
        sentences.append("blindness.cap is shorter than blindness.grace")
    return tuple(sentences)


def selectors(gate: Gate) -> tuple[str, ...]:
    """Return every raw series selector the gate reads."""
    match gate:
        case Rate():
            return (gate.bad, gate.total)
        case Exceedance():
            return (gate.histogram,)
        case Complaints():
            return (gate.total,)
        case GaugeRatio() | Slope() | Hard():
            return (gate.value, gate.per) if gate.per else (gate.value,)
        case Alerts():
            return (gate.value,)
