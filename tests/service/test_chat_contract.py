"""What every kind of chat promises the process, whichever it is; one that is added is held to all of it.

The servers are fakes here, of which chat_stages has one for each kind; a real one is in test_chat_matrix.
"""

import ast
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import get_args

import pytest
from aiohttp import ClientConnectionError

from orchestrator import chat as chats
from orchestrator.chat.door import HEARD
from orchestrator.chat.file import AnyChat, read
from orchestrator.chat.port import ChatAway, Post
from orchestrator.chat.process import chat_of
from policies.model.chat import LONGEST_SAID, ChatAnswer, ChatCard
from policies.model.errors import BadInput
from tests.fakes.slack import sent
from tests.service.chat_stages import HIDDEN, SECRETS, STAGES, Ears, Said, Stage

HOSTILE = (
    "@channel @here @room <!channel> <!here> <@U0ANA> @ana:chat.example.org <b>x</b> <https://x.example|y>"
)
LAST = "status edge"
END = Said("ana", LAST, number=999_999)


@pytest.fixture(params=STAGES)
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    async with STAGES[request.param](tmp_path) as found:
        yield found


@pytest.fixture
async def ears(stage: Stage) -> AsyncIterator[Ears]:
    found = Ears(stage.chat)
    await stage.ready()
    yield found
    await found.close()


def card(stage: Stage, *lines: str, message: str | None = None) -> ChatCard:
    return ChatCard(
        fleet="edge",
        change="edge-1",
        channel=stage.room,
        transaction="card-edge-1",
        message=message,
        digest=f"{len(lines)}" * 20,
        title="edge-1: upgrade 1.4.0",
        state="HELD",
        lines=lines,
    )


async def test_what_is_said_comes_in_with_who_said_it_and_where(stage: Stage, ears: Ears) -> None:
    assert await stage.say(Said("ana", "hold edge logins hurt &amp; <more>"))
    heard = await ears.next()
    assert (heard.user, heard.channel, heard.direct) == (stage.account("ana"), stage.room, False)
    assert heard.workspace == stage.chat.workspace
    assert heard.text.startswith("!penstock hold edge logins hurt &")


async def test_a_repeat_has_the_same_name_and_others_have_others(stage: Stage, ears: Ears) -> None:
    first, other = Said("ana", "hold edge", number=1), Said("ana", "hold edge", number=2)
    await stage.say(first, other, first, first, END)
    heard = await ears.until(LAST)
    assert 2 <= len(heard) <= 4
    assert len({one.message for one in heard}) == 2


async def test_its_own_words_and_those_of_programs_are_nobodys_orders(stage: Stage, ears: Ears) -> None:
    own = Said("penstock", "hold edge", number=1)
    program = Said("ben", "hold edge", number=2, by_program=True)
    both = Said("penstock", "hold edge", number=3, by_program=True)
    await stage.say(own, program, both, END)
    assert await ears.until(LAST) == []


async def test_what_is_said_to_it_alone_is_known_to_be(stage: Stage, ears: Ears) -> None:
    await stage.say(Said("ana", "hold edge", number=1, alone=True), Said("ana", "hold edge", number=2))
    heard = [await ears.next() for _ in range(2)]
    assert {one.text: one.direct for one in heard if one.channel != stage.room} == {
        "!penstock hold edge": True
    }
    assert [one.direct for one in heard if one.channel == stage.room] == [False]


async def test_what_is_said_is_cut_to_what_an_order_may_have(stage: Stage, ears: Ears) -> None:
    await stage.say(Said("ana", "hold edge " + "x" * 3 * LONGEST_SAID))
    assert len((await ears.next()).text) == LONGEST_SAID


async def test_what_is_no_message_orders_nothing_and_ends_no_listening(stage: Stage, ears: Ears) -> None:
    await stage.garbage()
    await stage.say(END)
    assert await ears.until(LAST) == []


async def test_nothing_comes_in_that_the_chat_has_not_sent_a_moment_ago(stage: Stage, ears: Ears) -> None:
    for request in stage.forged():
        assert stage.place is not None
        with suppress(ClientConnectionError):  # a server may hang up on what is too large
            assert await sent(stage.place, request.body, request.headers) in {400, 401, 413}, request.name
    await stage.say(END)
    assert await ears.until(LAST) == []


async def test_what_finds_no_place_is_not_acknowledged_and_comes_when_it_is_sent_again(
    stage: Stage, ears: Ears
) -> None:
    many = [Said(f"ana{number}", "hold edge", number=number) for number in range(HEARD + 50)]
    taken = await stage.say(*many)
    refused = [one for one, was_taken in zip(many, taken, strict=True) if not was_taken]
    assert len(refused) <= 50
    for_now = [await ears.next() for _ in range(taken.count(True))]
    again = await stage.say(*refused)
    assert all(again)
    heard = [*for_now, *[await ears.next() for _ in refused]]
    assert {one.user for one in heard} == {stage.account(one.person) for one in many}
    assert len(heard) == len(many)
    # one more than wait is in the hands of whoever listens; who is asked for it keeps all the rest by itself
    assert len(refused) in ((49, 50) if stage.sends else (0,))


async def test_a_private_answer_is_read_by_whoever_asked_alone(stage: Stage, ears: Ears) -> None:
    await stage.say(Said("ana", "link"))
    answer = ChatAnswer(lines=("the address of ana",), private=True)
    await stage.chat.answer(await ears.next(), answer)
    told = [post for post in stage.seen() if "the address of ana" in post.text]
    assert [post.alone for post in told] == [True]


async def test_an_answer_is_said_where_it_was_asked(stage: Stage, ears: Ears) -> None:
    await stage.say(Said("ana", "status edge"))
    await stage.chat.answer(await ears.next(), ChatAnswer(lines=("edge serves 1.4.0",)))
    (told,) = stage.seen()
    assert (told.room, told.text, told.alone) == (stage.room, "edge serves 1.4.0", False)


async def test_nothing_that_somebody_wrote_calls_anybody(stage: Stage, ears: Ears) -> None:
    await stage.say(Said("ana", "status edge"))
    await stage.chat.answer(await ears.next(), ChatAnswer(lines=(HOSTILE,)))
    await stage.chat.show(card(stage, HOSTILE))
    await stage.chat.say(Post(stage.room, [HOSTILE], "t1"))
    told = [post for post in stage.seen() if "@channel" in post.text]
    assert len(told) == 3
    assert [post.calls for post in told] == [frozenset()] * 3


async def test_whoever_is_to_be_woken_is_called_and_nobody_else(stage: Stage) -> None:
    ana = stage.account("ana")
    await stage.chat.say(Post(stage.room, [HOSTILE], "t1", mentions=[ana]))
    called = set[str]().union(*(post.calls for post in stage.seen()))
    assert called == {ana}


async def test_a_card_is_one_post_which_shows_what_it_showed_last(stage: Stage, ears: Ears) -> None:
    await stage.say(END)
    await ears.until(LAST)  # nobody is shown a card before whoever answers it is heard
    place = await stage.chat.show(card(stage, "Users: 1 of 3"))
    assert await stage.chat.show(card(stage, "Users: 1 of 3")) == place  # killed before it was noted
    assert await stage.chat.show(card(stage, "Users: 3 of 3", "Done", message=place)) == place
    (told,) = stage.seen()
    assert "Users: 3 of 3" in told.text
    assert "1 of 3" not in told.text


async def test_no_card_is_shown_in_a_room_that_is_not_listened_to_yet(tmp_path: Path) -> None:
    """What is said in Slack waits until it is taken; what a homeserver has from before is nobody's order."""
    async with STAGES["matrix"](tmp_path) as stage:
        with pytest.raises(ChatAway, match="not listened to yet"):
            await stage.chat.show(card(stage))
        assert not stage.seen()


@pytest.mark.parametrize("words", [f"refused {HIDDEN}", HIDDEN])
async def test_what_a_chat_says_of_itself_when_it_refuses_is_not_repeated(stage: Stage, words: str) -> None:
    stage.refuse(words)
    for attempt in (
        stage.chat.say(Post(stage.room, ["x"], "t1")),
        stage.chat.show(card(stage)),
        anext(aiter(stage.chat.listen())),
    ):
        with pytest.raises(ChatAway) as away:
            await attempt
        assert HIDDEN not in str(away.value)
        assert len(str(away.value)) < 200


async def test_what_a_library_says_of_an_address_that_is_as_good_as_a_token_is_not_repeated(
    stage: Stage,
) -> None:
    stage.lead_to(f"hook://chat.example.org/{HIDDEN}")
    for attempt in (stage.chat.show(card(stage)), anext(aiter(stage.chat.listen()))):
        with pytest.raises(ChatAway) as away:
            await attempt
        assert HIDDEN not in str(away.value)


@pytest.mark.parametrize("kind", STAGES)
async def test_an_address_that_is_as_good_as_a_token_is_in_no_sentence(kind: str, tmp_path: Path) -> None:
    async with STAGES[kind](tmp_path, f"/hook/{HIDDEN}") as stage:
        with pytest.raises(ChatAway) as away:
            await stage.chat.say(Post(stage.room, ["x"], "t1"))
        assert HIDDEN not in str(away.value)
        with pytest.raises(ChatAway) as away:
            await anext(aiter(stage.chat.listen()))
        assert HIDDEN not in str(away.value)


@pytest.mark.parametrize("kind", STAGES)
@pytest.mark.parametrize(
    ("said", "rights", "why"),
    [
        ("short", 0o600, "printable characters or more"),
        ("", 0o600, "printable characters or more"),
        (f"{HIDDEN}{HIDDEN}\n{HIDDEN}", 0o600, "printable characters or more"),
        (f"{HIDDEN}{HIDDEN}", 0o640, "may be read by others"),
    ],
)
async def test_a_secret_is_one_long_line_of_a_file_that_nobody_else_reads(
    kind: str, said: str, rights: int, why: str, tmp_path: Path
) -> None:
    async with STAGES[kind](tmp_path):  # it writes its files
        pass
    for name in SECRETS[kind]:
        path = tmp_path / name
        before = path.read_text()
        path.write_text(said)
        path.chmod(rights)
        with pytest.raises(BadInput, match=why) as refused:
            chat_of(read(tmp_path / "chat.yaml"))
        assert HIDDEN not in str(refused.value)
        path.write_text(before)
        path.chmod(0o600)


async def test_every_kind_of_chat_is_held_to_this(tmp_path: Path) -> None:
    held = set()
    for number, make in enumerate(STAGES.values()):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        async with make(folder) as stage:
            held.add(stage.kind)
    assert held == {*get_args(AnyChat)}


def test_no_chat_opens_a_port_but_through_the_door() -> None:
    """It asks for signature, time, size and a place; whoever opens a port beside it asks for nothing."""
    opened = set()
    for file in Path(next(iter(chats.__path__))).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            imported = isinstance(node, ast.ImportFrom) and any(one.name == "web" for one in node.names)
            listens = isinstance(node, ast.Attribute) and node.attr in {"start_server", "create_server"}
            if imported or listens:
                opened.add(file.name)
    assert opened == {"door.py"}
