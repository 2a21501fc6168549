"""The gates that are shipped for nodes: those for hosts, without what an agent in a pod cannot see."""

from pathlib import Path

from activities.files import load
from policies.model.gates import GatePolicy, lint

DEPLOY = Path(__file__).parents[2] / "deploy"
HOSTS, NODES = (load(DEPLOY / folder / "gates.yaml", GatePolicy) for folder in ("prometheus", "kubernetes"))
UNSEEN = ("vpngw_process_cpu_seconds", "vpngw_process_resident_memory", "vpngw_process_open_fds")
"""What an exporter gives of processes that it sees (activities/drivers/metrics/exporter.py)."""


def test_nodes_have_every_gate_of_hosts_but_those_on_what_no_pod_sees_of_another() -> None:
    seen = tuple(gate for gate in HOSTS.gates if not any(name in str(gate) for name in UNSEEN))
    assert 0 < len(seen) < len(HOSTS.gates)
    assert NODES.gates == seen
    assert NODES.model_copy(update={"name": HOSTS.name, "gates": HOSTS.gates}) == HOSTS
    assert lint(NODES) == ()
