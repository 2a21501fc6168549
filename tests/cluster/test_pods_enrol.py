"""How a pod waits for its certificate: the script before the agent, with the shell of its image."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.kubernetes.chart import MANIFESTS
from tests.patience import PATIENCE

NODE = "worker-1"


class Enrolment:
    """The script in folders of a test, with a penstock that notes what it is told."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        (found,) = [one for one in self._agents() if one["kind"] == "DaemonSet"]
        (first,) = found["spec"]["template"]["spec"]["initContainers"]
        shell, *words = first["command"]
        assert shell == "/bin/sh"
        self._command = [shutil.which("dash") or shell, *words[:-1]]
        self._script = words[-1]

    def _agents(self) -> list[dict[str, Any]]:
        return [one for one in yaml.safe_load_all((MANIFESTS / "agents.yaml").read_text()) if one]

    def start(self) -> "subprocess.Popen[str]":
        """Start it as the kubelet does before each start of the agent."""
        own = {"PATH": "/usr/bin:/bin", "NODE_NAME": NODE, "ROOT": str(self.root)}
        return subprocess.Popen(
            [*self._command, self._script],
            env={**own, "ENROLMENT": "relay.example:7244"},
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def enrolment(tmp_path: Path) -> Enrolment:
    return Enrolment(tmp_path)


def test_an_agent_without_a_certificate_logs_how_to_get_one_and_waits_for_it(enrolment: Enrolment) -> None:
    with enrolment.start() as waiting:
        try:
            assert waiting.stderr is not None
            line = waiting.stderr.readline()
            assert waiting.poll() is None
            (enrolment.root / "agent.pem").write_text("pem")
            assert waiting.wait(PATIENCE) == 0
        finally:
            waiting.kill()
    assert "worker-1 has no certificate: pipe the token of 'penstock gateway enrol edge GATEWAY' into" in line
    enrol = "penstock agent enrol --config /etc/penstock-gateways/worker-1.yaml --at relay.example:7244"
    assert f"'kubectl exec -i POD -c enrol -- {enrol}'" in line
    assert enrolment.root.stat().st_mode & 0o077 == 0


def test_an_agent_with_a_certificate_starts_at_once_and_logs_nothing(enrolment: Enrolment) -> None:
    enrolment.root.mkdir()
    (enrolment.root / "agent.pem").write_text("pem")
    with enrolment.start() as done:
        assert done.communicate(timeout=PATIENCE)[1] == ""
        assert done.returncode == 0


@pytest.mark.parametrize("name", ["agents.yaml", "drivers.yaml"])
def test_no_pod_mounts_a_secret_with_the_token_of_another_one(name: str) -> None:
    """L2: the pods of a DaemonSet mount the same Secrets, so tokens come by standard input alone."""
    mounted = [
        volume["secret"]["secretName"]
        for one in yaml.safe_load_all((MANIFESTS / name).read_text())
        if one and one["kind"] in {"DaemonSet", "Deployment"}
        for volume in one["spec"]["template"]["spec"]["volumes"]
        if "secret" in volume
    ]
    assert mounted == []
