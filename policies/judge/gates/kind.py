"""What every kind of gate is: what it reads, what it makes of it at a tick, and its verdict.

A new kind is a file beside this one and its name in the union of `policies.model.gates`.
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Self

from pydantic import AfterValidator, Field

from policies.judge.guard import GuardState, Limit
from policies.judge.health import HealthState
from policies.judge.look import Baseline, Look
from policies.judge.persistence import Level
from policies.judge.sle import SleState
from policies.judge.tick import Finding, Offence, Sign, Tick
from policies.model.value import Name, Value
from policies.model.verdict import Against, Cohorts, GateReading, GateVerdict


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


@dataclass(frozen=True, slots=True)
class Alpha:
    """Chances of being wrong: on a release that is no worse, and on one exactly at the margin."""

    equal: float
    margin: float

    def times(self, share: float) -> "Alpha":
        """Return a gate's part: of what a harmless release may suffer, each gate has its share."""
        return Alpha(self.equal * share, self.margin)


@dataclass(frozen=True, slots=True)
class Setup:
    """What stays the same over a window, for every gate: who is compared, since when, with which budget.

    `horizon` is the most scrapes a window can have, `overall` the part of the budget that the
    comparison over all waves has, None where there is only one.
    """

    cohorts: Cohorts
    scrape: timedelta
    horizon: int
    started: float
    waves: int
    each_wave: Alpha
    overall: Alpha | None
    passed: bool = False
    """Whether the wave of the changed gateways has passed."""


class GateState(Value):
    """What one gate remembers between ticks; each kind uses its own fields.

    `overall` goes on from wave to wave; all else begins anew. `spared` says when control gateways last
    showed the gate's sign. `noticed` has the first sign on each changed gateway that still shows it, and on
    the `unsure`, of which it is not known yet whether the control shows it, too. `together` are those on
    which it began together with a third of all, where no control is left.
    """

    sle: SleState | None = None
    overall: SleState | None = None
    health: HealthState | None = None
    placebo: dict[str, SleState] = {}
    limit: Limit | None = None
    guard: GuardState = GuardState()
    levels: dict[str, Level] = {}
    spared: dict[str, float] = {}
    noticed: dict[str, Sign] = {}
    unsure: tuple[str, ...] = ()
    together: tuple[str, ...] = Field(default=(), exclude_if=lambda names: not names)


class Kind(Value):
    """One question asked of the metrics at every tick, and what a bad answer may cause."""

    id: Name
    """How verdicts and records call the gate; used once in the file."""
    action: Response = Response.ROLL_BACK
    """What a bad answer may cause: `rollback`, or `hold` until a person decides."""

    @property
    def promised(self) -> tuple[str, ...]:
        """The selectors that must have a fresh value on every canary."""
        return ()

    @property
    def counters(self) -> tuple[str, ...]:
        """The selectors of counters that are folded by difference."""
        return ()

    @property
    def selectors(self) -> tuple[str, ...]:
        """Every selector the gate reads."""
        return tuple(dict.fromkeys((*self.counters, *self.promised)))

    @property
    def missable(self) -> str:
        """The selector whose absence must be told apart from never having been there, if there is one."""
        return ""

    @property
    def changing(self) -> str:
        """The selector of which a change between two ticks is a sign, if there is one."""
        return ""

    def lookback(self, scrape: timedelta) -> timedelta:
        """Return how far back the gate's series must be read, beyond what freshness asks."""
        del scrape
        return timedelta(0)

    def offence(self, lookback: timedelta) -> Offence | None:
        """Return the filter for gateways that may show its sign; None where only samples are asked."""
        del lookback
        return None

    def before(self, baseline: Baseline) -> tuple[float | None, tuple[int, int] | None]:
        """Return the histogram bound to freeze, and control's events and bad ones before the window."""
        del baseline
        return None, None

    def blind(self, look: Look) -> str:
        """Return why this gate cannot be read now; empty when it can."""
        return look.unread((*self.promised, look.presence)) or look.unfresh(self.promised, self.selectors)

    def find(self, look: Look) -> Finding:
        """Return what the gate sees."""
        raise NotImplementedError

    def reading(
        self, verdict: GateVerdict, reason: str, numbers: dict[str, float], against: Against | None = None
    ) -> GateReading:
        """Return the gate's reading; its reason begins with the gate's name."""
        reason = f"{self.id}: {reason}"
        return GateReading(gate=self.id, verdict=verdict, reason=reason, numbers=numbers, against=against)

    def judge(self, setup: Setup, state: GateState, tick: Tick) -> tuple[GateState, GateReading]:
        """Fold what was seen at this tick into the state, and return the verdict."""
        raise NotImplementedError

    def response(self, reading: GateReading) -> Response:
        """Return what this reading may cause."""
        del reading
        return self.action

    def gentle(self) -> Self:
        """Return the gate as the bake asks it: it holds at most, and nothing is to be proven any more."""
        return self.model_copy(update={"action": Response.HOLD})
