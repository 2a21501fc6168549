"""The functional tests of one OpenVPN instance, asked through its own port; their limits are a policy."""

import asyncio
import secrets
import socket
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

from activities.drivers.daemon.client import address_of
from activities.drivers.daemon.inspection import cleartext, goes_on, lost, or_unknown, routes
from activities.drivers.daemon.login import ProbeLogin
from activities.drivers.daemon.openvpn.config import options_in
from activities.drivers.daemon.openvpn.session import Session, hold_session, routes_in
from activities.drivers.daemon.port import Environment
from policies.model.client_profiles import Profiles
from policies.model.errors import PenstockError
from policies.model.release_tests import Asked, Measurement

IN_TUNNELS = (Asked.LOGIN, Asked.PINGS_LOST, Asked.FULL_SIZE_LOST, Asked.CLEARTEXT, Asked.ROUTES)
MADE = (
    *(Asked.GARBAGE, Asked.PLAIN_HTTP, Asked.NULL_CIPHER, Asked.WRONG_PASSWORD, *IN_TUNNELS),
    Asked.PROFILES,
)
"""All that `inspect` measures."""
SESSIONS_TRIED = 2
OPENING = (0x38, 0x20, 0x48, 0x50)
"""How packets begin that look like a client's first one, a later one, and carried ones."""
GARBAGE_BYTES = 1200
ANSWERED_WITHIN = timedelta(seconds=1)
REQUEST = b"GET / HTTP/1.0\r\n\r\n"
NO_ENCRYPTION = ("cipher none", "data-ciphers none")
HMAC = "packet HMAC authentication failed"
"""What a client says of packets whose `auth` is another one; OpenVPN 2.6 compares the two at no login."""

Answers = Callable[[], Awaitable[int | None]]
"""Asks the daemon for the number of its main process; None for no answer."""


async def inspect(
    environment: Environment, login: ProbeLogin, transport: str, answers: Answers, profiles: Profiles
) -> tuple[Measurement, ...]:
    """Return what every functional test measured; one that cannot be made says what is missing."""
    alone = [
        await or_unknown(Asked.GARBAGE, _garbage(environment, transport, answers)),
        await or_unknown(Asked.PLAIN_HTTP, _plain_http(environment, transport)),
        await or_unknown(Asked.NULL_CIPHER, _null_cipher(environment, login, transport)),
        await or_unknown(Asked.WRONG_PASSWORD, _wrong_certificate(environment, login, transport)),
    ]
    held, of_profiles = await _held_by_profiles(environment, login, transport, profiles)
    return (*alone, *await _in_tunnels(environment, login, transport, held), *of_profiles)


# --- what needs no account ---------------------------------------------------------------


async def _garbage(environment: Environment, transport: str, answers: Answers) -> Measurement:
    """Send packets that are none, some of which begin like one, and see whether the same daemon answers."""
    before = await answers()
    if before is None:
        return Measurement(test=Asked.GARBAGE, said="the daemon does not say which process it is")
    pieces = [bytes([opening]) + secrets.token_bytes(GARBAGE_BYTES - 1) for opening in OPENING]
    pieces += [secrets.token_bytes(GARBAGE_BYTES) for _ in OPENING]
    for piece in pieces:
        await _answer_to(environment, transport, piece, timedelta(milliseconds=50))
    said = f"{len(pieces)} packets of {GARBAGE_BYTES} bytes of garbage were sent by {transport}"
    return goes_on(before, await answers(), said)


async def _plain_http(environment: Environment, transport: str) -> Measurement:
    words = await _answer_to(environment, transport, REQUEST, ANSWERED_WITHIN)
    said = f"a request without TLS was answered by {words[:20] or b'nothing'!r}"
    return Measurement(test=Asked.PLAIN_HTTP, measured=int(words.startswith(b"HTTP/")), said=said)


async def _answer_to(environment: Environment, transport: str, words: bytes, within: timedelta) -> bytes:
    """Return what comes back for these words, nothing when nothing does in time."""
    kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, kind) as asked:
        asked.setblocking(False)
        async with asyncio.timeout(ANSWERED_WITHIN.total_seconds()):
            await loop.sock_connect(asked, (str(address_of(environment)), environment.slot.port))
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(within.total_seconds()):
                await loop.sock_sendall(asked, words)
                return await loop.sock_recv(asked, 64)
    return b""


# --- what needs one ------------------------------------------------------------------------


async def _null_cipher(environment: Environment, login: ProbeLogin, transport: str) -> Measurement:
    """Log in as a client that takes nothing but no encryption."""
    session = await hold_session(environment, login, transport, (*login.options, *NO_ENCRYPTION))
    if not session.answered:
        return Measurement(test=Asked.NULL_CIPHER, said=_no_answer(environment, session))
    what = (
        "was let in: take `none` out of data-ciphers" if session.let_in else f"was refused: {session.words}"
    )
    said = f"a client without encryption {what}"
    return Measurement(test=Asked.NULL_CIPHER, measured=int(session.let_in), said=said)


async def _wrong_certificate(environment: Environment, login: ProbeLogin, transport: str) -> Measurement:
    """Log in by a certificate of the probe's name that nobody has signed, and by a wrong password."""
    wrong = None if login.password is None else secrets.token_hex(8)
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        shown = await asyncio.to_thread(_self_signed, login.user, Path(folder))
        session = await hold_session(
            environment, login, transport, login.options, shown=shown, password=wrong
        )
    if not session.answered:
        return Measurement(test=Asked.WRONG_PASSWORD, said=_no_answer(environment, session))
    what = "was let in" if session.let_in else "was refused"
    by = "with a certificate that nobody has signed" + (" and a wrong password" if wrong else "")
    said = f"the probe's user {by} {what}"
    return Measurement(test=Asked.WRONG_PASSWORD, measured=int(session.let_in), said=said)


def _self_signed(name: str, folder: Path) -> tuple[Path, Path]:
    """Write a key, and a certificate of that name which it has signed itself; return both paths."""
    from cryptography import x509  # noqa: PLC0415 - only what asks loads it
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID  # noqa: PLC0415

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.KeyUsage(True, *[False] * 8), critical=True)
        .sign(key, hashes.SHA256())
    )
    written = folder / "certificate.pem", folder / "key.pem"
    written[1].touch(mode=0o600)
    pem = serialization.Encoding.PEM
    written[0].write_bytes(certificate.public_bytes(pem))
    written[1].write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return written


async def _in_tunnels(
    environment: Environment, login: ProbeLogin, transport: str, of_profiles: Sequence[Session]
) -> list[Measurement]:
    """Hold two sessions; whether anything lies open is also asked of those of client profiles."""
    try:
        held = [
            await hold_session(environment, login, transport, login.options) for _ in range(SESSIONS_TRIED)
        ]
    except PenstockError as error:
        said = f"no session could be tried: {error}"
        return [Measurement(test=test, said=said) for test in IN_TUNNELS]
    return [
        _logins(held),
        lost(Asked.PINGS_LOST, "small", held),
        lost(Asked.FULL_SIZE_LOST, "full", held),
        cleartext(environment, [*held, *(one for one in of_profiles if one.carried)]),
        _routes(environment, held),
    ]


async def _held_by_profiles(
    environment: Environment, login: ProbeLogin, transport: str, profiles: Profiles
) -> tuple[list[Session], list[Measurement]]:
    """Log in as a client of each profile: all of them have to get in, and their tunnels to carry packets.

    A client whose framing the instance does not understand gets in all the same, and nothing comes through.
    """
    held, wrong, unknown = list[Session](), dict[str, str](), dict[str, str]()
    for name, setup in profiles.items():
        try:
            session = await hold_session(environment, login, transport, setup)
        except PenstockError as error:
            unknown[name] = str(error)
            continue
        held.append(session)
        if problem := _problem_of(session):
            wrong[name] = problem
    return held, _of_profiles(profiles, wrong, unknown)


def _of_profiles(
    profiles: Profiles, wrong: Mapping[str, str], unknown: Mapping[str, str]
) -> list[Measurement]:
    if not profiles:
        return []
    if wrong:
        said = "; ".join(f"{name} {problem}" for name, problem in wrong.items())
        return [Measurement(test=Asked.PROFILES, measured=len(wrong), said=said)]
    if unknown:
        said = "; ".join(f"{name}: {problem}" for name, problem in unknown.items())
        return [Measurement(test=Asked.PROFILES, said=said)]
    said = f"{', '.join(profiles)}: each got in, and its tunnel carries packets"
    return [Measurement(test=Asked.PROFILES, measured=0, said=said)]


def _problem_of(session: Session) -> str:
    if not session.answered:
        return "gets no answer: look at tls-auth and tls-crypt"
    if not session.let_in:
        return f"is refused: {session.words}"
    sent, received = session.pings.get("small", (0, 0))
    if not received:
        hint = "; compare its `auth` with the template's" if HMAC in session.words else ""
        return f"gets in by {session.cipher}, and none of {sent} pings comes back: {session.words}{hint}"
    return ""


def _logins(held: Sequence[Session]) -> Measurement:
    let_in = [session for session in held if session.let_in]
    ciphers = ", ".join(session.cipher for session in let_in)
    said = f"in by {ciphers}" if len(let_in) == len(held) else held[-1].words
    return Measurement(test=Asked.LOGIN, measured=len(let_in), said=said)


def _routes(environment: Environment, held: Sequence[Session]) -> Measurement:
    """Compare what was pushed with what the config pushes; what leads to its own pool OpenVPN adds itself."""
    config = (environment.config / "openvpn.conf").read_text()
    pushes = [option.value for option in options_in(config) if option.name == "push"]
    slot = environment.slot
    pools: list[IPv4Network | IPv6Network] = [slot.pool4, *([slot.pool6] if slot.pool6 else [])]
    for session in held:
        session.routes = {one for one in session.routes if not _lies_in(one, pools)}
    return routes(routes_in(pushes), held)


def _lies_in(written: str, pools: Sequence[IPv4Network | IPv6Network]) -> bool:
    try:
        route = ip_network(written)
    except ValueError:  # a host name
        return False
    return any(
        route.version == pool.version and route.subnet_of(pool)  # type: ignore[arg-type]
        for pool in pools
    )


def _no_answer(environment: Environment, session: Session) -> str:
    return f"slot {environment.slot.name} did not answer: {session.words}"
