"""The gate policy: what it refuses to say, and what the shipped ones promise."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from activities.files import load
from policies.judge.gates.kind import Response
from policies.judge.gates.rate import Rate
from policies.judge.offline.predict import predict
from policies.model.errors import BadInput
from policies.model.gates import GatePolicy, lint
from tests.unit.judged import LOGINS, policy

DEPLOY = Path(__file__).parents[2] / "deploy"
SHIPPED = [DEPLOY / "prometheus" / "gates.yaml", DEPLOY / "lab" / "gates.yaml"]


@pytest.mark.parametrize("path", SHIPPED, ids=["production", "lab"])
def test_a_shipped_policy_is_sound_and_survives_json(path: Path) -> None:
    gates = load(path, GatePolicy)
    assert lint(gates) == ()
    assert GatePolicy.model_validate_json(gates.model_dump_json()) == gates
    assert len(gates.model_dump_json()) < 16_000
    assert all("$cohort" in selector for gate in gates.gates for selector in gate.selectors)


def test_the_labs_policy_decides_within_its_window_at_the_labs_traffic() -> None:
    gates = load(SHIPPED[1], GatePolicy)
    for canaries, controls in ((1, 3), (3, 1)):
        (logins,) = predict(gates, 120, canaries=canaries, controls=controls, bad_share=0.001)
        assert logins.in_time
        assert logins.healthy_after is not None
        assert logins.healthy_after <= timedelta(seconds=20)


def test_a_policy_without_a_required_gate_is_found_out() -> None:
    assert "nothing could ever be promoted" in lint(GatePolicy())[0]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"bad": "sum(rate(attempts{$cohort}[5m]))"}, "must name raw series"),
        ({"bad": "attempts{$cohort}[5m]"}, "must name raw series"),
        ({"bad": "attempts{$cohort} or vector(0)"}, "must name raw series"),
        ({"bad": "attempts{outcome='bad'}"}, r"put \$cohort among the labels"),
        ({"bad": "attempts"}, "must name raw series"),
        ({"share": 1.2}, "less than or equal to 1"),
        ({"health": {"delta": 0.01}}, r"larger than margin\.delta"),
        ({"optional": True}, "cannot be optional"),
        ({"health": None}, "says no health to prove"),
        ({"treshold": 3}, "Extra inputs"),
        ({"kind": "ratio"}, "does not match any of the expected tags"),
        ({"margin": {"delta": 0}}, "greater than 0"),
    ],
)
def test_an_unsafe_gate_is_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        policy(LOGINS | change)


def test_gates_share_one_budget() -> None:
    with pytest.raises(ValidationError, match=r"add up to 1\.2"):
        policy(*(LOGINS | {"id": name, "share": 0.6} for name in ("a", "b")))
    with pytest.raises(ValidationError, match="listed twice"):
        policy(LOGINS, LOGINS)


def test_waves_share_one_budget() -> None:
    assert policy().over_waves(4).budget.waves == 4
    assert policy().over_waves(0).budget.waves == 1
    assert policy().over_waves(4).digest != policy().digest


def test_a_window_that_cannot_grow_is_refused() -> None:
    window = {"minimum": "30m", "nominal": "20m", "extension": "1m", "cap": "60m"}
    with pytest.raises(ValidationError, match="must grow"):
        policy(window=window)
    with pytest.raises(ValidationError, match="two scrapes"):
        policy(fresh_within="1s")


def test_a_wrong_selector_is_named_by_file_line_and_key(tmp_path: Path) -> None:
    path = tmp_path / "gates.yaml"
    path.write_text(
        SHIPPED[0].read_text().replace("total: 'vpngw_first_attempts_total{$cohort}'", "total: 'x'", 1)
    )
    with pytest.raises(BadInput, match=r"gates.yaml, line 18: gates.0..total"):
        load(path, GatePolicy)


def test_leaks_and_alerts_can_only_hold() -> None:
    gates = load(SHIPPED[0], GatePolicy)
    assert [g.id for g in gates.gates if g.action is Response.HOLD] == [
        "complaints", "cpu-per-login", "memory-per-session", "descriptor-leak", "noc-alerts",
    ]  # fmt: skip
    leak: dict[str, Any] = {"id": "leak", "kind": "slope", "value": "fds{$cohort}", "action": "rollback"}
    with pytest.raises(ValidationError):
        policy(LOGINS, leak)


def test_the_gate_that_matters_most_has_most_of_the_budget() -> None:
    gates = load(SHIPPED[0], GatePolicy)
    shares = {g.id: g.share for g in gates.gates if isinstance(g, Rate)}
    assert max(shares, key=lambda name: shares[name]) == "connect-success"
