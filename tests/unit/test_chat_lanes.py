"""Lanes of a chat: what an order is gets decided once, and who says it decides whose places it takes."""

from datetime import UTC, datetime

import pytest

from orchestrator.chat.waiting import LONGEST, OF_ONE, Waiting
from policies.chat.grammar import OTHERWISE, SAFE, addressed, is_safe, read, verb_of
from policies.model.chat import ChatMessage, ChatVerb

WORDS = {**{verb.value: verb for verb in ChatVerb}, **OTHERWISE}


def said(text: str, user: str = "@mallory:elsewhere.example.net") -> ChatMessage:
    return ChatMessage(
        workspace="chat.example.org",
        user=user,
        channel="!room:chat.example.org",
        message="$1",
        text=text,
        at=datetime.now(UTC),
    )


@pytest.mark.parametrize("between", [" ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "  \n "])
@pytest.mark.parametrize("word", WORDS)
def test_what_an_order_is_read_as_decides_whether_it_is_safe(word: str, between: str) -> None:
    verb = WORDS[word]
    for text in (f"!penstock {word}{between}edge", f"!Penstock{between}{word.upper()} edge"):
        assert read(addressed(text) or "", ["edge"]).verb is verb
        assert verb_of(said(text)) is verb
        assert is_safe(said(text)) is (verb in SAFE)


@pytest.mark.parametrize("hyphen", ["\u2011", "\u2010", "\u2013", "\u2014"])
def test_a_verb_whose_hyphen_became_a_dash_is_as_safe_as_it_is_read(hyphen: str) -> None:
    text = f"!penstock roll{hyphen}back edge"
    assert read(addressed(text) or "", ["edge"]).verb is ChatVerb.ROLL_BACK
    assert is_safe(said(text))


@pytest.mark.parametrize("text", ["", "!penstock", "!penstock ", "what is penstock?", "!penstock holdd"])
def test_who_says_no_word_orders_nothing(text: str) -> None:
    assert not is_safe(said(text or "-"))


def test_accounts_that_are_not_linked_take_no_place_of_people_however_many_they_are() -> None:
    waiting = Waiting()
    waiting.people = {"@ana": "ana", "@dan": "dan"}
    taken = [waiting.put(said("!penstock hold edge", f"@mallory{number}")) for number in range(LONGEST + 1)]
    assert taken == [True] * LONGEST + [False]
    assert waiting.put(said("!penstock hold edge", "@ana"))
    assert waiting.put(said("!penstock status edge", "@dan"))


def test_one_person_with_two_accounts_has_the_places_of_one() -> None:
    waiting = Waiting()
    waiting.people = {"@ana": "ana", "@ana-2": "ana", "@ben": "ben"}
    taken = [
        waiting.put(said("!penstock hold edge", user)) for user in ("@ana", "@ana-2") for _ in range(OF_ONE)
    ]
    assert taken.count(True) == OF_ONE
    assert waiting.put(said("!penstock hold edge", "@ben"))


def test_people_who_ask_how_it_stands_take_no_place_of_a_hold() -> None:
    waiting = Waiting()
    waiting.people = {f"@dan{number}": f"dan{number}" for number in range(LONGEST)} | {"@ana": "ana"}
    for user in waiting.people:
        waiting.put(said("!penstock status edge", user))
    assert waiting.put(said("!penstock hold edge", "@ana"))
