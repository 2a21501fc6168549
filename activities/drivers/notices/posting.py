"""Posting to a receiver over HTTP: verified, within one deadline, without following it anywhere."""

import asyncio
import ssl
from collections.abc import Mapping
from pathlib import Path

import httpx

from activities.drivers.notices.port import DEADLINE, Undelivered
from policies.model.errors import BadInput
from policies.model.value import sentence

MOST_READ = 1 << 16
"""Bytes of an answer that are read."""

MOST_TOLD = 200
"""Characters of an answer that are told to people."""


def trusting(authorities: Path | None) -> ssl.SSLContext:
    """Return what verifies a receiver: by the host's authorities, or by those of this file alone.

    Raises:
        BadInput: The file cannot be read, or holds no certificates.
    """
    try:
        return ssl.create_default_context(cafile=str(authorities) if authorities else None)
    except (OSError, ssl.SSLError) as error:
        raise BadInput(f"{authorities} holds no certificates in PEM that can be read; check it") from error


async def post(url: str, content: bytes, headers: Mapping[str, str], authorities: Path | None) -> str:
    """Post this and return what the receiver answered, in a line.

    Raises:
        Undelivered: It did not answer in time, or did not say that it took it.
        BadInput: The file of authorities is not as it must be.
    """
    verified = trusting(authorities)
    seconds = DEADLINE.total_seconds()
    try:
        async with (
            asyncio.timeout(seconds),
            httpx.AsyncClient(
                verify=verified, trust_env=False, follow_redirects=False, timeout=seconds
            ) as client,
            client.stream("POST", url, content=content, headers=dict(headers)) as answer,
        ):
            said = await _read(answer)
            status = answer.status_code
    except TimeoutError as error:
        raise Undelivered(f"it did not answer within {seconds:g} s") from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise Undelivered(
            f"it cannot be reached: {sentence(str(error) or type(error).__name__, MOST_TOLD)}"
        ) from error
    if httpx.codes.is_redirect(status):
        raise Undelivered(f"it answers {status} and points elsewhere, which is not followed", reached=True)
    if not httpx.codes.is_success(status):
        raise Undelivered(f"it answers {status}{f': {said}' if said else ''}", reached=True)
    return f"it answers {status}{f': {said}' if said else ''}"


async def _read(answer: httpx.Response) -> str:
    found = b""
    async for part in answer.aiter_raw(4096):
        found += part
        if len(found) > MOST_READ:
            break
    return sentence(found.decode(errors="replace"), MOST_TOLD)
