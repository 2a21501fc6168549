"""When penstock brings gateways back, again and again, and which it leaves out."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from policies.model.change import PENSTOCK, Quarantine, Returns
from policies.returns import (
    MOST_RELAPSES,
    REMEMBERED,
    not_paged,
    noted,
    relapses_too_often,
    waits,
    why_left_out,
)

AT = datetime(2030, 1, 1, tzinfo=UTC)
A_MINUTE, A_DAY = 60, 24 * 60 * 60

LOOKS = 3
"""Of reconcile two, and one of the change under the fleet's lock."""


def left_out(person: str) -> Quarantine:
    return Quarantine(fleet="edge", gateway="gw-1", reason="refuses", person=person, since=AT)


def tries(row: Quarantine, until: int, phase: int = 0, look: int = 0, stopped: range = range(0)) -> list[int]:
    """Return how many seconds after it was left out reconcile tries a gateway that refuses each time.

    Args:
        row: The gateway in quarantine.
        until: Seconds.
        phase: Seconds of a minute at which the schedule of reconcile is due.
        look: Seconds that each look at the fleet lasts, and every reconcile finds the gateway after each.
        stopped: Seconds in which no worker runs; what falls into them is done afterwards.
    """
    returns: Returns | None = None
    found, second = list[int](), phase
    while second < until:
        second = stopped.stop if second in stopped else second
        for number in range(LOOKS):
            second = stopped.stop if second + look in stopped else second + look
            if waits(row, returns, AT + timedelta(seconds=second)):
                break
            if number == LOOKS - 1:
                found.append(second)
                tried = AT + timedelta(seconds=second)
                returns = Returns(gateway="gw-1", tries=len(found), last=tried, change=f"edge-{len(found)}")
        second = phase + ceil((second + 1 - phase) / A_MINUTE) * A_MINUTE
    return found


def test_what_penstock_gave_up_is_tried_less_and_less_often_and_never_given_up_for_good() -> None:
    minutes = [second / A_MINUTE for second in tries(left_out(PENSTOCK), 4 * 60 * A_MINUTE)]
    assert minutes == [1, 2, 4, 8, 16, 32, 64, 124, 184]


def test_what_a_person_has_left_out_is_left_alone() -> None:
    assert tries(left_out("ana"), A_DAY) == []


def test_a_gateway_that_was_silent_for_days_is_tried_at_once_and_soon_again() -> None:
    days = 5 * A_DAY
    after = [second - days for second in tries(left_out(PENSTOCK), days + 20 * A_MINUTE, phase=days)]
    assert after == [0, 60, 180, 420, 900]


@given(
    phase=st.integers(0, 59),
    look=st.integers(0, 90),
    begin=st.integers(0, A_DAY),
    length=st.integers(0, 7_200),
)
def test_no_turn_is_missed_whatever_the_phase_the_length_of_a_look_and_a_stopped_worker(
    phase: int, look: int, begin: int, length: int
) -> None:
    promised, stopped = tries(left_out(PENSTOCK), A_DAY), range(begin, begin + length)
    tried = tries(left_out(PENSTOCK), A_DAY, phase, look, stopped)
    # A try begins with the next minute of the schedule, lasts for its looks, and the pause begins after it.
    late = A_MINUTE + LOOKS * look + A_MINUTE
    assert len(promised) == 29
    assert len(tried) >= (A_DAY - length - 64 * A_MINUTE - 7 * late) // (60 * A_MINUTE + late) + 6
    assert len(tried) <= len(promised)
    pauses = [after - before for before, after in pairwise(tried)]
    assert all(pause >= A_MINUTE for pause in pauses)
    assert [pause for pause in pauses if pause > 60 * A_MINUTE + late + length] == []


def relapses(hours: int) -> tuple[list[float], Returns]:
    """Return the minutes of the tries of a gateway that leaves its known-good each time it is back.

    It takes part in changes again after each of them, and is looked at each minute.
    """
    found, returns = list[float](), None
    for minute in range(hours * 60):
        at = AT + timedelta(minutes=minute)
        row = left_out(PENSTOCK) if relapses_too_often(returns, at) else None
        if not waits(row, returns, at):
            found.append(minute)
            tried = noted(returns, "gw-1", at, f"edge-{len(found)}", took_part=row is None)
            returns = tried.model_copy(update={"came_back": True})
    assert returns is not None
    return found, returns


def test_a_gateway_that_leaves_its_known_good_after_each_return_is_tried_less_and_less_often() -> None:
    found, returns = relapses(hours=5)
    assert found == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]
    assert returns.relapses == MOST_RELAPSES + 1
    assert "gateway return edge gw-1 --reason TEXT" in why_left_out("edge", returns)


def test_only_a_return_that_ended_with_the_gateway_back_is_followed_by_a_relapse() -> None:
    returns: Returns | None = None
    for number in range(MOST_RELAPSES + 2):
        at = AT + timedelta(hours=number)
        returns = noted(returns, "gw-1", at, f"edge-{number}", took_part=True)
        assert (returns.tries, returns.relapses) == (number + 1, 1)
        assert not relapses_too_often(returns, at)


def test_a_gateway_that_kept_its_known_good_for_hours_is_brought_back_at_once_again() -> None:
    _, returns = relapses(hours=1)
    later = returns.last + REMEMBERED
    assert not relapses_too_often(returns, later)
    assert not waits(None, returns, later)
    again = noted(returns, "gw-1", later, "edge-99", took_part=True)
    assert (again.tries, again.relapses) == (1, 1)


def test_operators_are_paged_once_in_some_hours_of_a_gateway_that_is_steered_by_hand_again_and_again() -> (
    None
):
    returns, pages = dict[str, Returns](), list[int]()
    for minute in range(0, 24 * 60, 2):
        at = AT + timedelta(minutes=minute)
        if not_paged({"gw-1": "it was steered by hand"}, returns, at):
            pages.append(minute)
        returns["gw-1"] = noted(returns.get("gw-1"), "gw-1", at, None, took_part=True)
    assert pages == [0, 360, 720, 1080]
    assert not_paged({"gw-2": "it was, too"}, returns, AT)
