"""Posting to a receiver over HTTP: verified, within one deadline, without following it anywhere."""

import asyncio
import ssl
from collections.abc import Collection, Mapping
from functools import lru_cache, partial
from pathlib import Path
from urllib.parse import urlsplit

from activities.drivers.exchange import NotAnswered, exchange
from activities.drivers.notices.port import DEADLINE, THREADS, Undelivered
from activities.drivers.notices.secret import without
from policies.model.errors import BadInput
from policies.model.notice_rules import HttpSink
from policies.model.value import sentence

MOST_READ = 1 << 16
"""Bytes of an answer that are read."""

MOST_LOOKED_AT = 2_000
"""Characters of an answer that are searched for secrets."""

MOST_TOLD = 200
"""Characters of an answer that are told to people."""


def trusting(authorities: Path | None) -> ssl.SSLContext:
    """Return what verifies a receiver: by the host's authorities, or by those of this file alone.

    Raises:
        BadInput: The file cannot be read, or holds no certificates.
    """
    hosts_own = ssl.get_default_verify_paths()
    place = authorities or hosts_own.cafile or hosts_own.capath
    try:
        now = Path(place).stat() if place else None
        return _verifying(authorities, now and (now.st_ino, now.st_size, now.st_mtime_ns))
    except (OSError, ssl.SSLError) as error:
        raise BadInput(f"{authorities} holds no certificates in PEM that can be read; check it") from error


@lru_cache(maxsize=32)
def _verifying(authorities: Path | None, _as_it_is: tuple[int, int, int] | None) -> ssl.SSLContext:
    """Read the authorities once for as long as their file stays as it is: a host's own take 50 ms."""
    return ssl.create_default_context(cafile=str(authorities) if authorities else None)


def trusted(sink: HttpSink, folder: Path) -> ssl.SSLContext:
    """Return what verifies the sink's receiver; raises as `trusting` does."""
    return trusting(folder / sink.authorities if sink.authorities else None)


async def post(
    sink: HttpSink,
    folder: Path,
    content: bytes,
    headers: Mapping[str, str],
    *,
    secrets: Collection[str],
    under: str = "",
) -> str:
    """Post this to the sink's address and return what the receiver answered, in a line.

    Args:
        sink: Whose address it is, and who vouches for that.
        folder: From where on the sink's files are.
        content: What is posted.
        headers: How, and by whom.
        secrets: What neither an answer nor an error says again; the address has its own, its path.
        under: What follows the address.

    Raises:
        Undelivered: It did not answer in time, or did not say that it took it.
        BadInput: The file of authorities is not as it must be.
    """
    verified = trusted(sink, folder)
    address = f"{sink.url.rstrip('/')}{under}" if under else sink.url
    hidden, seconds = [*secrets, urlsplit(sink.url).path.strip("/")], DEADLINE.total_seconds()
    asked = partial(
        exchange,
        address,
        tls=verified,
        seconds=seconds,
        most=MOST_READ,
        method="POST",
        content=content,
        headers=headers,
        cut=True,
    )
    try:
        answer = await asyncio.get_running_loop().run_in_executor(THREADS, asked)
    except NotAnswered as error:
        why = line_of(str(error), hidden)
        late = isinstance(error.__cause__, TimeoutError)
        raise Undelivered(why if late else f"it cannot be reached: {why}") from error
    status, said = answer.status, line_of(answer.body.decode(errors="replace"), hidden)
    if 300 <= status < 400:  # noqa: PLR2004 - HTTP's own
        raise Undelivered(f"it answers {status} and points elsewhere, which is not followed", reached=True)
    if not answer.is_success:
        raise Undelivered(f"it answers {status}{f': {said}' if said else ''}", reached=True)
    return f"it answers {status}{f': {said}' if said else ''}"


def line_of(said: str, secrets: Collection[str]) -> str:
    """Return what a receiver or a library said as one line for people, without any piece of a secret."""
    looked_at = sentence(said, len(said) + 1)[
        :MOST_LOOKED_AT
    ]  # cut only afterwards: half a secret is one, too
    return sentence(without(looked_at, secrets), MOST_TOLD)
