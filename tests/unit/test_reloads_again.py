"""Which gateways a reload of credentials has missed, and when they are asked again."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest

from policies.drift import missed
from policies.history import OrderedReloads, ordered_reloads
from policies.model.change import NOT_ASKED, PENSTOCK, ChangeKind, ChangeRecord, Outcome
from policies.model.instance import GatewayState, Instance, InstanceState, Steering

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


def reload(number: int, outcome: Outcome | None, person: str = PENSTOCK, **more: object) -> ChangeRecord:
    return ChangeRecord(
        name=f"edge-{number}",
        number=number,
        fleet="edge",
        kind=ChangeKind.RELOAD,
        requested_by=person,
        reason="ben has left",
        release="credentials",
        began=NOON,
        ended=NOON,
        outcome=outcome,
        **more,
    )


def state(answered: str, started: datetime, running: InstanceState = InstanceState.RUNNING) -> GatewayState:
    instance = Instance(slot="a", state=running, started_at=started)
    return GatewayState(
        gateway="gw-1",
        instances=(instance,),
        steering=Steering(),
        epoch=1,
        observed_at=started,
        reload_answered=answered,
    )


def ordered(history: Iterable[ChangeRecord], *of_changed: ChangeRecord) -> OrderedReloads:
    """Return what gateways may have missed, where these reloads asked only what had changed."""
    return ordered_reloads(history, lambda record: record in of_changed)


PERSONS = reload(1, Outcome.HELD, "ana")


@pytest.mark.parametrize("person", [Outcome.PROMOTED, Outcome.HELD])
@pytest.mark.parametrize("repeat", [*Outcome, None])
def test_however_a_repeat_ended_every_gateway_still_has_to_answer_the_reload(
    person: Outcome, repeat: Outcome | None
) -> None:
    """One that was in quarantine when a repeat reached all others was never asked."""
    asked = reload(1, person, "ana")
    found = ordered([reload(2, repeat), asked])
    assert (found.of_all, [one.name for one in found.repeats]) == (asked, ["edge-2"])


def test_behind_what_an_operator_has_stopped_or_taken_back_no_gateway_is_asked() -> None:
    stopped = reload(2, Outcome.HELD, "ana", sentence=f"1 of 4; {NOT_ASKED}")
    assert ordered([stopped, PERSONS]).of_all is None
    assert ordered([reload(2, Outcome.ABORTED, "ana"), PERSONS]).of_all is None
    assert ordered([reload(2, Outcome.ROLLED_BACK, "ana", cause="edge-1"), PERSONS]).of_all is None
    assert ordered([reload(2, None, "ana"), PERSONS]).of_all is None
    assert ordered([]) == OrderedReloads()


def test_a_reload_that_was_refused_changed_nothing_and_ends_no_search() -> None:
    assert ordered([reload(2, Outcome.REFUSED, "ana"), PERSONS]).of_all == PERSONS


def test_a_reload_of_what_had_changed_alone_is_for_its_own_gateways_and_ends_no_search() -> None:
    older, held = reload(2, Outcome.HELD, "timer"), reload(3, Outcome.HELD, "timer")
    ended = reload(4, Outcome.PROMOTED, "timer")
    found = ordered([held, older, PERSONS], held, older)
    assert (found.of_all, found.of_changed) == (PERSONS, held)
    assert ordered([ended, held, PERSONS], held, ended).of_all == PERSONS
    stopped = reload(3, Outcome.ABORTED, "timer")
    assert ordered([stopped, PERSONS], stopped) == OrderedReloads(of_all=PERSONS)


def test_repeats_that_reach_nobody_come_less_and_less_often_and_once_an_hour_at_least() -> None:
    waits = []
    for times in range(9):
        found = ordered([*[reload(9, Outcome.REFUSED)] * times, PERSONS])
        waits.append(next(m for m in range(61) if found.is_time(NOON + timedelta(minutes=m))))
    assert waits == [0, 1, 2, 4, 8, 16, 32, 60, 60]
    for reached in (Outcome.HELD, Outcome.PROMOTED):
        progress = ordered([reload(3, reached), reload(2, Outcome.REFUSED), PERSONS])
        assert progress.is_time(NOON)


def test_no_clock_of_a_host_says_who_was_missed() -> None:
    for started in (NOON - timedelta(days=1), NOON + timedelta(days=1)):
        for answered in ("", "edge-8", "north-12"):
            assert missed({"gw-1": state(answered, started)}, "edge-9") == ("gw-1",)
        for answered in ("edge-9", "edge-10"):
            assert missed({"gw-1": state(answered, started)}, "edge-9") == ()
    assert missed({"gw-1": state("", NOON, InstanceState.STOPPED)}, "edge-9") == ()
