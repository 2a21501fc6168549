"""Whom to read: every canary, and of a large control a part that is always the same."""

from policies.gates import GatePolicy
from policies.words.verdict import Cohorts


def watched(policy: GatePolicy, cohorts: Cohorts) -> Cohorts:
    """Return whom to read: every canary, and of a large control evenly spread gateways, always the same."""
    if len(cohorts.control) <= policy.most_controls:
        return cohorts
    everyone = sorted(cohorts.control)
    control = tuple(everyone[n * len(everyone) // policy.most_controls] for n in range(policy.most_controls))
    known = {*cohorts.canary, *control}
    expected = {name: digest for name, digest in cohorts.expected.items() if name in known}
    return cohorts.model_copy(update={"control": control, "expected": expected})
