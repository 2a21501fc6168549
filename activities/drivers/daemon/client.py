"""A client in network and pid namespaces of its own, with a cable to this host; it dies with us.

The namespaces belong to one process (PR_SET_PDEATHSIG): after a kill -9 the kernel itself takes down client,
namespaces and cable. Its tunnels and routes exist only there, so the host's own are never touched.
Where no namespaces may be made it has neither tunnel device nor routes: its tunnel ends in a program.
"""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from ipaddress import IPv4Address, IPv6Address

from activities.drivers.daemon.port import Environment
from activities.drivers.programs import end, run, start
from policies.model.errors import Unavailable
from policies.model.mirror import Family

WITHIN = timedelta(seconds=15)
"""How long a client has for a network of its own, and then again for one login and its pings."""
COUNTS = re.compile(r"(\d+) packets transmitted, (\d+) received")
"""What ping(8) says at its end: how many it sent, and how many came back."""
ANSWERED = re.compile(r"bytes from \S+ icmp_seq=(\d+)")
"""What it says of each answer.

With a deadline it leaves as soon as it has the answers that it wants: what it sent after the last of them
is under way then, and not lost.
"""

NETWORK = r"""
echo ready; read -r near far size; read -r password
ip link set lo up
ip address add "$far/$size" dev probe nodad; ip link set probe up; ip route add default via "$near"
target=$1; shift
echo asking
"""
"""How each script begins: with a network, the password, and what is pinged through the tunnel."""

HERE = r"""
echo ready; read -r near far size; read -r password
target=$1; shift
echo asking
"""
"""How a script begins whose client has no network of its own and no device: its tunnel ends in a program."""

ALONE = ("setpriv", "--pdeathsig", "KILL", "unshare", "-n", "-p", "--fork", "--kill-child", "sh", "-c")
WITH_US = ("setpriv", "--pdeathsig", "KILL", "sh", "-c")

BLOCKS = 2**13
"""So many clients can have networks at once."""
_FIRST: dict[Family, IPv4Address | IPv6Address] = {
    4: IPv4Address("169.254.64.0"),  # RFC 3927: never routed
    6: IPv6Address("fd70:656e:7374:6f63::"),  # RFC 4193: routed by nobody who has not chosen it
}
_SIZES: dict[Family, int] = {4: 30, 6: 126}
_taken: set[int] = set()
"""Blocks of addresses of clients that live now."""


@dataclass(frozen=True)
class Client:
    """The client's process, whose pipes are open, and the device on this host that its packets pass."""

    environment: Environment
    process: asyncio.subprocess.Process
    cable: str
    """The end of its cable; of one without a network of its own, what connects this host with itself."""
    family: Family = 4
    """The kind of address by which it comes."""
    block: int = 0
    """Which addresses are its own."""

    async def connect(self, password: str) -> asyncio.StreamReader:
        """Give the client its network and the password; return what it says from then on.

        Raises:
            Unavailable: it could not be given one in time, which says nothing about the instance.
        """
        out = self.process.stdout
        if out is None:  # pragma: no cover - it was asked for
            raise Unavailable("the probe's client has no pipes")
        try:
            async with asyncio.timeout(WITHIN.total_seconds()):
                words = await self._asking(out, password)
        except TimeoutError:
            words = f"nothing came within {WITHIN.total_seconds():.0f} s: this host is too busy"
        if words:
            raise Unavailable(
                f"a client of slot {self.environment.slot.name} on {self.environment.gateway.name} got no "
                f"network of its own: {words}; it is tried again"
            )
        return out

    async def _asking(self, out: asyncio.StreamReader, password: str) -> str:
        """Lay the cable and wait until the client asks the instance; its last words where it never does."""
        if (line := await out.readline()) == b"ready\n":
            near, far = _ends(self.family, self.block)
            if self.environment.own_networks:
                await self._lay_cable(near)
            await self.say(f"{near} {far} {_SIZES[self.family]}\n{password}\n")
            line = await out.readline()
        words = b"it said nothing"
        while line not in (b"asking\n", b""):
            words, line = line, await out.readline()
        return "" if line else words.decode(errors="replace").strip()

    async def say(self, words: str) -> None:
        """Give the client more words; one that has ended hears nothing and says nothing more."""
        if self.process.stdin is not None:
            with suppress(ConnectionError):
                self.process.stdin.write(words.encode())
                await self.process.stdin.drain()

    async def _lay_cable(self, near: str) -> None:
        cable, pid = self.cable, self.process.pid
        size = _SIZES[self.family]
        lines = f"link add {cable} type veth peer name probe netns {pid}\n"
        lines += f"address add {near}/{size} dev {cable} nodad\n"
        result = await run(["ip", "-batch", "-"], given=f"{lines}link set {cable} up\n")
        if result.status:
            raise Unavailable(f"the probe's cable could not be laid: {result.last_words}")


@asynccontextmanager
async def client(
    environment: Environment, script: str, target: str, *arguments: str, family: Family = 4
) -> AsyncIterator[Client]:
    """Run the script in namespaces of its own, after NETWORK; at the end nothing of it is left.

    Where clients may have none it is run beside us, after HERE. What is pinged through the tunnel is the
    script's `$target`, and PROBE_TARGET of what it starts.
    """
    own = environment.own_networks
    cable = f"probe{secrets.token_hex(3)}" if own else "lo"
    block = _free_block()
    begins = [*ALONE, NETWORK + script] if own else [*WITH_US, HERE + script]
    try:
        process = await start(
            [*begins, "probe", target, *arguments],
            stderr=asyncio.subprocess.STDOUT,
            environment={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PROBE_TARGET": target},
        )
    except BaseException:
        _taken.discard(block)
        raise
    try:
        yield Client(environment, process, cable, family, block)
    finally:
        if process.returncode is None:
            await end(process)
        if own:  # the kernel removes the cable with the namespace, but in its own time
            await run(["ip", "link", "delete", cable])
        _taken.discard(block)


def address_of(environment: Environment) -> IPv4Address:
    """Return the address at which clients of this kind dial the gateway."""
    return next(a for a in environment.gateway.addresses if isinstance(a, IPv4Address))


def address6_of(environment: Environment) -> IPv6Address | None:
    """Return the address at which clients dial the gateway over IPv6, None where it has none."""
    return next((a for a in environment.gateway.addresses if isinstance(a, IPv6Address)), None)


@cache
def sources_of_clients() -> frozenset[str]:
    """Return every address from which such a client may come: none of them is a user's."""
    return frozenset(_ends(family, block)[1] for family in _FIRST for block in range(BLOCKS))


def _free_block() -> int:
    """Return a block of addresses that no client of this process has; others draw, too, and many are free."""
    block = secrets.randbelow(BLOCKS)
    while block in _taken:
        block = secrets.randbelow(BLOCKS)
    _taken.add(block)
    return block


def _ends(family: Family, block: int) -> tuple[str, str]:
    """Return the two addresses of a cable, ours and the client's."""
    first = _FIRST[family] + 4 * block
    return str(first + 1), str(first + 2)
