"""A rollback by Matrix, said by four people on a real homeserver, with refusals; and what a kill leaves."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from deploy.lab import synapse
from deploy.lab.synapse import NAME, Synapse
from orchestrator.store.addressed import Addressed
from policies.model.notice import Notice, NoticeLevel, Occasion
from tests.patience import until
from tests.service.matrix_room import (
    CODE,
    MatrixRoom,
    double_actions,
    held,
    link_at_the_page,
    matrix_room,
    rollback_begun,
    without_moments,
)
from tests.service.test_chat_connected import Host, matrix_edit
from tests.workflows.engine import Engine
from tests.workflows.world import result_of

BEGUN_WITHIN = 30.0
pytestmark = pytest.mark.timeout(600)  # the first one to need a homeserver installs it


@pytest.fixture(scope="module")
def homeserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Synapse]:
    why = synapse.why_not_here()
    if why is not None:
        pytest.skip(why)
    with Synapse(tmp_path_factory.mktemp("matrix") / "synapse").running() as running:
        yield running


@pytest.fixture
async def room(tmp_path: Path, server: Engine, homeserver: Synapse) -> AsyncIterator[MatrixRoom]:
    async with matrix_room(tmp_path, server, homeserver) as made:
        yield made


DOCUMENT = Path(__file__).parents[2] / "docs" / "chat.md"


def documented() -> str:
    """Return the conversation of a rollback as the document shows it, without moments and codes."""
    shown = DOCUMENT.read_text().partition("## A rollback, word for word\n")[2]
    return without_moments(shown.partition("```text\n")[2].partition("\n```")[0])


@pytest.mark.sweep
async def test_four_people_take_a_fleet_back_word_for_word_and_whoever_may_not_is_refused_by_name(
    room: MatrixRoom,
) -> None:
    change = await held(room)
    users = room.world.gateways["edge-1"]
    assert [users.login(address) for address in ("203.0.113.1", "203.0.113.2")] == ["b", "b"]
    begun = await room.now("ana")
    async with room.listening():
        await room.heard(lambda body: "HELD" in body)
        # nobody is linked by a name: ana links her account herself, at the page
        await room.asks("ana", "!penstock rollback edge it hurts")
        await room.asks("ana", "!penstock link")
        alone = await room.invited_since("ana", begun)
        await room.ask("ana", "POST", f"/join/{alone}", {})
        place = (await room.posts(alone))[-1]["content"]["body"].splitlines()[-1]
        page = await link_at_the_page(room, "ana", place)
        assert f"@ana:{NAME}" in page
        assert "they would become you" in page

        asked = await room.asks("ana", "!penstock rollback edge it hurts")
        found = CODE.search(asked)
        assert found, asked
        await room.asks("ben", f"!penstock confirm {found[1]}")
        await room.asks("ana", f"!penstock confirm {found[1]}")
        await room.asks("mallory", "!penstock rollback edge")
        await room.asks("cleo", "!penstock approve edge")
        await result_of(change)
        await room.heard(lambda body: body.startswith("Done"))
        for address in ("203.0.113.1", "203.0.113.2"):
            users.logout(address)
        room.world.look()  # as reconcile does every minute
        await room.heard(lambda body: body.startswith("No session is left"))
        edited = await room.heard(lambda body: "ROLLED BACK" in body)
        assert edited.startswith("* edge-2: ")
    assert await room.conversation() == documented()
    assert set(room.world.serving().values()) == {"1.1.6"}
    assert all(one["content"]["m.mentions"] == {} for one in await room.posts())
    assert double_actions(room) == 0


@pytest.mark.sweep
async def test_a_process_that_was_killed_at_any_moment_says_and_does_nothing_twice(
    room: MatrixRoom,
) -> None:
    await held(room)
    async with room.listening():
        await room.heard(lambda body: "HELD" in body)
        await room.asks("ben", "!penstock status edge")
        for number in range(4):
            await room.say("ben", f"!penstock hold edge night {number}")
            await asyncio.sleep(0.15 * number)
            await room.kill()
            await room.begin()
        for number in range(4):
            await room.heard(lambda body: body.startswith("ben: ") and "held" in body.lower(), number)
    posts = [one["content"]["body"] for one in await room.posts()]
    assert sum(body.startswith("edge-2: upgrade") for body in posts) == 1, posts
    assert double_actions(room) == 0


@pytest.mark.sweep
async def test_a_page_is_told_in_the_thread_of_its_change_and_calls_whom_the_fleet_names(
    room: MatrixRoom,
) -> None:
    await held(room)
    async with room.listening():
        await room.heard(lambda body: "HELD" in body)
        card = (await room.posts())[0]["event_id"]
        notice = Notice(
            key="edge-2/held/1",
            fleet="edge",
            change="edge-2",
            state="held",
            level=NoticeLevel.PAGE,
            headline="edge waits for a person @room <b>",
            at=datetime.now(UTC),
        )
        sinks = {"chat": (Occasion.SAID, datetime.now(UTC))}
        addressed = Addressed(notice=notice, subject="edge-2", waits=True, sinks=sinks)
        room.world.book.add_notices([addressed])
        await room.heard(lambda body: "waits for a person" in body)
        await until(lambda: not room.world.book.outbox("chat", 10))
    told = [one["content"] for one in await room.posts() if "waits for a person" in one["content"]["body"]]
    assert len(told) == 1
    assert told[0]["m.relates_to"]["event_id"] == card
    assert told[0]["m.mentions"] == {"user_ids": [f"@ben:{NAME}"]}
    assert "&lt;b&gt;" in told[0]["formatted_body"]


async def test_a_confirmed_rollback_begins_within_seconds(room: MatrixRoom) -> None:
    change = await held(room)
    async with room.listening():
        await room.heard(lambda body: "HELD" in body)
        seconds = await rollback_begun(room, change, "ben")
    assert seconds < BEGUN_WITHIN
    assert double_actions(room) == 0
    await result_of(change)


@pytest.mark.sweep
async def test_a_real_homeserver_is_connected_by_what_the_document_has_people_type(room: MatrixRoom) -> None:
    await held(room)
    edits = {"chat.yaml": matrix_edit(room.folder, room.homeserver.url, room.room), "fleet.yaml": []}
    (room.folder / "chat.yaml").unlink()  # the document has its own made
    host, before = Host(room.folder, edits), len(await room.posts())
    async with host.connected("Connect Matrix", {"matrix.token": f"{room.tokens['penstock']}\n"}):
        await room.heard(lambda body: "HELD" in body, before)
        assert "told you alone" in await room.asks("ana", "!penstock link")
