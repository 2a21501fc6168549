"""Sinks of notices on real receivers: a webhook, a mail server, Debian's Alertmanager; each gets each."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from activities.drivers.notices.port import ONCE, Sink
from activities.drivers.notices.smtp import message_id
from orchestrator.noticing.delivering import Delivering
from orchestrator.noticing.folding import fold_old
from orchestrator.noticing.looking import Looking
from orchestrator.noticing.rules import RulesFile
from orchestrator.store.addressed import Addressed
from orchestrator.store.ledger import Ledger
from policies.model.notice import Delivery, Notice, NoticeLevel, Occasion
from policies.model.offer import Offer, Verb
from policies.model.people import Via
from tests.fakes.notice_counts import counted
from tests.fakes.notice_receivers import (
    KEY,
    Heard,
    alertmanager,
    forwarding,
    mail_server,
    pagerduty,
    webhook,
)
from tests.patience import wait_until
from tests.service.test_every_state import STATES, written

SINKS = ("hook", "mail", "alerts")


class Place:
    """An installation's ledger and rules, and receivers of every kind."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder / 'ledger.db'}"
        self.ledger = Ledger.open(self.url)
        self.file = folder / "notices.yaml"
        self.folder = folder
        self.hook, self.mail, self.alerts = Heard(), Heard(), Heard()
        self.alerts.place = "http://127.0.0.1:1"

    def secret(self, name: str, said: str) -> None:
        path = self.folder / name
        path.write_text(said + "\n")
        path.chmod(0o600)

    def rules(self, *sinks: dict[str, Any], **more: Any) -> RulesFile:
        named = [one["name"] for one in sinks]
        routes = more.pop("routes", [{"sinks": named}])
        said = {"apiVersion": "penstock/v1", "sinks": list(sinks), "routes": routes, **more}
        self.file.write_text(json.dumps(said))
        return RulesFile(self.file)

    def all_kinds(self) -> RulesFile:
        return self.rules(
            {"name": "hook", "kind": "webhook", "url": self.hook.place, "key_file": "hook.key"},
            {
                "name": "mail",
                "kind": "smtp",
                "host": "127.0.0.1",
                "port": int(self.mail.place),
                "tls": "none",
                "sender": "penstock@example.com",
                "to": ["ana@example.com"],
            },
            {"name": "alerts", "kind": "alertmanager", "url": self.alerts.place},
        )

    def looking(self, rules: RulesFile) -> Looking:
        looks = Looking(self.ledger, rules.rules, "test")
        looks.look()
        return looks

    def received(self) -> dict[str, list[str]]:
        keys = [row.notice.key for row in self.ledger.notice_rows(["edge"], 500)]
        by_id = {message_id(key, "example.com"): key for key in keys}
        mails = [by_id[one] for one in self.mail.raw]
        return {"hook": self.hook.raw, "mail": mails, "alerts": self.alerts.raw}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    made.secret("hook.key", KEY)
    with ExitStack() as stack:
        made.hook = stack.enter_context(webhook())
        made.mail = stack.enter_context(mail_server())
        yield made


def said(key: str, level: NoticeLevel = NoticeLevel.NEEDS_YOU, **more: Any) -> Notice:
    return Notice(
        key=key,
        fleet="edge",
        change="edge-1",
        state=more.pop("state", "held"),
        level=level,
        headline=more.pop("headline", "edge: edge-1: held: calls come in"),
        sentences=("1 of 2 gateways", "ana: calls"),
        offers=(Offer(verb=Verb.ROLL_BACK, fleet="edge"),),
        at=datetime.now(UTC),
        **more,
    )


def add(ledger: Ledger, notice: Notice, *sinks: str, waits: bool = True) -> None:
    goes = dict.fromkeys(sinks, (Occasion.SAID, notice.at))
    ledger.add_notices([Addressed(notice, "edge-1", waits, goes)])


async def deliver(ledger: Ledger, rules: RulesFile) -> Delivering:
    delivering = Delivering(ledger, rules)
    await delivering.begin_due()
    await delivering.settle()
    return delivering


@pytest.mark.sweep
def test_real_receivers_get_each_state_once(place: Place) -> None:
    with alertmanager() as (url, told), forwarding(url) as place.alerts:
        rules = place.all_kinds()
        looks = place.looking(rules)
        written(place.ledger, STATES["held by a person"])
        looks.look()
        asyncio.run(deliver(place.ledger, rules))
        place.ledger.change("edge-1")
        counts = counted(place.ledger, ["edge"], place.received())
        assert counts.missing == ()
        assert counts.sent == counts.received == {"started": 3, "held": 3}
        assert counts.raw == 6
        wait_until(lambda: "edge-1/held/1 firing" in told.distinct, found=lambda: told.raw)
        assert place.hook.wrong == []
        asyncio.run(deliver(place.ledger, rules))  # nothing is due any more
        assert counted(place.ledger, ["edge"], place.received()).raw == 6


@pytest.mark.parametrize(
    "killed_at", [pytest.param(name, marks=() if name == "hook" else pytest.mark.sweep) for name in SINKS]
)
def test_a_worker_killed_between_sending_and_noting_repeats_what_receivers_recognise(
    place: Place, killed_at: str
) -> None:
    with alertmanager() as (url, told), forwarding(url) as place.alerts:
        rules = place.all_kinds()
        place.looking(rules)
        written(place.ledger, STATES["held by a person"])
        workers = list[subprocess.Popen[bytes]]()

        def begin() -> None:
            command = [sys.executable, "-m", "tests.drivers.noticing", place.url, str(place.file), "2"]
            workers.append(subprocess.Popen(command))

        def kill_once(_key: str) -> None:
            if len(workers) == 1 and workers[0].poll() is None:
                os.kill(workers[0].pid, signal.SIGKILL)
                workers[0].wait()

        heard = {"hook": place.hook, "mail": place.mail, "alerts": place.alerts}[killed_at]
        heard.meanwhile = kill_once
        try:
            begin()
            wait_until(lambda: workers[0].poll() is not None)
            begin()
            wait_until(
                lambda: (
                    not counted(place.ledger, ["edge"], place.received()).missing
                    and not place.ledger.sinks_due(datetime.now(UTC) + timedelta(minutes=1))
                ),
                found=lambda: (counted(place.ledger, ["edge"], place.received()), place.ledger.sink_health()),
            )
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
        counts = counted(place.ledger, ["edge"], place.received())
        assert counts.missing == ()
        assert counts.sent == counts.received == {"started": 3, "held": 3}
        received = place.received()
        assert len(received[killed_at]) > len({*received[killed_at]}), "something came twice, by the same key"
        assert all(len({*keys}) == 2 for keys in received.values())
        wait_until(lambda: "edge-1/held/1 firing" in told.distinct, found=lambda: told.raw)
        assert told.raw.count("edge-1/held/1 firing") == 1, "the Alertmanager recognised the repeat"


def test_what_fires_in_the_alertmanager_is_resolved_when_it_is_settled(place: Place) -> None:
    with alertmanager() as (url, told):
        rules = place.rules({"name": "alerts", "kind": "alertmanager", "url": url})
        add(place.ledger, said("k1"), "alerts")
        asyncio.run(deliver(place.ledger, rules))
        wait_until(lambda: "k1 firing" in told.distinct, found=lambda: told.raw)
        over = said("k2", NoticeLevel.INFO, state="resumed", resolves="k1")
        goes = {"alerts": (Occasion.SETTLED, over.at)}
        place.ledger.add_notices([Addressed(over, "edge-1", waits=False, sinks=goes)])
        asyncio.run(deliver(place.ledger, rules))
        wait_until(lambda: "k1 resolved" in told.distinct, found=lambda: told.raw)
        assert not [one for one in told.raw if one.startswith("k2")]


def test_what_waits_is_told_to_the_alertmanager_again_before_it_would_end(place: Place) -> None:
    with alertmanager() as (url, _):
        rules = place.rules({"name": "alerts", "kind": "alertmanager", "url": url})
        add(place.ledger, said("k1"), "alerts")
        asyncio.run(deliver(place.ledger, rules))
        assert place.ledger.sinks_due(datetime.now(UTC)) == ()
        assert place.ledger.sinks_due(datetime.now(UTC) + timedelta(minutes=6)) == ("alerts",)


def test_mails_of_a_change_are_one_conversation_and_nobody_adds_headers(place: Place) -> None:
    rules = place.all_kinds()
    add(place.ledger, said("k1", headline="edge: held\r\nBcc: eve@example.com"), "mail")
    add(place.ledger, said("k2", NoticeLevel.INFO, state="resumed", resolves="k1"), "mail", waits=False)
    asyncio.run(deliver(place.ledger, rules))
    first, second = place.mail.bodies
    assert first["Bcc"] is None
    assert first["Subject"] == "[penstock edge] NEEDS YOU: edge: held Bcc: eve@example.com"
    assert first["In-Reply-To"] == second["In-Reply-To"]
    assert first["Message-ID"] in second["References"]
    text = first.get_content()
    assert "penstock rollback edge --reason TEXT" in text
    assert first.get_content_type() == "text/plain"


def test_incidents_are_triggered_acknowledged_and_resolved_by_their_key(place: Place) -> None:
    place.secret("pager.key", "R0")
    with pagerduty() as (heard, incidents):
        sink = {
            "name": "pager",
            "kind": "pagerduty",
            "endpoint": heard.place,
            "routing_key_file": "pager.key",
        }
        rules = place.rules(sink, routes=[{"levels": ["page"], "sinks": ["pager"]}])
        add(place.ledger, said("k1", NoticeLevel.PAGE), "pager")
        asyncio.run(deliver(place.ledger, rules))
        assert incidents == {"k1": "triggered"}
        place.ledger.acknowledge_notice("k1", "ana", Via.CLI)
        asyncio.run(deliver(place.ledger, rules))
        assert incidents == {"k1": "acknowledged"}
        over = said("k2", NoticeLevel.INFO, state="resumed", resolves="k1")
        goes = {"pager": (Occasion.SETTLED, over.at)}
        place.ledger.add_notices([Addressed(over, "edge-1", waits=False, sinks=goes)])
        asyncio.run(deliver(place.ledger, rules))
        assert incidents == {"k1": "resolved"}
        assert heard.wrong == []


def test_a_page_that_came_late_leaves_no_incident_open(place: Place) -> None:
    place.secret("pager.key", "R0")
    with pagerduty() as (heard, incidents):
        sink = {
            "name": "pager",
            "kind": "pagerduty",
            "endpoint": heard.place,
            "routing_key_file": "pager.key",
        }
        rules = place.rules(sink, routes=[{"levels": ["page"], "sinks": ["pager"]}])
        add(place.ledger, said("k1", NoticeLevel.PAGE), "pager")
        add(place.ledger, said("k2", NoticeLevel.INFO, resolves="k1"), waits=False)
        asyncio.run(deliver(place.ledger, rules))
        assert incidents == {"k1": "resolved"}


def test_a_receiver_that_points_elsewhere_is_not_followed(place: Place) -> None:
    rules = place.all_kinds()
    with webhook() as elsewhere:
        place.hook.status, place.hook.location = 307, elsewhere.place
        add(place.ledger, said("k1"), "hook")
        delivering = asyncio.run(deliver(place.ledger, rules))
        assert elsewhere.raw == []
        assert elsewhere.wrong == []
    assert delivering.failures == {"hook": 1}
    health = place.ledger.sink_health()["hook"]
    assert "points elsewhere" in health.error


def test_a_sink_that_is_away_holds_up_none_of_the_others_and_is_asked_once(place: Place) -> None:
    rules = place.all_kinds()
    place.hook.status = 503
    rules = place.all_kinds()
    for number in range(3):
        add(place.ledger, said(f"k{number}"), *SINKS)
    delivering = asyncio.run(deliver(place.ledger, rules))
    assert len(place.mail.raw) == 3
    assert delivering.failures == {"hook": 3, "alerts": 1}


def test_one_notice_that_a_receiver_never_takes_holds_up_none_of_those_behind_it(place: Place) -> None:
    rules = place.all_kinds()
    place.hook.refused = {"k0"}
    for number in range(25):
        add(place.ledger, said(f"k{number}"), "hook")
    asyncio.run(deliver(place.ledger, rules))
    assert place.hook.raw == [f"k{number}" for number in range(1, 25)]
    health = place.ledger.sink_health()["hook"]
    assert (health.failing, health.error) == (1, "it answers 400: {}")


class Surprising(RulesFile):
    """Rules whose sink fails as nobody foresaw, at one notice; `taken` has what it took."""

    surprise = ValueError("the token is t0p-secret-t0ken")

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.taken: list[str] = []

    def sink(self, name: str) -> Sink | None:
        super().sink(name)
        outer = self

        class Wrong(Sink):
            repeats_after = None
            occasions = ONCE

            def ready(self) -> None:
                """It has no file."""

            async def tell(self, delivery: Delivery) -> str:
                if delivery.notice.key == "k1":
                    raise outer.surprise
                outer.taken.append(delivery.notice.key)
                return "it took it"

        return Wrong()


def test_a_sink_that_fails_as_nobody_foresaw_counts_a_try_and_blocks_nothing_behind_it(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.all_kinds()
    rules = Surprising(place.file)
    for number in range(3):
        add(place.ledger, said(f"k{number}", NoticeLevel.PAGE), "hook")
    delivering = asyncio.run(deliver(place.ledger, rules))
    assert rules.taken == ["k0", "k2"]
    assert delivering.failures == {"hook": 1}
    health = place.ledger.sink_health()["hook"]
    assert (health.failing, health.given_up) == (1, 0)
    assert "ValueError" in health.error
    (row,) = [one for one in place.ledger.notice_rows(["edge"], 9) if one.notice.key == "k1"]
    assert row.tries == 1
    later = datetime.now(UTC) + timedelta(minutes=1)
    assert place.ledger.sinks_due(later) == ("hook",), (
        "it is tried again, and not only when a claim has ended"
    )
    assert "ValueError" in caplog.text
    assert "t0p-secret-t0ken" not in f"{caplog.text}{health.error}"


def test_a_secret_that_others_read_is_not_used_and_said_nowhere(place: Place) -> None:
    rules = place.all_kinds()
    (place.folder / "hook.key").chmod(0o644)
    add(place.ledger, said("k1"), "hook")
    asyncio.run(deliver(place.ledger, rules))
    health = place.ledger.sink_health()["hook"]
    assert "hook.key" in health.error
    assert KEY not in health.error
    assert place.hook.raw == []


def test_what_a_sink_missed_for_long_comes_in_one_notice(place: Place) -> None:
    rules = place.rules({"name": "chat", "kind": "chat"})
    del rules
    then = datetime.now(UTC) - timedelta(hours=3)
    for number in range(40):
        notice = said(f"k{number}", NoticeLevel.INFO, state="promoted").model_copy(update={"at": then})
        add(place.ledger, notice, "chat", waits=False)
    add(place.ledger, said("page", NoticeLevel.PAGE), "chat")
    fold_old(place.ledger)
    fold_old(place.ledger)
    handed = [one.notice for one in place.ledger.outbox("chat", 100)]
    assert sorted(one.state for one in handed) == ["earlier", "held"]
    assert "40 notices of edge" in next(one.headline for one in handed if one.state == "earlier")


def test_a_wrong_file_stops_nobody_and_what_was_good_counts(place: Place) -> None:
    rules = place.all_kinds()
    assert rules.rules() is not None
    time.sleep(0.01)
    place.file.write_text("apiVersion: penstock/v1\nsinks: [{name: a, kind: pigeon}]\n")
    assert rules.wrong() is not None
    assert rules.pushed() == {*SINKS}
