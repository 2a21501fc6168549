"""Slack marks words up before it sends them: an order is read as it was typed."""

import asyncio

import pytest
from slack_sdk.web.async_client import AsyncWebClient

from orchestrator.chat.door import Inbox, Sent
from orchestrator.chat.slack_events import SlackEvents
from policies.chat.grammar import addressed, is_safe, read
from policies.model.chat import ChatMessage, ChatVerb
from tests.fakes.slack import BOT, CHANNEL, SECRET, TEAM, event, mentioned, signed, told_alone
from tests.patience import PATIENCE

FLEETS = ["vpn.example.com", "vpn2.example.com"]
Json = dict[str, object]


def ordered(text: str) -> Json:
    """Return a command `/penstock` with this text."""
    who: Json = {"team_id": TEAM, "user_id": "U0ANA", "user_name": "ana", "channel_id": CHANNEL}
    return {**who, "command": "/penstock", "text": text, "trigger_id": "1.2"}


async def received(payload: Json) -> ChatMessage:
    inbox = Inbox()
    events = SlackEvents(TEAM, AsyncWebClient(token="xoxb-1"), inbox, SECRET)
    events.known_as(BOT, "B0BOT")
    body, headers = signed(payload)
    await events.take(Sent(body, headers))
    return await asyncio.wait_for(inbox.get(), PATIENCE)


def payloads(text: str) -> list[Json]:
    """Return the three ways by which an order comes."""
    return [event(mentioned("U0ANA", text)), event(told_alone("U0ANA", text)), ordered(text)]


async def test_a_fleet_that_slack_takes_for_a_host_is_that_fleet() -> None:
    for payload in payloads("hold <http://vpn.example.com|vpn.example.com> users cannot log in"):
        found = await received(payload)
        said = read(addressed(found.text) or "", FLEETS)
        assert (said.verb, said.fleet, said.reason) == (ChatVerb.HOLD, FLEETS[0], "users cannot log in")
        assert is_safe(found)


async def test_a_person_that_slack_takes_for_an_address_of_mail_is_that_person() -> None:
    for payload in payloads("resume edge --hold-of <mailto:ana@firm.example|ana@firm.example> looked at it"):
        assert read(addressed((await received(payload)).text) or "", ["edge"]).hold_of == "ana@firm.example"


@pytest.mark.parametrize(
    ("sent", "typed"),
    [
        ("see <https://wiki.example/a?b=1&amp;c=2>", "see https://wiki.example/a?b=1&c=2"),
        ("see <https://wiki.example/a|the wiki>", "see the wiki"),
        ("&lt;http://a|b&gt; &amp;lt;", "<http://a|b> &lt;"),
        ("<@U0BEN> says so in <#C0OPS|ops>", "<@U0BEN> says so in <#C0OPS|ops>"),
    ],
)
async def test_a_reason_is_what_was_typed_and_not_its_markup(sent: str, typed: str) -> None:
    found = await received(event(mentioned("U0ANA", f"hold edge {sent}")))
    assert read(addressed(found.text) or "", ["edge"]).reason == typed
