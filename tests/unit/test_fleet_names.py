"""The fleet that a command names is the fleet that it means, or nothing happens."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from deploy.lab.lab import fleet_of, write_yaml
from deploy.lab.topology import Topology
from orchestrator.cli.main import app
from policies.model.errors import BadInput
from policies.model.fleet import Limits

NAMING_A_FLEET = (
    ("status", "edge-us"),
    ("watch", "edge-us"),
    ("plan", "edge-us", "--to", "1.3.0"),
    ("fleet", "install", "edge-us", "--to", "1.3.0"),
    ("upgrade", "start", "edge-us", "--to", "1.3.0", "--reason", "why"),
    ("hold", "edge-us", "--reason", "why"),
    ("resume", "edge-us", "--reason", "why"),
    ("promote", "edge-us", "--reason", "why"),
    ("abort", "edge-us", "--reason", "why"),
    ("rollback", "edge-us", "--reason", "why"),
    ("rollback", "edge-us", "--force", "--reason", "why"),
    ("approve", "edge-us", "--reason", "why"),
    ("reject", "edge-us", "--reason", "why"),
    ("gateway", "quarantine", "edge-us", "gw-1", "--reason", "why"),
    ("gateway", "return", "edge-us", "gw-1", "--reason", "why"),
    ("sessions", "edge-us"),
    ("drains", "edge-us"),
    ("drain", "extend", "edge-us", "--by", "30m", "--reason", "why"),
    ("drain", "end", "edge-us", "--reason", "why"),
    ("history", "edge-us"),
)


@pytest.fixture(autouse=True)
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fleet file of the fleet `lab`, and an engine that nobody may reach."""
    write_yaml(tmp_path / "fleet.yaml", fleet_of(Topology(gateways=2, sites=1), Limits()))
    monkeypatch.setenv("PENSTOCK_STATE", str(tmp_path))
    monkeypatch.setenv("PENSTOCK_FLEET", str(tmp_path / "fleet.yaml"))
    monkeypatch.setenv("PENSTOCK_LEDGER_URL", f"sqlite:///{tmp_path}/ledger.db")
    monkeypatch.setenv("PENSTOCK_TEMPORAL_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("PENSTOCK_NETWORK_NAMESPACE", "penstock-no-such-namespace")


@pytest.mark.parametrize("arguments", NAMING_A_FLEET, ids=" ".join)
def test_an_unknown_fleet_is_refused_with_the_name_of_the_known_one(arguments: tuple[str, ...]) -> None:
    ended = CliRunner().invoke(app, arguments)
    assert isinstance(ended.exception, BadInput)
    assert "there is no fleet edge-us" in str(ended.exception)
    assert "describes the fleet lab" in str(ended.exception)


@pytest.mark.parametrize("verb", ["hold", "rollback", "approve"])
def test_a_reason_that_says_nothing_is_refused(verb: str) -> None:
    ended = CliRunner().invoke(app, (verb, "lab", "--reason", " "))
    assert isinstance(ended.exception, BadInput)
    assert "say why" in str(ended.exception)
