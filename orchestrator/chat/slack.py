"""Slack: channels of one workspace, with Slack's own library; what it sends is read in `slack_events`.

Slack takes no transaction id for a post: each card carries one in its metadata, by which it is found again
when the process was killed before it was noted.
"""

import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from slack_bolt.adapter.socket_mode.async_handler import AsyncSocketModeHandler
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_async_handlers import AsyncRateLimitErrorRetryHandler
from slack_sdk.web.async_client import AsyncWebClient

from orchestrator.chat.door import Door, Inbox
from orchestrator.chat.file import SlackFile, secret, signing_secret
from orchestrator.chat.port import ChatAway, Post, card_lines, unanswered
from orchestrator.chat.slack_events import BUTTON, SlackEvents
from policies.model.chat import ChatAction, ChatAnswer, ChatCard, ChatMessage, ChatVerb
from policies.model.offer import Verb

EVENTS = "/slack/events"
CARD = "penstock_card"
"""What the metadata of a card is called."""

LOOKED_BACK = 100
"""Messages of a channel among which a card is looked for that may have been posted before a kill."""

MOST_CHARACTERS = 2900
BUTTONS = {
    Verb.HOLD: ChatVerb.HOLD,
    Verb.RESUME: ChatVerb.RESUME,
    Verb.ROLL_BACK: ChatVerb.ROLL_BACK,
    Verb.ABORT: ChatVerb.ABORT,
}
REFUSAL = re.compile(r"[a-z_]{1,60}")
"""What Slack's own words for a refusal look like; others are not repeated."""

Json = dict[str, Any]


class Slack:
    """One workspace, where penstock is an app."""

    edits = threads = private = True

    def __init__(self, file: SlackFile) -> None:
        self._file = file
        self._client = AsyncWebClient(token=secret(file.bot_token), base_url=file.api, timeout=15)
        self._client.retry_handlers.append(AsyncRateLimitErrorRetryHandler(max_retry_count=2))
        signing = signing_secret(file.signing_secret) if file.signing_secret is not None else None
        self._app_token = secret(file.app_token) if file.app_token is not None else None
        self._inbox = Inbox()
        self._events = SlackEvents(file.workspace, self._client, self._inbox, signing)
        self._door = Door(file.listen, EVENTS, self._events)
        self._socket: AsyncSocketModeHandler | None = None
        self._reached = False

    @property
    def workspace(self) -> str:
        """The workspace's id."""
        return self._file.workspace

    @property
    def silent(self) -> Mapping[str, str]:
        """Return none: Slack does not report channels that it leaves out."""
        return {}

    async def listen(self) -> AsyncIterator[ChatMessage]:
        """Yield what is said to penstock, by whichever way Slack reaches it."""
        if not self._reached:
            await self._become_reached()
        while True:
            yield await self._inbox.get()

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
        await self._let_go_of_socket()
        await self._door.close()

    async def _become_reached(self) -> None:
        """Know who penstock is there, and have Slack reach it from now on."""
        own = await self._asked("auth.test")
        if own.get("team_id") != self.workspace:
            raise ChatAway(f"slack.bot_token of chat.yaml is of another workspace than {self.workspace}")
        self._events.known_as(str(own["user_id"]), own.get("bot_id"))
        if self._app_token is None:
            await self._door.open()
        else:
            await self._connect(self._app_token)
        self._reached = True

    async def _connect(self, app_token: str) -> None:
        app = self._events.app
        self._socket = AsyncSocketModeHandler(app, app_token, web_client=self._client)
        try:
            await self._socket.connect_async()  # type: ignore[no-untyped-call]
        except Exception as error:
            await self._let_go_of_socket()
            raise unanswered("Slack", error) from error

    async def _let_go_of_socket(self) -> None:
        if self._socket is not None:
            with suppress(Exception):
                await self._socket.close_async()  # type: ignore[no-untyped-call]
            self._socket = None

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
            raise ChatAway(f"Slack refuses {method}: {_refusal(error.response.data)}") from error
        except Exception as error:
            raise unanswered("Slack", error) from error
        found: Mapping[str, Any] = answer.data if isinstance(answer.data, dict) else {}
        return found


def _refusal(answer: object) -> str:
    """Return why Slack refuses, in its own words for that alone; a proxy on the way answers in others."""
    said = str(answer.get("error")) if isinstance(answer, dict) else ""
    return said if REFUSAL.fullmatch(said) else "for a reason that cannot be read"


def _buttons(card: ChatCard) -> list[Json]:
    """Return a button for each order that the card offers."""
    found = []
    for offer in card.offers:
        verb = BUTTONS.get(offer.verb)
        if verb is None or offer.fleet is None or offer.force or offer.release or offer.settings:
            continue
        action = ChatAction(verb=verb, fleet=offer.fleet, change=card.change, hold_of=offer.hold_of)
        button: Json = {
            "type": "button",
            "action_id": f"{BUTTON}{verb.value}",
            "text": {"type": "plain_text", "text": verb.value.capitalize(), "emoji": False},
            "value": json.dumps(action.model_dump(mode="json")),
        }
        found.append(button)
    return found


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
