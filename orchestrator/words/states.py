"""What the states that screens show mean: of changes, of their ends, and of verdicts."""

from collections.abc import Mapping

from policies.model.verdict import GateVerdict
from policies.status.sentences import OUTCOME_SENTENCES, PHASE_SENTENCES

_VERDICTS: Mapping[GateVerdict, str] = {
    GateVerdict.HEALTHY: "the new release is not worse than the others, by fresh evidence and enough of it",
    GateVerdict.UNHEALTHY: (
        "the new release is worse than the others, which is proven; the change goes back by itself while its "
        "wave is watched and `limits.automation` is `act`, and otherwise a person has to roll it back"
    ),
    GateVerdict.HARD: "something happened that no release may do; the change goes back at once",
    GateVerdict.CONFLICTING: "the evidence contradicts itself; the change is held for a person",
    GateVerdict.METRICS_UNAVAILABLE: "metrics are away, empty or stale: neither healthy nor a bad release",
    GateVerdict.NOT_ENOUGH_DATA: "too little happened on the new release to judge it by",
}

_STATES: Mapping[str, str] = {
    **{outcome.value: said.format(release="the release") for outcome, said in OUTCOME_SENTENCES.items()},
    **{phase.value: said for phase, said in PHASE_SENTENCES.items()},
    **{verdict.value: said for verdict, said in _VERDICTS.items()},
}


def state_named(word: str) -> tuple[str, str] | None:
    """Return a state's name and what it means, however a screen wrote it; None for another word."""
    name = "_".join(word.replace("-", "_").lower().split())
    return (name, _STATES[name]) if name in _STATES else None
