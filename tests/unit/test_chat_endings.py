"""What is said when a change is over never says more than gateways have said."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from policies.chat.endings import COUNTED_FOR, Stage, known_by, stage_in, stage_of
from policies.chat.sessions import Left, left_on, stay
from policies.model.change import ChangeKind, ChangeRecord, Outcome
from policies.model.instance import GatewayState, Instance, InstanceState, Steering
from policies.model.value import digest_of

NEW, OLD = digest_of(b"new"), digest_of(b"old")
AT = datetime(2026, 11, 24, 2, 16, 5, tzinfo=UTC)


def state(name: str, sessions: int | None, *, at: datetime = AT, release: str = NEW) -> GatewayState:
    there = Instance(slot="b", state=InstanceState.RUNNING, release=release, sessions=sessions)
    return GatewayState(gateway=name, instances=(there,), steering=Steering(), epoch=1, observed_at=at)


def left(*said: tuple[str, GatewayState | str], since: datetime | None = None) -> Left:
    return left_on(NEW, "1.4.0", ["edge-1", "edge-2"], said, since)


def ended(ago: timedelta) -> ChangeRecord:
    return ChangeRecord(
        name="edge-2",
        fleet="edge",
        number=2,
        kind=ChangeKind.UPGRADE,
        requested_by="ana",
        reason="new features",
        release="1.4.0",
        began=AT - timedelta(hours=30),
        outcome=Outcome.ROLLED_BACK,
        ended=AT - ago,
        sentence="it hurts",
    )


@given(st.lists(st.none() | st.integers(0, 50) | st.just("silent"), min_size=2, max_size=2))
def test_none_is_left_only_where_every_gateway_has_said_so(said: list[int | str | None]) -> None:
    names = ("edge-1", "edge-2")
    told = [
        (name, one if isinstance(one, str) else state(name, one))
        for name, one in zip(names, said, strict=True)
    ]
    found = left(*told)
    assert found.is_none == (said == [0, 0])
    assert found.sessions == sum(one for one in said if isinstance(one, int))
    assert ("at least" in found.counted) == any(not isinstance(one, int) for one in said)


def test_sessions_on_another_release_are_nobodys_and_what_was_said_before_the_end_is_not_said() -> None:
    found = left(("edge-1", state("edge-1", 7, release=OLD)), ("edge-2", state("edge-2", 2)))
    assert (found.sessions, found.silent) == (2, ())
    late = left(("edge-1", state("edge-1", 0)), ("edge-2", state("edge-2", 0)), since=AT + timedelta(1))
    assert not late.is_none
    assert late.silent == ("edge-1", "edge-2")


def test_a_preview_names_who_stays_and_until_when_or_says_nothing_that_nobody_knows() -> None:
    two = left(("edge-1", state("edge-1", 0)), ("edge-2", state("edge-2", 2)))
    said = stay(two, timedelta(hours=8), AT)
    assert said == "2 sessions stay on 1.4.0 until they end, or until 2026-11-24 10:16 UTC at the earliest."
    assert "at least 2 sessions (not known of edge-1)" in stay(
        left(("edge-2", state("edge-2", 2))), timedelta(hours=8), AT
    )
    assert stay(None, timedelta(hours=8), AT) == "live sessions stay where they are until they end."


def test_a_card_waits_for_the_last_session_for_a_day_and_then_says_that_it_waits_no_longer() -> None:
    two, none = Left(version="1.4.0", sessions=2, at=AT), Left(version="1.4.0", at=AT)
    assert stage_of(ended(timedelta(hours=1)), two, AT) is Stage.DONE
    assert stage_of(ended(timedelta(hours=1)), none, AT) is Stage.OVER
    assert stage_of(ended(timedelta(hours=1)), None, AT) is Stage.OVER
    assert stage_of(ended(COUNTED_FOR), two, AT) is Stage.OVER
    assert {stage_in(known_by(stage, "0" * 64)) for stage in Stage} == {*Stage}
    assert len(known_by(Stage.OVER, "0" * 64)) <= 64
    assert stage_in("0" * 64) is Stage.GOES_ON
