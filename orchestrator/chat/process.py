"""The process: listens, hands on, answers and shows cards, and goes on when chat or API are away.

Whatever it was about to do when it was killed is done again: the service takes a message once, and the chat
a post. Without this process nothing is missing but the chat.
"""

import asyncio
import hashlib
import logging
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar, assert_never

from orchestrator.chat.asking import Api, ApiAway, ApiBusy, ApiRefuses
from orchestrator.chat.file import ChatFile, MatrixFile, SlackFile, read, secret
from orchestrator.chat.port import Chat, ChatAway, Post
from orchestrator.chat.telling import Telling
from orchestrator.chat.waiting import Answering, Waiting
from policies.chat.grammar import CHANGES, verb_of
from policies.model.chat import ChatAnswer, ChatCard, ChatMessage, ChatVerb, ShownCard

AGAIN_SECONDS = 1.0
MOST_SECONDS = 60.0
"""How long it waits at most before a chat that is away is asked again."""

CARDS_SECONDS = 1.0
NOTICES_SECONDS = 2.0

PEOPLE_SECONDS = 5.0
"""How often it asks which accounts are linked, and reports in which rooms it receives nothing."""

FIRST_SECONDS = 5.0
"""How long listening waits at the start until it is known which accounts are linked."""

WORKERS = 3
"""Those of each lane, and as many that post its answers."""

TRIES = 3
ORDER_SECONDS = 60.0
"""How long an order is tried while the API does not answer; one that was killed is back by then."""

LONGEST_PAUSE = 4.0
PRIVATE_SECONDS = 20.0
"""How long an answer may take that is for one account alone; it is tried once."""

NOT_ALONE = "nobody can be told anything alone in this room; say that to me alone."
ON_THE_HOST = "On the orchestrator's host: penstock hold FLEET --reason TEXT, or rollback instead"
_log = logging.getLogger(__name__)


T = TypeVar("T")


async def _each(work: Callable[[T], Awaitable[None]], items: Sequence[T]) -> None:
    """Do it for each, also for those behind one that fails.

    Raises:
        ApiAway, ApiRefuses, ChatAway: What the last of those met that failed.
    """
    failed: Exception | None = None
    for one in items:
        try:
            await work(one)
        except (ApiAway, ApiRefuses, ChatAway) as error:
            failed = error
        except Exception:  # noqa: BLE001 - one that nobody thought of keeps no other from its turn
            _log.exception("left out, and tried again: %s", type(one).__name__)
    if failed is not None:
        raise failed


class Conversation:
    """One chat, and the API that is asked about what is said in it."""

    def __init__(self, chat: Chat, api: Api, sink: str | None = None) -> None:
        """Talk there; tell the notices of that sink, where one is named."""
        self._sink = sink
        self._chat = chat
        self._api = api
        self._waiting = Waiting()

    async def run(self) -> None:
        """Go on until this is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            tasks.create_task(_again_and_again(self._learn_people, PEOPLE_SECONDS))
            tasks.create_task(_again_and_again(self._report_silent, PEOPLE_SECONDS))
            tasks.create_task(_again_and_again(self.show_cards, CARDS_SECONDS))
            if self._sink is not None:
                telling = Telling(self._chat, self._api, self._sink)
                tasks.create_task(_again_and_again(telling.tell, NOTICES_SECONDS))
            for lane in (self._waiting.safe, self._waiting.others, self._waiting.strangers) * WORKERS:
                tasks.create_task(self._work(lane))
                tasks.create_task(self._post(lane))

    async def _learn_people(self) -> None:
        self._waiting.people = await self._api.people(self._chat.workspace)

    async def _report_silent(self) -> None:
        if (silent := self._chat.silent) is not None:
            await self._api.note_silent(self._chat.workspace, silent)

    async def _listen(self) -> None:
        with suppress(Exception):  # without an API no order is carried out anyway
            async with asyncio.timeout(FIRST_SECONDS):
                await self._learn_people()
        pause = AGAIN_SECONDS
        while True:
            try:
                async for said in self._chat.listen():
                    pause = AGAIN_SECONDS
                    if not self._waiting.put(said):
                        self._settle(said)
            except ChatAway as away:
                _log.warning("%s", away)
            except Exception:  # noqa: BLE001 - what nobody thought of takes no card and no notice with it
                _log.exception("listening ended, and begins again")
            await asyncio.sleep(pause)
            pause = min(2 * pause, MOST_SECONDS)

    async def _work(self, lane: Answering) -> None:
        """Hand messages on; what is answered is posted by others, for which no message waits."""
        while True:
            whose, said = await lane.messages.get()
            try:
                answer = await self._answer_to(said, whose, lane)
            except Exception:  # noqa: BLE001 - one message that cannot be answered keeps no other from its answer
                _log.exception("the message %s is not answered", said.message)
                answer = ChatAnswer(lines=())
            lane.messages.done(whose)
            if not lane.posts.put(whose, partial(self._answered, said, answer)):
                self._settle(said)

    async def _post(self, lane: Answering) -> None:
        while True:
            whose, post = await lane.posts.get()
            try:
                await post()
            except Exception:  # noqa: BLE001 - one answer that cannot be said keeps no other from being said
                _log.exception("%s is not answered", whose)
            lane.posts.done(whose)

    async def _answered(self, said: ChatMessage, answer: ChatAnswer) -> None:
        try:
            await self._say(said, answer)
        finally:
            self._settle(said)

    def _settle(self, said: ChatMessage) -> None:
        try:
            self._chat.settled(said)
        except Exception:  # noqa: BLE001 - a full disk, say: then it comes again after a kill, and is known
            _log.exception("nothing notes that the message %s is settled", said.message)

    async def _say(self, said: ChatMessage, answer: ChatAnswer) -> None:
        """Say what is answered, to whoever asked alone where it is for them alone."""
        if not answer.lines:  # whoever only talks too much gets no answer to each of it
            return
        if answer.private and self._has_no_way_to_tell_alone(said):
            answer = _refusal(said, NOT_ALONE)
        if answer.private:
            await self._tell_alone(said, answer)
            return
        for number in range(TRIES):
            try:
                await self._chat.answer(said, answer)
            except ChatAway as away:
                _log.warning("%s", away)
                await asyncio.sleep(AGAIN_SECONDS * 2**number)
            else:
                return

    async def _tell_alone(self, said: ChatMessage, answer: ChatAnswer) -> None:
        """Tell one account alone, once: it costs the chat most, and whoever still wants it asks again."""
        try:
            async with asyncio.timeout(PRIVATE_SECONDS):
                await self._chat.answer(said, answer)
        except (ChatAway, TimeoutError) as error:
            _log.warning("%s is not told what is theirs alone: %r", said.user, error)

    async def _answer_to(self, said: ChatMessage, whose: str, lane: Answering) -> ChatAnswer:
        """Hand a message on and return what is answered; where nobody answers, that and what to do."""
        if (kept_out := self._keeps_out(said)) is not None:
            return _refusal(said, kept_out)
        began, tries, pause = time.monotonic(), 0, AGAIN_SECONDS
        while True:
            try:
                return await self._api.message(said)
            except ApiRefuses as refused:
                return ChatAnswer(lines=(str(refused),), refused="Refused")
            except ApiAway as away:
                if isinstance(away, ApiBusy) and not tries:
                    lines = (f"{away}; nothing was done. Say it again in a minute.",)
                    return ChatAnswer(lines=lines if _orders(said) else (), refused="TooMany")
                _log.warning("%s", away)
                last = str(away)
            tries += 1
            if tries >= TRIES and (not _orders(said) or time.monotonic() - began > ORDER_SECONDS):
                unknown = (
                    f"It is unknown whether this is done: {last}. Check the status before you repeat it."
                )
                return ChatAnswer(lines=(unknown, ON_THE_HOST), refused="Unavailable")
            if tries == TRIES:
                lane.posts.put(whose, partial(self._say_that_it_is_tried, said, last))
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _keeps_out(self, said: ChatMessage) -> str | None:
        """Return why an account that asks is not linked, before there is a link that others could read."""
        if verb_of(said) != ChatVerb.LINK:
            return None
        return NOT_ALONE if self._has_no_way_to_tell_alone(said) else self._chat.keeps_out(said)

    def _has_no_way_to_tell_alone(self, said: ChatMessage) -> bool:
        return not (self._chat.private or said.direct)

    async def _say_that_it_is_tried(self, said: ChatMessage, last: str) -> None:
        """Say that an order is not carried out yet, and what does it at once."""
        lines = (
            f"It is unknown whether this is done: {last}. The order is tried again for a minute.",
            ON_THE_HOST,
        )
        named = hashlib.sha256(f"tried {said.channel} {said.message}".encode()).hexdigest()[:32]
        with suppress(ChatAway):
            await self._chat.say(Post(said.channel, lines, named, thread=said.thread))

    async def show_cards(self) -> None:
        """Post or edit every card that does not show how its change stands."""
        await _each(self._show, await self._api.cards(self._chat.workspace))

    async def _show(self, card: ChatCard) -> None:
        message = await self._chat.show(card if self._chat.edits else _anew(card))
        thread = message if self._chat.threads else None
        for news in card.news:
            await self._chat.say(Post(card.channel, news.lines, news.transaction, thread=thread))
        await self._api.shown(
            ShownCard(
                workspace=self._chat.workspace,
                channel=card.channel,
                change=card.change,
                message=message,
                digest=card.digest,
            )
        )


def _anew(card: ChatCard) -> ChatCard:
    """Return a card as a post of its own, which is the same one for as long as it shows the same."""
    transaction = f"{card.transaction}-{card.digest[:16]}"
    return card.model_copy(update={"message": None, "transaction": transaction})


def _refusal(said: ChatMessage, why: str) -> ChatAnswer:
    return ChatAnswer(lines=(f"{said.name or said.user}: {why}",), refused="NotAllowed")


def _orders(said: ChatMessage) -> bool:
    """Return whether a message is an order, and no mere question."""
    return said.action is not None or verb_of(said) in CHANGES


async def _again_and_again(work: Callable[[], Awaitable[None]], seconds: float) -> None:
    pause = seconds
    while True:
        try:
            await work()
            pause = seconds
        except (ApiAway, ApiRefuses, ChatAway) as away:
            _log.warning("%s", away)
            pause = min(2 * pause, MOST_SECONDS)
        except Exception:  # noqa: BLE001 - cards and notices that fail take nobody's orders with them
            _log.exception("this is tried again")
            pause = min(2 * pause, MOST_SECONDS)
        await asyncio.sleep(pause)


def chat_of(file: ChatFile) -> Chat:
    """Return the chat that the file names; only its libraries are loaded.

    Raises:
        BadInput: A secret cannot be read, or others may read it.
    """
    file.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    match file.chat:
        case MatrixFile() as matrix:
            from orchestrator.chat.matrix import Matrix  # noqa: PLC0415 - who uses another chat does without

            return Matrix(matrix, secret(matrix.token), file.state)
        case SlackFile() as slack:
            from orchestrator.chat.slack import Slack  # noqa: PLC0415 - who uses another chat does without

            return Slack(slack)
        case other:
            assert_never(other)


async def main(path: Path, say_ready: Callable[[str], None]) -> None:
    """Run until SIGTERM or Ctrl-C; it is ready once its file and secrets are read, wherever the chat is.

    Raises:
        BadInput: The file or a secret of it is not as it must be.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    # They would tell of each look and each event, of some a second; nio also all of what it cannot read, and
    # Slack's library with a trace what is said here in a sentence.
    for library, level in (
        ("httpx", logging.WARNING),
        ("nio", logging.ERROR),
        ("slack_sdk", logging.CRITICAL),
        ("slack_bolt", logging.CRITICAL),
    ):
        logging.getLogger(library).setLevel(level)
    file = read(path)
    chat, api = chat_of(file), Api(file, secret(file.token))
    running = asyncio.ensure_future(Conversation(chat, api, file.notices).run())
    say_ready(f"penstock listens in {chat.workspace}, as soon as that answers")
    for one in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(one, running.cancel)
    try:
        with suppress(asyncio.CancelledError):
            await running
    finally:
        await chat.close()
        await api.close()
