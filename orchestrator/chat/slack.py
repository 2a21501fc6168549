"""Slack: channels of one workspace, by Socket Mode or by signed HTTP requests, with Slack's own library.

Slack wants every request acknowledged within three seconds and sends it again otherwise: it is acknowledged
first and worked on afterwards. A message is known by its time in its channel, an order or a button by its
trigger, so that what is sent again is no second order. Slack takes no transaction id for a post: each card
carries one in its metadata, by which it is found again when the process was killed before it was noted.
"""

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from pydantic import ValidationError
from slack_bolt.adapter.socket_mode.async_handler import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncApp
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_async_handlers import AsyncRateLimitErrorRetryHandler
from slack_sdk.web.async_client import AsyncWebClient

from orchestrator.chat.file import SlackFile, secret
from orchestrator.chat.port import ChatAway, Post, card_lines
from policies.chat.grammar import CALLED
from policies.model.chat import LONGEST_SAID, ChatAction, ChatAnswer, ChatCard, ChatMessage, ChatVerb
from policies.model.offer import Verb

EVENTS = "/slack/events"
COMMAND = "/penstock"
CARD = "penstock_card"
"""What the metadata of a card is called."""

HEARD = 200
"""Messages that wait to be handed on; more are not taken, and Slack sends them again."""

LOOKED_BACK = 100
"""Messages of a channel among which a card is looked for that may have been posted before a kill."""

MOST_CHARACTERS = 2900
BUTTONS = {
    Verb.HOLD: ChatVerb.HOLD,
    Verb.RESUME: ChatVerb.RESUME,
    Verb.ROLL_BACK: ChatVerb.ROLL_BACK,
    Verb.ABORT: ChatVerb.ABORT,
}
MENTION = re.compile(r"^\s*<@[A-Z0-9]+>\s*")
Json = dict[str, Any]
_log = logging.getLogger(__name__)


class Slack:
    """One workspace, where penstock is an app."""

    def __init__(self, file: SlackFile) -> None:
        self._file = file
        self._heard = asyncio.Queue[ChatMessage](HEARD)
        self._client = AsyncWebClient(token=secret(file.bot_token), base_url=file.api, timeout=15)
        self._client.retry_handlers.append(AsyncRateLimitErrorRetryHandler(max_retry_count=2))
        signing = secret(file.signing_secret) if file.signing_secret is not None else None
        self._app = AsyncApp(
            client=self._client,
            signing_secret=signing,
            # Socket Mode has no signatures: whoever has the app's token opened the connection.
            request_verification_enabled=signing is not None,
            ignoring_self_events_enabled=True,
        )
        self._app.event("app_mention")(self._mentioned)
        self._app.event("message")(self._told)
        self._app.command(COMMAND)(self._ordered)
        self._app.action(re.compile(r"^penstock-"))(self._pressed)
        self._socket: AsyncSocketModeHandler | None = None
        self._runner: web.AppRunner | None = None

    @property
    def workspace(self) -> str:
        """The workspace's id."""
        return self._file.workspace

    async def listen(self) -> AsyncIterator[ChatMessage]:
        """Yield what is said to penstock, by whichever way Slack reaches it."""
        try:
            if self._file.app_token is not None and self._socket is None:
                self._socket = AsyncSocketModeHandler(
                    self._app, secret(self._file.app_token), web_client=self._client
                )
                await self._socket.connect_async()  # type: ignore[no-untyped-call]
            elif self._file.signing_secret is not None and self._runner is None:
                await self._serve()
        except (OSError, SlackApiError, TimeoutError) as error:
            self._socket = None
            raise ChatAway(f"Slack does not answer: {error}") from error
        while True:
            yield await self._heard.get()

    def settled(self, said: ChatMessage) -> None:
        """Take note: Slack sends nothing again that was acknowledged."""

    def keeps_out(self, said: ChatMessage) -> str | None:
        """Keep nobody out: whoever reaches the app is of its workspace."""
        del said
        return None

    async def answer(self, said: ChatMessage, answer: ChatAnswer) -> None:
        """Say the answer where the message was said; a repeat was answered already."""
        if answer.repeated:
            return
        if answer.private and not said.direct:
            await self._asked("chat.postEphemeral", **self._post(said.channel, answer.lines), user=said.user)
            return
        thread = {"thread_ts": said.thread} if said.thread is not None else {}
        await self._asked("chat.postMessage", **self._post(said.channel, answer.lines), **thread)

    async def show(self, card: ChatCard) -> str:
        """Post a card unless it is there already, or replace what it shows."""
        content = self._post(card.channel, card_lines(card), _buttons(card))
        place = card.message or await self._posted_before(card)
        if place is not None:
            await self._asked("chat.update", **content, ts=place)
            return place
        metadata = {"event_type": CARD, "event_payload": {"transaction": card.transaction}}
        return str((await self._asked("chat.postMessage", **content, metadata=metadata))["ts"])

    async def say(self, post: Post) -> None:
        """Say something in a channel, or in the thread of a card there."""
        content = self._post(post.channel, post.lines)
        if post.mentions:
            called = " ".join(f"<@{account}>" for account in post.mentions)
            content["blocks"].append({"type": "section", "text": {"type": "mrkdwn", "text": called}})
        thread = {"thread_ts": post.thread} if post.thread is not None else {}
        await self._asked("chat.postMessage", **content, **thread)

    async def close(self) -> None:
        """Let go of every connection."""
        if self._socket is not None:
            with suppress(Exception):
                await self._socket.close_async()  # type: ignore[no-untyped-call]
        if self._runner is not None:
            await self._runner.cleanup()

    # --- what Slack sends --------------------------------------------------------------

    async def _mentioned(self, event: Json) -> None:
        await self._take(event, MENTION.sub("", event.get("text") or ""))

    async def _told(self, event: Json) -> None:
        if event.get("channel_type") == "im" and event.get("subtype") is None:
            await self._take(event, event.get("text") or "", direct=True)

    async def _take(self, event: Json, text: str, *, direct: bool = False) -> None:
        if event.get("bot_id") is not None or event.get("user") is None:
            return
        at = datetime.fromtimestamp(float(event["ts"]), UTC)
        message, more = f"{event['channel']}/{event['ts']}", {"thread": event.get("thread_ts")}
        await self._hear(event["user"], event["channel"], message, text, at=at, direct=direct, **more)

    async def _ordered(self, ack: Any, command: Json) -> None:
        await ack()
        channel, message = command["channel_id"], f"trigger/{command['trigger_id']}"
        text, name = command.get("text") or "", command.get("user_name") or ""
        await self._hear(command["user_id"], channel, message, text, name=name)

    async def _pressed(self, ack: Any, body: Json) -> None:
        await ack()
        pressed = body["actions"][0]
        try:
            action = ChatAction.model_validate_json(pressed["value"])
        except ValidationError:
            _log.warning("a button that is none of penstock's was pressed")
            return
        await self._hear(
            body["user"]["id"],
            body["channel"]["id"],
            f"trigger/{body['trigger_id']}",
            "",
            action=action,
            name=body["user"].get("username") or "",
        )

    async def _hear(self, user: str, channel: str, message: str, text: str, **more: Any) -> None:
        said: Json = {
            "workspace": self.workspace,
            "user": user,
            "channel": channel,
            "message": message,
            "text": f"{CALLED} {_unescaped(text)}"[:LONGEST_SAID],
            "at": datetime.now(UTC),
        }
        try:
            await self._heard.put(ChatMessage.model_validate(said | more))
        except ValidationError as error:
            _log.warning("Slack sent what is no message: %s", error)

    async def _serve(self) -> None:
        """Answer Slack's signed requests, behind a proxy with TLS."""
        runner = web.AppRunner(self._app.web_app(path=EVENTS), access_log=None)
        await runner.setup()
        host, _, port = self._file.listen.rpartition(":")
        await web.TCPSite(runner, host, int(port)).start()
        self._runner = runner

    # --- what is said there ------------------------------------------------------------

    async def _posted_before(self, card: ChatCard) -> str | None:
        """Return where a card is that was posted before a kill and never noted."""
        found = await self._asked(
            "conversations.history", channel=card.channel, limit=LOOKED_BACK, include_all_metadata=True
        )
        for one in found.get("messages", ()):
            said = one.get("metadata") or {}
            known = (said.get("event_payload") or {}).get("transaction")
            if said.get("event_type") == CARD and known == card.transaction:
                return str(one["ts"])
        return None

    @staticmethod
    def _post(channel: str, lines: Sequence[str], buttons: Sequence[Json] = ()) -> Json:
        """Return a post: plain text, in which nothing that somebody wrote is a mention or a link."""
        text = "\n".join(lines)[:MOST_CHARACTERS]
        shown = {"type": "section", "text": {"type": "plain_text", "text": text, "emoji": False}}
        blocks = [shown, *([{"type": "actions", "elements": [*buttons]}] if buttons else [])]
        more = {"link_names": False, "unfurl_links": False, "unfurl_media": False}
        return {"channel": channel, "text": _escaped(text), "blocks": blocks, "parse": "none", **more}

    async def _asked(self, method: str, **body: Any) -> Mapping[str, Any]:
        try:
            answer = await self._client.api_call(method, json=body)
        except SlackApiError as error:
            raise ChatAway(f"Slack refuses {method}: {error.response.get('error')}") from error
        except Exception as error:
            raise ChatAway(f"Slack does not answer {method}: {error!r}") from error
        found: Mapping[str, Any] = answer.data if isinstance(answer.data, dict) else {}
        return found


def _buttons(card: ChatCard) -> list[Json]:
    """Return a button for each order that the card offers."""
    found = []
    for offer in card.offers:
        verb = BUTTONS.get(offer.verb)
        if verb is None or offer.fleet is None or offer.force or offer.release:
            continue
        action = ChatAction(verb=verb, fleet=offer.fleet, change=card.change, hold_of=offer.hold_of)
        button: Json = {
            "type": "button",
            "action_id": f"penstock-{verb.value}",
            "text": {"type": "plain_text", "text": verb.value.capitalize(), "emoji": False},
            "value": json.dumps(action.model_dump(mode="json")),
        }
        found.append(button)
    return found


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _unescaped(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
