"""Notices on both databases: looks miss nothing, and several workers tell each sink each notice once."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.noticing.hearing import MOST_CHANGES
from orchestrator.noticing.looking import Looking
from orchestrator.store.addressed import Addressed
from orchestrator.store.ledger import Ledger
from policies.model.notice import Notice, NoticeLevel, Occasion
from tests.fakes.notice_receivers import KEY, Heard, webhook
from tests.patience import wait_until
from tests.service.test_notices_of_states import RULES, many

LONG = timedelta(minutes=1)


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    made = Ledger.open(url)
    yield made
    made.close()


def add(ledger: Ledger, *keys: str, level: NoticeLevel = NoticeLevel.NEEDS_YOU) -> None:
    at = datetime.now(UTC)
    found = [
        Addressed(
            Notice(key=key, fleet="edge", change=key, state="held", level=level, headline=key, at=at),
            key,
            waits=False,
            sinks={"hook": (Occasion.SAID, at)},
        )
        for key in keys
    ]
    assert ledger.add_notices(found) == keys
    assert ledger.add_notices(found) == (), "each is kept once"


def keys_of(claimed: tuple[str, tuple[object, ...]]) -> list[str]:
    return [one.notice.key for one in claimed[1]]  # type: ignore[attr-defined]


def test_changes_of_one_moment_are_told_however_many_there_are(ledger: Ledger) -> None:
    looks = Looking(ledger, lambda: RULES, "one")
    looks.look()
    names = many(ledger, "waits", datetime.now(UTC), count=2 * MOST_CHANGES + 1)
    for number in range(4):
        Looking(ledger, lambda: RULES, "one").look() if number == 1 else looks.look()
    told = ledger.notice_counts(names)
    assert [name for name in names if told.get((name, "held")) != 1] == []


def test_what_one_worker_has_claimed_no_other_sends_until_the_claim_is_over(ledger: Ledger) -> None:
    add(ledger, *(f"k{number}" for number in range(6)))
    first, second = ledger.claim_notices("hook", 4, LONG), ledger.claim_notices("hook", 4, LONG)
    assert (len(first[1]), len(second[1])) == (4, 2)
    assert not {*keys_of(first)} & {*keys_of(second)}
    assert keys_of(ledger.claim_notices("hook", 4, LONG)) == []


def test_a_sink_s_health_quotes_the_newest_failure_and_only_of_the_fleets_that_are_asked_for(
    ledger: Ledger,
) -> None:
    for number, (fleet, error) in enumerate((("edge", "z: connection refused"), ("core", "a: answered 503"))):
        at = datetime.now(UTC) + timedelta(seconds=number)
        notice = Notice(
            key=fleet,
            fleet=fleet,
            change=fleet,
            state="held",
            level=NoticeLevel.PAGE,
            headline="held",
            at=at,
        )
        kept = Addressed(notice, fleet, waits=False, sinks={"hook": (Occasion.SAID, at - LONG)})
        assert ledger.add_notices([kept]) == (fleet,)
        claim, _ = ledger.claim_notices("hook", 1, LONG)
        ledger.notice_failed("hook", fleet, claim, error, datetime.now(UTC) + LONG)
    assert ledger.sink_health()["hook"].error == "a: answered 503"
    mine = ledger.sink_health(["edge"])["hook"]
    assert (mine.error, mine.failing) == ("z: connection refused", 2)
    assert ledger.sink_health([])["hook"].error == ""


def test_a_worker_that_was_too_slow_takes_nothing_from_the_one_that_sends_it_again(ledger: Ledger) -> None:
    add(ledger, "k")
    slow, _ = ledger.claim_notices("hook", 1, timedelta(0))
    quick, again = ledger.claim_notices("hook", 1, LONG)
    assert [one.notice.key for one in again] == ["k"], "the repeat has the same key"
    ledger.notice_failed("hook", "k", slow, "it hung", None)
    assert ledger.notices_delivered("hook", ["k"], claim=slow) == 0
    assert ledger.notices_delivered("hook", ["k"], claim=quick) == 1
    assert ledger.sink_health() == {}


def test_what_wakes_somebody_is_claimed_before_all_that_came_earlier(ledger: Ledger) -> None:
    add(ledger, *(f"k{number}" for number in range(30)), level=NoticeLevel.INFO)
    add(ledger, "page", level=NoticeLevel.PAGE)
    assert keys_of(ledger.claim_notices("hook", 10, LONG))[0] == "page"


class Workers:
    """Processes that look and deliver, as workers do."""

    def __init__(self, url: str, folder: Path, heard: Heard) -> None:
        self.file = folder / "notices.yaml"
        (folder / "hook.key").write_text(KEY)
        (folder / "hook.key").chmod(0o600)
        sink = {"name": "hook", "kind": "webhook", "url": heard.place, "key_file": "hook.key"}
        said = {"apiVersion": "penstock/v1", "sinks": [sink], "routes": [{"sinks": ["hook"]}]}
        self.file.write_text(json.dumps(said))
        self.url = url
        self.running: list[subprocess.Popen[bytes]] = []

    def begin(self, count: int, claimed: str) -> None:
        command = [sys.executable, "-m", "tests.drivers.noticing", self.url, str(self.file), claimed]
        self.running += [subprocess.Popen(command) for _ in range(count)]

    def kill(self) -> None:
        for one in self.running:
            one.kill()
            one.wait()


def test_several_workers_at_once_tell_each_notice_once(ledger: Ledger, url: str, tmp_path: Path) -> None:
    names = tuple(f"k{number:02}" for number in range(15))
    add(ledger, *names)
    with webhook() as heard:
        workers = Workers(url, tmp_path, heard)
        workers.begin(2, "200")
        try:
            wait_until(lambda: heard.distinct == {*names}, found=lambda: len(heard.raw))
            wait_until(lambda: ledger.sinks_due(datetime.now(UTC) + LONG) == (), found=ledger.sink_health)
        finally:
            workers.kill()
        assert sorted(heard.raw) == sorted(names)
        assert heard.wrong == []


@pytest.mark.sweep
def test_of_several_workers_one_that_is_killed_leaves_its_notices_to_the_others(
    ledger: Ledger, url: str, tmp_path: Path
) -> None:
    names = tuple(f"k{number:02}" for number in range(12))
    add(ledger, *names)
    with webhook() as heard:
        workers = Workers(url, tmp_path, heard)

        def kill_first(_key: str) -> None:
            if workers.running[0].poll() is None:
                os.kill(workers.running[0].pid, signal.SIGKILL)
                workers.running[0].wait()

        heard.meanwhile = kill_first
        workers.begin(1, "8")
        try:
            wait_until(lambda: workers.running[0].poll() is not None)
            workers.begin(2, "8")
            wait_until(lambda: heard.distinct == {*names}, found=lambda: len(heard.raw))
            wait_until(lambda: ledger.sinks_due(datetime.now(UTC) + LONG) == (), found=ledger.sink_health)
        finally:
            workers.kill()
        repeated = [key for key in names if heard.raw.count(key) > 1]
        assert heard.raw[0] in repeated, "what was sent and not noted is sent again, by the same key"
