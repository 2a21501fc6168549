"""The gate policy: which questions are asked of the metrics, and what their answers may do.

Each kind of question is a file under `policies.judge.gates`.
"""

from datetime import timedelta
from typing import Annotated

from pydantic import AliasChoices, Field, model_validator

from policies.judge.gates.alerts import Alerts
from policies.judge.gates.complaints import Complaints
from policies.judge.gates.counted import Counted
from policies.judge.gates.exceedance import Exceedance
from policies.judge.gates.gauge_ratio import GaugeRatio
from policies.judge.gates.hard import Hard
from policies.judge.gates.kind import Alpha, Selector
from policies.judge.gates.rate import Rate
from policies.judge.gates.slope import Slope
from policies.judge.gates.tickets import Tickets
from policies.judge.sample import MOST
from policies.model.value import Duration, Name, Value, digest_of, twice
from policies.model.verdict import Window

Gate = Annotated[
    Rate | Exceedance | Complaints | GaugeRatio | Slope | Hard | Alerts | Tickets, Field(discriminator="kind")
]


OVERALL = 0.75
"""Part of the error budget that the comparison over all waves has, where there are several."""


class Identity(Value):
    """Where an instance says which executable gets its new sessions."""

    value: Selector = "vpngw_build_info{$cohort}"
    """The series that says it."""
    label: str = "digest"
    """Its label with the digest of the executable."""


class Boot(Value):
    """Where a host says which boot it is in; where it says nothing, a reboot looks like a crash."""

    value: Selector = "vpngw_boot_info{$cohort}"
    """The series that says it."""
    label: str = "boot_id"
    """Its label with the name of the boot."""


class Budget(Value):
    """Chances of being wrong over one whole rollout, whatever the number of looks and waves.

    `alpha_equal`: rolling back a release no worse than control, shared out over gates and waves.
    `alpha_margin`: rolling back one exactly at the margin. The comparison of all changed gateways
    with all others, which goes on over the waves, has most of both; what each wave's own
    comparison has is shared out over the waves.
    """

    alpha_equal: float = Field(default=0.005, gt=0, lt=0.5)
    """Chance of rolling back a release that is no worse than control."""
    alpha_margin: float = Field(default=0.05, gt=0, lt=0.5)
    """Chance of rolling back one that is exactly at the margin."""
    waves: int = Field(default=1, ge=1)
    """Set by penstock when a change begins; leave it out."""

    @property
    def overall(self) -> Alpha | None:
        """What the comparison over all waves has; None where one wave's is all there is."""
        return Alpha(self.alpha_equal * OVERALL, self.alpha_margin * OVERALL) if self.waves > 1 else None

    @property
    def each_wave(self) -> Alpha:
        """What the comparison of one wave has."""
        part = (1 - OVERALL) / self.waves if self.waves > 1 else 1.0
        return Alpha(self.alpha_equal * part, self.alpha_margin * part)


class Blindness(Value):
    """How long missing evidence is borne before it holds, and before a person is asked."""

    grace: Duration = timedelta(seconds=60)
    """Missing evidence is borne for so long without a word."""
    cap: Duration = timedelta(minutes=15)
    """After so long a person is asked."""


class GatePolicy(Value):
    """The content of gates.yaml. A policy without required gates proves nothing and never promotes."""

    name: Name = "empty"
    """How verdicts and records call this policy."""
    version: int = Field(default=1, ge=1)
    """Yours to count up with each change of the file."""
    scrape: Duration = Field(default=timedelta(seconds=15), gt=timedelta(0))
    """How often Prometheus scrapes the exporters: `scrape_interval` of its job."""
    poll: Duration = Field(default=timedelta(seconds=5), description="how often hard signs are looked at")
    fresh_within: Duration = timedelta(seconds=45)
    """How old a sample may be and still count, two scrapes at least."""
    baseline: Duration = Field(
        default=timedelta(hours=1), description="control's history before the window that says what is normal"
    )
    min_controls: int = Field(default=1, ge=1)
    """Unchanged gateways that must have fresh values, as far as there are so many."""
    sample: int = Field(
        default=200,
        ge=1,
        le=MOST,
        validation_alias=AliasChoices("sample", "most_controls"),  # as the first core's files have it
        description="changed, and unchanged, gateways whose counters are read",
    )
    window: Window = Window()
    """How long a wave is watched."""
    budget: Budget = Budget()
    """How often the judge may be wrong."""
    blindness: Blindness = Blindness()
    """How long missing evidence is borne."""
    identity: Identity = Identity()
    """How it is seen that a gateway runs what the plan put there."""
    boot: Boot = Boot()
    """How a reboot is told from a crash."""
    presence: Selector = 'up{job="vpngw",$cohort}'
    """The series that says whether a gateway's exporter was reached; your job's name in place of `vpngw`."""
    shadow: bool = Field(default=False, description="verdicts are only recorded, and a person acts")
    passed: bool = Field(
        default=False,
        description="set by penstock where it watches gateways whose wave has passed; leave it out",
        exclude_if=lambda passed: not passed,
    )
    gates: tuple[Gate, ...] = ()
    """The questions; without a required one nothing is ever promoted by itself."""

    @property
    def digest(self) -> str:
        """The identity of this policy, for the audit record."""
        return digest_of(self.model_dump_json().encode())

    def over_waves(self, waves: int) -> "GatePolicy":
        """Return this policy with its error budget shared out over so many waves."""
        return self.model_copy(update={"budget": self.budget.model_copy(update={"waves": max(1, waves)})})

    def baking(self, kept: timedelta) -> "GatePolicy":
        """Return this policy as it watches promoted gateways for the time the old release is kept.

        What compares does so with the gateways not changed, if any are left, else with the fleet's own
        baseline and the gates' guards. Nothing is promoted again; a rollback is one decision away, and
        everything that is no hard sign asks a person.
        """
        cap = max(kept, self.window.minimum)
        clocks = {"minimum": cap, "nominal": cap, "extension": timedelta(0), "cap": cap}
        gates = tuple(gate.gentle() for gate in self.gates)
        window = self.window.model_copy(update=clocks)
        return self.model_copy(update={"gates": gates, "window": window, "passed": True})

    @property
    def counters(self) -> frozenset[str]:
        """The selectors of all counters that are folded by difference."""
        return frozenset(selector for gate in self.gates for selector in gate.counters)

    @property
    def required(self) -> tuple[str, ...]:
        """The gates without whose proof of health nothing is promoted."""
        return tuple(gate.id for gate in self.gates if isinstance(gate, Counted) and gate.required)

    @property
    def tick(self) -> timedelta:
        """The time between two looks: as often as hard signals need, never more often than scrapes come."""
        return min(self.poll, self.scrape)

    @model_validator(mode="after")
    def _fits_together(self) -> "GatePolicy":
        if name := twice(gate.id for gate in self.gates):
            raise ValueError(f"gate {name} is listed twice")
        spent = sum(gate.share for gate in self.gates if isinstance(gate, Counted))
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
    sentences = {
        "no gate is required, so nothing could ever be promoted": not policy.required,
        "blindness.cap is shorter than blindness.grace": policy.blindness.cap < policy.blindness.grace,
    }
    return tuple(sentence for sentence, holds in sentences.items() if holds)


def required_of_exporters(policy: GatePolicy) -> tuple[str, ...]:
    """Return the selectors of which each gateway that serves must have a fresh value, or its wave holds."""
    asked = [policy.identity.value]
    for gate in policy.gates:
        if not (isinstance(gate, Alerts) or (isinstance(gate, Counted) and gate.optional)):
            asked += gate.promised
    return tuple(dict.fromkeys(asked))
