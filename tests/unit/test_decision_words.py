"""The rules of the example policy as sentences: every gate has one, and it names its limits."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from activities.files import load
from orchestrator.words.decisions import decision_lines, rule_sentence
from orchestrator.words.explained import meaning_lines, meaning_of
from policies.model.change import Outcome, Phase
from policies.model.gates import GatePolicy
from policies.model.verdict import Action, Decision, GateReading, GateVerdict


def test_every_gate_of_the_example_policy_has_its_rule_as_a_sentence() -> None:
    gates = load(Path("deploy/prometheus/gates.yaml"), GatePolicy)
    readings = tuple(
        GateReading(gate=gate.id, verdict=GateVerdict.NOT_ENOUGH_DATA, reason=f"{gate.id}: too little")
        for gate in gates.gates
    )
    decision = Decision(
        action=Action.HOLD, verdict=GateVerdict.CONFLICTING, reason="as it is", readings=readings
    )
    told = gates.model_dump(mode="json")
    said = decision.model_dump(mode="json")
    for gate in told["gates"]:
        sentence = rule_sentence(gate, said)
        assert sentence.startswith(f"{gate['id']} ")
        assert "when " in sentence
    found = {
        "change": "edge-1",
        "number": 1,
        "wave": 1,
        "at": datetime.now(UTC).isoformat(),
        "decision": said,
        "rules": {"gates": told["gates"], "budget": told["budget"], "window": told["window"]},
    }
    lines = decision_lines(found)
    assert sum(line.startswith(" Rule ") for line in lines) == len(gates.gates)
    assert any("a person is asked" in line for line in lines)


def test_an_exit_code_that_waits_for_somebody_names_its_runbook() -> None:
    assert meaning_lines(meaning_of("6") or {})[-1] == " Runbook     runbooks/held-decide.md"
    assert len(meaning_lines(meaning_of("0") or {})) == 1


@pytest.mark.parametrize(
    "word", ["HELD", "held", "ROLLBACK INCOMPLETE", "rolled_back", "metrics unavailable"]
)
def test_a_state_is_explained_however_a_screen_writes_it(word: str) -> None:
    found = meaning_of(word)
    assert found is not None
    assert meaning_lines(found)[-1].startswith(" Runbook     runbooks/")


def test_every_phase_outcome_and_verdict_has_a_meaning() -> None:
    for state in (*Phase, *Outcome, *GateVerdict):
        if state is not Phase.ENDED:
            assert meaning_of(state.value) is not None, state
    assert meaning_of("edge-1") is None
