"""A sign on a changed gateway counts when the control gateways were seen since it began."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.judge.counts import Series
from policies.judge.needs import what_to_read
from policies.judge.reading import Reading
from policies.judge.window import WindowState, fold_reading
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


def read(
    gate: dict[str, Any],
    hurt: set[str],
    phases: Phases,
    at: float,
    lost: set[str],
    back: Mapping[str, float],
    ends: float,
) -> Reading:
    """Return what is read at that second, where the `lost` are scraped no more once it has happened."""
    gone = gate["fires"]["when"] == "gone"
    found: dict[str, list[Series]] = {UP: [], BUILD: [], VALUE: []}
    for name, phase in phases.items():
        digest = TARGET if name == CANARY else OLD

        def times(selector: str, name: str = name, phase: float = phase) -> list[float]:
            seen = scrapes(phase, at, back[selector])
            return [time for time in seen if name not in lost or time < HAPPENS]

        value = [
            (START + time, 2.0 if name in hurt and HAPPENS <= time < ends else 1.0)
            for time in times(VALUE)
            if not (gone and name in hurt and HAPPENS <= time < ends)
        ]
        found[UP].append(series("up", name, [(START + time, 1.0) for time in times(UP)]))
        found[BUILD].append(series("info", name, [(START + t, 1.0) for t in times(BUILD)], digest=digest))
        found[VALUE].append(series("seen", name, value, digest=digest))
    there = {selector: tuple(one for one in some if one.samples) for selector, some in found.items()}
    return Reading(at=START + at, series=there)


def decided(
    gate: dict[str, Any], hurt: set[str], phases: Phases, lost: set[str], ends: float = LASTS
) -> list[Decision]:
    """Return what is decided at each second."""
    asked = {"id": "sign", "kind": "hard", "value": VALUE} | gate
    gates = policy(asked, scrape=f"{EVERY}s", fresh_within=f"{FRESH}s")
    state, decisions = WindowState(), []
    for at in range(LASTS):
        needs = what_to_read(gates, COHORTS, state.memory, START + at)
        back = {name: some.total_seconds() for name, some in {**needs.lookbacks, **needs.presence}.items()}
        reading = read(gate, hurt, phases, at, lost, back, ends)
        state, _, decision = fold_reading(gates, gates.window, COHORTS, state, reading)
        decisions.append(decision)
    return decisions


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
    decisions = decided(SIGNS[sign], set(everyone), given, set(), ends)
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
    decisions = decided(SIGNS[sign], {CANARY}, given, set(CONTROL[:lost]))
    first = next(at for at, one in enumerate(decisions) if one.action is Action.ROLL_BACK)
    held = float(SIGNS[sign].get("held", "0s").rstrip("s"))
    shown = min(time for time in scrapes(given[CANARY], LASTS) if time >= HAPPENS)
    stale = HAPPENS + FRESH if lost else 0.0
    assert first <= max(shown + held + EVERY, stale) + 1
    if held == 0 and not lost:
        others = [min(t for t in scrapes(given[name], LASTS) if t >= shown) for name in CONTROL]
        assert first <= max(others) + 1
