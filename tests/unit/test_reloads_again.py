"""Which gateways a reload of credentials has missed, and when they are asked again."""

from datetime import UTC, datetime, timedelta

from policies.drift import missed
from policies.history import unfinished_reload
from policies.model.change import NOT_ASKED, PENSTOCK, ChangeKind, ChangeRecord, Outcome
from policies.model.instance import GatewayState, Instance, InstanceState, Steering

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


def reload(number: int, outcome: Outcome, person: str = PENSTOCK, **more: object) -> ChangeRecord:
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


PERSONS = reload(1, Outcome.HELD, "ana")


def test_a_repeat_that_reached_nobody_forgets_nobody() -> None:
    found = unfinished_reload([reload(3, Outcome.REFUSED), reload(2, Outcome.HELD), PERSONS])
    assert found is not None
    assert (found.record, found.names) == (PERSONS, frozenset({"edge-1", "edge-2", "edge-3"}))


def test_a_repeat_that_reached_everybody_ends_it() -> None:
    assert unfinished_reload([reload(2, Outcome.PROMOTED), PERSONS]) is None


def test_what_a_person_has_stopped_or_taken_back_nobody_goes_on_with() -> None:
    stopped = reload(1, Outcome.HELD, "ana", sentence=f"1 of 4; {NOT_ASKED}")
    assert unfinished_reload([stopped]) is None
    assert unfinished_reload([reload(2, Outcome.ROLLED_BACK, "ana", cause="edge-1"), PERSONS]) is None
    assert unfinished_reload([reload(2, Outcome.REFUSED, "ana"), PERSONS]) is None
    assert unfinished_reload([]) is None


def test_repeats_that_reach_nobody_come_less_and_less_often_and_once_an_hour_at_least() -> None:
    waits = []
    for times in range(9):
        found = unfinished_reload([*[reload(9, Outcome.REFUSED)] * times, PERSONS])
        assert found is not None
        waits.append(next(m for m in range(61) if found.is_time(NOON + timedelta(minutes=m))))
    assert waits == [0, 1, 2, 4, 8, 16, 32, 60, 60]
    progress = unfinished_reload([reload(3, Outcome.HELD), reload(2, Outcome.REFUSED), PERSONS])
    assert progress is not None
    assert progress.is_time(NOON)


def test_no_clock_of_a_host_says_who_was_missed() -> None:
    for started in (NOON - timedelta(days=1), NOON + timedelta(days=1)):
        assert missed({"gw-1": state("edge-0", started)}, {"edge-1", "edge-2"}) == ("gw-1",)
        assert missed({"gw-1": state("edge-2", started)}, {"edge-1", "edge-2"}) == ()
    assert missed({"gw-1": state("", NOON, InstanceState.STOPPED)}, {"edge-1"}) == ()
