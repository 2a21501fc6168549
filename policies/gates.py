"""The gate policy: which questions are asked of the metrics, and what their answers may do."""

from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from policies.words.errors import BadInput
from policies.words.verdict import Window
from policies.words.word import Duration, Name, Word, digest_of

Selector = Annotated[str, Field(pattern=r"^[a-zA-Z_:][a-zA-Z0-9_:]*\{.*\}$")]
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
    calm: float = Field(default=0.5, gt=0, le=1)
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

    @model_validator(mode="after")
    def _promises_fit(self) -> "_Counted":
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
    floor: float = Field(default=0.0, ge=0, description="canary values up to this are never too much")
    ratio: float = Field(default=1.5, gt=1)
    ratio_hard: float | None = Field(
        default=None, gt=1, description="ratio that rolls back whatever `action`"
    )
    over: Duration = timedelta(minutes=5)
    action: Response = Response.HOLD


class Slope(_Gate):
    """A gauge that grows on the canary and not on control: a leak; too noisy to roll back."""

    kind: Literal["slope"]
    value: Selector
    min_span: Duration = timedelta(minutes=20)
    floor_per_minute: float = Field(default=1.0, gt=0)
    action: Literal[Response.HOLD] = Response.HOLD


class Fires(Word):
    """When a raw value is a bad sign; `gone` is a series missing from scrapes that reached its target."""

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
        default=timedelta(minutes=30), description="history from which control's share is taken"
    )
    min_controls: int = Field(default=1, ge=1)
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


class Problem(Word):
    """One thing a policy should not say, and what to write instead."""

    gate: str
    sentence: str


def lint(policy: GatePolicy) -> tuple[Problem, ...]:
    """Return what is well-formed in the policy and yet unsafe; judging must not start while there is any."""
    problems = [
        Problem(gate=gate.id, sentence=sentence)
        for gate in policy.gates
        for selector in selectors(gate)
        for sentence in _wrong_with(selector)
    ]
    if not any(isinstance(gate, _Counted) and gate.required for gate in policy.gates):
        problems.append(Problem(gate="", sentence="no gate is required, so nothing could ever be promoted"))
    if policy.blindness.cap < policy.blindness.grace:
        problems.append(Problem(gate="", sentence="blindness.cap is shorter than blindness.grace"))
    return tuple(problems)


def selectors(gate: Gate) -> tuple[str, ...]:
    """Return every raw series selector the gate reads."""
    match gate:
        case Rate():
            return (gate.bad, gate.total)
        case Exceedance():
            return (gate.histogram,)
        case Complaints():
            return (gate.total,)
        case GaugeRatio() | Hard():
            return (gate.value, gate.per) if gate.per else (gate.value,)
        case Slope() | Alerts():
            return (gate.value,)


def _wrong_with(selector: str) -> list[str]:
    sentences = []
    if "$cohort" not in selector:
        sentences.append(f"{selector} would read every instance; put $cohort among its labels")
    if " or " in selector or "vector(" in selector:
        sentences.append(f"{selector} invents a value where there is none; name the series alone")
    if "(" in selector.partition("{")[0] or "[" in selector.partition("{")[0] or selector.count("{") > 1:
        sentences.append(f"{selector} must name raw series; rates and sums are taken by the judge")
    return sentences


def parse(text: str) -> GatePolicy:
    """Read gates.yaml.

    Raises:
        BadInput: naming line and key of the first thing that is wrong; lint's findings included.
    """
    import yaml  # noqa: PLC0415 - workflows load this module in their sandbox and never parse

    try:
        root = yaml.compose(text)
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        raise BadInput(
            f"gates.yaml: {line}{getattr(error, 'problem', None) or 'not YAML'}; correct it"
        ) from error
    if not isinstance(content, dict):
        raise BadInput(
            "gates.yaml: line 1: must be a mapping with name, window and gates; see deploy/lab/gates.yaml"
        )
    try:
        policy = GatePolicy.model_validate(content)
    except ValidationError as error:
        raise BadInput(_first_of(error, root)) from error
    problems = lint(policy)
    if problems:
        gate = f"gate {problems[0].gate}: " if problems[0].gate else ""
        raise BadInput(f"gates.yaml: {gate}{problems[0].sentence}")
    return policy


def _first_of(error: ValidationError, root: Any) -> str:
    """Return the first finding as a sentence with line and key."""
    first = error.errors()[0]
    kinds = {"rate", "exceedance", "complaints", "gauge_ratio", "slope", "hard", "alerts"}
    place = [part for part in first["loc"] if part not in kinds]
    key = ".".join(str(part) for part in place) or "the file"
    what = str(first["msg"]).removeprefix("Value error, ")
    return f"gates.yaml: line {_line_of(root, place)}: {key}: {what}"


def _line_of(node: Any, place: list[Any]) -> int:
    """Return the line on which the deepest existing key of this place is written."""
    line = int(node.start_mark.line) + 1
    for part in place:
        if isinstance(part, int) and isinstance(node.value, list) and part < len(node.value):
            node = node.value[part]
            line = int(node.start_mark.line) + 1
            continue
        found = next((pair for pair in _pairs(node) if pair[0].value == part), None)
        if found is None:
            break
        line, node = int(found[0].start_mark.line) + 1, found[1]
    return line


def _pairs(node: Any) -> list[Any]:
    return [pair for pair in node.value if isinstance(pair, tuple)] if isinstance(node.value, list) else []
