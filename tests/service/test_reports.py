"""Reports: one change told whole, in every form, with the numbers of the ledger and nothing else."""

import asyncio
import json
import os
import re
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from orchestrator.processes.reports import Known, write_missing
from orchestrator.service.service import Service
from orchestrator.service.telling import told_of
from orchestrator.store.ledger import Ledger
from policies.judge.tick import Tick
from policies.model.change import (
    PENSTOCK,
    ChangeEnding,
    ChangeKind,
    ChangeOpening,
    ChangeOrder,
    ChangeResult,
    GatewayResult,
    Outcome,
    Phase,
    Quarantine,
)
from policies.model.errors import NotAllowed, Unknown
from policies.model.people import Caller, Role, Via
from policies.model.plan import ReleaseRef
from policies.model.sample import Sample
from policies.model.status import Event
from policies.model.value import digest_of
from policies.model.verdict import Action, Against, Decision, GateReading, GateVerdict
from policies.planning.cohorts import LEFT_OUT
from policies.status.told import SHOWN, Told
from tests.service.command_line import CommandLine
from tests.unit.fleets import facts_of, planned, state
from tests.unit.judged import START, counted, fold, policy

AT = datetime(2026, 11, 24, 1, 2, tzinfo=UTC)
DIGEST = digest_of(b"1.4.0")
SNAPSHOT = digest_of(b"snapshot")


def reading(bad: int, total: int, verdict: GateVerdict) -> GateReading:
    numbers = {
        "canary_bad": float(bad),
        "canary_total": float(total),
        "control_bad": 19.0,
        "control_total": 1350.0,
        "excess": round(bad / total - 19 / 1350, 6),
    }
    reason = f"logins: {bad} of {total} bad on the canary, 19 of 1350 on control"
    return GateReading(
        gate="logins", verdict=verdict, reason=reason, numbers=numbers, against=Against.CONTROL
    )


def verdict(action: Action, bad: int, total: int) -> Decision:
    said = {
        Action.ROLL_BACK: GateVerdict.UNHEALTHY,
        Action.CONTINUE: GateVerdict.NOT_ENOUGH_DATA,
        Action.PROMOTE: GateVerdict.HEALTHY,
    }[action]
    one = reading(bad, total, said)
    return Decision(action=action, verdict=said, reason=one.reason, readings=(one,))


def opened(ledger: Ledger, reason: str = "CHG-1181", key: str = "upgrade") -> str:
    release = ReleaseRef(digest=DIGEST, product="ocserv", version="1.4.0", executable=digest_of(b"daemon"))
    said = json.dumps({"changelog": "# 1.4.0\n\n* faster\n"})
    ledger.add_release(
        release, source="http://repository", signers=("keyless:release@example.org",), manifest_json=said
    )
    asked = ChangeOpening(
        key=key,
        fleet="edge",
        kind=ChangeKind.UPGRADE,
        requested_by="ada",
        reason=reason,
        release="1.4.0",
        release_digest=DIGEST,
    )
    return ledger.open_change(asked)


def rolled_back(ledger: Ledger) -> str:
    """Return an upgrade whose logins failed for 105 s until that was proven, and that went back in 19 s."""
    name = opened(ledger)
    for seconds, bad, action in (
        (0, 0, Action.CONTINUE),
        (45, 1, Action.CONTINUE),
        (60, 6, Action.CONTINUE),
        (165, 11, Action.ROLL_BACK),
    ):
        ledger.record_verdict(name, 1, verdict(action, bad, 150), AT + timedelta(seconds=seconds))
    turned = AT + timedelta(seconds=165)
    events = (
        Event(at=AT - timedelta(seconds=30), sentence="ada asked for an upgrade: CHG-1181"),
        Event(at=turned, sentence="rolling back: logins: 11 of 150"),
        Event(at=turned + timedelta(seconds=6), sentence="edge-1 back on known-good"),
    )
    result = ChangeResult(
        rollout=name,
        outcome=Outcome.ROLLED_BACK,
        reason="logins: 11 of 150 bad on the canary, 19 of 1350 on control",
        touched=1,
        steered_back_after=timedelta(seconds=19),
    )
    told = Told(name=name, phase=Phase.ENDED, events=events, result=result, counts={1: {"back": 1}})
    order = ChangeOrder(
        fleet="edge", kind=ChangeKind.UPGRADE, requested_by="ada", reason="CHG-1181", key="upgrade"
    )
    ledger.record_story(order, told, 0, events)
    ledger.record_snapshot(name, "edge-1", SNAPSHOT)
    ledger.close_change(ChangeEnding(change=name, outcome=Outcome.ROLLED_BACK, sentence=result.reason))
    return name


@pytest.fixture
def change(ledger: Ledger) -> str:
    return rolled_back(ledger)


async def test_a_report_has_the_numbers_of_the_ledger_and_splits_the_time_until_all_were_safe(
    api: httpx.AsyncClient, change: str, ledger: Ledger
) -> None:
    found = (await api.get(f"/changes/{change}/report")).json()
    decided = ledger.verdicts(change)[-1]
    assert found["readings"][0]["numbers"] == decided.decision.readings[0].numbers
    assert (found["users"]["bad"], found["users"]["total"]) == (11, 150)
    assert found["signers"] == ["keyless:release@example.org"]
    assert [one["digest"] for one in found["snapshots"]] == [SNAPSHOT]
    at = {step["moment"]: step["at"] for step in found["split"]["steps"]}
    after = {name: (datetime.fromisoformat(when) - AT).total_seconds() for name, when in at.items() if when}
    assert after == {
        "fault": 60.0,
        "enough evidence": 165.0,
        "decision": 165.0,
        "first gateway back": 171.0,
        "all safe": 184.0,
    }


async def test_a_report_says_what_a_mirror_of_logins_measured_before_the_first_user(
    api: httpx.AsyncClient, change: str, ledger: Ledger
) -> None:
    said = "8 and 8 of 8 shadow logins let in, new and old (6 of 6 logins of the last hour at their own pace)"
    body = {
        "slot": "b",
        "exposure": {"outcome": "passed", "sentence": "passed 2 tests"},
        "findings": [{"test": "mirror-refused", "said": said}, {"test": "files", "said": "as signed"}],
    }
    for subject in (f"{change}/edge-1", f"{change}1/edge-2"):
        ledger.audit(
            "penstock",
            "workflow",
            "release tested",
            subject,
            body,
            digest_of(subject.encode()),
            fleet="edge",
        )
    found = (await api.get(f"/changes/{change}/report")).json()
    line = f"passed: passed 2 tests; mirror-refused: {said}"
    assert [(one["gateway"], one["sentence"]) for one in found["tests"]] == [("edge-1", line)]
    for form in ("markdown", "html"):
        text = (await api.get(f"/changes/{change}/report", params={"format": form})).text
        assert "Tests of edge-1 before its first user" in text.replace("\\", "")
        assert "8 and 8 of 8 shadow logins let in" in text


async def test_the_command_says_in_a_line_what_it_wrote(
    penstock: CommandLine, change: str, tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    said = await penstock("report", change, "--html", "--write", str(page))
    assert said.code == 0, said.err
    assert said.out.splitlines() == [
        f"Wrote {page}: 0 users cut, 11 of 150 bad (logins), fault to decision 105 s, fault to safe 124 s"
    ]
    assert page.read_text().startswith("<!doctype html>")
    shown = await penstock("report", change)
    assert "# edge-1: upgrade to 1.4.0" in shown.out


async def test_every_ended_change_gets_its_report_by_itself_and_once(
    service: Service, ledger: Ledger, change: str, tmp_path: Path
) -> None:
    opened(ledger, key="goes on")
    assert await write_missing(service, tmp_path / "reports") == (change,)
    files = sorted(path.name for path in (tmp_path / "reports").iterdir())
    assert files == [f"{change}.html", f"{change}.md"]
    assert await write_missing(service, tmp_path / "reports") == ()
    (tmp_path / "reports" / f"{change}.md").unlink()
    assert await write_missing(service, tmp_path / "reports") == (change,)


async def test_a_cause_and_follow_ups_stay_until_they_are_done(
    api: httpx.AsyncClient, penstock: CommandLine, change: str
) -> None:
    assert (await penstock("report", "cause", change, "--text", "a shared secret")).code == 0
    due = date(2020, 1, 2).isoformat()
    command = ("report", "follow-up", "add", change, "--text", "rotate it", "--owner", "ada", "--due", due)
    first = await penstock(*command, "--id", "once")
    assert first.code == 0, first.err
    assert (await penstock(*command, "--id", "once")).out == first.out
    assert len((await api.get("/follow-ups")).json()["follow_ups"]) == 1
    listed = await penstock("report", "follow-up", "list")
    assert "OVERDUE" in listed.out
    found = (await api.get(f"/changes/{change}/report", params={"format": "markdown"})).text
    assert "a shared secret" in found
    assert "OVERDUE" in found
    assert (await penstock("report", "follow-up", "done", change, "1")).code == 0
    assert (await api.get("/follow-ups")).json()["follow_ups"] == []
    report = (await api.get(f"/changes/{change}/report")).json()
    assert report["follow_ups"][0]["done_by"] == "root"


def ended_with_a_plan(ledger: Ledger, *names: str) -> str:
    """Return an upgrade of these gateways that has ended, while old sessions may go on."""
    asked = ChangeOpening(
        key="with a plan",
        fleet="edge",
        kind=ChangeKind.UPGRADE,
        requested_by="ada",
        reason="CHG-1181",
        release="1.4.0",
        plan=ledger.record_plan(planned(facts_of(len(names)))),
    )
    name = ledger.open_change(asked)
    ledger.record_gateways(name, [GatewayResult(gateway=one, wave=1, state="kept", at=AT) for one in names])
    ledger.record_states("edge", [state(one) for one in names], {})
    ledger.close_change(ChangeEnding(change=name, outcome=Outcome.PROMOTED, sentence="all waves passed"))
    return name


def test_a_report_is_final_when_every_gateway_was_seen_since_with_nothing_but_what_takes_users(
    service: Service, ledger: Ledger
) -> None:
    assert not service.reports.is_final(opened(ledger, key="goes on"))
    name = ended_with_a_plan(ledger, "gw-1", "gw-2")
    assert not service.reports.is_final(name)  # nobody has looked since
    ledger.record_states("edge", [state("gw-1", draining=3), state("gw-2")], {})
    assert not service.reports.is_final(name)
    ledger.record_states("edge", [state("gw-1")], {"gw-2": "it is silent"})
    assert not service.reports.is_final(name)
    assert service.reports.of_change(name).users.until is not None
    ledger.record_states("edge", [state("gw-2")], {})
    assert service.reports.is_final(name)
    found = service.reports.of_change(name)
    assert (found.final, found.users.until) == (True, None)


async def test_a_written_report_is_written_again_once_no_old_session_is_left(
    service: Service, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.processes.reports.ASKED_AGAIN_SECONDS", 0)
    name = ended_with_a_plan(ledger, "gw-1")
    known = Known()
    assert await write_missing(service, tmp_path, known) == (name,)
    page = tmp_path / f"{name}.html"
    assert "old sessions may still end" in page.read_text()
    assert await write_missing(service, tmp_path, known) == ()
    ledger.record_states("edge", [state("gw-1")], {})
    assert (
        await write_missing(service, tmp_path, known) == ()
    )  # what ended the last one is told a moment later
    assert await write_missing(service, tmp_path, known) == (name,)
    assert "old sessions may still end" not in page.read_text()
    assert await write_missing(service, tmp_path, Known()) == ()


class Cells(HTMLParser):
    """The text of every cell of a page's tables, and of its lists, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.cells: list[str] = []
        self._open = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in OF_CELLS:
            self.cells.append("")
            self._open = True

    def handle_data(self, data: str) -> None:
        if self._open:
            self.cells[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._open = self._open and tag not in OF_CELLS


OF_CELLS = frozenset({"td", "th", "dd", "li", "text", "h1"})


async def test_the_page_says_the_same_numbers_as_the_ledger(
    api: httpx.AsyncClient, change: str, ledger: Ledger
) -> None:
    page = await api.get(f"/changes/{change}/report", headers={"Accept": "text/html"})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    found = Cells()
    found.feed(page.text)
    rows, record = ledger.verdicts(change), ledger.change(change)
    for row in rows:
        decided = row.decision
        assert f"{row.at:%Y-%m-%d %H:%M:%S} UTC" in found.cells
        assert decided.reason in found.cells
        said = f"{decided.action.replace('_', ' ')}, {decided.verdict.replace('_', ' ')}"
        assert said in found.cells
    numbers = rows[-1].decision.readings[0].numbers
    assert ", ".join(f"{name} {value:g}" for name, value in sorted(numbers.items())) in found.cells
    bad, total = round(numbers["canary_bad"]), round(numbers["canary_total"])
    assert f"changed {100 * bad / total:.1f} % ({bad} of {total})" in found.cells
    others_bad, others = round(numbers["control_bad"]), round(numbers["control_total"])
    assert f"control {100 * others_bad / others:.1f} % ({others_bad} of {others})" in found.cells
    for kept in ledger.kept_snapshots("edge", change):
        assert {kept.digest, kept.gateway} <= {*found.cells}
    assert record.release_digest in found.cells
    assert record.ended is not None
    assert f"{record.ended:%Y-%m-%d %H:%M:%S} UTC" in found.cells
    times = [cell for cell in found.cells if cell.endswith(" UTC")]
    assert f"{AT + timedelta(seconds=184):%Y-%m-%d %H:%M:%S} UTC" in times
    assert f"{len(rows)} in the ledger" in found.cells
    events = ledger.events_of_change(change)
    assert all(any(cell.endswith(event.sentence) for cell in found.cells) for event in events)


async def test_markdown_and_html_have_the_same_times_and_counts(api: httpx.AsyncClient, change: str) -> None:
    answers = [
        (await api.get(f"/changes/{change}/report", params={"format": form})).text
        for form in ("html", "markdown")
    ]
    moments = [set(re.findall(r"2026-11-24 [0-9:]{8} UTC", answer)) for answer in answers]
    assert moments[0] == moments[1]
    assert all("11 of 150 bad (logins)" in answer for answer in answers)


async def test_a_promoted_change_has_a_report_without_a_fault(
    api: httpx.AsyncClient, penstock: CommandLine, ledger: Ledger
) -> None:
    name = opened(ledger)
    ledger.record_verdict(name, 1, verdict(Action.PROMOTE, 1, 150), AT)
    ledger.close_change(ChangeEnding(change=name, outcome=Outcome.PROMOTED, sentence="all waves passed"))
    found = (await api.get(f"/changes/{name}/report")).json()
    assert found["split"] is None
    shown = await penstock("report", name, "--markdown", "--write", "/dev/null")
    assert "0 users cut" in shown.out
    assert "fault" not in shown.out


async def test_where_a_daemon_failed_nobody_says_that_nobody_was_cut(
    penstock: CommandLine, change: str, ledger: Ledger
) -> None:
    failed = verdict(Action.CONTINUE, 0, 150).model_copy(update={"failed": ("edge-1",)})
    ledger.record_verdict(change, 1, failed, AT + timedelta(seconds=150))
    shown = (await penstock("report", change)).out
    assert "0 users cut" not in shown
    assert "not known: a daemon failed by itself" in shown


async def test_sessions_that_were_ended_or_lost_are_told(
    api: httpx.AsyncClient, penstock: CommandLine, change: str, ledger: Ledger
) -> None:
    body = {"sentence": "slot b: 3 sessions ended with their process"}
    about = f"edge-1/{change}"
    ledger.audit("penstock", "system", "sessions lost_crash", about, body, fleet="edge")
    ledger.audit("penstock", "system", "sessions lost_crash", f"{about}0", body, fleet="edge")
    found = (await api.get(f"/changes/{change}/report")).json()
    assert [one["sentence"] for one in found["users"]["losses"]] == [f"edge-1 {body['sentence']}"]
    shown = await penstock("report", change)
    assert "0 users cut" not in shown.out
    assert body["sentence"] in shown.out


def watched(change: str, ledger: Ledger) -> list[Tick]:
    """Have a window in the ledger whose logins fail from its 31st second on: two verdicts, every sample."""
    ticks = [counted(tick, (4, 0 if tick <= 30 else 3), (4, 0)) for tick in range(1, 50)]
    _, decisions = fold(policy(), ticks)
    end = next(number for number, one in enumerate(decisions) if one.action is Action.ROLL_BACK)
    for number, decision in enumerate(decisions[: end + 1]):
        at = datetime.fromtimestamp(ticks[number].at, UTC)
        samples = [
            Sample(at=at, wave=1, gate=one.gate, verdict=one.verdict, numbers=one.numbers)
            for one in decision.readings
        ]
        for _ in range(2):  # as often as its activity is repeated
            ledger.record_samples(change, 1, at, samples)
        if number in {0, end}:
            ledger.record_verdict(change, 1, decision, at)
    return ticks[: end + 1]


def back(ledger: Ledger, name: str, at: datetime) -> None:
    events = (Event(at=at, sentence="rolling back: logins"),)
    order = ChangeOrder(fleet="edge", kind=ChangeKind.UPGRADE, requested_by="ada", reason="x")
    ledger.record_story(order, Told(name=name, phase=Phase.ROLLING_BACK, events=events), 0, events)


async def test_samples_say_when_the_fault_began(api: httpx.AsyncClient, ledger: Ledger) -> None:
    name = opened(ledger)
    ticks = watched(name, ledger)
    back(ledger, name, datetime.fromtimestamp(ticks[-1].at, UTC))
    found = (await api.get(f"/changes/{name}/report")).json()
    assert found["sampled"] == "from the samples in the ledger"
    at = {step["moment"]: step["at"] for step in found["split"]["steps"]}
    assert datetime.fromisoformat(at["fault"]).timestamp() == START + 31
    assert at["enough evidence"] == at["decision"]
    assert len(found["samples"]) == len(ticks)


async def test_a_change_without_samples_is_told_by_its_verdicts(api: httpx.AsyncClient, change: str) -> None:
    found = (await api.get(f"/changes/{change}/report")).json()
    assert found["sampled"] == "from the verdicts in the ledger"


@pytest.mark.sweep
async def test_a_report_of_ten_thousand_gateways_names_the_exceptions_and_stays_small(
    api: httpx.AsyncClient, ledger: Ledger
) -> None:
    name = opened(ledger)
    why = "it is silent: nobody has answered for 20 seconds, whoever was asked and however often"
    for begin in range(0, 10_000, 500):
        ledger.record_gateways(
            name,
            [
                GatewayResult(gateway=f"gw-{number:05}", wave=1, state="kept", sentence=why, at=AT)
                for number in range(begin, begin + 500)
            ],
        )
    one = verdict(Action.CONTINUE, 3, 150)
    readings = tuple(one.readings[0].model_copy(update={"gate": f"gate-{number}"}) for number in range(14))
    for number in range(300):
        decision = one.model_copy(
            update={"readings": readings, "failed": tuple(f"gw-{n:05}" for n in range(200))}
        )
        ledger.record_verdict(name, 1 + number // 30, decision, AT + timedelta(seconds=15 * number))
    events = tuple(Event(at=AT, sentence=f"gw-{number:05} left out: {why}") for number in range(5_000))
    for gateway in range(300):
        ledger.record_snapshot(name, f"gw-{gateway:05}", digest_of(str(gateway).encode()))
    aside = {f"gw-{number:05}": why for number in range(4_000)}
    told = Told(name=name, phase=Phase.ENDED, aside=aside, counts={1: {"kept": 6_000}}, events=events[-200:])
    order = ChangeOrder(fleet="edge", kind=ChangeKind.UPGRADE, requested_by="ada", reason="x")
    ledger.record_story(order, told, 0, events)
    ledger.close_change(ChangeEnding(change=name, outcome=Outcome.PROMOTED, sentence="all waves passed"))
    page = (await api.get(f"/changes/{name}/report", params={"format": "html"})).text
    assert len(page.encode()) < 300_000
    assert "3980 more were left out" in page
    assert "4800 events in the middle are not shown" in page
    assert "260 decisions in the middle are not shown" in page
    assert "280 more snapshots are kept" in page
    assert len((await api.get(f"/changes/{name}/report")).content) < 600_000


def test_the_status_lists_every_gateway_of_which_the_change_itself_names_the_first(ledger: Ledger) -> None:
    name = opened(ledger)
    lost = {f"gw-{number:03}": "no route to host" for number in range(120)}
    out = {f"gw-{number:03}": "in quarantine by ben: no power" for number in range(200, 290)}
    for gateway, why in lost.items():
        ledger.set_quarantine(
            Quarantine(fleet="edge", gateway=gateway, reason=why, person=PENSTOCK, since=AT)
        )
    rows = [
        GatewayResult(gateway=one, wave=1, state=LEFT_OUT, sentence=why, at=AT) for one, why in out.items()
    ]
    ledger.record_gateways(name, rows)
    first = dict(sorted(lost.items())[:SHOWN])
    told = Told(
        name=name,
        phase=Phase.ROLLING_BACK,
        not_back=first,
        more_not_back=len(lost) - SHOWN,
        aside=dict(sorted(out.items())[:SHOWN]),
        counts={1: {LEFT_OUT: len(out)}},
    )
    order = ChangeOrder(fleet="edge", kind=ChangeKind.UPGRADE, requested_by="ada", reason="x")
    ledger.record_story(order, told, 0, ())
    status = told_of(ledger, ledger.change(name))
    assert (status.waits_for, status.not_back) == (tuple(lost), len(lost))
    assert status.incomplete == tuple(f"{gateway}: {why}" for gateway, why in lost.items())
    assert (status.aside, status.more_aside) == (out, 0)


def caller(*roles: Role, fleet: str = "edge") -> Caller:
    return Caller(person="ada", grants={fleet: frozenset(roles)}, via=Via.API)


async def test_whoever_may_only_look_writes_nothing_down_and_strangers_hear_of_no_change(
    service: Service, change: str, ledger: Ledger
) -> None:
    viewer, stranger, operator = caller(Role.VIEWER), caller(Role.ADMIN, fleet="core"), caller(Role.OPERATOR)
    assert (await service.reports.report(viewer, change)).record.name == change
    with pytest.raises(NotAllowed):
        await service.reports.write_cause(viewer, change, "a guess")
    for asked in (
        service.reports.report(stranger, change),
        service.reports.finish_follow_up(stranger, change, 1),
    ):
        with pytest.raises(Unknown):
            await asked
    due = date(2030, 1, 1)
    await service.reports.add_follow_up(operator, change, "look at it", "ben", due, "key")
    assert await service.reports.follow_ups(stranger) == ()
    assert [one.owner for one in await service.reports.follow_ups(viewer)] == ["ben"]
    actions = [entry.action for entry in ledger.audit_entries() if entry.person == "ada"]
    assert actions[-2:] == ["follow-up to be written down", "follow-up written down"]


async def test_a_report_of_no_change_is_refused_with_what_there_is(api: httpx.AsyncClient) -> None:
    answered = await api.get("/changes/edge-99/report")
    assert answered.status_code == 404
    assert answered.json()["code"] == "Unknown"


async def test_what_was_left_by_a_killed_process_is_written_over_and_swept(
    service: Service, change: str, tmp_path: Path
) -> None:
    folder = tmp_path / "reports"
    folder.mkdir()
    left = folder / f".{change}.html.abcd"
    left.write_text("<!doct")
    os.utime(left, (0, 0))
    both = await asyncio.gather(write_missing(service, folder), write_missing(service, folder))
    assert change in {name for names in both for name in names}
    assert sorted(path.name for path in folder.iterdir()) == [f"{change}.html", f"{change}.md"]
    assert (folder / f"{change}.html").read_text().endswith("</html>\n")
