"""Observation: one slice of watching a wave, folded through the judge tick by tick."""

from datetime import timedelta

from policies.gates import GatePolicy
from policies.words.verdict import Cohorts, Decision, Window
from policies.words.word import Name, Word


class ObservationOrder(Word):
    """Watch these cohorts for at most one slice, going on from `state`.

    `state` is the judge's own JSON as the slice before returned it, empty for the first.
    """

    rollout: Name
    wave: int
    gates: GatePolicy
    cohorts: Cohorts
    window: Window
    slice: timedelta = timedelta(seconds=60)
    state: str = ""


class ObservationSlice(Word):
    """What one slice found: the judge's state, its decision, and the two clocks."""

    state: str
    decision: Decision
    observed: timedelta
    wall: timedelta
    ticks: int
