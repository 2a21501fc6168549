"""What is said in a chat is read as the command line's verbs, and nothing is done by a guess."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.chat.grammar import CHANGES, SAFE, addressed, read
from policies.model.chat import ChatVerb
from policies.model.errors import BadInput

HERE, ELSEWHERE = ("edge-eu", "edge-us"), ("core",)


@pytest.mark.parametrize(
    ("text", "verb", "fleet", "reason"),
    [
        ("status edge-eu", ChatVerb.STATUS, "edge-eu", ""),
        ("explain edge-us", ChatVerb.WHY, "edge-us", ""),
        ("HOLD edge-eu logins hurt", ChatVerb.HOLD, "edge-eu", "logins hurt"),
        ('rollback edge-eu --reason "it hurts"', ChatVerb.ROLL_BACK, "edge-eu", "it hurts"),
        ("help", ChatVerb.HELP, None, ""),
        ("", ChatVerb.HELP, None, ""),
    ],
)
def test_the_verbs_of_the_command_line_are_read(
    text: str, verb: ChatVerb, fleet: str | None, reason: str
) -> None:
    said = read(text, HERE, ELSEWHERE)
    assert (said.verb, said.fleet, said.reason) == (verb, fleet, reason)


def test_the_fleet_may_be_left_out_where_the_room_has_one() -> None:
    said = read("hold logins hurt", ("edge-eu",))
    assert (said.fleet, said.reason) == ("edge-eu", "logins hurt")


@pytest.mark.parametrize(
    ("text", "fleets", "meant"),
    [
        ("rolback edge-eu", HERE, "did you mean !penstock rollback?"),
        ("hold edge-ue", ("edge-eu",), "did you mean !penstock hold edge-eu?"),
        ("rollback core", ("edge-eu",), "core is not spoken of in this room"),
        ("hold", HERE, "say which fleet"),
        ("rollback edge-eu --to 1.0", HERE, "known-good alone"),
        ("rollback edge-eu --force", HERE, "takes the command line"),
        ("confirm", HERE, "a code is one word"),
        ("status edge-eu now", HERE, "says nothing to status"),
        ("hold", (), "no fleet may be spoken of"),
    ],
)
def test_what_is_misspelt_or_cannot_be_said_is_told_with_what_was_meant(
    text: str, fleets: tuple[str, ...], meant: str
) -> None:
    with pytest.raises(BadInput, match=meant.replace("?", r"\?")):
        read(text, fleets, ELSEWHERE)


def test_only_what_begins_with_its_name_is_meant_for_penstock() -> None:
    assert addressed("!penstock hold edge") == "hold edge"
    assert addressed("!Penstock") == ""
    for other in ("penstock hold edge", "I said !penstock hold edge", "!penstocks hold", ""):
        assert addressed(other) is None


@given(st.text(max_size=200))
def test_whatever_is_written_is_an_order_of_a_fleet_of_the_room_or_none(text: str) -> None:
    try:
        said = read(text, HERE, ELSEWHERE)
    except BadInput:
        return
    assert said.fleet in {*HERE, None}
    if said.verb in CHANGES - {ChatVerb.CONFIRM}:
        assert said.fleet is not None


def test_whatever_stops_or_goes_back_is_kept_from_nobody_by_others() -> None:
    assert {ChatVerb.HOLD, ChatVerb.ROLL_BACK, ChatVerb.ABORT, ChatVerb.CONFIRM} == SAFE
