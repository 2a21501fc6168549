"""The live page of a fleet where something that it asks says nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from orchestrator.api.watch import Watch
from orchestrator.monitoring.readiness import Readiness
from orchestrator.page.live import NO_TRAFFIC_YET
from orchestrator.processes.api import serving, socket_at
from orchestrator.processes.composition import compose
from orchestrator.service.service import Service
from orchestrator.store.ledger import Ledger
from orchestrator.words.standing import NO_ENGINE
from policies.model.errors import Unavailable
from tests.service.conftest import PAGE, installed


@asynccontextmanager
async def silent() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A server that takes what it is asked and never answers; with its address and whether it was asked."""
    asked = asyncio.Event()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        asked.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with server:
        yield f"http://{host}:{port}", asked


async def fails() -> None:
    raise Unavailable("nobody answers at 192.0.2.9")


async def test_an_engine_that_does_not_answer_is_told_also_where_no_change_is_under_way(
    service: Service, tmp_path: Path
) -> None:
    readiness = Readiness({"engine": fails})
    await readiness.look()
    link = await service.page_logins.make_link(service.people.at_the_socket(0), 0)
    path = tmp_path / "penstock.sock"
    transport = httpx.AsyncHTTPTransport(uds=str(path), verify=False)
    async with (
        serving(service, socket_at(path), watch=Watch(readiness)),
        httpx.AsyncClient(transport=transport, base_url=PAGE) as page,
    ):
        stranger = await page.get("/login")
        await page.post(link.url, headers={"Origin": PAGE})
        for place in ("/", "/fleets/edge", "/releases"):
            assert NO_ENGINE in (await page.get(place)).text, place
    assert NO_ENGINE not in stranger.text


async def test_a_prometheus_that_hangs_keeps_nobody_from_seeing_the_rest(
    tmp_path: Path, ledger: Ledger
) -> None:
    ledger.close()
    async with silent() as (prometheus, asked):
        settings = installed(tmp_path).model_copy(update={"prometheus_url": prometheus})
        service = (await compose(settings)).service
        link = await service.page_logins.make_link(service.people.at_the_socket(0), 0)
        path = tmp_path / "penstock.sock"
        transport = httpx.AsyncHTTPTransport(uds=str(path), verify=False)
        async with (
            serving(service, socket_at(path)),
            httpx.AsyncClient(transport=transport, base_url=PAGE) as page,
        ):
            await page.post(link.url, headers={"Origin": PAGE})
            shown = await page.get("/fleets/edge")
            await asked.wait()
    assert shown.status_code == httpx.codes.OK
    assert NO_TRAFFIC_YET in shown.text
    assert "Nobody is connected" not in shown.text
