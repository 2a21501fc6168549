"""A fake Slack: its Web API, its Socket Mode and its signed requests, as far as penstock uses them.

It behaves as the real one is documented to: answers say ok or an error, too many requests get 429,
envelopes are acknowledged or sent again, requests are signed with the secret and a time. It proves penstock's
code and says nothing about Slack.
"""

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

from aiohttp import ClientSession, WSMsgType, web

TEAM, CHANNEL, BOT = "T0FAKE", "C0FAKE", "U0BOT"
SECRET = "the signing secret of a fake app"
BOT_TOKEN, APP_TOKEN = "xoxb-0123456789-fake", "xapp-0123456789-fake"
ALONE = "D0ALONE"
"""The conversation of one account with penstock alone."""

Json = dict[str, Any]


@dataclass
class Slack:
    """What was posted, and how to say something."""

    url: str = ""
    posts: list[Json] = field(default_factory=list)
    """Messages of the channel as they are now, with `ts`."""
    private: list[Json] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    leads_to: str = ""
    """To which other address it sends everybody from now on."""
    too_many: int = 0
    """How many calls from now on are answered with 429."""
    refuses: str = ""
    """With which words it refuses every call from now on."""
    sockets: list[web.WebSocketResponse] = field(default_factory=list)

    @property
    def texts(self) -> list[str]:
        """What was posted, as text."""
        return [one["text"] for one in self.posts]

    async def call(self, request: web.Request) -> web.Response:
        """Answer one call of the Web API."""
        if (refusal := self._refusal()) is not None:
            return refusal
        method = request.match_info["method"]
        body: Json = (
            await request.json() if request.content_type == "application/json" else dict(await request.post())
        )
        match method:
            case "auth.test":
                said: Json = {
                    "team_id": TEAM,
                    "user_id": BOT,
                    "bot_id": "B0FAKE",
                    "user": "penstock",
                    "team": "fake",
                }
            case "apps.connections.open":
                said = {"url": self.url.replace("http://", "ws://") + "/link"}
            case "chat.postMessage":
                ts = f"{time.time():.6f}"
                self.posts.append({**body, "ts": ts})
                said = {"ts": ts, "channel": body["channel"]}
            case "chat.update":
                known = next((one for one in self.posts if one["ts"] == body["ts"]), None)
                if known is None:
                    return web.json_response({"ok": False, "error": "message_not_found"})
                known.update({name: value for name, value in body.items() if name != "ts"})
                said = {"ts": body["ts"]}
            case "chat.postEphemeral":
                self.private.append(body)
                said = {"message_ts": f"{time.time():.6f}"}
            case "conversations.history":
                said = {"messages": self.posts[::-1][: int(body.get("limit", 100))]}
            case _:
                return web.json_response({"ok": False, "error": "unknown_method"})
        return web.json_response({"ok": True, **said})

    def _refusal(self) -> web.Response | None:
        if self.too_many:
            self.too_many -= 1
            return web.json_response(
                {"ok": False, "error": "ratelimited"}, status=429, headers={"Retry-After": "1"}
            )
        if self.leads_to:
            raise web.HTTPFound(self.leads_to)
        if self.refuses:
            return web.json_response({"ok": False, "error": self.refuses})
        return None

    async def link(self, request: web.Request) -> web.WebSocketResponse:
        """Open a connection of Socket Mode."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"type": "hello", "num_connections": 1})
        self.sockets.append(socket)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                said = json.loads(message.data)
                if "envelope_id" in said:
                    self.acknowledged.append(said["envelope_id"])
        return socket

    async def envelope(self, kind: str, payload: Json, envelope: str | None = None, retry: int = 0) -> str:
        """Send an envelope; return its id."""
        name = envelope or str(uuid4())
        said = {"type": kind, "envelope_id": name, "payload": payload, "accepts_response_payload": False}
        if retry:
            said |= {"retry_attempt": retry, "retry_reason": "timeout"}
        await self.sockets[-1].send_json(said)
        return name


def ordered(user: str, text: str, trigger: str | None = None) -> Json:
    """Return the payload of a slash command."""
    return {
        "command": "/penstock",
        "text": text,
        "team_id": TEAM,
        "channel_id": CHANNEL,
        "user_id": user,
        "user_name": user.lower(),
        "trigger_id": trigger or uuid4().hex,
        "response_url": "http://127.0.0.1:1/none",
    }


def event(said: Json, *, team: str = TEAM) -> Json:
    """Return the payload of an event."""
    own = {"team_id": team, "user_id": BOT, "is_bot": True, "is_enterprise_install": False}
    kind = {"type": "event_callback", "team_id": team, "api_app_id": "A0FAKE"}
    return kind | {"event": said, "event_id": f"Ev{uuid4().hex}", "authorizations": [own]}


def mentioned(user: str, text: str, **more: Any) -> Json:
    """Return what somebody says to penstock in the channel, as an event carries it."""
    said = {"type": "app_mention", "user": user, "text": f"<@{BOT}> {text}", "channel": CHANNEL}
    return {**said, "ts": f"{time.time():.6f}"} | more


def told_alone(user: str, text: str, **more: Any) -> Json:
    """Return what somebody says to penstock alone, as an event carries it."""
    said = {"type": "message", "channel_type": "im", "user": user, "text": text, "channel": ALONE}
    return {**said, "ts": f"{time.time():.6f}"} | more


def pressed(user: str, value: str, trigger: str | None = None) -> Json:
    """Return the payload of a button."""
    action = {"type": "button", "action_id": "penstock-x", "block_id": "b", "value": value, "action_ts": "1"}
    return {
        "type": "block_actions",
        "team": {"id": TEAM},
        "user": {"id": user, "username": user.lower()},
        "channel": {"id": CHANNEL},
        "trigger_id": trigger or uuid4().hex,
        "actions": [action | {"action_id": "penstock-" + json.loads(value)["verb"]}],
    }


def signed(payload: Json, *, at: float | None = None, secret: str = SECRET) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of a request that Slack signs."""
    if payload.get("type") == "event_callback":
        return signed_body(json.dumps(payload).encode(), "application/json", at=at, secret=secret)
    said = {"payload": json.dumps(payload)} if payload.get("type") == "block_actions" else payload
    return signed_body(urlencode(said).encode(), "application/x-www-form-urlencoded", at=at, secret=secret)


def signed_body(
    body: bytes, content_type: str, *, at: float | None = None, secret: str = SECRET
) -> tuple[bytes, dict[str, str]]:
    """Return any body and the headers of a request that Slack signs."""
    stamp = str(int(time.time() if at is None else at))
    mac = hmac.new(secret.encode(), b"v0:" + stamp.encode() + b":" + body, hashlib.sha256).hexdigest()
    return body, {
        "Content-Type": content_type,
        "X-Slack-Request-Timestamp": stamp,
        "X-Slack-Signature": f"v0={mac}",
    }


async def sent(place: str, body: bytes, headers: dict[str, str]) -> int:
    """Send a request as Slack does; return the status."""
    async with ClientSession() as session, session.post(place, data=body, headers=headers) as answer:
        await answer.read()
        return answer.status


@asynccontextmanager
async def slack() -> AsyncIterator[Slack]:
    """Have a fake answer on loopback."""
    found = Slack()
    app = web.Application()
    app.router.add_post("/api/{method}", found.call)
    app.router.add_get("/link", found.link)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield found
    finally:
        for socket in found.sockets:
            await socket.close()
        await runner.cleanup()
        await asyncio.sleep(0)
