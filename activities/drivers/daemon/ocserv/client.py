"""A client in network and pid namespaces of its own, with a cable to this host; it dies with us.

They belong to one process (PR_SET_PDEATHSIG): after a kill -9 the kernel itself takes down client,
namespaces and cable. Its tunnels and routes exist only there, so the host's own are never touched.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address

from activities.drivers.daemon.port import Environment
from activities.drivers.programs import run, start
from policies.model.errors import Unavailable

ALONE = ("setpriv", "--pdeathsig", "KILL", "unshare", "-n", "-p", "--fork", "--kill-child", "sh", "-c")


@dataclass(frozen=True)
class Client:
    """The client's process, whose pipes are open, and the name of its cable's end on this host."""

    process: asyncio.subprocess.Process
    cable: str

    async def connect(self, more: str) -> asyncio.StreamReader:
        """Give the client its network, then these lines; return what it says from then on.

        Its script says `ready` first, and reads the addresses of both ends of the cable from one line.

        Raises:
            Unavailable: it could not be given one, which says nothing about the instance.
        """
        out = self.process.stdout
        if out is None:  # pragma: no cover - it was asked for
            raise Unavailable("the probe's client has no pipes")
        if (await out.readline()).strip() != b"ready":
            raise Unavailable("the probe's client could not be given a network of its own")
        near, far = _addresses()
        await self._lay_cable(near)
        await self.say(f"{near} {far}\n{more}")
        return out

    async def say(self, words: str) -> None:
        """Give the client more words."""
        if self.process.stdin is not None:
            self.process.stdin.write(words.encode())
            await self.process.stdin.drain()

    async def _lay_cable(self, near: str) -> None:
        cable, pid = self.cable, self.process.pid
        lines = f"link add {cable} type veth peer name probe netns {pid}\naddress add {near}/30 dev {cable}\n"
        result = await run(["ip", "-batch", "-"], given=f"{lines}link set {cable} up\n")
        if result.status:
            raise Unavailable(f"the probe's cable could not be laid: {result.last_words}")


@asynccontextmanager
async def client(script: str, *arguments: str, environment: Mapping[str, str]) -> AsyncIterator[Client]:
    """Run the script in namespaces of its own; at the end nothing of it is left."""
    cable = f"probe{secrets.token_hex(3)}"
    process = await start(
        [*ALONE, script, "probe", *arguments],
        stderr=asyncio.subprocess.STDOUT,
        environment={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment},
    )
    try:
        yield Client(process, cable)
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
        await process.wait()
        # The kernel removes the cable with the namespace, but in its own time.
        await run(["ip", "link", "delete", cable])


def address_of(environment: Environment) -> IPv4Address:
    """Return the address at which clients of this kind dial the gateway."""
    return next(a for a in environment.gateway.addresses if isinstance(a, IPv4Address))


def _addresses() -> tuple[str, str]:
    """Return two link-local addresses of one /30 (RFC 3927: never routed), different for every client."""
    block = secrets.randbelow(2**13) * 4
    first = IPv4Address("169.254.64.0") + block
    return str(first + 1), str(first + 2)
