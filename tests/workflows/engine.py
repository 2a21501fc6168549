"""A real development server for tests: own port on loopback, own database file, one namespace per test."""

import asyncio
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError

NAMESPACES = 40
SUGGEST_SHORT_HISTORY = 120
"""Events after which the server suggests to continue as new; 4,096 would take a test too long."""


class Engine:
    """One server process over one folder; it can be killed, emptied and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._used = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        program = shutil.which("temporal", path=str(Path(sys.executable).parent))
        assert program is not None
        command = [program, "server", "start-dev", "--headless", "--log-level", "never"]
        command += ["--ip", "127.0.0.1", "--port", str(self.port)]
        command += ["--db-filename", str(self.folder / "engine.sqlite")]
        command += ["--sqlite-pragma", "journal_mode=WAL", "--sqlite-pragma", "synchronous=NORMAL"]
        suggest = f"limit.historyCount.suggestContinueAsNew={SUGGEST_SHORT_HISTORY}"
        command += ["--dynamic-config-value", suggest]
        for number in range(NAMESPACES):
            command += ["--namespace", f"n{number}"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def forget(self) -> None:
        """Lose the database."""
        for path in self.folder.glob("engine.sqlite*"):
            path.unlink()

    async def client(self, namespace: str | None = None) -> Client:
        """Return a client once the server serves; of a namespace that no other test has."""
        if namespace is None:
            namespace = f"n{self._used}"
            self._used += 1
        async with asyncio.timeout(30):
            while True:
                try:
                    client = await Client.connect(
                        self.address,
                        namespace=namespace,
                        data_converter=pydantic_data_converter,
                        identity="test",
                    )
                    await client.count_workflows()
                except (RPCError, RuntimeError):
                    await asyncio.sleep(0.1)
                else:
                    return client


@contextmanager
def engine() -> Iterator[Engine]:
    """Run a server; it and its folder are gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-engine-"))
    server = Engine(folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
