"""Drills over HTTP, on the command line and on the page: who may, what is kept, and how it is shown."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from axe_playwright_python.async_playwright import Axe

from orchestrator.service.drills import MOST_DRAWN
from orchestrator.store.ledger import Ledger
from policies.drills import DRILLS
from policies.model.drill import DrillReport
from policies.model.people import Role
from tests.service.command_line import CommandLine
from tests.service.test_page_markup import ALL, HOSTILE, SEEN, Watched, chromium, place, watched

__all__ = ["chromium", "place", "watched"]

BEGAN = datetime(2026, 11, 1, 2, 0, tzinfo=UTC)
KEYS = iter(range(10**6))


def result(name: str = "crash", **changed: Any) -> dict[str, Any]:
    """Return what the lab writes of a drill."""
    said: dict[str, Any] = {
        "name": name,
        "place": "lab",
        "began": BEGAN.isoformat(),
        "budget": DRILLS[name].budget.total_seconds(),
        "steps": [
            {"what": "decided", "seconds": 3.0},
            {"what": "read back: on known-good", "seconds": 12.5},
        ],
        "sessions_lost": 0,
        "failure": None,
    }
    return said | changed


def headers_of(ledger: Ledger, *roles: Role) -> dict[str, str]:
    name = f"robot-{next(KEYS)}"
    secret, _ = ledger.make_token(name, {"edge": frozenset(roles)}, timedelta(days=1), "root")
    return {"Authorization": f"Bearer {secret}"}


async def send(
    api: httpx.AsyncClient, body: Any, headers: dict[str, str] | None = None, key: str | None = None
) -> httpx.Response:
    keyed = {"Idempotency-Key": key or f"key-{next(KEYS)}"} | (headers or {})
    return await api.post("/drills", json=body, headers=keyed)


async def test_what_an_operator_records_every_reader_sees(api: httpx.AsyncClient, ledger: Ledger) -> None:
    made = await send(api, result(), headers_of(ledger, Role.OPERATOR))
    assert made.status_code == 201, made.text
    assert (made.json()["outcome"], made.json()["seconds"]) == ("passed", 12.5)
    seen = (await api.get("/drills", headers=headers_of(ledger, Role.VIEWER))).json()
    assert seen["runs"] == [made.json()]
    assert len(seen["drills"]) == len(DRILLS)
    assert {row["standing"] for row in seen["drills"]} == {"passed", "never"}
    assert seen["drills"][-1]["name"] == "crash"  # what was never rehearsed stands before it
    entries = [(entry.action, entry.subject) for entry in ledger.audit_entries() if "drill" in entry.action]
    assert entries == [("drill to be recorded", "crash"), ("drill recorded", "crash")]


@pytest.mark.parametrize("role", sorted({*Role} - {Role.OPERATOR, Role.ADMIN, Role.APPROVER}))
async def test_whoever_operates_no_fleet_records_nothing(
    role: Role, api: httpx.AsyncClient, ledger: Ledger
) -> None:
    refused = await send(api, result(), headers_of(ledger, role))
    assert refused.status_code == 403
    assert "that takes operator of a fleet" in refused.json()["detail"]
    assert ledger.drill_runs(None, 10) == ()
    assert ledger.audit_entries()[-1].action == "refused"


async def test_a_repeat_under_its_key_and_under_another_is_the_same_run(
    api: httpx.AsyncClient, ledger: Ledger
) -> None:
    operator = headers_of(ledger, Role.OPERATOR)
    answers = [await send(api, result(), operator, key) for key in ("one", "one", "two")]
    assert [answer.status_code for answer in answers] == [201] * 3
    assert answers[0].json() == answers[1].json() == answers[2].json()
    other = await send(api, result(sessions_lost=3), operator, "one")
    assert other.status_code == 422, "another request under the same key"
    changed = await send(api, result(sessions_lost=3), headers_of(ledger, Role.OPERATOR))
    assert changed.status_code == 409
    assert "a record stays as it is" in changed.json()["detail"]
    assert len(ledger.drill_runs(None, 10)) == 1


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (result(budget=3000.0), "here users have to be safe within 30 s"),
        (result() | {"name": "easy"}, "there is no drill easy"),
        (result(began=(datetime.now(UTC) + timedelta(hours=1)).isoformat()), "set the clock"),
        (result(passed=True), "passed"),
        (result(outcome="passed"), "outcome"),
        (result(steps=[{"what": "x", "seconds": -1.0}]), "steps.0.seconds"),
        (result(steps=[{"what": "x", "seconds": "NaN"}]), "steps.0.seconds"),
        (result(steps=[{"what": "x" * 201, "seconds": 1.0}]), "steps.0.what"),
        (result(steps=[{"what": "x", "seconds": 1.0}] * 51), "steps"),
        (result(place="<script>"), "place"),
        ([], "body"),
    ],
)
async def test_what_is_no_result_is_refused_and_changes_nothing(
    body: Any, sentence: str, api: httpx.AsyncClient, ledger: Ledger
) -> None:
    refused = await send(api, body, headers_of(ledger, Role.OPERATOR))
    assert refused.status_code in {404, 409, 422}, refused.text
    assert sentence in refused.json()["detail"]
    assert ledger.drill_runs(None, 10) == ()


async def test_runs_are_capped_and_can_be_those_of_one_drill(api: httpx.AsyncClient, ledger: Ledger) -> None:
    for day in range(4):
        recorded(ledger, result(began=(BEGAN + timedelta(days=day)).isoformat()))
    recorded(ledger, result("engine-killed"))
    two = (await api.get("/drills?limit=2")).json()["runs"]
    assert [run["report"]["began"][:10] for run in two] == ["2026-11-04", "2026-11-03"]
    one = (await api.get("/drills?drill=engine-killed")).json()["runs"]
    assert [run["report"]["name"] for run in one] == ["engine-killed"]
    for wrong in ("limit=0", "limit=201", "drill=%3Cb%3E"):
        assert (await api.get(f"/drills?{wrong}")).status_code == 422


def recorded(ledger: Ledger, said: dict[str, Any], person: str = "ada") -> None:
    ledger.record_drill(DrillReport.model_validate(said), person)


# --- the command line ----------------------------------------------------------------


async def test_a_result_in_a_file_is_recorded_once_and_in_the_history(
    penstock: CommandLine, ledger: Ledger, tmp_path: Path
) -> None:
    file = tmp_path / "crash.json"
    file.write_text(json.dumps(result() | {"passed": True}))
    for _ in range(2):
        ended = await penstock("drill", "record", str(file))
        assert (ended.code, ended.err) == (0, "")
        assert ended.out == "Recorded crash: passed: safe after 12.5 s of 30 s, 0 sessions lost\n"
    assert len(ledger.drill_runs(None, 10)) == 1
    shown = await penstock("drill", "history")
    assert "crash: passed: safe after 12.5 s of 30 s" in shown.out
    assert "bad-logins: never rehearsed: whether users are safe within 60 s is not known" in shown.out
    assert "2026-11-01 02:00:00 UTC" in shown.out
    said = json.loads((await penstock("drill", "history", "-o", "json")).out)
    assert (said["kind"], len(said["data"]["runs"])) == ("DrillHistory", 1)


@pytest.mark.parametrize("text", ["", "[1]", "{", "[" * 20_000, "x" * 70_000], ids=len)
async def test_what_is_no_result_is_not_sent(penstock: CommandLine, tmp_path: Path, text: str) -> None:
    file = tmp_path / "no.json"
    file.write_text(text)
    ended = await penstock("drill", "record", str(file))
    assert ended.code == 2
    assert "is no result of a drill; name a file that drill run --json has written" in ended.err
    assert "Traceback" not in ended.err
    missing = await penstock("drill", "record", str(tmp_path / "missing.json"))
    assert (missing.code, "cannot be read" in missing.err) == (2, True)


async def test_a_drill_that_there_is_not_leaves_no_result_and_says_so(
    penstock: CommandLine, ledger: Ledger, tmp_path: Path
) -> None:
    kept = tmp_path / "kept.json"
    kept.write_text("something else")
    ended = await penstock("drill", "run", "../nothing", "--record", "--json", str(kept))
    assert ended.code == 2
    assert "there is no drill '../nothing'" in ended.err
    assert "the drill left no result, and nothing is recorded" in ended.err
    assert kept.read_text() == "something else"
    assert ledger.drill_runs(None, 10) == ()


LAB = """\
import json, sys
open(sys.argv[sys.argv.index("--json") + 1], "w").write({text!r})
sys.exit({code})
"""


@pytest.mark.parametrize(("code", "seconds"), [(0, 12.5), (1, 40.0)])
async def test_the_drills_own_ending_is_the_commands_whether_it_could_be_recorded_or_not(
    penstock: CommandLine, ledger: Ledger, tmp_path: Path, code: int, seconds: float
) -> None:
    """A lab that only writes its result stands where the real one would take minutes."""
    lab = tmp_path / "other" / "deploy" / "lab"
    lab.mkdir(parents=True)
    for folder in (lab, lab.parent):
        (folder / "__init__.py").write_text('"""A lab that is none."""\n')
    said = json.dumps(result(steps=[{"what": "read back", "seconds": seconds}]))
    (lab / "drills.py").write_text(LAB.format(text=said, code=code))
    there = {
        "PYTHONPATH": f"{tmp_path / 'other'}:{penstock.environment['PYTHONPATH']}",
        "PYTHONSAFEPATH": "1",
    }
    kept = tmp_path / "kept.json"
    silent = await penstock(
        *("drill", "run", "crash", "--record", "--json", str(kept)),
        **there,
        PENSTOCK_SOCKET=str(tmp_path / "nobody.sock"),
    )
    assert silent.code == code, silent
    assert re.search(
        rf"^the drill is not recorded: no API answers at .*; later: penstock drill record {kept}$",
        silent.err,
        re.MULTILINE,
    )
    assert ledger.drill_runs(None, 10) == ()
    later = await penstock("drill", "record", str(kept))
    assert later.code == 0, later.err
    again = await penstock("drill", "run", "crash", "--record", **there)
    assert (again.code, again.err) == (code, "")
    assert again.out == "Recorded by root: penstock drill history\n"
    (run,) = ledger.drill_runs(None, 10)
    assert (run.outcome.value, run.seconds) == ("passed" if code == 0 else "over_budget", seconds)


# --- the page ------------------------------------------------------------------------


async def test_the_page_tells_what_was_never_rehearsed_and_what_needs_somebody_first(
    page: httpx.AsyncClient, ledger: Ledger
) -> None:
    text = (await page.get("/drills")).text
    assert text.count("never rehearsed: whether users are safe within") == len(DRILLS)
    assert "<svg" not in text
    recorded(ledger, result(), "bert")
    recorded(ledger, result("engine-killed", failure="Unavailable: it never came back"), "ada")
    recorded(ledger, result("disk-full", steps=[{"what": "read back", "seconds": 75.0}]))
    text = (await page.get("/drills")).text
    order = re.findall(r'<li class="card" id="([a-z-]+)">', text)
    assert (order[0], order[1], order[-1], len(order)) == ("engine-killed", "disk-full", "crash", len(DRILLS))
    assert (
        "failed: the last step after 12.5 s of 60 s, Unavailable: it never came back, 0 sessions lost" in text
    )
    assert "over budget: safe after 75.0 s of 60 s" in text
    assert "recorded by bert" in text
    assert text.count('<svg class="chart"') == 3
    assert '<a href="/drills">Drills</a> <a href="/doctor">' in text


@pytest.mark.sweep
async def test_of_hundreds_of_runs_the_page_stays_small_and_says_how_many_there_are(
    page: httpx.AsyncClient, ledger: Ledger
) -> None:
    for name in DRILLS:
        for day in range(MOST_DRAWN + 20):
            steps = [{"what": "a step of some length " * 4, "seconds": float(day)} for _ in range(10)]
            recorded(ledger, result(name, began=(BEGAN + timedelta(days=day)).isoformat(), steps=steps))
    answer = await page.get("/drills")
    assert f"The last 10 of {MOST_DRAWN + 20} runs of crash" in answer.text
    assert len(answer.content) < 300 * 1024


async def test_nothing_that_was_recorded_is_markup(watched: Watched, ledger: Ledger) -> None:
    texts = [text.replace("\x00", "")[:200] for text in HOSTILE.values()]
    steps = [{"what": text, "seconds": 1.0} for text in texts if text.strip()]
    failure = f"{SEEN[0]} {SEEN[1]} {ALL}".replace("\x00", "")[:500]
    recorded(ledger, result(steps=steps, failure=failure), person=ALL)
    recorded(ledger, result("engine-killed", steps=steps), person=HOSTILE["script"])
    await watched.page.goto(f"{watched.place}/drills")
    for opened in await watched.page.query_selector_all("summary"):
        await opened.click()
    await watched.fits()
    read = await watched.page.inner_text("main")
    assert SEEN[0] in read
    assert SEEN[1] in read
    assert not await watched.page.query_selector_all("iframe, base, #forged, main style, main script")
    assert watched.wrong == []


@pytest.mark.sweep
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_page_is_read_at_every_width_in_both_themes_and_by_a_screen_reader(
    watched: Watched, ledger: Ledger, scheme: Any, tmp_path: Path
) -> None:
    for day in range(20):
        seconds = [{"what": "read back", "seconds": 20.0 + day}]
        budget = 60.0 if day < 8 else 30.0
        began = (BEGAN + timedelta(days=day)).isoformat()
        why = "Unavailable: the rollout never said so" if day % 7 == 0 else None
        recorded(ledger, result(began=began, steps=seconds, budget=budget, failure=why))
    recorded(ledger, result("engine-killed"))
    recorded(ledger, result("disk-full", steps=[], failure="Unavailable: nobody was told"))
    await watched.page.emulate_media(color_scheme=scheme)
    await watched.page.goto(f"{watched.place}/drills")
    for folded in (True, False):
        for width in (1280, 390):
            await watched.page.set_viewport_size({"width": width, "height": 844})
            await watched.fits()
            await watched.page.screenshot(path=tmp_path / f"{width}-{folded}.png", full_page=True)
        found = (await Axe().run(watched.page)).response["violations"]
        assert found == [], [(one["id"], one["nodes"][0]["html"]) for one in found]
        for opened in await watched.page.query_selector_all("summary") if folded else []:
            await opened.click()
    assert watched.wrong == []
