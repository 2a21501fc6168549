"""A real Prometheus on loopback for tests: started, killed, frozen and restarted by its own process id."""

import json
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx

from deploy.lab.processes import freeze
from deploy.ports import free_port
from tests.patience import until

PROGRAM = shutil.which("prometheus")


class RealPrometheus:
    """One Prometheus process over one folder."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.url = f"http://127.0.0.1:{port}"
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it and return when it answers."""
        self._process = self._launch()
        async with httpx.AsyncClient(trust_env=False) as client:

            async def is_ready() -> bool:
                try:
                    return (await client.get(f"{self.url}/-/ready")).status_code == 200
                except httpx.HTTPError:
                    return False

            await until(is_ready)

    def _launch(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [
                PROGRAM or "prometheus",
                f"--config.file={self.folder}/prometheus.yml",
                f"--storage.tsdb.path={self.folder}/data",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--log.level=error",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def kill(self) -> None:
        """Kill it as a crash would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Stop it without ending it."""
        assert self._process is not None
        freeze(self._process)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


def prometheus_over(
    targets: Sequence[str], scrape: str = "1s", how: Mapping[str, Any] | None = None
) -> AbstractContextManager[RealPrometheus]:
    """Prepare a Prometheus whose job vpngw scrapes these targets; the test starts it."""
    return prometheus_of([{"targets": list(targets)}], scrape, how)


@contextmanager
def prometheus_of(
    groups: Sequence[Mapping[str, Any]], scrape: str, how: Mapping[str, Any] | None = None
) -> Iterator[RealPrometheus]:
    """Prepare a Prometheus whose job vpngw has these groups of targets, each with labels of its own."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-judge-"))
    port = free_port()
    config = {
        "global": {"scrape_interval": scrape, "scrape_timeout": scrape},
        "scrape_configs": [{"job_name": "vpngw", "static_configs": list(groups), **(how or {})}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    server = RealPrometheus(folder, port)
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
