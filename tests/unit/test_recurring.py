"""Recurring upgrades: what begins by itself, and everything that keeps it from beginning."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from policies.model.desired import Pin
from policies.model.fleet import Fleet
from policies.model.plan import ReleaseRef
from policies.model.value import digest_of
from policies.model.windows import Opening
from policies.recurring import OfferedRelease, Standing, due, newest, outlook

AT = datetime(2026, 11, 24, 1, 0, tzinfo=UTC)
OPENING = Opening(opens=AT, closes=AT + timedelta(hours=4))
WINDOW = {"name": "night", "tz": "UTC", "rrule": "FREQ=WEEKLY;BYDAY=TU", "start": "01:00", "duration": "4h"}
GATEWAY = {
    "name": "gw-1",
    "addresses": ["192.0.2.1"],
    "slots": [
        {"name": "a", "port": 4441, "device": "oca", "pool4": "10.0.0.0/24"},
        {"name": "b", "port": 4442, "device": "ocb", "pool4": "10.0.1.0/24"},
    ],
}


def fleet(**more: object) -> Fleet:
    said = {"name": "edge", "product": "ocserv", "gateways": [GATEWAY], "windows": [WINDOW]}
    return Fleet.model_validate(said | {"recurring": {"channel": "stable"}} | more)


def release(index: int, withdrawn: str | None = None) -> OfferedRelease:
    reference = ReleaseRef(
        digest=digest_of(b"%d" % index),
        product="ocserv",
        version=f"1.{index}",
        executable=digest_of(b"x%d" % index),
    )
    return OfferedRelease(release=reference, rollback_index=index, withdrawn=withdrawn)


def on(*indexes: int) -> frozenset[str]:
    return frozenset(release(index).release.digest for index in indexes)


PIN = Pin(
    release=release(3).release.digest, version="1.3", change="edge-7", by=None, at=None, why="it failed"
)
STANDS = Standing(offered=(release(2), release(3)), on=on(2))


def test_the_newest_release_of_the_channel_begins_when_a_window_is_open() -> None:
    turn = due(fleet(), OPENING, STANDS)
    assert (turn.release, turn.key) == (release(3).release, "recurring-edge-20261124T010000Z")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"tried": "edge-7"}, "edge-7 was begun in this opening already"),
        ({"under_way": "edge-6"}, "1.3 is wanted, and waits for the end of edge-6"),
        ({"on": on(3)}, "1.3 is every gateway's known-good and the newest of channel stable"),
        ({"on": frozenset()}, "no gateway of edge has a release yet; a person brings them up"),
        ({"pin": PIN}, "edge is pinned against 1.3: edge-7 went back"),
        ({"unconfirmed": "it was restored"}, "edge is pinned against every release: it was restored"),
        ({"offered": ()}, "the ledger has no release of channel stable"),
        (
            {"offered": (release(3, "CVE"),)},
            "every release of channel stable was withdrawn, the newest because: CVE",
        ),
        (
            {"offered": (release(2), release(3, "CVE")), "on": on(3)},
            "the known-good of some gateways is later than 1.2, and nothing goes back by itself",
        ),
    ],
)
def test_whatever_keeps_it_from_beginning_is_said(change: dict[str, object], why: str) -> None:
    turn = due(fleet(), OPENING, STANDS.model_copy(update=change))
    assert (turn.release, turn.key, turn.sentence) == (None, None, why)


def test_nothing_begins_outside_of_every_window_or_in_a_fleet_that_does_not_ask_for_it() -> None:
    assert due(fleet(), None, STANDS).sentence == "no window is open"
    assert due(fleet(recurring=None), OPENING, STANDS).release is None


OPENS = "Tue 2026-11-24 01:00 UTC"


@pytest.mark.parametrize(
    ("change", "opening", "refused", "said"),
    [
        ({}, None, None, f"1.3 starts by itself; the next window opens {OPENS}"),
        ({}, OPENING, None, "1.3 starts by itself"),
        ({}, OPENING, "nobody approved it", "1.3 did not start: nobody approved it"),
        (
            {"on": on(3)},
            None,
            None,
            (
                "1.3 is every gateway's known-good and the newest of channel stable; "
                f"the next window opens {OPENS}"
            ),
        ),
        ({"tried": "edge-7"}, OPENING, "an earlier try", "edge-7 was begun in this opening already"),
        (
            {"pin": PIN},
            None,
            None,
            f"edge is pinned against 1.3: edge-7 went back; the next window opens {OPENS}",
        ),
    ],
)
def test_whoever_wonders_is_told_what_begins_or_what_keeps_it_and_when_it_is_looked_at_next(
    change: dict[str, object], opening: Opening | None, refused: str | None, said: str
) -> None:
    stands, then = STANDS.model_copy(update=change), OPENS if opening is None else None
    assert outlook(fleet(), opening, stands, refused=refused, then=then) == said


def test_a_fleet_whose_windows_never_open_is_told_so() -> None:
    said = outlook(fleet(), None, STANDS, refused=None, then=None)
    assert said == "1.3 starts by itself; no window opens within 400 days"


standings = st.builds(
    Standing,
    offered=st.lists(
        st.builds(release, st.integers(1, 6), st.sampled_from([None, None, "CVE"])),
        unique_by=lambda one: one.rollback_index,
    ).map(tuple),
    on=st.sets(st.integers(1, 6), max_size=3).map(lambda found: on(*found)),
    pin=st.sampled_from([None, None, PIN]),
    under_way=st.sampled_from([None, None, "edge-6"]),
    tried=st.sampled_from([None, None, "edge-7"]),
    unconfirmed=st.sampled_from([None, None, "it was restored"]),
)


@given(standings)
def test_what_begins_is_never_older_withdrawn_pinned_or_a_second_one(stands: Standing) -> None:
    turn = due(fleet(), OPENING, stands)
    if turn.release is None:
        return
    began = next(one for one in stands.offered if one.release == turn.release)
    assert began == newest(stands.offered)
    assert began.withdrawn is None
    assert (stands.tried, stands.under_way, stands.pin, stands.unconfirmed) == (None, None, None, None)
    assert stands.on
    assert stands.on != {began.release.digest}
    later = {one.release.digest for one in stands.offered if one.rollback_index > began.rollback_index}
    assert not later & stands.on


@given(st.datetimes(datetime(2026, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_each_opening_has_a_key_of_its_own(opens: datetime) -> None:
    opens = opens.replace(microsecond=0)
    other = Opening(opens=opens, closes=opens + timedelta(hours=1))
    same = due(fleet(), OPENING, STANDS).key == due(fleet(), other, STANDS).key
    assert same == (opens == OPENING.opens)


def test_a_file_without_windows_or_with_another_channel_is_refused() -> None:
    with pytest.raises(ValidationError, match="none is declared; write windows"):
        fleet(windows=[])
    with pytest.raises(ValidationError, match="one of them is meant"):
        fleet(recurring={"channel": "beta"})
