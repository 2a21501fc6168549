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


DASHED = ["\u2014", "\u2013", "-\u2014", "\u2014-", "\u2011\u2011", "\u2212\u2212", "-"]
"""What arrives where two hyphens were typed on a telephone, or one of them was left out."""


@pytest.mark.parametrize("dash", DASHED)
def test_an_option_whose_hyphens_became_a_dash_is_that_option(dash: str) -> None:
    resumed = read(f"resume edge-eu {dash}hold-of ana looked at it", HERE)
    assert (resumed.hold_of, resumed.reason) == ("ana", "looked at it")
    assert read(f"resume edge-eu {dash}hold\u2011of ana", HERE).hold_of == "ana"
    approved = read(f"approve edge-eu {dash}plan 3f9a looks well", HERE)
    assert (approved.plan, approved.reason) == ("3f9a", "looks well")
    said = read(f"hold edge-eu {dash}reason \u201call \u2014 of them\u201d", HERE)
    assert said.reason == "all \u2014 of them"


@pytest.mark.parametrize("dash", ["\u2014", "\u2013", "-", "--"])
def test_no_hold_is_refused_for_a_dash_that_stands_by_itself(dash: str) -> None:
    assert read(f"hold edge-eu {dash} nobody can log in", HERE).reason == f"{dash} nobody can log in"


@pytest.mark.parametrize("dash", DASHED)
@pytest.mark.parametrize(("option", "meant"), [("to 1.2.3", "known-good alone"), ("force", "command line")])
def test_an_option_that_no_chat_takes_is_refused_by_whichever_dash(
    dash: str, option: str, meant: str
) -> None:
    with pytest.raises(BadInput, match=meant):
        read(f"rollback edge-eu {dash}{option} users cannot log in", HERE)


@pytest.mark.parametrize("word", ["\u2014too", "\u2013hold_of", "\u2013force=1"])
def test_a_dash_that_is_no_option_is_refused_with_what_to_type_and_is_no_reason(word: str) -> None:
    with pytest.raises(BadInput, match=r"type two hyphens before an option .*--hold-of.* after --reason"):
        read(f"rollback edge-eu {word} 1.2.3 users cannot log in", HERE)


def test_hyphens_and_dashes_within_a_reason_are_of_the_reason() -> None:
    assert (
        read("hold edge-eu load -5% at 2\u20133 a.m. - all", HERE).reason == "load -5% at 2\u20133 a.m. - all"
    )


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
