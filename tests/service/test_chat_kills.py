"""Chat: what is seen and done when API, chat or homeserver are killed or away at the worst moment.

API and chat are processes of their own here; the engine is real, behind a proxy that can hold what passes.
"""

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deploy.ports import free_port
from orchestrator.store.ledger import Ledger
from tests.fakes.homeserver import Homeserver, homeserver
from tests.patience import PATIENCE, until
from tests.service.chat_rooms import link, token, with_chat
from tests.service.test_chat import ledger
from tests.service.test_chat_strangers import config_in, said
from tests.service.test_safe_direction import Night, night
from tests.workflows.conftest import engines, server  # noqa: F401 - fixtures

pytestmark = pytest.mark.timeout(420)  # the first one to need a homeserver installs it

__all__ = ["ledger", "night"]


@dataclass
class Held:
    """A way to the engine on which everything can be held."""

    port: int
    to: tuple[str, int]
    passing: asyncio.Event = field(default_factory=asyncio.Event)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while part := await reader.read(65536):
                await self.passing.wait()
                writer.write(part)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self.to)
        await asyncio.gather(self.carry(reader, back), self.carry(there, writer))


@asynccontextmanager
async def held_way(address: str) -> AsyncIterator[Held]:
    host, _, port = address.rpartition(":")
    own = free_port()
    way = Held(own, (host, int(port)))
    way.passing.set()
    listening = await asyncio.start_server(way.take, "127.0.0.1", own)
    try:
        yield way
    finally:
        way.passing.set()
        listening.close()


@dataclass
class Stage:
    """A room, and the processes that answer in it."""

    night: Night
    fake: Homeserver
    way: Held
    config: Path
    running: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def begin(self, *words: str) -> asyncio.subprocess.Process:
        """Start one of penstock's processes."""
        base = {"PATH": os.environ["PATH"], "PYTHONPATH": os.fspath(Path.cwd()), "TZ": "UTC"}
        settings = self.night.settings
        given = {
            "PENSTOCK_STATE": self.night.folder,
            "PENSTOCK_TEMPORAL_ADDRESS": f"127.0.0.1:{self.way.port}",
            "PENSTOCK_TEMPORAL_NAMESPACE": settings.temporal_namespace,
            "PENSTOCK_LEDGER_URL": settings.ledger_url,
            "PENSTOCK_FLEET": settings.fleet,
            "PENSTOCK_PEOPLE": settings.people,
            "PENSTOCK_TRUST": settings.trust,
            "PENSTOCK_PAGE_URL": settings.page_url,
            "PENSTOCK_SOCKET": self.night.folder / "own.sock",
        }
        log = (self.night.folder / f"{words[0]}.log").open("ab")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "orchestrator", *words),
            env=base | {name: str(value) for name, value in given.items()},
            stdout=log,
            stderr=log,
        )
        log.close()
        self.running.append(process)
        return process

    async def begin_api(self) -> asyncio.subprocess.Process:
        process = await self.begin("api")

        async def answers() -> bool:
            assert process.returncode is None, (self.night.folder / "api.log").read_text()[-2000:]
            try:
                _, writer = await asyncio.open_unix_connection(os.fspath(self.night.folder / "own.sock"))
            except OSError:
                return False
            writer.close()
            return True

        await until(answers)
        return process

    async def begin_chat(self) -> asyncio.subprocess.Process:
        self.fake.listened = asyncio.Event()
        process = await self.begin("chat", "run", os.fspath(self.config))
        await asyncio.wait_for(self.fake.listened.wait(), PATIENCE)
        return process

    async def code(self) -> str:
        """Have ana ask for a rollback; return her code."""
        self.fake.say("ana", "!penstock rollback edge it hurts")
        asked = await said(self.fake, lambda text: "To confirm" in text)
        return asked.rpartition("confirm ")[2].split()[0]

    async def code_is_used(self) -> None:
        """Wait until the ledger has the code as used, and nothing further can be done."""

        def is_used() -> bool:
            with closing(sqlite3.connect(self.night.database)) as database:
                return bool(database.execute("SELECT 1 FROM chat_codes WHERE used_by IS NOT NULL").fetchall())

        await until(is_used)


async def killed(process: asyncio.subprocess.Process) -> None:
    process.send_signal(signal.SIGKILL)
    await process.wait()


@pytest.fixture
async def stage(night: Night, ledger: Ledger) -> AsyncIterator[Stage]:
    with_chat(night.folder)
    link(ledger, "ana")
    async with homeserver() as fake, held_way(night.settings.temporal_address) as way:
        config = config_in(night.folder, fake.url, token(ledger))
        config.write_text(config.read_text().replace("socket: penstock.sock", "socket: own.sock"))
        made = Stage(night, fake, way, config)
        try:
            yield made
        finally:
            for process in made.running:
                if process.returncode is None:
                    await killed(process)


@pytest.mark.sweep
async def test_an_api_that_is_killed_between_a_codes_use_and_the_order_carries_it_out_once_when_it_is_back(
    stage: Stage,
) -> None:
    api = await stage.begin_api()
    await stage.begin_chat()
    code = await stage.code()
    stage.way.passing.clear()
    stage.fake.say("ana", f"!penstock confirm {code}")
    await stage.code_is_used()
    await killed(api)
    assert not await stage.night.heard()
    stage.way.passing.set()
    await said(stage.fake, lambda text: "The order is tried again for a minute." in text)
    await stage.begin_api()
    begun = await said(stage.fake, lambda text: text.startswith("Ordered"))  # stored: there is no worker
    assert "by ana" in begun
    assert len(await stage.night.heard()) == 1
    # whoever says the code again is told that it is used
    stage.fake.say("ana", f"!penstock confirm {code}")
    await said(stage.fake, lambda text: "that code is none of yours that is still good" in text)
    assert len(await stage.night.heard()) == 1


@pytest.mark.sweep
async def test_a_chat_that_is_killed_between_a_codes_use_and_the_answer_says_once_what_was_done_once(
    stage: Stage,
) -> None:
    await stage.begin_api()
    chat = await stage.begin_chat()
    code = await stage.code()
    stage.way.passing.clear()
    stage.fake.say("ana", f"!penstock confirm {code}")
    await stage.code_is_used()
    await killed(chat)
    stage.way.passing.set()
    await stage.begin_chat()
    await said(stage.fake, lambda text: text.startswith("Ordered"))
    assert sum(text.startswith("Ordered") for text in stage.fake.texts) == 1
    assert len(await stage.night.heard()) == 1


@pytest.mark.sweep
async def test_an_order_typed_while_the_api_is_away_is_told_what_to_do_and_carried_out_when_it_is_back(
    stage: Stage,
) -> None:
    await stage.begin_chat()
    stage.fake.say("ana", "!penstock hold edge logins hurt")
    told = await said(stage.fake, lambda text: "The order is tried again for a minute." in text)
    assert "On the orchestrator's host: penstock hold FLEET --reason TEXT" in told
    await stage.begin_api()
    await said(stage.fake, lambda text: text.startswith("ana: "))
    assert len(await stage.night.heard()) == 1


@pytest.mark.sweep
async def test_an_order_that_was_typed_while_the_homeserver_was_away_is_carried_out_when_it_is_back(
    stage: Stage,
) -> None:
    await stage.begin_api()
    await stage.begin_chat()
    stage.fake.away = True
    stage.fake.say("ana", "!penstock hold edge logins hurt")
    stage.fake.say("ana", "!penstock hold edge long ago", origin_server_ts=1_000)
    await asyncio.sleep(1)  # it is asked meanwhile, and answers nobody
    assert not await stage.night.heard()
    stage.fake.away = False
    await said(stage.fake, lambda text: text.startswith("ana: ") and "five minutes" not in text)
    await said(stage.fake, lambda text: "was sent more than five minutes ago" in text)
    assert len(await stage.night.heard()) == 1
