"""The attackers of the API: `python -m tests.bench.strangers_attacks NAME CONFIG` goes on until it is ended.

Addresses of 127.0.0.0/8 stand for so many client networks.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from pydantic import BaseModel

NETWORKS = 200
"""Client networks that unauthenticated clients come from."""

COMPARED_BYTES = 20 * 1024 * 1024 - 4096
FILE_BYTES = 120 * 1024
"""Of the largest upgrade file that fits into a request."""

AT_ONCE = 8
"""Requests of one viewer at a time, of whom the API serves fewer."""

LOOKS_AT_ONCE = 50
"""Connections on which one viewer repeats a look."""

REFUSED_SECONDS = 0.5
"""How long a look waits that came too often."""

SLOW, IDLE = 300, 300
"""Connections that say a byte now and then, and that say nothing."""


class Attacked(BaseModel):
    """What is attacked, and what the attacker has."""

    port: int
    fleet: str
    large: str
    """A fleet of thousands of gateways."""
    viewer: str
    """A machine's token that may only look at the fleet."""


async def _post(attacked: Attacked, path: str, body: bytes) -> None:
    """Send the whole request, and go away when it is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", attacked.port)
    try:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: penstock\r\nAuthorization: Bearer {attacked.viewer}\r\n"
            f"Content-Type: application/json\r\nIdempotency-Key: k{time.monotonic_ns()}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await writer.drain()
        await reader.read()
    finally:
        writer.close()


async def _again(work: Callable[[], Awaitable[None]]) -> None:
    while True:
        with suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            await work()
        await asyncio.sleep(0.01)


def _unknown_keys(size: int) -> str:
    """Return a file of this size that has nothing but unknown keys."""
    count = size // 8
    return "{" + ",".join(f"k{number:x}" for number in range(count))[: size - 2] + "}"


async def worst_file(attacked: Attacked) -> None:
    """Apply upgrade files of thousands of unknown keys, without the right to."""
    body = json.dumps({"file": {"path": "u", "text": _unknown_keys(FILE_BYTES)}}).encode()
    path = f"/v1/fleets/{attacked.fleet}/upgrade"
    await asyncio.gather(*[_again(lambda: _post(attacked, path, body)) for _ in range(AT_ONCE)])


async def worst_body(attacked: Attacked) -> None:
    """Give commands whose body has thousands of unknown keys, without the right to."""
    body = json.dumps(dict.fromkeys((f"{number:x}" for number in range(FILE_BYTES // 11)), 0)).encode()
    path = f"/v1/fleets/{attacked.fleet}/commands"
    await asyncio.gather(*[_again(lambda: _post(attacked, path, body)) for _ in range(AT_ONCE)])


async def large_diffs(attacked: Attacked) -> None:
    """Compare descriptions of 20 MiB, and go away after a few seconds."""
    body = json.dumps({"description": {"path": "d", "text": _unknown_keys(COMPARED_BYTES)}}).encode()
    path = f"/v1/fleets/{attacked.fleet}/desired/diff"

    async def impatient() -> None:
        async with asyncio.timeout(5):
            await _post(attacked, path, body)

    await asyncio.gather(*[_again(impatient) for _ in range(AT_ONCE)])


async def nested_diffs(attacked: Attacked) -> None:
    """Compare bodies of 20 MiB that are small lists and no description."""
    body = b'{"description": [' + b",".join([b"[]"] * (COMPARED_BYTES // 3)) + b"]}"
    path = f"/v1/fleets/{attacked.fleet}/desired/diff"
    await asyncio.gather(*[_again(lambda: _post(attacked, path, body)) for _ in range(AT_ONCE)])


async def repeated_previews(attacked: Attacked) -> None:
    """Ask without end what a rollback of the large fleet does."""
    request = (
        f"GET /v1/fleets/{attacked.large}/rollback HTTP/1.1\r\nHost: penstock\r\n"
        f"Authorization: Bearer {attacked.viewer}\r\n\r\n"
    ).encode()

    async def look() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", attacked.port)
        try:
            while True:
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length or b"0"))
                if head[9:12] == b"429":
                    await asyncio.sleep(REFUSED_SECONDS)
        finally:
            writer.close()

    await asyncio.gather(*[_again(look) for _ in range(LOOKS_AT_ONCE)])


async def refused_tokens(attacked: Attacked) -> None:
    """Show tokens that are none, from many client networks, one request after the other from each."""

    async def stranger(number: int) -> None:
        source = f"127.20.{number // 250}.{1 + number % 250}"
        reader, writer = await asyncio.open_connection("127.0.0.1", attacked.port, local_addr=(source, 0))
        try:
            for _ in range(6):
                writer.write(b"GET /v1/whoami HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer nonsense\r\n\r\n")
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length or b"0"))
        finally:
            writer.close()

    await asyncio.gather(
        *[_again(lambda number=number: stranger(number)) for number in range(NETWORKS)]  # type: ignore[misc]  # the default binds it
    )


async def slow_and_idle(attacked: Attacked) -> None:
    """Keep connections that say nothing, and others that say a byte a second of a request without end."""

    async def keep(number: int, *, says: bool) -> None:
        source = f"127.{30 + says}.{number // 250}.{1 + number % 250}"
        _, writer = await asyncio.open_connection("127.0.0.1", attacked.port, local_addr=(source, 0))
        try:
            writer.write(b"POST /v1/fleets/x/commands HTTP/1.1\r\nHost: x\r\nX-" if says else b"")
            while not writer.is_closing():
                await asyncio.sleep(1)
                writer.write(b"a" if says else b"")
        finally:
            writer.close()

    await asyncio.gather(
        *[_again(lambda number=number: keep(number, says=True)) for number in range(SLOW)],  # type: ignore[misc]
        *[_again(lambda number=number: keep(number, says=False)) for number in range(IDLE)],  # type: ignore[misc]
    )


ATTACKS: dict[str, Callable[[Attacked], Awaitable[None]]] = {
    "worst file by a viewer": worst_file,
    "worst body by a viewer": worst_body,
    "20 MiB diffs by a viewer": large_diffs,
    "20 MiB of lists by a viewer": nested_diffs,
    "a viewer repeats the rollback's preview of a fleet of 10,000": repeated_previews,
    "refused tokens from 200 addresses": refused_tokens,
    "slow and idle connections": slow_and_idle,
}


async def _attack(name: str, attacked: Attacked) -> None:
    await ATTACKS[name](attacked)


if __name__ == "__main__":
    asyncio.run(_attack(sys.argv[1], Attacked.model_validate_json(sys.argv[2])))
