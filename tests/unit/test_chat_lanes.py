"""Lanes of a chat: the word that decides who is kept out, and what is urgent, is the one carried out."""

from datetime import UTC, datetime

import pytest

from orchestrator.chat.waiting import is_urgent, verb_of
from policies.chat.grammar import addressed, read
from policies.model.chat import ChatMessage, ChatVerb


def said(text: str) -> ChatMessage:
    return ChatMessage(
        workspace="chat.example.org",
        user="@mallory:elsewhere.example.net",
        channel="!room:chat.example.org",
        message="$1",
        text=text,
        at=datetime.now(UTC),
    )


@pytest.mark.parametrize("between", [" ", "\t", "\n", "\r\n", "\u00a0", "\u2003"])
@pytest.mark.parametrize("verb", [ChatVerb.LINK, ChatVerb.HOLD, ChatVerb.STATUS])
def test_no_space_of_another_kind_makes_another_word_of_an_order(verb: ChatVerb, between: str) -> None:
    message = said(f"!penstock {verb}{between}edge")
    assert read(addressed(message.text) or "", ["edge"]).verb is verb
    assert verb_of(message) == verb
    assert is_urgent(message) is (verb is not ChatVerb.LINK)


@pytest.mark.parametrize("text", ["", "!penstock", "!penstock ", "what is penstock?"])
def test_who_says_no_word_orders_nothing(text: str) -> None:
    assert not is_urgent(said(text or "-"))
