"""A real development server for tests: own port on loopback, own database file, one namespace per client."""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from google.protobuf.duration_pb2 import Duration
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from deploy.ports import free_port
from orchestrator.engine import development as development_engine
from orchestrator.engine.sealing import data_converter
from tests.patience import PATIENCE
from tests.workflows.watch import Server, ServerDied, let_go, the_dead, watch

KEPT = Duration(seconds=86_400)
"""How long a namespace keeps closed workflows; the least that the server takes."""

SUGGEST_SHORT_HISTORY = 120
"""Events after which the server suggests to continue as new; 4,096 would take a test too long."""


ONE_PART = ("matching.numTaskqueueReadPartitions=1", "matching.numTaskqueueWritePartitions=1")
"""Each queue is kept whole: its usual four parts ask each other, which is an eighth of the server's work."""

COLLECTS_SELDOM = {"GOGC": "400"}
"""Has the server look for garbage a quarter as often, for a hundred megabytes more."""

MOST_NAMESPACES = 20
"""Namespaces until tests share another server: this one works for each of them for ever."""


class Engine:
    """One server process over one folder; it can be killed, emptied and started again."""

    def __init__(self, folder: Path, settings: Sequence[str] = ()) -> None:
        self.folder = folder
        self._settings = settings
        self._words = folder / "engine.words"
        self.port = free_port()
        self.namespaces = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        suggest = f"limit.historyCount.suggestContinueAsNew={SUGGEST_SHORT_HISTORY}"
        database = self.folder / "engine.sqlite"
        command = development_engine.command(
            "127.0.0.1", self.port, database, log="never", settings=[suggest, *ONE_PART, *self._settings]
        )
        with self._words.open("wb") as words:
            self._process = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=words, env=os.environ | COLLECTS_SELDOM
            )
        watch(self._server(self._process))

    @property
    def pid(self) -> int | None:
        """The process, None when none runs that was started here."""
        return self._process.pid if self._process is not None else None

    @property
    def died(self) -> bool:
        """Whether it has ended without having been told to."""
        return self._process is not None and self._server(self._process).end() is not None

    @property
    def _last_words(self) -> str:
        return self._words.read_text(errors="replace").strip() or "it has said nothing"

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            let_go(self._server(self._process))
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    @staticmethod
    def _server(process: subprocess.Popen[bytes]) -> Server:
        return Server("the development server", process.pid)

    def forget(self) -> None:
        """Lose the database."""
        for path in self.folder.glob("engine.sqlite*"):
            path.unlink()

    async def client(self, namespace: str | None = None, keys: Path | None = None) -> Client:
        """Return a client once the server serves; of a namespace that no other test has.

        With a file of payload keys it seals, as the processes of an installation do.
        """
        if namespace is None:
            namespace = f"n{self.namespaces}"
            self.namespaces += 1
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    client = await Client.connect(
                        self.address,
                        namespace=namespace,
                        data_converter=data_converter(keys),
                        identity="test",
                    )
                    await _have(client)
                    await client.count_workflows()
                except (RPCError, RuntimeError):
                    if self.died:
                        raise ServerDied(f"{the_dead()}: {self._last_words}") from None
                    await asyncio.sleep(0.1)
                else:
                    return client


async def _have(client: Client) -> None:
    """Have the client's namespace; the server knows it some milliseconds later."""
    wanted = RegisterNamespaceRequest(namespace=client.namespace, workflow_execution_retention_period=KEPT)
    try:
        await client.workflow_service.register_namespace(wanted)
    except RPCError as error:
        if error.status is not RPCStatusCode.ALREADY_EXISTS:
            raise


class Engines:
    """The server that tests share, for as long as it lives; then the next one."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._engine: Engine | None = None

    def living(self) -> Engine:
        """Return the server; one that is dead or has many namespaces is put away and another is started."""
        if self._engine is None or self._engine.died or self._engine.namespaces >= MOST_NAMESPACES:
            self.close()
            self._engine = self._open.enter_context(engine())
        return self._engine

    def close(self) -> None:
        """End it."""
        self._open.close()
        self._engine = None


SHARED = Engines()
"""What all tests of this process share."""


@contextmanager
def engine(settings: Sequence[str] = ()) -> Iterator[Engine]:
    """Run a server with these settings beside the usual ones; it and its folder are gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-engine-"))
    server = Engine(folder, settings)
    server.start()
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)
