"""Real registries for tests: distribution's own as labs of clusters build it, or Debian's package of it."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from deploy.ports import free_port
from tests.patience import PATIENCE

MISSING = (
    "no registry is here: `python -m deploy.cluster.programs registry` builds one, and so does "
    "`apt-get install docker-registry`"
)
BUILT = Path(os.environ.get("PENSTOCK_PROGRAMS", Path.home() / ".cache/penstock/programs"))


def installed() -> str | None:
    """The program of a registry on this machine, if there is one."""
    built = sorted(BUILT.glob("registry-*/registry"))
    return str(built[-1]) if built else shutil.which("docker-registry")


@contextmanager
def registry(program: str, folder: Path) -> Iterator[str]:
    """Run it on a port of its own and give its URL, once it answers."""
    port = free_port()
    settings = {
        "version": "0.1",
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}", "secret": "lab"},
    }
    (folder / "config.yml").write_text(json.dumps(settings))
    command = [program, "serve", str(folder / "config.yml")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            _wait(f"http://127.0.0.1:{port}")
            yield f"http://127.0.0.1:{port}"
        finally:
            running.kill()


def _wait(url: str) -> None:
    ends = time.monotonic() + PATIENCE
    while True:
        try:
            httpx.get(f"{url}/v2/", trust_env=False)
        except httpx.TransportError:
            assert time.monotonic() < ends, f"the registry at {url} does not answer"
            time.sleep(0.05)
        else:
            return
