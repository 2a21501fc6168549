"""The probe: asks for holds and rollbacks, as users of the host at the socket and by token over the network.

`python -m tests.bench.strangers_probe CONFIG`, a `Probing` as JSON. It prints the milliseconds that every
request took, by what was asked and where; a request that failed counts with the time until it did.
"""

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from itertools import cycle

from pydantic import BaseModel

PAUSE = 0.1
"""Seconds between two requests of one kind."""

GIVEN_UP_SECONDS = 30.0


class Probing(BaseModel):
    """Whom the probe asks, as whom, and for how long."""

    path: str
    """The API's socket."""
    port: int
    held: str
    """A fleet whose change goes on; it is held again and again."""
    idle: str
    """A fleet without a change; it is rolled back again and again."""
    users: list[int]
    """User numbers of operators of both fleets, each with a rate limit of their own."""
    tokens: list[str]
    """Tokens of operators of both fleets."""
    seconds: float


async def _at_the_socket(probing: Probing, user: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect as this user; the kernel notes who it is at that moment."""
    caller = socket.socket(socket.AF_UNIX)
    caller.setblocking(False)
    while True:
        os.seteuid(user)
        try:
            caller.connect(probing.path)
            break
        except BlockingIOError:
            pass  # so many wait to be accepted that there is no room for another
        finally:
            os.seteuid(0)
        await asyncio.sleep(0.02)
    return await asyncio.open_unix_connection(sock=caller)


async def _ask(
    opened: Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]], fleet: str, kind: str, shown: str
) -> tuple[float, str]:
    """Return the milliseconds until the whole answer was here, and its status."""
    began, status = time.monotonic(), "no answer"
    body = json.dumps({"kind": kind, "reason": "measuring"}).encode()
    head = (
        f"POST /v1/fleets/{fleet}/commands HTTP/1.1\r\nHost: penstock\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nIdempotency-Key: {kind}-{time.monotonic_ns()}\r\n"
        f"Content-Length: {len(body)}\r\n{shown}\r\n"
    )
    try:
        async with asyncio.timeout(GIVEN_UP_SECONDS):
            reader, writer = await opened
            writer.write(head.encode() + body)
            answer = await reader.read()
            writer.close()
            status = answer[9:12].decode() or status
    except (OSError, TimeoutError) as error:
        status = type(error).__name__
    return (time.monotonic() - began) * 1000, status


async def _probe(probing: Probing) -> dict[str, list[tuple[float, str]]]:
    users, tokens, until = cycle(probing.users), cycle(probing.tokens), time.monotonic() + probing.seconds
    found: dict[str, list[tuple[float, str]]] = {}

    async def keep(name: str, ask: Callable[[], Awaitable[tuple[float, str]]]) -> None:
        taken = found.setdefault(name, [])
        while time.monotonic() < until:
            taken.append(await ask())
            await asyncio.sleep(PAUSE)

    def asked(fleet: str, kind: str) -> list[Awaitable[None]]:
        def here() -> Awaitable[tuple[float, str]]:
            return _ask(_at_the_socket(probing, next(users)), fleet, kind, "")

        def there() -> Awaitable[tuple[float, str]]:
            shown = f"Authorization: Bearer {next(tokens)}\r\n"
            return _ask(asyncio.open_connection("127.0.0.1", probing.port), fleet, kind, shown)

        return [keep(f"{kind}_socket", here), keep(f"{kind}_network", there)]

    await asyncio.gather(*asked(probing.held, "hold"), *asked(probing.idle, "roll_back"))
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_probe(Probing.model_validate_json(sys.argv[1])))))
