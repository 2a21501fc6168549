"""How a pod gets its certificate: by the script that runs before the agent, with the shell of its image."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.kubernetes.chart import MANIFESTS

NODE = "worker-1"


class Enrolment:
    """The script in folders of a test, with a penstock that notes what it is told."""

    def __init__(self, folder: Path) -> None:
        self.root, self.tokens, self._bin = (folder / name for name in ("root", "tokens", "bin"))
        self.tokens.mkdir()
        self._bin.mkdir()
        self.noted = folder / "noted"
        self.noted.touch()
        penstock = self._bin / "penstock"
        penstock.write_text(f'#!/bin/sh\necho "$* $(cat)" >>{self.noted}\necho pem >"$ROOT/agent.pem"\n')
        penstock.chmod(0o755)
        (found,) = [one for one in self._agents() if one["kind"] == "DaemonSet"]
        (first,) = found["spec"]["template"]["spec"]["initContainers"]
        shell, *words = first["command"]
        assert shell == "/bin/sh"
        self._command = [shutil.which("dash") or shell, *words[:-1]]
        self._script = words[-1].replace("/etc/penstock-enrolment", str(self.tokens))

    def _agents(self) -> list[dict[str, Any]]:
        return [one for one in yaml.safe_load_all((MANIFESTS / "agents.yaml").read_text()) if one]

    def run(self) -> "subprocess.CompletedProcess[str]":
        """Run it as the kubelet does before each start of the agent."""
        own = {"PATH": f"{self._bin}:/usr/bin:/bin", "NODE_NAME": NODE, "ROOT": str(self.root)}
        return subprocess.run(
            [*self._command, self._script],
            env={**own, "ENROLMENT": "relay.example:7244"},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def give(self, token: str) -> None:
        """Have this token in the Secret."""
        (self.tokens / NODE).write_text(token)


@pytest.fixture
def enrolment(tmp_path: Path) -> Enrolment:
    return Enrolment(tmp_path)


def test_an_agent_without_a_token_waits_and_says_which_one_it_needs(enrolment: Enrolment) -> None:
    done = enrolment.run()
    assert done.returncode == 1
    assert (
        "worker-1 has no certificate: put the token of 'penstock gateway enrol edge GATEWAY'" in done.stderr
    )
    assert "under the key worker-1 into the Secret edge-enrolment" in done.stderr


def test_a_token_is_used_once_and_another_one_enrols_anew(enrolment: Enrolment) -> None:
    enrolment.give("first")
    assert enrolment.run().returncode == 0
    assert enrolment.run().returncode == 0
    enrolment.give("second")
    assert enrolment.run().returncode == 0
    told = "agent enrol --config /etc/penstock-gateways/worker-1.yaml --at relay.example:7244"
    assert enrolment.noted.read_text().splitlines() == [f"{told} first", f"{told} second"]


def test_what_is_kept_of_a_token_is_its_digest_for_its_owner_alone(enrolment: Enrolment) -> None:
    enrolment.give("first")
    assert enrolment.run().returncode == 0
    assert "first" not in "".join(path.read_text() for path in enrolment.root.iterdir())
    assert enrolment.root.stat().st_mode & 0o077 == 0
