"""The functional tests of one ocserv instance, asked through its own port; their limits are a policy.

Wrong logins come before right ones, so that an account that is counted for its mistakes is cleared by a
success.
"""

import asyncio
import secrets
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta

from activities.drivers.daemon.client import address_of
from activities.drivers.daemon.inspection import cleartext, goes_on, lost, network, or_unknown, routes
from activities.drivers.daemon.login import ProbeLogin
from activities.drivers.daemon.ocserv.config import settings_of
from activities.drivers.daemon.ocserv.names import resolved
from activities.drivers.daemon.ocserv.session import Session, hold_session
from activities.drivers.daemon.port import Environment
from policies.model.errors import BadInput, PenstockError
from policies.model.release_tests import OF_NAMES, Asked, Measurement, Names

ANSWERED_WITHIN = timedelta(seconds=10)
GARBAGE_BYTES = 4096
NO_REQUEST = b"\0"
"""What begins no request: of one whose first letter could be a method's, ocserv waits for the rest."""
NO_ENCRYPTION = "eNULL:@SECLEVEL=0"
"""What openssl-ciphers(1) calls all ciphers without encryption, which no default has."""

IN_TUNNELS = (Asked.LOGIN, Asked.PINGS_LOST, Asked.FULL_SIZE_LOST, Asked.CLEARTEXT, Asked.ROUTES, *OF_NAMES)
"""What sessions of the probe's user tell."""
MADE = (Asked.GARBAGE, Asked.PLAIN_HTTP, Asked.NULL_CIPHER, Asked.WRONG_PASSWORD, *IN_TUNNELS)
"""All that `inspect` measures."""

Answers = Callable[[], Awaitable[int | None]]
"""Asks the daemon for the number of its main process; None for no answer."""


async def inspect(
    environment: Environment, login: ProbeLogin, answers: Answers, names: Names | None = None
) -> tuple[Measurement, ...]:
    """Return what every functional test measured; one that cannot be made says what is missing."""
    alone = [
        await or_unknown(Asked.GARBAGE, _garbage(environment, answers)),
        await or_unknown(Asked.PLAIN_HTTP, _plain_http(environment)),
        await or_unknown(Asked.NULL_CIPHER, _null_cipher(environment)),
        await or_unknown(Asked.WRONG_PASSWORD, _wrong_password(environment, login)),
    ]
    return (*alone, *await _in_tunnels(environment, login, names or Names()))


# --- what needs no account ---------------------------------------------------------------


async def _garbage(environment: Environment, answers: Answers) -> Measurement:
    """Send a request that is none, over TLS, and see whether the same daemon still answers."""
    before = await answers()
    if before is None:
        return Measurement(test=Asked.GARBAGE, said="the daemon does not say which process it is")
    garbage = NO_REQUEST + secrets.token_bytes(GARBAGE_BYTES - len(NO_REQUEST)) + b"\r\n\r\n"
    words = await _ask(environment, garbage, _trusting())
    said = f"{GARBAGE_BYTES} bytes of garbage over TLS were answered by {words or b'a closed connection'!r}"
    return goes_on(before, await answers(), said)


async def _plain_http(environment: Environment) -> Measurement:
    words = await _ask(environment, b"GET / HTTP/1.0\r\n\r\n", None)
    answered = words.startswith(b"HTTP/")
    said = f"a request without TLS was answered by {words[:20] or b'a closed connection'!r}"
    return Measurement(test=Asked.PLAIN_HTTP, measured=int(answered), said=said)


async def _null_cipher(environment: Environment) -> Measurement:
    """Offer only ciphers that do not encrypt; a daemon that takes one forwards in the clear for some."""
    context = _trusting()
    try:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(NO_ENCRYPTION)
    except (ssl.SSLError, ValueError) as error:
        said = f"this host's OpenSSL offers no ciphers without encryption: {error}"
        return Measurement(test=Asked.NULL_CIPHER, said=said)
    try:
        await _ask(environment, b"", context)
    except (ssl.SSLError, ConnectionResetError) as error:
        refused = f"a client without encryption was refused: {error}"
        return Measurement(test=Asked.NULL_CIPHER, measured=0, said=refused)
    said = "a handshake without encryption was completed: check tls-priorities for NULL"
    return Measurement(test=Asked.NULL_CIPHER, measured=1, said=said)


def _trusting() -> ssl.SSLContext:
    """Return a client's settings that ask for nobody's name: what is asked here is not a secret."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def _ask(environment: Environment, request: bytes, context: ssl.SSLContext | None) -> bytes:
    """Return the first bytes of the answer, none when the connection is closed without one."""
    host, port = str(address_of(environment)), environment.slot.port
    async with asyncio.timeout(ANSWERED_WITHIN.total_seconds()):
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
        try:
            if not request:
                return b""
            with suppress(ConnectionResetError, BrokenPipeError, ssl.SSLError):
                writer.write(request)
                await writer.drain()
                return await reader.read(64)
            return b""
        finally:
            writer.transport.abort()


# --- what needs one ------------------------------------------------------------------------


async def _wrong_password(environment: Environment, login: ProbeLogin) -> Measurement:
    session = await hold_session(environment, login, password=secrets.token_hex(8))
    if not session.tls:
        said = f"no TLS with slot {environment.slot.name}: {session.words}"
        return Measurement(test=Asked.WRONG_PASSWORD, said=said)
    what = "was let in" if session.let_in else f"was refused: {session.words}"
    said = f"the probe's user with a wrong password {what}"
    return Measurement(test=Asked.WRONG_PASSWORD, measured=int(session.let_in), said=said)


async def _in_tunnels(environment: Environment, login: ProbeLogin, names: Names) -> list[Measurement]:
    """Hold a session with UDP beside TLS and one over TLS alone; look at both of them together."""
    try:
        held = [
            await hold_session(environment, login, *more, names=[*names.inside])
            for more in ((), ("--no-dtls",))
        ]
    except PenstockError as error:
        said = f"no session could be tried: {error}"
        return [Measurement(test=test, said=said) for test in IN_TUNNELS]
    return [
        _logins(held),
        lost(Asked.PINGS_LOST, "small", held),
        lost(Asked.FULL_SIZE_LOST, "full", held),
        cleartext(environment, held),
        await or_unknown(Asked.ROUTES, _routes(environment, held)),
        *await resolved(held, names),
    ]


def _logins(held: Sequence[Session]) -> Measurement:
    let_in = [session for session in held if session.let_in]
    ciphers = ", ".join(session.dtls or session.tls for session in let_in)
    said = f"in by {ciphers}" if len(let_in) == len(held) else held[-1].words
    return Measurement(test=Asked.LOGIN, measured=len(let_in), said=said)


def routes_in(config: str) -> set[str]:
    """Return the networks that a config has clients send into the tunnel; with `default` none is named.

    Raises:
        BadInput: The config or a route of it cannot be read.
    """
    said = [route for route in settings_of(config).get("route", ()) if route]
    try:
        return set() if "default" in said else {network(route) for route in said}
    except ValueError as error:
        raise BadInput(f"a route of ocserv.conf is none: {error}") from error


async def _routes(environment: Environment, held: Sequence[Session]) -> Measurement:
    return routes(routes_in((environment.config / "ocserv.conf").read_text()), held)
