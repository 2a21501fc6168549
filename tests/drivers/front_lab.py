"""The scratch gateway with a HAProxy in front of its slots, which sends users on or carries them."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from activities.drivers.runtime.host.process import Process
from activities.drivers.steering.haproxy import balancer_of
from activities.drivers.steering.haproxy_process import HaproxyProcess
from activities.drivers.steering.haproxy_steering import FOLDER, HaproxySteering
from activities.drivers.steering.hook import HookSteering
from activities.drivers.steering.port import SteeringDriver
from activities.drivers.steering.redirect import redirect_of
from policies.model.fleet import Gateway
from tests.drivers.gateway_client import Client
from tests.drivers.gateway_lab import GatewayLab


def why_not_here() -> str | None:
    """Return why no HAProxy can run here, None when one can."""
    return None if shutil.which("haproxy") else "needs haproxy"


EXAMPLE = Path(__file__).parents[2] / "deploy/examples/steering-hook"


class FrontLab(GatewayLab):
    """The namespaces, files and parts of one gateway that has a HAProxy."""

    table: HaproxySteering

    @property
    def front(self) -> Path:
        """HAProxy's folder."""
        return self.root / FOLDER

    @property
    def haproxy(self) -> Process:
        """The HAProxy that runs."""
        running = HaproxyProcess(self.front, self.gateway.name).running
        assert running is not None
        return running

    def reloaded_by_somebody(self) -> None:
        """Start another HAProxy with the same files in place of the one that runs, as a person would."""
        reloaded_by_somebody(self.front, self.haproxy, self.namespace)

    def simulated_liar(self, lies: Callable[[str], bool]) -> AbstractAsyncContextManager[list[str]]:
        """Put a simulated stats socket before the real one."""
        return simulated_liar(self.front, lies)


def reloaded_by_somebody(front: Path, running: Process, namespace: str) -> None:
    """Start another HAProxy with the files of this folder in place of the one that runs."""
    enter = ["nsenter", f"--net=/run/netns/{namespace}"]
    command = ["haproxy", "-D", "-f", str(front / "haproxy.cfg"), "-sf", str(running.pid)]
    subprocess.run([*enter, *command], check=True, capture_output=True)


@asynccontextmanager
async def simulated_liar(front: Path, lies: Callable[[str], bool]) -> AsyncIterator[list[str]]:
    """Put a simulated stats socket before the real one: it takes commands that it does not pass on.

    Yields those that were taken so.
    """
    socket, real = front / "haproxy.sock", front / "real.sock"
    socket.rename(real)
    taken: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        command = (await reader.read()).decode()
        if lies(command):
            taken.append(command)
            writer.write(b"\n")
        else:
            asked, asks = await asyncio.open_unix_connection(str(real))
            asks.write(command.encode())
            asks.write_eof()
            writer.write(await asked.read())
            asks.close()
        writer.close()

    server = await asyncio.start_unix_server(answer, str(socket))
    try:
        yield taken
    finally:
        server.close()
        real.replace(socket)


class RedirectLab(FrontLab):
    """A gateway whose users are redirected."""

    def _made_steering(self) -> HaproxySteering:
        return redirect_of(self.orders, self.means)


class BalancerLab(FrontLab):
    """A gateway whose users' connections are carried by HAProxy."""

    def __init__(self, folder: Path, tag: str, clients: int = 6) -> None:
        super().__init__(folder, tag, clients)
        self.gateway = Gateway.model_validate(self.gateway.model_dump() | {"steering": "haproxy"})

    def _made_steering(self) -> HaproxySteering:
        return balancer_of(self.orders, self.means)


class HookLab(GatewayLab):
    """A gateway that the example of a hook steers."""

    def __init__(self, folder: Path, tag: str, clients: int = 6) -> None:
        super().__init__(folder, tag, clients)
        self.gateway = Gateway.model_validate(self.gateway.model_dump() | {"steering": "hook"})

    def _made_steering(self) -> SteeringDriver:
        return HookSteering(self.orders, replace(self.means, hook=EXAMPLE))


def move(lab: GatewayLab, client: Client, number: int) -> None:
    """Take the client's address away and give its site another one at once, as when it changes networks.

    It stays so: no other test of the module has a client there.
    """
    for what in (f"del 10.77.0.{10 + client.number}/24", f"add 10.77.0.{number}/24"):
        command = ["ip", "-n", f"{lab.prefix}c{client.number}", "address", *what.split(), "dev", "eth0"]
        subprocess.run(command, check=True)
