"""Windows for the judge's tests: cohorts, ticks, readings, and runs of many ticks."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from policies.judge.counts import Series
from policies.judge.reading import Reading
from policies.judge.tick import Tick
from policies.judge.window import WindowState, fold_tick
from policies.model.gates import GatePolicy
from policies.model.verdict import Action, Cohorts, Decision

TARGET = "sha256:" + "ab" * 32
OLD = "sha256:" + "cd" * 32
CANARY, CONTROL = "10.0.0.1:9500", tuple(f"10.0.0.{n}:9500" for n in range(2, 5))
COHORTS = Cohorts(canary=(CANARY,), control=CONTROL, expected={CANARY: TARGET, **dict.fromkeys(CONTROL, OLD)})
START = 1_800_000_000.0


def policy(*gates: dict[str, Any], **more: Any) -> GatePolicy:
    """Return a policy of these gates with one-second scrapes and a short window."""
    given: dict[str, Any] = {
        "name": "test",
        "scrape": "1s",
        "fresh_within": "5s",
        "baseline": "60s",
        "window": {"minimum": "10s", "nominal": "20s", "extension": "20s", "cap": "90s"},
        "blindness": {"grace": "10s", "cap": "60s"},
        "gates": gates or (LOGINS,),
    }
    return GatePolicy.model_validate(given | more)


LOGINS: dict[str, Any] = {
    "id": "logins",
    "kind": "rate",
    "required": True,
    "share": 0.5,
    "bad": 'attempts{outcome="bad",$cohort}',
    "total": "attempts{$cohort}",
    "margin": {"delta": 0.02, "min_excess": 0.1, "over": "20s"},
    "health": {"delta": 0.2},
}


def counted(tick: int, canary: tuple[int, int], control: tuple[int, int], **more: Any) -> Tick:
    """Return a tick at which these (events, bad events) were counted on each gateway."""
    counts = {CANARY: canary, **dict.fromkeys(CONTROL, control)}
    return Tick(at=START + tick, counts={"logins": counts}, **more)


def fold(
    gates: GatePolicy, ticks: Iterable[Tick], state: WindowState | None = None
) -> tuple[WindowState, list[Decision]]:
    """Fold all ticks, whatever is decided on the way."""
    state = state or WindowState()
    decisions = []
    for tick in ticks:
        state, decision = fold_tick(gates, gates.window, COHORTS, state, tick)
        decisions.append(decision)
    return state, decisions


def actions(decisions: Sequence[Decision]) -> list[Action]:
    """Return what was decided, tick by tick."""
    return [decision.action for decision in decisions]


def series(name: str, instance: str, samples: Sequence[tuple[float, float]], **labels: str) -> Series:
    """Return one series as Prometheus would give it."""
    return Series(labels={"__name__": name, "instance": instance, **labels}, samples=tuple(samples))


def reading(at: float, found: Mapping[str, Sequence[Series]], **more: Any) -> Reading:
    """Return what was read at one moment."""
    return Reading(at=at, series={name: tuple(some) for name, some in found.items()}, **more)


def seconds(number: float) -> timedelta:
    """Return so many seconds."""
    return timedelta(seconds=number)
