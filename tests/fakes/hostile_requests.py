"""Requests of a client without a login that are cheap to send and dear to parse; what was parsed of them."""

import asyncio
import ssl
from collections.abc import Iterable
from pathlib import Path

import h11
import pytest

from orchestrator.request_heads import MOST_HEAD, BoundedConnection
from tests.patience import PATIENCE

CHUNKS = 40_000
"""As many chunks of one byte as one read of a socket returns."""

HEAD = b"POST /v1/fleets/edge/commands HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
ONE_BYTE_CHUNKS = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n{\r\n" * CHUNKS
TINY_LINES = HEAD + b"a:\r\n" * 101 + b"\r\n"
LONG_HEAD = HEAD + b"A: " + b"a" * MOST_HEAD + b"\r\n\r\n"
SPACES = HEAD + b"A:" + b" " * (MOST_HEAD - 1_000) + b"\x00\r\n\r\n"
"""h11's pattern of a header line tries each length of these spaces."""

HOSTILE = {
    "chunks of one byte": (ONE_BYTE_CHUNKS, b"411 Length Required"),
    "tiny header lines": (TINY_LINES, b"431 Request Header Fields Too Large"),
    "a long head": (LONG_HEAD, b"431 Request Header Fields Too Large"),
    "a line of spaces": (SPACES, b"400 Bad Request"),
}


class Parsed:
    """Counts what h11 makes of requests."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.requests = 0
        self.bodies = 0
        self.reads = 0
        """Calls of h11's own parser."""
        parser = h11.Connection.next_event

        def counted(connection: h11.Connection) -> object:
            event = parser(connection)
            if isinstance(connection, BoundedConnection):
                self.reads += 1
                self.requests += isinstance(event, h11.Request)
                self.bodies += isinstance(event, h11.Data)
            return event

        monkeypatch.setattr(h11.Connection, "next_event", counted)


async def answer_to(
    at: Path | tuple[str, int], request: Iterable[bytes], tls: ssl.SSLContext | None = None
) -> bytes:
    """Send a request in these pieces; return what is answered until the connection ends."""
    if isinstance(at, Path):
        reader, writer = await asyncio.open_unix_connection(at)
    else:
        reader, writer = await asyncio.open_connection(*at, ssl=tls)
    answer = b""
    try:
        async with asyncio.timeout(PATIENCE):
            for piece in request:
                writer.write(piece)
                await writer.drain()
            while piece := await reader.read(4096):
                answer += piece
    except ConnectionError:  # it was closed before all was read
        pass
    finally:
        writer.transport.abort()
    return answer
