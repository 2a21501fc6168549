"""Windows and freezes as people meet them: one sentence everywhere, refusals, and overrides."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.service.changes import ChangeService
from policies.model.change import ChangeKind, ChangeOpening
from policies.model.plan import Plan, ReleaseRef
from tests.service.test_applied_upgrades import applied, post, serving  # noqa: F401 - fixtures
from tests.service.test_approvals import (  # noqa: F401 - fixtures
    ANNA,
    CAROL,
    DORA,
    STRANGER,
    House,
    Releases,
    approve,
    house,
    place,
    releases,
)

FAR = (datetime.now(UTC) + timedelta(days=150)).month
CLOSED = f"""\
windows:
  - {{name: night, tz: Europe/Berlin, rrule: "FREQ=YEARLY;BYMONTH={FAR};BYMONTHDAY=1", start: "02:00",
     duration: 4h}}
"""
OPEN = """\
windows:
  - {name: all, tz: Europe/Berlin, rrule: FREQ=DAILY, start: "00:00", duration: 24h}
"""
WHY = "the patch of the night"
FREEZE = {
    "name": "black-friday",
    "begins": "2020-01-01T00:00",
    "ends": "2090-01-01T00:00",
    "tz": "Europe/Berlin",
    "reason": "nobody is at work",
}


def declare(house: House, text: str, approvals: int = 0) -> None:  # noqa: F811
    house.write_fleet(approvals=approvals)
    with (house.folder / "fleet.yaml").open("a") as file:
        file.write(text)


@pytest.fixture
def begun(serving: House, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:  # noqa: F811
    """With what terms an engine was asked to begin changes."""
    found: list[dict[str, Any]] = []

    async def start(_: object, plan: Plan, __: str, person: str, reason: str, **more: Any) -> str:
        found.append(more)
        serving.ledger.record_plan(plan, person)
        opening = ChangeOpening(
            key=more["key"],
            plan=plan.digest,
            fleet=plan.fleet.name,
            kind=ChangeKind.UPGRADE,
            requested_by=person,
            reason=reason,
            release=plan.release.version,
            release_digest=plan.release.digest,
        )
        return serving.ledger.open_change(opening)

    monkeypatch.setattr(ChangeService, "start", start)
    return found


async def start(at: House, release: ReleaseRef, key: str, **more: Any) -> tuple[int, Any]:
    body = {"fleet": "edge", "to": release.digest, "reason": WHY, **more}
    return await at.by(DORA)("POST", "/changes", body, key)


async def test_the_plan_the_refusal_and_the_check_say_one_sentence(
    serving: House,  # noqa: F811
    releases: Releases,  # noqa: F811
    begun: list[dict[str, Any]],
) -> None:
    declare(serving, CLOSED)
    status, checked = await serving.by(DORA)("GET", "/fleets/edge/windows/check", None)
    assert (status, checked["open"]) == (200, False), checked
    sentence = checked["sentence"].rpartition(", in ")[0]
    assert sentence.startswith("closed: next opening ")
    assert "02:00 Europe/Berlin (0" in sentence
    asked = {"fleet": "edge", "to": releases[1].digest}
    status, plan = await serving.by(DORA)("POST", "/plans", asked)
    assert (status, plan["window"].rpartition(", in ")[0]) == (200, sentence), plan
    assert any(one.startswith("Waves start only in night (FREQ=YEARLY") for one in plan["sentences"])
    assert any("Time zones as of 20" in one for one in plan["sentences"])
    status, refused = await start(serving, releases[1], "one")
    assert (status, refused["code"], refused["exit_code"]) == (422, "Refused", 5), refused
    assert refused["detail"].startswith(f"edge is {sentence}")
    assert refused["detail"].endswith("have it wait for that: --at window")
    assert begun == []


async def test_a_start_at_its_window_is_begun_and_waits_there(
    serving: House,  # noqa: F811
    releases: Releases,  # noqa: F811
    begun: list[dict[str, Any]],
) -> None:
    declare(serving, CLOSED)
    status, started = await start(serving, releases[1], "one", in_window=True)
    assert (status, started["change"]) == (202, "edge-2"), started
    assert begun[0]["start_by"] is None
    assert begun[0]["override"] is None
    _, checked = await serving.by(DORA)("GET", "/fleets/edge/windows/check", None)
    opens = checked["sentence"].rpartition(", in ")[0].removeprefix("closed: next opening ")
    assert started["waits"].rpartition(", in ")[0] == f"waiting for its window: opens {opens}"


async def test_what_people_approved_for_one_opening_is_to_begin_in_it(
    serving: House,  # noqa: F811
    releases: Releases,  # noqa: F811
    begun: list[dict[str, Any]],
) -> None:
    declare(serving, CLOSED, approvals=1)
    _, plan = await serving.by(DORA)("POST", "/plans", {"fleet": "edge", "to": releases[1].digest})
    status, refused = await start(serving, releases[1], "one", in_window=True)
    assert (status, refused["code"]) == (422, "ApprovalRequired"), refused
    assert (await approve(serving, CAROL, plan["digest"]))[0] == 201
    status, started = await start(serving, releases[1], "two", in_window=True)
    assert status == 202, started
    by = begun[0]["start_by"]
    assert by.hour in {4, 5}  # 06:00 in Berlin
    assert by > datetime.now(UTC)


async def test_inside_a_window_an_upgrade_starts_as_it_always_did(
    serving: House,  # noqa: F811
    releases: Releases,  # noqa: F811
    begun: list[dict[str, Any]],
) -> None:
    declare(serving, OPEN)
    status, started = await start(serving, releases[1], "one", in_window=True)
    assert (status, started["waits"]) == (202, None), started
    assert len(begun) == 1


async def test_an_override_takes_a_ticket_and_one_person_more_than_the_plan(
    serving: House,  # noqa: F811
    releases: Releases,  # noqa: F811
    begun: list[dict[str, Any]],
) -> None:
    declare(serving, CLOSED, approvals=1)
    _, plan = await serving.by(DORA)("POST", "/plans", {"fleet": "edge", "to": releases[1].digest})
    assert (await approve(serving, CAROL, plan["digest"]))[0] == 201
    status, refused = await start(serving, releases[1], "one", overrides_windows="INC-7")
    assert (status, refused["code"]) == (422, "ApprovalRequired"), refused
    assert "overriding windows and freezes takes one person more than the plan" in refused["detail"]
    assert (await approve(serving, ANNA, plan["digest"]))[0] == 201
    status, started = await start(serving, releases[1], "two", overrides_windows="INC-7")
    assert status == 202, started
    override = begun[0]["override"]
    assert override.sentence == (f"PATCH WINDOWS OVERRIDDEN by dora (approved by anna, carol), INC-7: {WHY}")
    entries = [row for row in serving.ledger.each_audit_row() if row["action"] == "upgrade asked for"]
    assert '"overrides_windows":"INC-7"' in entries[-1]["body"]


async def test_nobody_is_the_second_person_of_their_own_override(
    serving: House,  # noqa: F811
    releases: Releases,  # noqa: F811
    begun: list[dict[str, Any]],
) -> None:
    declare(serving, CLOSED)
    _, plan = await serving.by(ANNA)("POST", "/plans", {"fleet": "edge", "to": releases[1].digest})
    assert (await approve(serving, ANNA, plan["digest"]))[0] == 201
    body = {"fleet": "edge", "to": releases[1].digest, "reason": WHY, "overrides_windows": "INC-7"}
    status, refused = await serving.by(ANNA)("POST", "/changes", body, "one")
    assert (status, refused["code"]) == (422, "ApprovalRequired"), refused
    assert begun == []


@pytest.mark.sweep
async def test_a_freeze_that_somebody_adds_closes_the_fleet_until_it_is_removed_with_a_reason(
    serving: House,  # noqa: F811
    releases: Releases,  # noqa: F811
    begun: list[dict[str, Any]],
) -> None:
    ask = serving.by(DORA)
    status, added = await ask("POST", "/fleets/edge/windows/freezes", FREEZE, "f")
    assert (status, added["person"]) == (201, "dora"), added
    status, again = await ask("POST", "/fleets/edge/windows/freezes", FREEZE, "g")
    assert status == 201, again
    status, refused = await start(serving, releases[1], "one")
    assert (status, refused["exit_code"]) == (422, 5), refused
    assert refused["detail"].startswith(
        "edge is closed by the freeze black-friday: nothing opens within 400 days"
    )
    _, shown = await ask("GET", "/fleets/edge/windows", None)
    assert [(one["name"], one["person"], one["reason"]) for one in shown["freezes"]] == [
        ("black-friday", "dora", "nobody is at work")
    ]
    where = "/fleets/edge/windows/freezes/black-friday/remove"
    assert (await ask("POST", where, {}, "h"))[0] in {400, 422}
    status, refused = await serving.by(CAROL)("POST", where, {"reason": "over"}, "i")
    assert status == 403, refused
    assert (await ask("POST", where, {"reason": "over"}, "j"))[0] == 200
    assert (await start(serving, releases[1], "two"))[0] == 202
    actions = [row["action"] for row in serving.ledger.each_audit_row()]
    assert {"freeze added", "freeze removed", "freeze asked for"} <= set(actions)
    assert actions.count("freeze added") == 1


async def test_a_stranger_hears_nothing_of_windows(serving: House) -> None:  # noqa: F811
    assert (await serving.by(STRANGER)("GET", "/fleets/edge/windows", None))[0] in {401, 403, 404}


@pytest.mark.parametrize("calendar", ["<html>", "BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n", "\x01"])
async def test_a_calendar_that_is_none_freezes_nothing_and_is_refused_in_a_sentence(
    serving: House,  # noqa: F811
    calendar: str,
) -> None:
    body = {"name": "finance", "calendar": calendar, "tz": "UTC", "reason": "their close"}
    status, refused = await serving.by(DORA)("POST", "/fleets/edge/windows/freezes/import", body, "a")
    assert (status, refused["code"]) == (400, "BadInput"), refused
    assert refused["detail"].startswith("finance.ics")
    assert serving.ledger.freezes("edge") == ()


async def test_the_calendar_beside_the_fleets_file_freezes_and_nothing_starts_while_it_cannot_be_read(
    serving: House,  # noqa: F811
    releases: Releases,  # noqa: F811
    begun: list[dict[str, Any]],
) -> None:
    declare(serving, "freezes:\n  - {name: finance, ics: finance.ics, tz: UTC}\n")
    status, refused = await start(serving, releases[1], "one")
    assert (status, refused["exit_code"]) == (422, 5), refused
    assert "finance.ics cannot be read: No such file or directory; put the file there" in refused["detail"]
    now = datetime.now(UTC)
    span = (
        f"DTSTART:{now - timedelta(days=1):%Y%m%dT%H%M%SZ}\r\nDTEND:{now + timedelta(days=2):%Y%m%dT%H%M%SZ}"
    )
    (serving.folder / "finance.ics").write_text(
        "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:x\r\nBEGIN:VEVENT\r\nUID:1\r\n"
        f"{span}\r\nSUMMARY:year's end\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
    )
    _, refused = await start(serving, releases[1], "two")
    assert refused["detail"].startswith("edge is closed by the freeze finance: year's end: next opening")
    assert begun == []


async def test_a_file_that_asks_for_the_window_waits_for_it(
    serving: House,  # noqa: F811
    releases: Releases,  # noqa: F811
    begun: list[dict[str, Any]],
) -> None:
    declare(serving, CLOSED)
    status, refused = await post(serving, applied(releases[1]), "one")
    assert (status, refused["exit_code"]) == (422, 5), refused
    status, found = await post(serving, applied(releases[1], start="in-window"), "two")
    assert (status, found["started"]) == (200, True), found
    assert found["waits"].startswith("waiting for its window: opens ")
    assert len(begun) == 1
