"""A sign on a changed gateway counts when the control gateways were seen since it began."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from math import ceil
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.judge.counts import Series
from policies.judge.needs import what_to_read
from policies.judge.reading import Reading
from policies.judge.tick import Sign, Tick
from policies.judge.window import WindowState, fold_reading, fold_tick, restarted
from policies.model.gates import GatePolicy
from policies.model.verdict import Action, Decision, GateVerdict
from tests.unit.judged import CANARY, COHORTS, CONTROL, OLD, START, TARGET, policy, series

UP, BUILD, VALUE = 'up{job="vpngw",$cohort}', "vpngw_build_info{$cohort}", "seen{$cohort}"
EVERY = 4
"""Seconds between two scrapes of one gateway."""
FRESH = 10
"""How old a scrape may be, in seconds, before its gateway is waited for no longer."""
HAPPENS = 10.5
"""When it happens, on whom it does."""
LASTS = 30

SIGNS: dict[str, dict[str, Any]] = {
    "a restart": {"fires": {"when": "changes"}},
    "a series that is gone": {"fires": {"when": "gone"}},
    "a series that is gone for a while": {"fires": {"when": "gone"}, "held": "3s"},
    "a bad value": {"fires": {"when": "above", "value": 1}},
    "a bad value that lasts": {"fires": {"when": "above", "value": 1}, "held": "7s"},
}

Phases = Mapping[str, float]
"""By gateway, how long after a full period it is scraped, in seconds."""


def scrapes(phase: float, at: float, back: float = LASTS) -> list[float]:
    return [time for n in range(-10, 20) if at - back <= (time := EVERY * n + phase) <= at]


Happened = Callable[[str, float], bool]
"""Whether a gateway shows the sign when it is scraped at that second."""


def to(hurt: Collection[str], ends: float = LASTS) -> Happened:
    return lambda name, at: name in hurt and HAPPENS <= at < ends


def read(
    gate: Mapping[str, Any], happened: Happened, phases: Phases, at: float, state: WindowState
) -> Reading:
    """Return what is read at that second; who is in `phases` is scraped."""
    needs, kind = what_to_read(asked(gate), COHORTS, state.memory, START + at), gate["fires"]["when"]
    back = {name: some.total_seconds() for name, some in {**needs.lookbacks, **needs.presence}.items()}
    found: dict[str, list[Series]] = {UP: [], BUILD: [], VALUE: []}
    for name, phase in phases.items():
        digest, times = TARGET if name == CANARY else OLD, {n: scrapes(phase, at, back[n]) for n in found}
        value = [(t, happened(name, t)) for t in times[VALUE]]
        samples = [(START + t, 1.0 + bad) for t, bad in value if not (bad and kind == "gone")]
        found[UP].append(series("up", name, [(START + t, 1.0) for t in times[UP]]))
        found[BUILD].append(series("info", name, [(START + t, 1.0) for t in times[BUILD]], digest=digest))
        found[VALUE].append(series("seen", name, samples, digest=digest))
    there = {selector: tuple(one for one in some if one.samples) for selector, some in found.items()}
    return Reading(at=START + at, series=there)


def asked(gate: Mapping[str, Any]) -> GatePolicy:
    sign = {"id": "sign", "kind": "hard", "value": VALUE, **gate}
    return policy(sign, scrape=f"{EVERY}s", fresh_within=f"{FRESH}s")


def decided(
    gate: Mapping[str, Any],
    happened: Happened,
    phases: Phases,
    lost: Collection[str] = (),
    restarts: float = LASTS + 1,
) -> list[Decision]:
    """Return what is decided at each second, where the `lost` are scraped no more once it has happened."""
    gates = asked(gate)
    state, decisions = WindowState(), []
    for at in range(LASTS):
        state = restarted(state) if at - 1 < restarts <= at else state
        reading = read(gate, happened, phases, at, state)
        kept = {
            name: tuple(one for one in (_until(one) if one.instance in lost else one for one in some) if one)
            for name, some in reading.series.items()
        }
        state, _, decision = fold_reading(gates, gates.window, COHORTS, state, replace(reading, series=kept))
        decisions.append(decision)
    return decisions


def _until(one: Series) -> Series | None:
    samples = tuple(sample for sample in one.samples if sample[0] < START + HAPPENS)
    return Series(one.labels, samples) if samples else None


offsets = st.lists(st.sampled_from([0.0, 0.6, 1.2, 1.8, 2.4, 3.0, 3.6]), min_size=4, max_size=4)


@pytest.mark.parametrize("ends", [LASTS, HAPPENS + 14.2])
@pytest.mark.parametrize("sign", SIGNS)
@settings(max_examples=30)
@given(offsets)
def test_what_happens_to_the_whole_fleet_is_never_taken_for_the_releases_fault(
    sign: str, ends: float, phases: list[float]
) -> None:
    everyone = (CANARY, *CONTROL)
    given = dict(zip(everyone, phases, strict=True))
    decisions = decided(SIGNS[sign], to(everyone, ends), given)
    assert Action.ROLL_BACK not in {decision.action for decision in decisions}
    assert GateVerdict.CONFLICTING in {decision.verdict for decision in decisions}


@pytest.mark.parametrize("lost", [0, 1, 3])
@pytest.mark.parametrize("sign", SIGNS)
@settings(max_examples=30)
@given(offsets)
def test_what_happens_to_the_canary_alone_waits_for_one_scrape_of_the_control_and_for_none_that_are_silent(
    sign: str, lost: int, phases: list[float]
) -> None:
    everyone = (CANARY, *CONTROL)
    given = dict(zip(everyone, phases, strict=True))
    decisions = decided(SIGNS[sign], to([CANARY]), given, CONTROL[:lost])
    first = next(at for at, one in enumerate(decisions) if one.action is Action.ROLL_BACK)
    held = float(SIGNS[sign].get("held", "0s").rstrip("s"))
    shown = min(time for time in scrapes(given[CANARY], LASTS) if time >= HAPPENS)
    stale = HAPPENS + FRESH if lost else 0.0
    assert first <= max(shown + EVERY * ceil(held / EVERY) + EVERY, stale) + 1
    if held == 0 and not lost:
        others = [min(t for t in scrapes(given[name], LASTS) if t >= shown) for name in CONTROL]
        assert first <= max(others) + 1


@settings(max_examples=30)
@given(offsets, st.sampled_from([2.5, 3.3, 5.0, 7.0]))
def test_a_canary_that_crashes_again_and_again_waits_no_longer_than_one_that_crashes_once(
    phases: list[float], every: float
) -> None:
    def crashes(name: str, at: float) -> bool:
        return name == CANARY and at >= HAPPENS and int((at - HAPPENS) // every) % 2 == 0

    given = dict(zip((CANARY, *CONTROL), phases, strict=True))
    for sign in ("a restart", "a bad value", "a series that is gone"):
        decisions = decided(SIGNS[sign], crashes, given)
        bad = [time for time in scrapes(given[CANARY], LASTS) if crashes(CANARY, time)]
        rolled_back = [at for at, one in enumerate(decisions) if one.action is Action.ROLL_BACK]
        if bad and bad[0] + EVERY + 1 < LASTS:
            assert rolled_back
            assert rolled_back[0] <= bad[0] + EVERY + 1, sign


@settings(max_examples=30)
@given(offsets, st.sampled_from([9.0, 10.0, 11.0, 12.0, 14.0, 17.0]))
def test_what_is_not_decided_when_another_window_begins_is_decided_in_it(
    phases: list[float], restarts: float
) -> None:
    given = dict(zip((CANARY, *CONTROL), phases, strict=True))
    for sign in ("a restart", "a bad value", "a series that is gone"):
        decisions = decided(SIGNS[sign], to([CANARY]), given, restarts=restarts)
        assert Action.ROLL_BACK in {one.action for one in decisions}, sign


def test_a_clock_that_is_set_back_lets_an_old_sign_of_the_control_hide_no_bad_canary() -> None:
    gates, state, decisions = asked(SIGNS["a restart"]), WindowState(), []

    def tick(at: float, *on: str) -> Tick:
        signs = {name: Sign(since=START + at - 0.5, until=START + at) for name in on}
        return Tick(at=START + at, signs={"sign": signs})

    for one in (tick(600), tick(601, CONTROL[0]), *(tick(at, CANARY) for at in range(20, 60))):
        state, decision = fold_tick(gates, gates.window, COHORTS, state, one)
        decisions.append(decision.action)
    assert Action.ROLL_BACK in decisions
