"""Who is told what, when: routes, quiet hours in local time, and which rules are refused."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from policies.model.notice import NoticeLevel
from policies.model.notice_rules import NoticeRules
from policies.notices.retries import MOST_TRIES, again_after
from policies.notices.routing import due_at, sinks_for

CHAT = {"name": "chat", "kind": "chat"}
NIGHT = {"zone": "Europe/Berlin", "from": "22:00", "to": "06:30", "levels": ["info", "needs_you"]}
START = datetime(2025, 1, 1, tzinfo=UTC)
moments = st.integers(0, 2 * 365 * 24 * 60).map(lambda minutes: START + timedelta(minutes=minutes))


def rules(**more: Any) -> NoticeRules:
    said = {"apiVersion": "penstock/v1", "sinks": [CHAT], "routes": [{"sinks": ["chat"]}]}
    return NoticeRules.model_validate(said | more)


@given(moments)
def test_a_page_never_waits(at: datetime) -> None:
    assert due_at(rules(quiet_hours=[NIGHT]), "edge", NoticeLevel.PAGE, "chat", at) == at


@given(moments, st.sampled_from([NoticeLevel.INFO, NoticeLevel.NEEDS_YOU]))
def test_what_waits_comes_when_the_night_is_over_and_never_earlier(at: datetime, level: NoticeLevel) -> None:
    night = rules(quiet_hours=[NIGHT])
    due = due_at(night, "edge", level, "chat", at)
    local = due.astimezone(night.quiet_hours[0].tz)
    assert at <= due < at + timedelta(hours=10)
    assert due == at or (local.hour, local.minute) == (6, 30)
    assert due_at(night, "edge", level, "chat", due) == due, "when it is due it is not quiet"


def test_nights_follow_local_time_across_a_change_of_clocks() -> None:
    night = rules(quiet_hours=[NIGHT])
    before = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)  # 01:30 in Berlin, an hour before the clocks go on
    assert due_at(night, "edge", NoticeLevel.INFO, "chat", before) == datetime(2026, 3, 29, 4, 30, tzinfo=UTC)


def test_routes_choose_by_fleet_and_level() -> None:
    two = rules(
        sinks=[CHAT, {"name": "core", "kind": "chat"}],
        routes=[{"sinks": ["chat"]}, {"fleets": ["core"], "levels": ["page"], "sinks": ["core"]}],
    )
    assert sinks_for(two, "edge", NoticeLevel.PAGE) == ("chat",)
    assert sinks_for(two, "core", NoticeLevel.INFO) == ("chat",)
    assert sinks_for(two, "core", NoticeLevel.PAGE) == ("chat", "core")


MAIL = {
    "name": "mail",
    "kind": "smtp",
    "host": "mail.example.com",
    "sender": "a@example.com",
    "to": ["b@example.com"],
}
HOOK = {"name": "hook", "kind": "webhook", "url": "https://x.example/hook", "key_file": "k"}
PAGER = {"name": "pager", "kind": "pagerduty", "routing_key_file": "k"}


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"routes": [{"sinks": ["nobody"]}]}, "there is no sink nobody; there is chat"),
        ({"sinks": [CHAT, CHAT]}, "two sinks are called chat"),
        ({"sinks": [CHAT, MAIL | {"tls": "none"}]}, "would be sent in the open"),
        ({"sinks": [CHAT, MAIL | {"login": "ana"}]}, "login and password_file belong together"),
        ({"sinks": [CHAT, HOOK | {"url": "http://x.example/hook"}]}, "would be told in the open"),
        ({"sinks": [CHAT, HOOK | {"url": "http://localhost.evil.example/"}]}, "would be told in the open"),
        ({"sinks": [CHAT, HOOK | {"url": "http://[::1].evil.example/"}]}, "would be told in the open"),
        ({"sinks": [CHAT, HOOK | {"url": "https://ana:secret@x.example/"}]}, "match pattern"),
        ({"sinks": [CHAT, MAIL | {"to": ["b@example.com\nBcc: eve@example.com"]}]}, "match pattern"),
        ({"quiet_hours": [NIGHT | {"zone": "Mars/Base"}]}, "there is no zone Mars/Base"),
        ({"quiet_hours": [NIGHT | {"levels": ["page"]}]}, "Input should be 'info' or 'needs_you'"),
        ({"sinks": [CHAT, PAGER], "routes": [{"sinks": ["pager"]}]}, "an incident for each info"),
    ],
)
def test_rules_that_would_tell_nobody_or_everybody_are_refused(more: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        rules(**more)


def test_a_sink_is_tried_again_later_each_time_and_not_for_ever() -> None:
    pauses = [again_after(tries) for tries in range(MOST_TRIES)]
    found = [one for one in pauses if one is not None]
    assert found == sorted(found)
    assert timedelta(hours=3) < sum(found, timedelta()) < timedelta(hours=6)
    assert again_after(MOST_TRIES) is None
