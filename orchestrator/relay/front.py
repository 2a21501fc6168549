"""HAProxy before a relay: it ends TLS and HTTP/2 of agents, and hands their calls on over a unix socket.

gRPC's library reads headers that have no end (CONTINUATION frames) and remembers them, before the relay can
ask whose they are. HAProxy closes such a connection after one buffer. Floods of pings, settings and resets
take one thread at most, and calls of other agents get their turn after each small buffer.
"""

import asyncio
import logging
import os
import resource
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from activities.drivers.private_files import write_private
from activities.drivers.steering.haproxy_socket import HaproxySocket
from orchestrator.relay.engine import LONGEST_CALL
from policies.model.errors import BadInput, PenstockError, Unavailable

PROGRAM = "haproxy"
CERTIFICATE, CALLER = "x-penstock-certificate", "x-penstock-caller"
"""Headers that HAProxy sets in place of a caller's own: its certificate in base64, its address and port."""

REFUSED = "x-penstock-refused"
"""The header of a refusal because of the certificate itself: it is revoked or has expired."""

MOST_REFUSALS = 4
"""Such refusals on one connection; HAProxy closes the connection at the next call."""

STREAMS = 32
"""Calls at once on one connection; what an agent asks beyond them waits at the agent."""

MOST_CONNECTIONS = 16
"""Connections at once by one certificate, with calls or without."""

MOST_CALLS = 100
"""Calls a second by one certificate; HAProxy answers further ones with 429, and agents repeat them."""

MOST_BEYOND = 100
"""Calls in ten seconds beyond that; HAProxy closes connections that go on."""

HANDSHAKE = timedelta(seconds=10)
"""The longest handshake, and the longest pause within a message that is sent or received."""

IDLE = timedelta(seconds=20)
"""A connection without a call is closed after this time, pings or not; an agent polls all the time."""

UP_WITHIN = timedelta(seconds=20)
LOOK_AGAIN = timedelta(seconds=15)
"""How often it is looked whether the relay's certificate changed."""

AGAIN_AFTER = 1.0
"""Seconds between the end of HAProxy and its next start."""

SPARE = 100
"""Open files of HAProxy beside the two of each connection."""

_POLL_SECONDS = 0.02
_MOST_HEADERS = 8 << 10
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Proof:
    """How the relay proves itself, and whose certificates it takes from agents."""

    pair: Callable[[], bytes]
    """The relay's certificate and its key, in PEM, as they are now."""
    trusted: bytes
    """The authorities of gateways, in PEM."""


class Front:
    """One HAProxy before one relay, started again whenever it ends."""

    def __init__(self, port: socket.socket, folder: Path, proof: Proof, connections: int) -> None:
        """Answer at this socket, and hand on to `relay.sock` in the folder, which only this user may enter.

        Raises:
            BadInput: HAProxy is not installed.
        """
        self._port = port
        self._folder = folder
        self._proof = proof
        self._connections = connections
        self._admin = HaproxySocket(folder / "admin.sock", "this relay")
        self._shown = b""
        self._child: asyncio.subprocess.Process | None = None
        self._program = _program()

    async def begin(self) -> None:
        """Start HAProxy, and return when it answers.

        Raises:
            Unavailable: It does not start; the sentence has its own words.
        """
        self._shown = self._proof.pair()
        write_private(self._folder / "relay.pem", self._shown)
        write_private(self._folder / "authorities.pem", self._proof.trusted)
        text = configuration(self._connections)
        configured = self._folder / "haproxy.cfg"
        configured.write_text(text)
        self._admin.path.unlink(missing_ok=True)
        with (self._folder / "haproxy.log").open("wb") as log:
            self._child = await asyncio.create_subprocess_exec(
                *("setpriv", "--pdeathsig", "KILL", self._program, "-db", "-f", configured.name),
                cwd=self._folder,
                stdin=self._port.fileno(),
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},  # no password of the relay's own
            )
        try:
            async with asyncio.timeout(UP_WITHIN.total_seconds()):
                while not await self._answers():
                    if self._child.returncode is not None:
                        raise Unavailable(f"HAProxy does not start before the relay: {self._last_words()}")
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError as late:
            raise Unavailable("HAProxy does not answer the relay after its start") from late

    async def keep(self) -> None:
        """Start HAProxy again when it has ended, and show the relay's newest certificate, until cancelled."""
        while True:
            if self._child is not None:
                try:
                    async with asyncio.timeout(LOOK_AGAIN.total_seconds()):
                        code = await self._child.wait()
                except TimeoutError:
                    await self._show()
                    continue
                _log.error(
                    "HAProxy before the relay ended with %d (%s); it is started again",
                    code,
                    self._last_words(),
                )
                await asyncio.sleep(AGAIN_AFTER)
            await self.begin()

    async def look(self) -> None:
        """Return if HAProxy runs.

        Raises:
            Unavailable: It has ended, so no agent reaches the relay.
        """
        if self._child is None or self._child.returncode is not None:
            raise Unavailable(f"HAProxy before the relay has ended: {self._last_words()}")

    def close_port(self) -> None:
        """Take no further connection, and have agents leave when their calls have ended."""
        self._port.close()
        if self._child is not None:
            with suppress(ProcessLookupError):
                self._child.send_signal(signal.SIGUSR1)

    async def end(self) -> None:
        """End it at once."""
        if self._child is not None:
            with suppress(ProcessLookupError):
                self._child.kill()
            await self._child.wait()

    async def _show(self) -> None:
        """Show new connections the certificate that the files have now, or the one before if that fails."""
        if (pair := self._proof.pair()) == self._shown:
            return
        file = "relay.pem"  # as the configuration calls it
        write_private(self._folder / file, pair)
        # An empty line ends what is handed over, so there may be none within.
        lines = "\n".join(line for line in pair.decode().splitlines() if line.strip())
        try:
            await self._admin.order(f"set ssl cert {file} <<\n{lines}\n")
            await self._admin.order(f"commit ssl cert {file}")
        except PenstockError as error:
            _log.warning("the relay's new certificate is not shown yet: %s", error)
            return
        self._shown = pair

    async def _answers(self) -> bool:
        with suppress(PenstockError):
            return "Pid:" in await self._admin.ask("show info")
        return False

    def _last_words(self) -> str:
        log = (self._folder / "haproxy.log").read_text(errors="replace").splitlines()
        lines = [line.strip() for line in log if line.strip()]
        alerts = [line for line in lines if "[ALERT]" in line]
        return next(iter(alerts or lines[-1:]), "its log is empty")


@asynccontextmanager
async def fronted(port: socket.socket, folder: Path, proof: Proof, connections: int) -> AsyncIterator[Front]:
    """Have HAProxy before `relay.sock` in the folder for the length of the body; then it ends.

    Raises:
        BadInput: HAProxy is not installed.
        Unavailable: It does not start.
    """
    front = Front(port, folder, proof, connections)
    try:
        await front.begin()
        yield front
    finally:
        await front.end()


def configuration(connections: int) -> str:
    """Return HAProxy's configuration; the port is its standard input, which it takes whatever its limits.

    `http-reuse never` gives each connection of an agent its own connection to the relay: answers that one
    agent does not read, and calls that it resets, delay no other agent. `abortonclose` ends the poll of an
    agent that is gone, so that it gets no task. A certificate is counted by its serial, which its signature
    covers: the signature itself can be made anew, by its holder too. Small buffers of the kernel bound what
    one connection can have read before the next one gets its turn.
    """
    answers = int(LONGEST_CALL) + 15
    pair, trusted = "relay.pem", "authorities.pem"
    patience, idle = int(HANDSHAKE.total_seconds()), int(IDLE.total_seconds())
    return f"""\
global
  maxconn {_connections_that_fit(connections)}
  nbthread 1
  no numa-cpu-mapping
  stats socket unix@admin.sock mode 600 level admin
  ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets
  tune.ssl.cachesize 0
  tune.maxrewrite {_MOST_HEADERS}
  tune.h2.max-concurrent-streams {STREAMS}
  tune.rcvbuf.client 16384
  tune.sndbuf.client 65536

defaults
  mode http
  timeout connect 5s
  timeout client {patience}s
  timeout http-request {patience}s
  timeout http-keep-alive {idle}s
  timeout server {answers}s
  option clitcpka
  clitcpka-idle 30s
  clitcpka-intvl 10s
  clitcpka-cnt 3

frontend agents
  bind fd@0 proto h2 alpn h2 tcp-ut 40s ssl crt {pair} ca-file {trusted} verify required
  stick-table type binary len 20 size 50k expire 10m store conn_cur,http_req_rate(1s),http_err_rate(10s)
  tcp-request session track-sc0 ssl_c_serial
  tcp-request session set-var(sess.refused) int(0)
  tcp-request session reject if {{ sc0_conn_cur gt {MOST_CONNECTIONS} }}
  http-request reject if {{ sc0_http_err_rate gt {MOST_BEYOND} }}
  http-request deny deny_status 429 if {{ sc0_http_req_rate gt {MOST_CALLS} }}
  http-request reject if {{ var(sess.refused) -m int ge {MOST_REFUSALS} }}
  http-request set-header {CERTIFICATE} %[ssl_c_der,base64]
  http-request set-header {CALLER} %[src]:%[src_port]
  http-response set-var(sess.refused) var(sess.refused),add(1) if {{ res.hdr({REFUSED}) -m found }}
  http-response del-header {REFUSED}
  default_backend relay

backend relay
  option abortonclose
  http-reuse never
  server relay unix@relay.sock proto h2
"""


def _connections_that_fit(connections: int) -> int:
    """Return how many connections HAProxy may have: each takes two of the open files that the host allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return connections if hard == resource.RLIM_INFINITY else min(connections, (hard - SPARE) // 2)


def _program() -> str:
    found = shutil.which(PROGRAM, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise BadInput(
            "HAProxy is not on this host, and agents reach a relay through it: apt-get install haproxy"
        )
    return found
