"""What a change waits for before its wave: one sentence, which says how long only to whoever looks."""

from datetime import UTC, datetime, timedelta

import pytest

from orchestrator.cli.following import begun_line
from policies.model.change import ChangeKind, ChangeOrder, Phase
from policies.model.windows import WindowAnswer
from policies.status.story import Story
from policies.status.waiting import waiting

OPENS = datetime(2026, 11, 24, 1, tzinfo=UTC)
CLOSED = WindowAnswer(
    fits=False,
    is_open=False,
    sentence="closed: next opening Tue 2026-11-24 02:00 Europe/Berlin (01:00Z), in 3 h 12 m",
    until=OPENS,
    opens="Tue 2026-11-24 02:00 Europe/Berlin (01:00Z)",
)
LOOKS = OPENS - timedelta(hours=3, minutes=12)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (CLOSED, "waiting for its window: opens Tue 2026-11-24 02:00 Europe/Berlin (01:00Z)"),
        (
            CLOSED.model_copy(update={"freeze": "dns-move"}),
            (
                "waiting for its window, closed by the freeze dns-move: "
                "opens Tue 2026-11-24 02:00 Europe/Berlin (01:00Z)"
            ),
        ),
        (
            CLOSED.model_copy(update={"is_open": True}),
            (
                "waiting for its next window, since this one closes too soon: "
                "opens Tue 2026-11-24 02:00 Europe/Berlin (01:00Z)"
            ),
        ),
        (
            CLOSED.model_copy(update={"opens": None}),  # as workers of before answered
            "waiting for its window: opens Tue 2026-11-24 01:00 UTC",
        ),
    ],
)
def test_a_wait_names_the_moment_and_to_whoever_looks_how_long_that_is(
    answer: WindowAnswer, said: str
) -> None:
    assert waiting(answer) == said
    assert waiting(answer, LOOKS) == f"{said}, in 3 h 12 m"
    assert waiting(answer, OPENS + timedelta(seconds=1)) == said


def test_a_wait_without_a_known_end_says_what_it_waits_for() -> None:
    turn = WindowAnswer(fits=False, is_open=True, sentence="core changes now, and at most 1 fleet may")
    assert waiting(turn, LOOKS) == "waiting until it may start: core changes now, and at most 1 fleet may"


def test_the_story_and_the_status_of_a_change_that_waits_say_that_sentence() -> None:
    story = Story(ChangeOrder(fleet="edge", kind=ChangeKind.UPGRADE, reason="CVE"), LOOKS)
    assert story.status().phase is Phase.STARTING
    story.take_window(CLOSED, LOOKS)
    status = story.status(LOOKS)
    assert (status.phase, status.what) == (Phase.WAITING, waiting(CLOSED, LOOKS))
    assert story.dump().events[-1].sentence == waiting(CLOSED)
    story.take_window(None, OPENS)
    assert story.status().phase is Phase.STARTING


def test_whoever_starts_what_has_to_wait_is_not_told_that_it_goes_on() -> None:
    waits = waiting(CLOSED, LOOKS)
    assert begun_line("edge", {"change": "edge-7", "waits": waits}) == (
        "edge-7 is waiting for its window: opens Tue 2026-11-24 02:00 Europe/Berlin (01:00Z), in 3 h 12 m. "
        "Follow it: penstock watch edge"
    )
    assert begun_line("edge", {"change": "edge-7"}) == "edge-7 started. Follow it: penstock watch edge"
    assert begun_line("edge", {"change": None}).startswith(
        "The order is stored, and begins when a worker is back."
    )
