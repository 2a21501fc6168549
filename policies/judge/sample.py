"""The sample: whose counters are read of a fleet too large to read all of, fixed by names and a seed."""

from collections.abc import Iterable, Mapping
from hashlib import blake2b

from policies.model.verdict import Cohorts

MOST = 500
"""Gateways of each side that are ever sampled: more would add little to any proof."""
_BEFORE = 0.2
"""Part of the changed gateways' sample that earlier waves have, at least when there are more of them."""


def sample_of(names: Iterable[str], groups: Mapping[str, str], most: int, seed: str) -> tuple[str, ...]:
    """Return at most so many names, one of each group first, then by its size; always the same of a seed."""
    known = sorted(set(names))
    if len(known) <= most:
        return tuple(known)
    members: dict[str, list[str]] = {}
    for name in sorted(known, key=lambda name: blake2b(f"{seed}\0{name}".encode()).digest()):
        members.setdefault(groups.get(name, ""), []).append(name)
    ranked = [
        ((place + 0.5) / len(group) if place else 0.0, blake2b(f"{seed}\0{name}".encode()).digest(), name)
        for group in members.values()
        for place, name in enumerate(group)
    ]
    return tuple(sorted(name for _, _, name in sorted(ranked)[:most]))


def sampled(cohorts: Cohorts, groups: Mapping[str, str], most: int, seed: str) -> Cohorts:
    """Return the cohorts with samples of at most `most` changed and unchanged gateways, stratified by group.

    Changed gateways outside the sample go `beyond`: only exceptions are read of them, told apart
    by the release's executable where their slots are not said.
    """
    before = min(len(cohorts.changed_before), max(round(most * _BEFORE), most - len(cohorts.canary)))
    canary = sample_of(cohorts.canary, groups, most - before, seed)
    changed_before = sample_of(cohorts.changed_before, groups, most - len(canary), seed)
    if cohorts.beside:  # whoever is compared with itself has no other partner
        control = tuple(label for label in cohorts.control if cohorts.beside[label] in canary)
    else:
        control = sample_of(cohorts.control, groups, most, seed)
    known = {*canary, *changed_before, *control}
    expected = {name: digest for name, digest in cohorts.expected.items() if name in known}
    leased = {name: digest for name, digest in cohorts.leased.items() if name in known}
    committed = {name: digest for name, digest in cohorts.committed.items() if name in known}
    sides = {"canary": canary, "changed_before": changed_before, "control": control}
    beyond = tuple(sorted(cohorts.changed - known))
    of_sample = {"beyond": beyond, "expected": expected, "leased": leased, "committed": committed}
    return cohorts.model_copy(update=sides | of_sample)
