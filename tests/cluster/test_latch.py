"""What a gateway's pod runs beside its daemon, by the shell that it has: the latch and the probes."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.kubernetes.chart import MANIFESTS
from tests.patience import PATIENCE, wait_until

pytestmark = pytest.mark.lab

SOCKET = "/run/penstock/occtl.sock"
NOBODY, SOMEBODY = "[]", json.dumps([{"ID": 1, "Username": "ana"}])


class Pod:
    """Processes of its own, as a pod has; busybox, and an occtl that says what it is told to."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "bin"
        self._path.mkdir()
        for program, name in (("busybox", "busybox"), ("sleep", "ocserv-worker")):
            found = shutil.which(program)
            assert found, f"{program} is not installed"
            shutil.copy(found, self._path / name)
        self._answer = folder / "answer"
        occtl = self._path / "occtl"
        occtl.write_text(
            f'#!{self._path}/busybox sh\n[ "$2" = {SOCKET} ] && exec busybox cat {self._answer}\n'
        )
        occtl.chmod(0o755)
        holder = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sleep", "600"]
        self._holder = subprocess.Popen(holder)
        self._first = self._child_of(self._holder.pid, "sleep")
        self._workers: list[subprocess.Popen[bytes]] = []

    def end(self) -> None:
        """End all its processes."""
        self._holder.kill()
        self._holder.wait()
        for worker in self._workers:
            worker.wait(PATIENCE)

    def _child_of(self, pid: int, name: str) -> int:
        children = Path(f"/proc/{pid}/task/{pid}/children")
        wait_until(lambda: bool(children.read_text()))
        [child] = children.read_text().split()
        wait_until(lambda: Path(f"/proc/{child}/comm").read_text().strip() == name)
        return int(child)

    def _inside(self, *command: str | Path) -> "subprocess.Popen[bytes]":
        there = ["nsenter", f"--target={self._first}", "--pid", "--mount"]
        return subprocess.Popen([*there, *command], env={"PATH": f"{self._path}:/usr/bin:/bin"})

    def says(self, users: str | None) -> None:
        """Have the daemon name these users; with None, not answer."""
        if users is None:
            self._answer.unlink(missing_ok=True)
        else:
            self._answer.write_text(users)

    def serve(self) -> None:
        """Have a process of a user."""
        self._workers.append(self._inside(self._path / "ocserv-worker", "600"))
        self._child_of(self._workers[-1].pid, "ocserv-worker")

    def leave(self) -> None:
        """End the processes of users."""
        for worker in self._workers:
            os.kill(self._child_of(worker.pid, "ocserv-worker"), signal.SIGKILL)
            worker.wait(PATIENCE)
        self._workers.clear()

    def begin(self, command: list[str]) -> "subprocess.Popen[bytes]":
        """Start what the kubelet would."""
        return self._inside(self._path / command[0], *command[1:])

    def run(self, command: list[str]) -> int:
        """Return how it ends."""
        return self.begin(command).wait(PATIENCE)


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    made = Pod(tmp_path)
    yield made
    made.end()


def container() -> dict[str, Any]:
    first = next(filter(None, yaml.safe_load_all((MANIFESTS / "slots.yaml").read_text())))
    (found,) = first["spec"]["template"]["spec"]["containers"]
    return dict(found)


def latch() -> list[str]:
    return list(container()["lifecycle"]["preStop"]["exec"]["command"])


def probe(name: str) -> list[str]:
    return list(container()[f"{name}Probe"]["exec"]["command"])


def test_a_pod_that_nobody_uses_ends_at_once(pod: Pod) -> None:
    pod.says(NOBODY)
    assert pod.run(latch()) == 0


def test_a_pod_with_a_user_waits_until_the_user_has_left(pod: Pod) -> None:
    pod.says(SOMEBODY)
    waiting = pod.begin(latch())
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(timeout=3)
    pod.says(NOBODY)
    assert waiting.wait(PATIENCE) == 0


def test_a_daemon_that_does_not_answer_keeps_its_pod_for_as_long_as_a_user_has_a_process(pod: Pod) -> None:
    pod.says(None)
    pod.serve()
    waiting = pod.begin(latch())
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(timeout=3)
    pod.leave()
    assert waiting.wait(PATIENCE) == 0


def test_a_gateway_is_ready_when_its_daemon_answers(pod: Pod) -> None:
    for name in ("startup", "readiness"):
        pod.says(None)
        assert pod.run(probe(name)) != 0
        pod.says("up")
        assert pod.run(probe(name)) == 0


def test_liveness_fails_only_where_no_session_can_live(pod: Pod) -> None:
    pod.says("up")
    assert pod.run(probe("liveness")) == 0
    pod.says(None)
    pod.serve()
    assert pod.run(probe("liveness")) == 0
    pod.leave()
    assert pod.run(probe("liveness")) != 0


@pytest.mark.sweep
def test_a_daemon_that_hangs_costs_a_probe_five_seconds_and_no_session(pod: Pod) -> None:
    hangs = container()["livenessProbe"]
    assert hangs["timeoutSeconds"] > 5
    assert hangs["periodSeconds"] * hangs["failureThreshold"] == 600
    pod.says("up")
    (pod._path / "occtl").write_text(f"#!{pod._path}/busybox sh\nexec busybox sleep 60\n")
    pod.serve()
    begun = time.monotonic()
    assert pod.run(probe("liveness")) == 0
    assert 4 < time.monotonic() - begun < 20
