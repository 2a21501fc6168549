"""Whose an address is, as far as can be told, and which connection makes room for a newcomer.

A client network of IPv6 counts as one: its owner has all of its addresses.
"""

from ipaddress import IPv6Address, ip_address, ip_network
from typing import Protocol

MOST_OF_ONE = 64
"""Connections that one user of this host or one crowd may have: the others are for everybody else."""

_NEIGHBOURS = 64
"""Bits of an IPv6 address that a host cannot choose by itself."""


def is_this_host(host: str) -> bool:
    """Return whether this is an address of this host; a name leads anywhere, also `127.example.org`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def crowd_of(address: str) -> str:
    """Return the address, or the network that a host fills alone; what is no address stays as it is."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, IPv6Address) and found.ipv4_mapped is None:
        return str(ip_network((found, _NEIGHBOURS), strict=False))
    return address


class Held(Protocol):
    """A connection that has a place."""

    @property
    def known(self) -> bool:
        """Whether its client is authenticated."""

    @property
    def idle(self) -> bool:
        """Whether its end costs no answer: it waits for a request, or sends a stream that can be reopened."""

    @property
    def crowd(self) -> str:
        """The person of an authenticated connection, the client network of any other."""

    def dismiss(self) -> None:
        """End the connection at once."""


class Connections:
    """The connection limit of one server: at the limit, a newcomer takes the place of another connection.

    A server that refused the newcomer instead could be filled by clients that open connections and send
    nothing. The same holds within one client network, which may be a proxy.

    Authenticated connections keep half of the places at most while others need some. The rest is for
    newcomers, because an operator's hold is unauthenticated until its request is read.
    """

    def __init__(self, most: int) -> None:
        """Allow so many connections at once."""
        self._most = most
        self._held: dict[Held, None] = {}
        self._crowds: dict[str, dict[Held, None]] = {}

    def take(self, newcomer: Held) -> None:
        """Give the newcomer a place; at a limit, end another connection first."""
        crowd = self._crowds.get(newcomer.crowd, {})
        if len(crowd) >= MOST_OF_ONE:
            min(crowd, key=_busy).dismiss()
        elif len(self._held) >= self._most:
            self._least_needed().dismiss()
        self._held[newcomer] = None
        self._join(newcomer)

    def recognise(self, shown: Held, before: str) -> None:
        """Move a connection from the crowd `before` to its person; at the person's limit, end another one."""
        if shown not in self._held:
            return
        self._leave(shown, before)
        others = [*self._crowds.get(shown.crowd, {})]
        self._join(shown)
        if len(others) >= MOST_OF_ONE:
            min(others, key=_busy).dismiss()

    def forget(self, gone: Held) -> None:
        """Give the place of a connection that has ended free."""
        if gone in self._held:
            del self._held[gone]
            self._leave(gone, gone.crowd)

    def _join(self, one: Held) -> None:
        self._crowds.setdefault(one.crowd, {})[one] = None

    def _leave(self, one: Held, crowd: str) -> None:
        members = self._crowds[crowd]
        del members[one]
        if not members:
            del self._crowds[crowd]

    def _least_needed(self) -> Held:
        """Return the connection that makes room.

        Authenticated connections fill more than half: the oldest idle one of the person with most of them.
        Otherwise the oldest idle unauthenticated one, whatever its network: a thousand clients with an
        address each are crowds of one, and two operators behind a proxy are a larger crowd.
        """
        known = [one for one in self._held if one.known]
        if 2 * len(known) > self._most:
            return min(known, key=lambda one: (-self._size(one), _busy(one)))
        unknown = [one for one in self._held if not one.known]
        silent = next((one for one in unknown if one.idle), None)
        return silent or max(unknown, key=self._size)

    def _size(self, one: Held) -> int:
        return len(self._crowds[one.crowd])


def _busy(one: Held) -> bool:
    return not one.idle
