"""Connections over TLS before their handshake: they are bounded, and keep no other client from its answer."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from starlette.responses import PlainTextResponse

from orchestrator import crowd
from orchestrator.processes import handshakes
from orchestrator.processes.listening import answering_at
from tests.fakes.authority import EnterpriseCa
from tests.patience import PATIENCE

MOST = 8
NEVER = 3_600.0

Silent = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def answering(folder: Path, most: int = MOST) -> AsyncIterator[tuple[int, ssl.SSLContext]]:
    """Answer over TLS; yield the port, and what a client trusts."""
    enterprise = EnterpriseCa(folder / "enterprise")
    usage = ExtendedKeyUsageOID.SERVER_AUTH
    key, certificate = enterprise.leaf("penstock", usage=usage, names=(x509.DNSName("penstock"),))
    shown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    shown.load_cert_chain(certificate, key)
    port = socket.create_server(("127.0.0.1", 0))
    trust = ssl.create_default_context(cafile=enterprise.roots)
    async with answering_at(PlainTextResponse("here\n"), port, tls=shown, most=most):
        yield port.getsockname()[1], trust


async def silent(port: int, address: str) -> Silent:
    return await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))


async def ended(one: Silent) -> None:
    """Wait until the server has ended a connection."""
    with suppress(ConnectionResetError):
        assert await asyncio.wait_for(one[0].read(), PATIENCE) == b""


async def require_answered(port: int, trust: ssl.SSLContext) -> None:
    reader, writer = await asyncio.wait_for(
        asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname="penstock"), PATIENCE
    )
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"here" in await asyncio.wait_for(reader.read(), PATIENCE)
    writer.close()


async def test_connections_without_a_handshake_have_a_bounded_number_of_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H2: as many as the process had descriptors were held, with 256 KiB each."""
    monkeypatch.setattr(handshakes, "PATIENCE_SECONDS", NEVER)
    async with answering(tmp_path) as (port, trust):
        strangers = [await silent(port, f"127.9.0.{number}") for number in range(1, 3 * MOST + 1)]
        for one in strangers[: 2 * MOST]:
            await ended(one)
        await require_answered(port, trust)
        for _, writer in strangers:
            writer.close()


async def test_one_network_has_a_part_of_the_places_before_a_handshake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H2: one address could hold every place before a handshake."""
    monkeypatch.setattr(handshakes, "PATIENCE_SECONDS", NEVER)
    monkeypatch.setattr(crowd, "MOST_OF_ONE", 2)
    async with answering(tmp_path) as (port, trust):
        other = await silent(port, "127.9.0.1")
        strangers = [await silent(port, "127.9.0.2") for _ in range(2 * MOST)]
        for one in strangers[:-2]:
            await ended(one)
        assert not other[0].at_eof()
        await require_answered(port, trust)
        for _, writer in [other, *strangers]:
            writer.close()


async def test_a_handshake_that_is_not_done_in_time_ends_its_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handshakes, "PATIENCE_SECONDS", 0.2)
    async with answering(tmp_path) as (port, _):
        one = await silent(port, "127.9.0.1")
        await ended(one)
        one[1].close()
