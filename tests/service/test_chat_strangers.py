"""Chat: what strangers say in a room delays no order and ends no listening, whatever they write."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from orchestrator.chat import matrix, process
from orchestrator.chat.asking import Api
from orchestrator.chat.file import read, secret
from orchestrator.chat.process import Conversation, chat_of
from orchestrator.store.ledger import Ledger
from tests.fakes.homeserver import BOT, NAME, ROOM, Homeserver, homeserver
from tests.patience import PATIENCE, until
from tests.service.chat_rooms import link, token, with_chat
from tests.service.test_chat import ledger
from tests.service.test_safe_direction import Night, night
from tests.workflows.conftest import engines, server  # noqa: F401 - fixtures

__all__ = ["ledger", "night"]

MANY = 200
OTHER_ROOM = f"!another-fleet:{NAME}"
USUAL_SECONDS = 20.0
"""What a hold takes at most here, where no worker looks after the change: the engine is asked first."""
FOR_EVER = 3600.0


def config_in(folder: Path, url: str, shown: str) -> Path:
    """Write chat.yaml and its secrets; return where."""
    for name, said in (("matrix.token", "the token of an account"), ("penstock.token", shown)):
        (folder / name).write_text(said)
        (folder / name).chmod(0o600)
    config = folder / "chat.yaml"
    config.write_text(
        "apiVersion: penstock/v1\nsocket: penstock.sock\ntoken: penstock.token\nstate: chat\n"
        f"matrix:\n  homeserver: {url}\n  workspace: {NAME}\n  user: '{BOT}'\n  token: matrix.token\n"
        f"  rooms: ['{ROOM}']\n"
    )
    return config


@asynccontextmanager
async def listening(config: Path, fake: Homeserver) -> AsyncIterator[None]:
    """Have the process' own conversation listen there."""
    file = read(config)
    chat, api = chat_of(file), Api(file, secret(file.token))
    fake.listened = asyncio.Event()
    running = asyncio.create_task(Conversation(chat, api).run())
    try:
        await asyncio.wait_for(fake.listened.wait(), PATIENCE)
        yield
        assert not running.done()
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await chat.close()
        await api.close()


async def said(fake: Homeserver, what: Callable[[str], bool], seconds: float = PATIENCE) -> str:
    """Wait until penstock has said that; return it."""
    await until(lambda: any(map(what, fake.texts)), seconds, lambda: fake.texts)
    return next(filter(what, fake.texts))


async def begun_with(fake: Homeserver, word: str) -> str:
    """Wait until penstock has said something that begins so; return it."""
    return await said(fake, lambda text: text.startswith(word))


async def is_heard(night: Night) -> None:
    """Wait until the engine keeps an order for the change."""

    async def keeps_one() -> bool:
        return bool(await night.heard())

    await until(keeps_one)


@pytest.fixture
async def room(night: Night, ledger: Ledger) -> AsyncIterator[tuple[Homeserver, Path]]:
    with_chat(night.folder)
    link(ledger, "ana")
    async with homeserver() as fake:
        yield fake, config_in(night.folder, fake.url, token(ledger))


@pytest.fixture
def nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have penstock wait for ever for what the homeserver takes slowly."""
    monkeypatch.setattr(matrix, "SEND_SECONDS", FOR_EVER)
    monkeypatch.setattr(process, "PRIVATE_SECONDS", FOR_EVER)


@pytest.mark.usefixtures("nothing_is_given_up")
async def test_a_stranger_who_asks_for_links_without_end_delays_no_hold(
    night: Night, room: tuple[Homeserver, Path]
) -> None:
    fake, config = room
    fake.hangs_on_rooms = True  # the worst that a private answer can meet
    async with listening(config, fake):
        for _ in range(MANY):
            fake.say("mallory", "!penstock link")
        fake.say("ana", "!penstock hold edge logins hurt")
        await begun_with(fake, "ana: ")
    assert len(await night.heard()) == 1
    assert fake.rooms_made <= 5


async def test_a_stranger_who_orders_without_end_delays_nobody_and_is_answered_a_few_times(
    night: Night, room: tuple[Homeserver, Path]
) -> None:
    fake, config = room
    async with listening(config, fake):
        for _ in range(MANY):
            fake.say("mallory", "!penstock hold edge")
        fake.say("ana", "!penstock hold edge logins hurt")
        await said(fake, lambda text: text.startswith("ana: "), USUAL_SECONDS)
    answered = [text for text in fake.texts if text.startswith("@mallory:") or "nothing was done" in text]
    assert 1 <= len(answered) <= 10
    assert len(await night.heard()) == 1


@pytest.mark.usefixtures("nothing_is_given_up")
async def test_an_invitation_by_a_stranger_delays_no_hold(
    night: Night, room: tuple[Homeserver, Path]
) -> None:
    fake, config = room
    fake.hangs_on_leaving = True
    async with listening(config, fake):
        fake.invitations.append("!trap:elsewhere.example.net")
        await fake.has_told_all()
        fake.say("ana", "!penstock hold edge logins hurt")
        await begun_with(fake, "ana: ")


@pytest.mark.usefixtures("nothing_is_given_up")
async def test_answers_to_strangers_that_the_chat_takes_slowly_delay_no_hold(
    night: Night, room: tuple[Homeserver, Path]
) -> None:
    fake, config = room
    fake.send_seconds = FOR_EVER
    async with listening(config, fake):
        for number in range(6):
            for _ in range(5):
                fake.say(f"mallory{number}", "!penstock hold edge")
        await fake.has_told_all()
        fake.say("ana", "!penstock hold edge logins hurt")
        await is_heard(night)


@pytest.mark.usefixtures("nothing_is_given_up")
async def test_answers_to_people_that_the_chat_takes_slowly_delay_no_hold(
    night: Night, ledger: Ledger, room: tuple[Homeserver, Path]
) -> None:
    fake, config = room
    link(ledger, "dan")
    fake.send_seconds = FOR_EVER
    async with listening(config, fake):
        for _ in range(5):
            fake.say("dan", "!penstock hold edge")  # who may only look
        await fake.has_told_all()
        fake.say("ana", "!penstock hold edge logins hurt")
        await is_heard(night)


@pytest.mark.sweep
async def test_a_crowd_of_strangers_has_no_hold_dropped(night: Night, room: tuple[Homeserver, Path]) -> None:
    fake, config = room
    async with listening(config, fake):
        for number in range(60):
            for _ in range(5):
                fake.say(f"mallory{number}", "!penstock hold edge")
        fake.say("ana", "!penstock hold edge logins hurt")
        await begun_with(fake, "ana: ")


@pytest.mark.sweep
async def test_a_hold_that_one_answer_of_the_homeserver_has_no_room_for_is_caught_up(
    night: Night, room: tuple[Homeserver, Path]
) -> None:
    fake, config = room
    fake.most_told = 10
    async with listening(config, fake):
        fake.say("ana", "!penstock hold edge logins hurt")
        for _ in range(MANY // 2):
            fake.say("mallory", "hello")
        await begun_with(fake, "ana: ")
    assert len(await night.heard()) == 1


@pytest.mark.sweep
async def test_a_room_that_bans_penstock_takes_no_hold_from_the_other_rooms(
    night: Night, room: tuple[Homeserver, Path]
) -> None:
    """A moderator of one fleet's room bans penstock there; then the homeserver, or the process, restarts."""
    fake, config = room
    config.write_text(config.read_text().replace(f"['{ROOM}']", f"['{OTHER_ROOM}', '{ROOM}']"))
    fake.banned_from.append(OTHER_ROOM)
    async with listening(config, fake):
        fake.say("ana", "!penstock hold edge logins hurt")
        await begun_with(fake, "ana: ")
        night.file.write_text(night.file.read_text().replace(ROOM, OTHER_ROOM))

        async def is_named() -> bool:
            rooms = (await night.api.get("/fleets/edge")).json()["silent_rooms"]
            return bool(rooms) and OTHER_ROOM in rooms[0]

        await until(is_named)


async def test_what_was_said_in_a_room_before_penstock_joined_it_is_nobodys_order(
    room: tuple[Homeserver, Path],
) -> None:
    fake, config = room
    chat = chat_of(read(config))
    try:
        heard = asyncio.ensure_future(anext(aiter(chat.listen())))
        await fake.listened.wait()
        fake.say("ana", "!penstock hold edge")
        fake.tell(
            {"sender": BOT, "type": "m.room.member", "state_key": BOT, "content": {"membership": "join"}}
        )
        fake.say("ben", "!penstock status edge")
        assert (await heard).user == f"@ben:{NAME}"
    finally:
        await chat.close()


async def test_accounts_of_other_homeservers_are_linked_only_where_the_file_says_so(
    room: tuple[Homeserver, Path],
) -> None:
    fake, config = room
    ask: dict[str, Any] = {
        "sender": "@ana:elsewhere.example.net",
        "content": {"msgtype": "m.text", "body": "!penstock link"},
    }
    async with listening(config, fake):
        fake.tell(ask)
        await said(fake, lambda text: "only accounts of chat.example.org are linked here" in text)
    assert fake.rooms_made == 0
    config.write_text(config.read_text() + "  other_homeservers: true\n")
    async with listening(config, fake):
        fake.tell(ask)
        await said(fake, lambda text: "I have told you alone" in text)
    assert fake.rooms_made == 1


HOSTILE: dict[str, Any] = {
    "no content": {"sender": f"@mallory:{NAME}"},
    "a list for content": {"sender": f"@mallory:{NAME}", "content": []},
    "a number for text": {"sender": f"@mallory:{NAME}", "content": {"msgtype": "m.text", "body": 7}},
    "no text": {"sender": f"@mallory:{NAME}", "content": {"msgtype": "m.text"}},
    "a list for a relation": {
        "sender": f"@mallory:{NAME}",
        "content": {"msgtype": "m.text", "body": "!penstock hold edge", "m.relates_to": ["x"]},
    },
    "a number for a thread": {
        "sender": f"@mallory:{NAME}",
        "content": {
            "msgtype": "m.text",
            "body": "!penstock hold edge",
            "m.relates_to": {"rel_type": "m.thread", "event_id": 7},
        },
    },
    "no sender": {"content": {"msgtype": "m.text", "body": "!penstock hold edge"}},
    "a number for a sender": {"sender": 7, "content": {"msgtype": "m.text", "body": "!penstock hold edge"}},
    "a sender of spaces": {
        "sender": "@a b:chat",
        "content": {"msgtype": "m.text", "body": "!penstock hold edge"},
    },
    "a time that no clock has": {
        "sender": f"@ana:{NAME}",
        "origin_server_ts": 10**18,
        "content": {"msgtype": "m.text", "body": "!penstock hold edge"},
    },
    "a text for a time": {
        "sender": f"@ana:{NAME}",
        "origin_server_ts": "now",
        "content": {"msgtype": "m.text", "body": "!penstock hold edge"},
    },
    "a name of a megabyte": {
        "sender": "@" + "m" * 10**6,
        "content": {"msgtype": "m.text", "body": "!penstock"},
    },
    "an id of a megabyte": {
        "sender": f"@ana:{NAME}",
        "event_id": "$" + "e" * 10**6,
        "content": {"msgtype": "m.text", "body": "!penstock hold edge"},
    },
    "a redaction": {"type": "m.room.redaction", "sender": f"@ana:{NAME}", "redacts": "$x", "content": {}},
    "a message that was redacted": {
        "sender": f"@ana:{NAME}",
        "content": {},
        "unsigned": {"redacted_because": {"type": "m.room.redaction"}},
    },
    "an edit that rewrites a question into an order": {
        "sender": f"@ana:{NAME}",
        "content": {
            "msgtype": "m.text",
            "body": "* !penstock hold edge",
            "m.new_content": {"msgtype": "m.text", "body": "!penstock hold edge"},
            "m.relates_to": {"rel_type": "m.replace", "event_id": "$q"},
        },
    },
    "an edit whose own text is an order": {
        "sender": f"@ana:{NAME}",
        "content": {
            "msgtype": "m.text",
            "body": "!penstock hold edge",
            "m.new_content": {"msgtype": "m.text", "body": "!penstock hold edge"},
            "m.relates_to": {"rel_type": "m.replace", "event_id": "$q"},
        },
    },
    "a notice": {"sender": f"@ana:{NAME}", "content": {"msgtype": "m.notice", "body": "!penstock hold edge"}},
    "its own words": {"sender": BOT, "content": {"msgtype": "m.text", "body": "!penstock hold edge"}},
    "no event but a text": "hold edge",
    "no event but a number": 7,
    "no event but nothing": None,
    "a type that is a list": {"type": ["m.room.message"], "sender": f"@mallory:{NAME}", "content": {}},
    "an encrypted message": {
        "type": "m.room.encrypted",
        "sender": f"@mallory:{NAME}",
        "content": {"algorithm": 7, "ciphertext": {}},
    },
}


async def test_nothing_that_a_homeserver_lets_through_orders_by_mistake_or_ends_the_listening(
    night: Night, room: tuple[Homeserver, Path]
) -> None:
    fake, config = room
    async with listening(config, fake):
        for number, event in enumerate(HOSTILE.values()):
            fake.tell(event)
            # what comes after it is heard: a misspelt word is answered at once, without the engine
            fake.say(f"person{number}", "!penstock after")
            await begun_with(fake, f"@person{number}:")
        fake.say("ana", "!penstock " + "x" * 10**6)
        assert len(await said(fake, lambda text: '"xxx' in text)) < 1000
    assert not await night.heard()
