"""Steering by a redirect: HAProxy answers a user's first request with where the instance is.

The client then logs in at the instance's own port, address or name, and comes back to it by itself whatever
HAProxy says by then: live sessions do not pass the switch, so a user who changes networks keeps the session
and the end of HAProxy costs new logins only (decision 0043). It is for daemons whose clients
follow a redirect: openconnect and AnyConnect do.
"""

import asyncio
import csv
import logging
import ssl
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from ipaddress import IPv6Address
from pathlib import Path

from activities.drivers.daemon.port import Secret
from activities.drivers.disk import content_of
from activities.drivers.private_files import write_private
from activities.drivers.steering.haproxy_process import HaproxyProcess
from activities.drivers.steering.haproxy_socket import HaproxySocket
from activities.drivers.steering.haproxy_steering import FOLDER, MAP, HaproxySteering, section
from activities.drivers.steering.haproxy_switch import leases, rules
from activities.drivers.steering.orders import Sessions, SteeringOrders
from activities.drivers.steering.port import Means
from activities.drivers.steering.switch import EVERYBODY, Switch
from policies.model.errors import BadInput, PenstockError
from policies.model.fleet import Gateway, Slot
from policies.steering import PROMISES

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
ASKED = "penstock.invalid"
"""The name that our own request asks for, which nobody has (RFC 2606)."""
LONGEST_NAME = 253
"""Characters of a name (RFC 1035), and more than any address has."""
MOST_CONNECTIONS = 4000
"""Users that are told where to go at the same moment; each takes some hundredths of a second."""
MOST_PER_SOURCE = 200
"""Of those, from one IPv4 address or one IPv6 network of 64 bits, behind which many users may be."""
OWN_CONNECTIONS = 50
"""Of the agent's, which it has beside those of users."""
DOOR = "agent.sock"
"""Where the agent asks what users are told while these have all of their connections."""
PATIENCE = timedelta(seconds=2)
CERTIFICATE = "users.pem"
_log = logging.getLogger(__name__)


def redirect_of(orders: SteeringOrders, means: Means) -> HaproxySteering:
    """Return the steering by a redirect of one gateway.

    Raises:
        BadInput: The agent's file names no certificate that HAProxy could show.
    """
    process = HaproxyProcess(means.root / FOLDER, orders.gateway.name)
    return HaproxySteering(orders, process, Redirect(orders.gateway, process.folder, means))


class Redirect:
    """What HAProxy does with users: it sends them to the instance."""

    promises = PROMISES["redirect"]

    def __init__(self, gateway: Gateway, folder: Path, means: Means) -> None:
        """Take where HAProxy's files are, and the credentials that it shows to users."""
        self._gateway = gateway
        self._folder = folder
        self._file = folder / CERTIFICATE
        self._haproxy = HaproxySocket(folder / "haproxy.sock", gateway.name)
        self._shown = [_named(means, name) for name in (means.certificate, means.key)]

    def configuration(self) -> str:
        """Return HAProxy's configuration."""
        return configuration(self._gateway, self._folder)

    async def prepare(self) -> None:
        """Ensure that the certificate of now lies where the configuration says.

        Where the disk does not take it, HAProxy starts with the one before, and is told the one of now.

        Raises:
            BadInput: it or its key cannot be read.
            Unavailable: the store of one of them does not answer.
            OSError: there is none, and the disk takes none.
        """
        bundle = await self._bundle()
        if bundle == self._written:
            return
        try:
            await asyncio.to_thread(write_private, self._file, bundle.encode())
        except OSError as error:
            if self._written is None:
                raise
            _log.warning("HAProxy of %s starts with an older certificate: %s", self._gateway.name, error)

    async def renew(self, haproxy: HaproxySocket) -> bool:
        """Ensure that users are shown the certificate of now; return whether it was another one.

        HAProxy refuses one that does not fit its key, and goes on with the one that it has.

        Raises:
            BadInput: it or its key cannot be read.
            Unavailable: the store of one of them, or HAProxy, does not answer or refuses.
        """
        bundle = await self._bundle()
        if bundle == self._written:
            return False
        try:
            await haproxy.order(f"set ssl cert {self._file} <<\n{bundle}")
            await haproxy.order(f"commit ssl cert {self._file}")
        except PenstockError:
            await haproxy.ask(f"abort ssl cert {self._file}")
            raise
        write_private(self._file, bundle.encode())
        return True

    @property
    def _written(self) -> str | None:
        """What HAProxy shows from its start on."""
        return content_of(self._file)

    async def _bundle(self) -> str:
        said = [await asyncio.to_thread(secret) for secret in self._shown]
        return "".join(f"{line}\n" for one in said for line in one.splitlines() if line.strip())

    async def follow(self, live: Sessions, switch: Switch, leaving: frozenset[str]) -> int:  # noqa: ARG002
        """Return that nobody has to be led back."""
        return 0

    async def heal(self, haproxy: HaproxySocket) -> bool:  # noqa: ARG002 - nobody is led back
        """Return that HAProxy knows of nobody in particular."""
        return False

    async def disagrees(self, switch: Switch) -> str:
        """Return where a user of this host is sent, in place of where everybody is to be sent.

        Where users have all of their connections, the agent asks at a door of its own: whoever fills HAProxy
        keeps others from logging in, and not the agent from steering.
        """
        slot = switch.trial or switch.steer
        if slot is None or switch.share != EVERYBODY:
            return ""
        wanted = location(next(one for one in self._gateway.slots if one.name == slot), ASKED)
        try:
            found = await self._asked_somewhere()
        except OSError as error:
            return f"it does not answer users: {str(error) or 'no answer in time'}"
        return "" if found == wanted else f"users are sent to {found or 'nowhere'} and not to {wanted}"

    async def _asked_somewhere(self) -> str:
        try:
            return await self._asked(self._at_users_port)
        except OSError:
            if not await self._is_full():
                raise
            _log.warning("the HAProxy of %s has no connection left for users", self._gateway.name)
            return await self._asked(self._at_own_door)

    async def _is_full(self) -> bool:
        """Whether users have as many connections as there are for them."""
        lines = (await self._haproxy.ask("show stat users 1 -1")).removeprefix("# ").splitlines()
        return any(int(line["scur"]) >= int(line["slim"]) for line in csv.DictReader(filter(None, lines)))

    async def _asked(self, door: Callable[[], Awaitable[Connection]]) -> str:
        """Return where users are sent, as one who asks like them is told; empty for nowhere."""
        async with asyncio.timeout(PATIENCE.total_seconds()):
            reader, writer = await door()
            try:
                writer.write(f"GET / HTTP/1.1\r\nHost: {ASKED}\r\nConnection: close\r\n\r\n".encode())
                said = (await reader.read()).decode(errors="replace")
            finally:
                writer.close()
        lines = (line.partition(":") for line in said.splitlines())
        found = next((value.strip() for key, _, value in lines if key.lower() == "location"), "")
        return found.removesuffix("/")

    async def _at_users_port(self) -> Connection:
        anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        anybody.check_hostname, anybody.verify_mode = (
            False,
            ssl.CERT_NONE,
        )  # it is told nothing
        address = str(self._gateway.addresses[0])
        return await asyncio.open_connection(address, self._gateway.port, ssl=anybody)

    async def _at_own_door(self) -> Connection:
        return await asyncio.open_unix_connection(str(self._folder / DOOR))


def configuration(gateway: Gateway, folder: Path) -> str:
    """Return HAProxy's whole configuration."""
    return "\n".join(
        [
            section("global", _process(folder)),
            section("defaults", _times()),
            section("frontend users", _users(gateway, folder)),
            section("frontend agent", _agent(folder)),
            *(
                section(
                    f"backend slot-{slot.name}", [f"http-request redirect code 302 location {_sent(slot)}"]
                )
                for slot in gateway.slots
            ),
            section("backend nowhere", ["http-request return status 503"]),
            section("backend sources", ["stick-table type ipv6 size 100k expire 30s store conn_cur"]),
            "\n".join(leases()),
            "",
        ]
    )


def location(slot: Slot, host: str) -> str:
    """Return where users of the slot are sent who asked for this host."""
    return f"https://{slot.users_at or f'{host}:{slot.port}'}"


def _sent(slot: Slot) -> str:
    return f"{location(slot, '%[var(txn.host)]')}%[pathq]"


def _process(folder: Path) -> Iterator[str]:
    yield f"stats socket {folder / 'haproxy.sock'} mode 600 level admin"
    yield f"maxconn {MOST_CONNECTIONS + OWN_CONNECTIONS}"
    yield "user haproxy"
    yield "group haproxy"
    yield "ssl-default-bind-options ssl-min-ver TLSv1.2"


def _times() -> Iterator[str]:
    yield "mode http"
    yield "timeout client 10s"
    yield "timeout http-request 10s"
    yield "timeout http-keep-alive 1s"
    yield "timeout connect 5s"
    yield "timeout server 10s"


def _users(gateway: Gateway, folder: Path) -> Iterator[str]:
    for address in gateway.addresses:
        where = f"[{address}]" if isinstance(address, IPv6Address) else str(address)
        yield f"bind {where}:{gateway.port} ssl crt {folder / CERTIFICATE}"
    yield f"maxconn {MOST_CONNECTIONS}"
    yield "tcp-request connection track-sc0 src,ipmask(32,64) table sources"
    yield f"tcp-request connection reject if {{ sc0_conn_cur gt {MOST_PER_SOURCE} }}"
    yield from _told(folder, "src")


def _agent(folder: Path) -> Iterator[str]:
    yield f"bind unix@{folder / DOOR} mode 600"
    yield f"maxconn {OWN_CONNECTIONS}"
    yield from _told(folder, "str(agent)")


def _told(folder: Path, who: str) -> Iterator[str]:
    # The name that the user asked for, without a port: the instance shows a certificate for the same name.
    # No regular expression: HAProxy compiles them, which a unit with MemoryDenyWriteExecute forbids.
    yield "http-request set-var(txn.host) req.hdr(host),field(1,:) unless { req.hdr(host) -m beg [ }"
    yield "http-request set-var(txn.host) req.hdr(host),field(1,]),concat(]) if { req.hdr(host) -m beg [ }"
    yield f"http-request deny status 400 unless {{ var(txn.host) -m len 1:{LONGEST_NAME} }}"
    yield r"http-request deny status 400 if { var(txn.host) -m sub / @ ? % \\ \# }"
    yield from rules(folder / MAP, "http-request", who)
    yield "use_backend slot-%[var(txn.slot)] if { var(txn.slot) -m found }"
    yield "default_backend nowhere"


def _named(means: Means, name: str) -> Secret:
    if name not in means.credentials:
        raise BadInput(
            f"HAProxy shows users a certificate, and the agent's file names no credential {name}: write it "
            "under credentials, or another name under front"
        )
    return means.credentials[name]
