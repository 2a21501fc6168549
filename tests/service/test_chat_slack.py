"""Slack, as a fake that behaves like the real one sends it: nothing is done twice, refusals are by name."""

import asyncio
import json
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from deploy.ports import free_port
from orchestrator.chat.asking import Api
from orchestrator.chat.file import read, secret
from orchestrator.chat.process import Conversation, chat_of
from orchestrator.store.ledger import Ledger
from policies.model.change import ChangeKind, ChangeOpening
from tests.fakes.slack import (
    APP_TOKEN,
    BOT,
    BOT_TOKEN,
    CHANNEL,
    SECRET,
    TEAM,
    Slack,
    event,
    mentioned,
    ordered,
    pressed,
    sent,
    signed,
    slack,
    told_alone,
)
from tests.patience import until
from tests.service.chat_rooms import link, token, with_chat
from tests.service.test_safe_direction import Night, night
from tests.workflows.conftest import engines, server  # noqa: F401 - fixtures

__all__ = ["night"]
ACCOUNTS = {"ana": "U0ANA", "ben": "U0BEN", "dan": "U0DAN"}


@dataclass
class Stand:
    night: Night
    slack: Slack
    place: str
    config: Path

    async def heard(self, what: Callable[[str], bool], after: int = 0) -> str:
        await until(lambda: any(map(what, self.slack.texts[after:])), found=lambda: self.slack.texts)
        return next(filter(what, self.slack.texts[after:]))

    async def asks(self, payload: dict[str, object]) -> str:
        before = len(self.slack.posts)
        body, headers = signed(payload)
        assert await sent(self.place, body, headers) == 200
        return await self.heard(lambda text: not text.startswith("edge-1: upgrade"), before)

    async def _reached(self) -> None:
        """Wait until Slack reaches the process, by whichever way."""
        port = int(self.place.split(":")[2].partition("/")[0])
        socket_mode = "app_token" in self.config.read_text()

        async def is_reached() -> bool:
            if socket_mode:
                return bool(self.slack.sockets)
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return False
            writer.close()
            return True

        await until(is_reached)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        file = read(self.config)
        chat, api = chat_of(file), Api(file, secret(file.token))
        running = asyncio.create_task(Conversation(chat, api).run())
        try:
            await self.heard(lambda text: text.startswith("edge-1: upgrade"))
            await self._reached()
            yield
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            await chat.close()
            await api.close()


@pytest.fixture(params=["http"])
async def stand(night: Night, request: pytest.FixtureRequest) -> AsyncIterator[Stand]:
    ledger, folder = Ledger.open(night.settings.ledger_url), night.folder
    ledger.open_change(
        ChangeOpening(
            key="the change under way",
            fleet="edge",
            kind=ChangeKind.UPGRADE,
            requested_by="eve",
            reason="<!channel> & <@U0ANA>",
            release="1.4.0",
        )
    )
    with_chat(folder, workspace=TEAM, room=CHANNEL)
    for person, account in ACCOUNTS.items():
        link(ledger, person, workspace=TEAM, account=account)
    secrets = {"bot": BOT_TOKEN, "signing": SECRET, "app": APP_TOKEN, "penstock.token": token(ledger)}
    for name, said in secrets.items():
        (folder / name).write_text(said)
        (folder / name).chmod(0o600)
    port = free_port()
    async with slack() as fake:
        way = (
            f"signing_secret: signing\n  listen: 127.0.0.1:{port}"
            if request.param == "http"
            else "app_token: app"
        )
        config = folder / "chat.yaml"
        config.write_text(
            f"apiVersion: penstock/v1\nsocket: {os.fspath(folder / 'penstock.sock')}\n"
            f"token: penstock.token\nstate: chat\n"
            f"slack:\n  workspace: {TEAM}\n  bot_token: bot\n  api: {fake.url}/api/\n  {way}\n"
        )
        yield Stand(night, fake, f"http://127.0.0.1:{port}/slack/events", config)


async def test_nothing_is_done_twice_or_for_whoever_may_not(stand: Stand) -> None:
    async with stand.listening():
        assert "&lt;!channel&gt; &amp; &lt;@U0ANA&gt;" in stand.slack.texts[0]
        order = ordered("U0ANA", "hold edge logins hurt")
        body, headers = signed(order)
        assert await sent(stand.place, body, headers) == 200
        await stand.heard(lambda text: text.startswith("ana: "), 1)
        for number in range(50):  # an exact replay, and Slack's own retries
            retried = headers | {"X-Slack-Retry-Num": str(number % 3 + 1), "X-Slack-Retry-Reason": "timeout"}
            assert await sent(stand.place, body, retried) == 200
        forged, theirs = signed(ordered("U0ANA", "hold edge"), secret="somebody else's")
        assert await sent(stand.place, forged, theirs) == 401
        old, stamped = signed(ordered("U0ANA", "hold edge"), at=time.time() - 301)
        assert await sent(stand.place, old, stamped) == 401
        tampered, as_signed = signed(ordered("U0ANA", "status edge"))
        assert await sent(stand.place, tampered.replace(b"status", b"hold"), as_signed) == 401
        assert "not linked to a person" in await stand.asks(ordered("U0MALLORY", "hold edge"))
        asked = await stand.asks(ordered("U0BEN", "rollback edge"))
        code = asked.rpartition("confirm ")[2].split()[0]
        assert "only ben can confirm this" in await stand.asks(ordered("U0ANA", f"confirm {code}"))
    assert len(await stand.night.heard()) == 1


async def test_orders_are_taken_in_a_room_of_the_fleet_and_from_people_alone(stand: Stand) -> None:
    async with stand.listening():
        told = await stand.asks(event(told_alone("U0ANA", "hold edge logins hurt")))
        assert "a direct message only asks" in told
        assert "Users:" in await stand.asks(event(told_alone("U0ANA", "status edge")))
        for words in ({"bot_id": "B0OTHER"}, {"user": BOT}):  # of a program, and its own
            body, headers = signed(event(mentioned("U0ANA", "hold edge") | words))
            assert await sent(stand.place, body, headers) == 200
        assert "Users:" in await stand.asks(event(mentioned("U0DAN", "status edge")))
        assert not await stand.night.heard()
        held = await stand.asks(event(mentioned("U0ANA", "hold edge logins hurt")))
        assert held.startswith("ana: "), held
    assert len(await stand.night.heard()) == 1


async def test_a_late_click_is_told_what_was_done_already(stand: Stand) -> None:
    async with stand.listening():
        buttons = stand.slack.posts[0]["blocks"][1]["elements"]
        hold = next(one["value"] for one in buttons if json.loads(one["value"])["verb"] == "hold")
        with sqlite3.connect(stand.night.database) as database:
            said = "UPDATE changes SET outcome = 'rolled_back', ended = began, sentence = 'logins failed'"
            database.execute(said)
        answer = await stand.asks(pressed("U0ANA", hold))
        assert "already done" in answer, answer
    assert not await stand.night.heard()


async def test_a_process_that_was_killed_before_it_noted_a_card_edits_that_card(stand: Stand) -> None:
    async with stand.listening():
        pass
    with sqlite3.connect(stand.night.database) as database:
        database.execute("DELETE FROM chat_cards")
    stand.slack.too_many = 1
    async with stand.listening():
        await stand.asks(ordered("U0DAN", "status edge"))
    cards = [text for text in stand.slack.texts if text.startswith("edge-1: upgrade")]
    assert len(cards) == 1


@pytest.mark.sweep
@pytest.mark.parametrize("stand", ["socket"], indirect=True)
async def test_a_repeated_envelope_is_acknowledged_and_done_once(stand: Stand) -> None:
    async with stand.listening():
        order = ordered("U0ANA", "hold edge logins hurt")
        name = await stand.slack.envelope("slash_commands", order)
        await stand.heard(lambda text: text.startswith("ana: "), 1)
        for number in range(20):
            await stand.slack.envelope("slash_commands", order, name, retry=number + 1)
            await stand.slack.envelope("slash_commands", order, str(uuid4()), retry=number + 1)
        await until(lambda: len(stand.slack.acknowledged) >= 41)
        before = len(stand.slack.posts)
        await stand.slack.envelope("slash_commands", ordered("U0DAN", "status edge"))
        await stand.heard(lambda text: "Users:" in text and "You can" in text, before)
    assert len(await stand.night.heard()) == 1


@pytest.mark.sweep
async def test_of_a_thousand_repeats_and_forgeries_none_is_a_second_action(stand: Stand) -> None:
    async with stand.listening():
        order = ordered("U0ANA", "hold edge logins hurt")
        body, headers = signed(order)
        forged = signed(order, secret="somebody else's")
        for number in range(500):
            assert await sent(stand.place, body, headers) == 200
            assert await sent(stand.place, *forged) == 401, number
        await stand.heard(lambda text: text.startswith("ana: "), 1)
    assert len(await stand.night.heard()) == 1
