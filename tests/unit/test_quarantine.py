"""A quarantine for break-glass lasts as long as its gateway is off its known-good, and no other ends so."""

from datetime import UTC, datetime, timedelta

import pytest

from policies.incomplete_ends import Answer
from policies.model.change import PENSTOCK, Quarantine
from policies.model.instance import GatewayState
from policies.model.operation import BREAK_GLASS
from policies.quarantine import is_over
from tests.unit.fleets import NEW, OLD, state

SINCE = datetime(2030, 1, 2, 3, 4, tzinfo=UTC)
A_MINUTE = timedelta(minutes=1)
WHY = "an operator steered it by break-glass, and it runs a release that is not its known-good 1.3.0"


def left_out(person: str = BREAK_GLASS) -> Quarantine:
    return Quarantine(fleet="edge", gateway="gw-1", reason=WHY, person=person, since=SINCE)


def steered() -> GatewayState:
    """Return what a gateway answers that an operator steered to 1.1.6 on its host."""
    return state("gw-1").model_copy(update={"owner": BREAK_GLASS})


def test_a_quarantine_for_break_glass_is_over_once_its_gateway_answers_that_it_is_on_its_known_good() -> None:
    for answered in (steered(), state("gw-1")):
        answer = Answer(answered, SINCE + A_MINUTE)
        assert is_over(left_out(), answer, OLD, SINCE - A_MINUTE)


@pytest.mark.parametrize("person", ["ana", PENSTOCK])
def test_a_quarantine_for_another_reason_is_not_over_because_its_gateway_is_on_its_known_good(
    person: str,
) -> None:
    answer = Answer(state("gw-1"), SINCE + A_MINUTE)
    assert not is_over(left_out(person), answer, OLD, SINCE - A_MINUTE)


@pytest.mark.parametrize(
    ("answered", "began"),
    [
        (SINCE, SINCE - A_MINUTE),
        (SINCE + A_MINUTE, SINCE + A_MINUTE),
        (SINCE + A_MINUTE, SINCE + 2 * A_MINUTE),
    ],
    ids=["before it was left out", "as its known-good began to move", "before its known-good moved"],
)
def test_an_answer_from_before_is_no_evidence_that_a_gateway_is_back(
    answered: datetime, began: datetime
) -> None:
    """R7: what the host does since is not known."""
    assert not is_over(left_out(), Answer(steered(), answered), OLD, began)


def test_a_gateway_that_is_off_its_known_good_stays_left_out() -> None:
    for answered in (steered(), state("gw-1")):
        assert not is_over(left_out(), Answer(answered, SINCE + A_MINUTE), NEW, SINCE - A_MINUTE)
