"""What Slack sends: events, orders and buttons of one workspace, read into messages by Slack's own library.

They come by Socket Mode or by signed HTTP requests. Slack wants each acknowledged within three seconds and
sends it again otherwise: it is acknowledged once it waits in the inbox, and worked on afterwards. A message
is known by its time in its channel, an order or a button by its trigger, so that what is sent again is no
second order.
"""

import hashlib
import hmac
import logging
import re
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError
from slack_bolt.async_app import AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_bolt.error import BoltUnhandledRequestError
from slack_bolt.request.async_request import AsyncBoltRequest
from slack_bolt.response import BoltResponse
from slack_sdk.web.async_client import AsyncWebClient

from orchestrator.chat.door import Answer, Forged, Full, Inbox, Sent
from policies.chat.grammar import CALLED
from policies.model.chat import LONGEST_SAID, ChatAction, ChatMessage

COMMAND = "/penstock"
BUTTON = "penstock-"
"""How the name of each of penstock's buttons begins."""

MENTION = re.compile(r"^\s*<@[A-Z0-9]+(?:\|[^>]*)?>\s*")
LINK = re.compile(r"<(?![@#!])(?:[^<>|]*\|)?([^<>|]*)>")
"""A word that Slack takes for an address, `<http://a.example|a.example>`; the typed word is after the bar."""
OK, REFUSED, AGAIN = 200, 400, 503
Json = dict[str, Any]
_log = logging.getLogger(__name__)


class SlackEvents:
    """What one workspace sends, put into the inbox."""

    def __init__(self, workspace: str, client: AsyncWebClient, inbox: Inbox, signing: str | None) -> None:
        """Read what that workspace sends; by HTTP it signs with this secret."""
        self._workspace = workspace
        self._inbox = inbox
        self._signing = signing
        self._own: AuthorizeResult | None = None

        async def authorized(team_id: str | None) -> AuthorizeResult | None:
            """Say who penstock is there; another workspace that has the same app is not listened to."""
            return self._own if team_id == workspace else None

        library = logging.getLogger("slack_bolt")
        library.setLevel(logging.CRITICAL)  # its warnings show requests whole, and tokens stand in them
        self.app = AsyncApp(
            client=client,
            logger=library,
            authorize=authorized,  # type: ignore[arg-type]  # None: nobody is there
            # The door has done that; Socket Mode has no signatures, whoever has the app's token opened it.
            request_verification_enabled=False,
            ignoring_self_events_enabled=True,
            # A listener is over before anything is acknowledged: what does not wait comes again.
            process_before_response=True,
            raise_error_for_unhandled_request=True,
        )
        self.app.event("app_mention")(self._mentioned)
        self.app.event("message")(self._told)
        self.app.command(COMMAND)(self._ordered)
        self.app.action(re.compile(f"^{BUTTON}"))(self._pressed)
        self.app.error(self._failed)

    def known_as(self, user: str, bot: str | None) -> None:
        """Take note of penstock's own account, whose words are nobody's orders."""
        self._own = AuthorizeResult(
            enterprise_id=None, team_id=self._workspace, bot_user_id=user, bot_id=bot, bot_token=""
        )

    def sent_at(self, sent: Sent) -> float:
        """Return when a request was signed, with the app's signing secret.

        Raises:
            Forged: It was not.
        """
        at, shown = (sent.headers.get(f"X-Slack-{name}", "") for name in ("Request-Timestamp", "Signature"))
        signed = b"v0:" + at.encode(errors="replace") + b":" + sent.body
        if self._signing is None:
            raise Forged("there is no signing secret")
        mac = hmac.new(self._signing.encode(), signed, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(f"v0={mac}".encode(), shown.encode(errors="replace")):
            raise Forged("it is not signed with the app's signing secret")
        return float(at)

    async def take(self, sent: Sent) -> Answer:
        """Read a request and put what is said there into the inbox.

        Raises:
            Full: There is no place.
            ValueError: It cannot be read.
        """
        request = AsyncBoltRequest(body=sent.body.decode(), headers=dict(sent.headers))
        answer = await self.app.async_dispatch(request)
        if answer.status == AGAIN:
            raise Full("the inbox is full")
        if answer.status != OK:
            raise ValueError("Slack sent what is no message")
        return Answer(str(answer.body or ""), "application/json" if answer.body else "text/plain")

    async def _failed(self, error: Exception) -> BoltResponse:
        if isinstance(error, Full):
            _log.warning("what Slack sent is refused, and comes again: %s", error)
            return BoltResponse(status=AGAIN, body="")
        if isinstance(error, BoltUnhandledRequestError):  # acknowledged, or it would come again and again
            return BoltResponse(status=OK, body="")
        _log.warning("Slack sent what is no message: %s", type(error).__name__)
        return BoltResponse(status=REFUSED, body="")

    async def _mentioned(self, event: Json) -> None:
        self._take(event, MENTION.sub("", event["text"]))

    async def _told(self, event: Json) -> None:
        if event.get("channel_type") == "im" and event.get("subtype") is None:
            self._take(event, event["text"], direct=True)

    def _take(self, event: Json, text: str, *, direct: bool = False) -> None:
        if event.get("bot_id") is not None or event.get("user") is None:
            return
        at, thread = datetime.fromtimestamp(float(event["ts"]), UTC), event.get("thread_ts")
        message = f"{event['channel']}/{event['ts']}"
        self._hear(event["user"], event["channel"], message, text, at=at, direct=direct, thread=thread)

    async def _ordered(self, ack: Any, command: Json) -> None:
        channel, message = command["channel_id"], f"trigger/{command['trigger_id']}"
        text, name = command.get("text") or "", command.get("user_name") or ""
        self._hear(command["user_id"], channel, message, text, name=name)
        await ack()

    async def _pressed(self, ack: Any, body: Json) -> None:
        pressed = body["actions"][0]
        try:
            action = ChatAction.model_validate_json(pressed["value"])
        except ValidationError:
            _log.warning("a button that is none of penstock's was pressed")
        else:
            name, message = body["user"].get("username") or "", f"trigger/{body['trigger_id']}"
            self._hear(body["user"]["id"], body["channel"]["id"], message, "", action=action, name=name)
        await ack()

    def _hear(self, user: str, channel: str, message: str, text: str, name: str = "", **more: Any) -> None:
        said: Json = {
            "workspace": self._workspace,
            "user": user,
            "name": name[:255],
            "channel": channel,
            "message": message,
            "text": f"{CALLED} {_unescaped(text)}"[:LONGEST_SAID],
            "at": datetime.now(UTC),
        }
        self._inbox.put(ChatMessage.model_validate(said | more))


def _unescaped(text: str) -> str:
    """Return what was typed, without Slack's markup of links and its escapes."""
    return LINK.sub(r"\1", text).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
