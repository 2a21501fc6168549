"""What terminal and page say of a fleet's status: a few by name, the others counted, and where all are."""

import io
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from activities.undecided_harm import UndecidedHarm
from orchestrator.cli.following import code_of_fleet
from orchestrator.cli.output import console
from orchestrator.cli.screens import fitted_frame, fleet_frame
from orchestrator.exit_code import ExitCode
from orchestrator.page.render import ENVIRONMENT, part
from orchestrator.page.runbooks import named_only
from orchestrator.service.glances import ChangeGlance
from orchestrator.service.service import FleetStatus
from orchestrator.service.standing import Standing
from orchestrator.words.standing import (
    change_notices,
    glance_notices,
    is_quiet,
    left_out_lines,
    missing_lines,
    named_missing,
)
from orchestrator.words.times import moment
from policies.harm_asked import answers_to_harm, hold_of_harm
from policies.model.change import Outcome, Phase
from policies.model.command import CommandKind, StoredCommand
from policies.model.desired import Pin
from policies.model.report import GatewayProgress
from policies.model.status import ChangeStatus, Event
from policies.model.value import digest_of
from policies.rebuilding import what_is_ahead

AT = datetime(2026, 11, 28, 23, 6, tzinfo=UTC)

SESSIONS, STATUS = "penstock sessions edge", "penstock status edge -o json"
MANY = {f"gw-{number:04}": "no agent answers" for number in range(1_000)}


def told(**more: Any) -> ChangeStatus:
    said = {
        "rollout": "edge-5",
        "fleet": "edge",
        "release": "",
        "version": "1.3.0",
        "phase": Phase.ROLLING_BACK,
        "what": "rolling back",
        "users": "nobody",
        "why": "so it is",
        "next": "the end",
        "can_do": (),
    }
    return ChangeStatus.model_validate(said | more)


def status(**more: object) -> FleetStatus:
    standing = {
        "fleet": "edge",
        "versions": (),
        "taking": 0,
        "gateways": 1_000,
        "heard": 0,
        "looked_at": None,
    }
    return FleetStatus(fleet="edge", standing=Standing.model_validate(standing | more), offers=())


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (
            {"silent": MANY, "silent_count": 1_000},
            "Silent gw-0000, gw-0001, gw-0002 and 997 more: no agent answers; all of them: " + SESSIONS,
        ),
        (
            {"silent": dict(list(MANY.items())[:50]), "silent_count": 1_000},
            "1000 gateways are silent, the first gw-0000: no agent answers; all of them: " + SESSIONS,
        ),
        (
            {"quarantined": MANY},
            "Quarantined gw-0000, gw-0001, gw-0002 and 997 more: no agent answers; all of them: " + STATUS,
        ),
        (
            {"held_drains": {f"gw-{n:02}/a": f"{n} sessions are left" for n in range(12)}},
            "12 drains wait, the first gw-00/a: 0 sessions are left; all of them: penstock drains edge",
        ),
    ],
)
def test_many_that_are_missing_make_one_line(found: dict[str, object], line: str) -> None:
    """Screens 16: ten lines of drains took the screen, and what had to be done was below its end."""
    said = status(**found).model_dump(mode="json")
    ((label, shown),) = missing_lines(said)
    assert label == "Needs you"
    assert shown.partition(". Runbook: ")[0] == line
    page = part("regions/told.html", status=said, change=None, runbooks=named_only)
    assert line in page


def test_an_order_that_no_worker_has_carried_out_is_on_every_screen(
    capsys: pytest.CaptureFixture[str],
) -> None:
    hold = StoredCommand(kind=CommandKind.HOLD, person="root", reason="users call", at=AT)
    found = status().model_copy(update={"change": told(), "stored": (hold,)}).model_dump(mode="json")
    console().print(fleet_frame(found))
    line = f"not yet carried out: hold by root at {moment(AT.isoformat())}: users call"
    assert f"STORED {line}" in " ".join(capsys.readouterr().out.split())
    page = part("regions/told.html", status=found, change=found["change"], runbooks=named_only)
    assert line in " ".join(page.split())


def test_a_few_that_are_missing_have_a_line_each() -> None:
    few = {name: MANY[name] for name in sorted(MANY)[:2]}
    said = status(silent=few, silent_count=2).model_dump(mode="json")
    assert [line.partition(". Runbook")[0] for _, line in missing_lines(said)] == [
        f"Silent {name}: {why}" for name, why in few.items()
    ]


def test_one_gateway_in_trouble_is_named_once() -> None:
    """Screens 14: one silent gateway filled three yellow boxes, and was told four times."""
    silent = {"silent": {"gw-2": "no agent answers"}, "silent_count": 1}
    quarantined = status(**silent, quarantined={"gw-2": "ana: its disk is full"}).model_dump(mode="json")
    assert [line for _, line in missing_lines(quarantined)] == [
        "Quarantined gw-2: ana: its disk is full; it does not answer. Runbook: gateway-unwell"
    ]
    change = told(
        needs_you="1 gateway is not back: gw-2: no agent answers", waits_for=("gw-2",), aside={"gw-2": "no"}
    )
    found = status(**silent, ejected={"gw-2": "no agent answers"})
    waits = found.model_copy(update={"change": change}).model_dump(mode="json")
    assert missing_lines(waits) == []
    assert left_out_lines(waits["change"], named_missing(waits)) == []


def test_a_gateway_that_penstock_ejected_by_itself_is_not_called_quarantined() -> None:
    """No operator had said so, and an operator who looked for who did found no one."""
    ejected = status(ejected={"gw-2": "it does not go back"}).model_dump(mode="json")
    assert [line for _, line in missing_lines(ejected)] == [
        "Ejected gw-2: it does not go back. Runbook: gateway-unwell"
    ]


def test_a_reason_is_shown_once_on_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    """Screens 16: one reason stood five times on one screen."""
    why = "connect-success: 6 of 8 bad on all changed gateways, 0 of 24 on those not yet changed"
    told_of = ("verdict", "rolling back", "rolled back")
    events = tuple(Event(at=AT, sentence=f"{what}: {why}") for what in told_of)
    pin = Pin(release=digest_of(b"1.3.0"), version="1.3.0", change="edge-5", by=None, at=AT, why=why)
    found = status().model_copy(update={"change": told(why=why, events=events), "pin": pin})
    console().print(fleet_frame(found.model_dump(mode="json")))
    assert " ".join(capsys.readouterr().out.split()).count(why) == 1


def test_a_fleet_of_ten_in_trouble_fits_a_terminal_with_what_needs_somebody_at_its_top() -> None:
    """Screens 16: it took 55 lines at 80 columns, `watch` cropped them, and drains were below the end."""
    gateways = tuple(
        GatewayProgress(gateway=f"gw-{n}", wave=1, state="back on known-good") for n in range(10)
    )
    events = tuple(Event(at=AT, sentence=f"gw-{n} is back on known-good") for n in range(20))
    drains = {
        f"gw-{n}/b": f"{n} of 40 sessions are left after the deadline, which may end 2" for n in range(12)
    }
    change = told(
        phase=Phase.ENDED,
        outcome=Outcome.ROLLBACK_INCOMPLETE,
        gateways=gateways,
        counts={"back on known-good": 10},
        events=events,
        needs_you="1 gateway is not back: gw-2: no agent answers in time (restore gateway)",
        waits_for=("gw-2",),
    )
    found = status(silent={"gw-2": "no agent answers"}, silent_count=1, held_drains=drains)
    shown = found.model_copy(update={"change": change}).model_dump(mode="json")
    terminal = Console(width=80, height=24, file=io.StringIO())
    lines = terminal.render_lines(fitted_frame(shown, terminal))
    assert len(lines) < 24
    top = "".join("".join(segment.text for segment in line) for line in lines[:4])
    assert "12 drains wait" in " ".join(top.split())


def glance(number: int, **change: object) -> dict[str, Any]:
    newest: dict[str, Any] = {"rollout": f"f{number}-1", "phase": "ended", "what": "promoted"}
    newest |= {"needs_you": None, "runbook": None} | change
    return {
        "fleet": f"f{number}",
        "versions": ["1.3.0"],
        "taking": 4,
        "heard": 4,
        "looked_at": None,
        "gateways": 4,
        "silent": 0,
        "quarantined": 0,
        "ejected": 0,
        "held_drains": 0,
        "not_taken_back": 0,
        "concern": None,
        "change": newest if change.get("phase", "ended") else None,
    }


@pytest.mark.parametrize(
    ("missing", "line"),
    [
        ({"silent": 1}, "1 gateway does not answer. Runbook: agent-silent"),
        ({"quarantined": 2}, "2 gateways are quarantined. Runbook: gateway-unwell"),
        ({"ejected": 1}, "1 gateway is ejected. Runbook: gateway-unwell"),
        ({"held_drains": 4}, "4 drains wait for an operator. Runbook: drain-past-deadline"),
        (
            {"not_taken_back": 1},
            "1 gateway failed alone and is not taken back. Runbook: gateway-unwell",
        ),
    ],
)
def test_a_fleet_with_gateways_or_drains_that_wait_is_never_among_those_that_need_nobody(
    missing: dict[str, int], line: str
) -> None:
    """Screens 2: the list said that the fleet needs nobody, beside four lines of trouble on its page."""
    row = glance(1) | missing
    assert not is_quiet(row)
    assert glance_notices(row) == [("Needs you", line)]


def test_a_host_that_may_lie_is_named_with_what_helps_and_hides_nothing_of_the_newest_change() -> None:
    """It was called a ledger that is older, to be rebuilt, which was refused."""
    ahead = what_is_ahead("edge", {"gw-4": 10**10 - 1}, 7, 4)
    assert ahead is not None
    said = (
        "gw-4 was last steered by edge-9999999999, and there can be no change of that number; check who "
        "controls its host; no upgrade takes it along: penstock gateway quarantine edge gw-4 --reason TEXT"
    )
    row = glance(1) | {"ahead": ahead.model_dump(mode="json")}
    assert glance_notices(row) == [("Needs you", f"{said}. Runbook: ledger-restore")]
    asked = status(ahead=ahead).model_dump(mode="json")
    assert missing_lines(asked)[0][1].startswith(said)
    change = {"outcome": Outcome.ROLLED_BACK, "phase": Phase.ENDED, "needs_you": None}
    assert change_notices(change) == []


@pytest.mark.parametrize("phase", [Phase.ENDED, Phase.OBSERVING, Phase.ROLLING_BACK])
def test_harm_after_a_promotion_is_on_every_screen_until_it_is_decided_about(phase: Phase) -> None:
    """No screen named it, or none did while a change of other gateways rolled back."""
    row = glance(1, phase=phase) | {"harm": [HARM.model_dump(mode="json")]}
    change = told(phase=phase, outcome=Outcome.PROMOTED if phase is Phase.ENDED else None)
    asked = status(harm=(HARM,)).model_copy(update={"change": change}).model_dump(mode="json")
    line = (
        "harm was measured after edge-2 was promoted, and no operator has decided about it: 9 of 10 logins "
        "fail: penstock rollback edge --reason TEXT | "
        "penstock resume edge --hold-of edge-2.harm-7 --reason TEXT. Runbook: held-decide"
    )
    shown = [("Needs you", line)]
    assert (glance_notices(row), missing_lines(asked)) == (shown, shown)
    assert is_quiet(row) is False


HARM = UndecidedHarm(
    change="edge-2",
    hold_of=hold_of_harm("edge-2", 7),
    harm="9 of 10 logins fail",
    sentence="harm was measured after edge-2 was promoted, and no operator has decided about it: 9 of 10 "
    "logins fail",
    next=answers_to_harm("edge", "edge-2", 7),
)
SILENT: dict[str, Any] = {"silent": {"gw-2": "no agent answers"}, "silent_count": 1}
NEEDS: dict[str, Any] = {
    "a file that is wrong": {"fault": "fleet.yaml, line 3: no"},
    "no engine": {"concern": "the engine cannot be reached"},
    "a silent gateway": {"standing": status(**SILENT).standing},
    "a gateway in quarantine": {"standing": status(quarantined={"gw-2": "ana: its disk"}).standing},
    "a drain": {"standing": status(held_drains={"gw-2/a": "2 sessions are left"}).standing},
    "harm after a promotion": {"standing": status(harm=(HARM,)).standing},
    "one not taken back": {"standing": status(not_taken_back={"gw-2": "no route"}).standing},
    "a host that may lie": {
        "standing": status(ahead=what_is_ahead("edge", {"gw-4": 10**10 - 1}, 7, 4)).standing
    },
    "the change itself": {},
}
ENDS: dict[str, tuple[dict[str, Any] | None, ExitCode]] = {
    "no change": (None, ExitCode.DONE),
    "observing": ({"phase": Phase.OBSERVING}, ExitCode.DONE),
    "promoted": ({"phase": Phase.ENDED, "outcome": Outcome.PROMOTED}, ExitCode.DONE),
    "rolled back": ({"phase": Phase.ENDED, "outcome": Outcome.ROLLED_BACK}, ExitCode.ROLLED_BACK),
    "refused": ({"phase": Phase.ENDED, "outcome": Outcome.REFUSED}, ExitCode.REFUSED),
    "incomplete": (
        {"phase": Phase.ROLLING_BACK, "outcome": Outcome.ROLLBACK_INCOMPLETE},
        ExitCode.ROLLBACK_INCOMPLETE,
    ),
}


@pytest.mark.parametrize("needs", NEEDS)
@pytest.mark.parametrize("ends", ENDS)
def test_a_status_that_needs_an_operator_ends_with_6_but_where_a_rollback_is_incomplete(
    needs: str, ends: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fresh reader's H1: the screen said NEEDS YOU, and the command ended with 0 or 3."""
    facts, well = ENDS[ends]
    more = {} if NEEDS[needs] else {"needs_you": "1 gateway refuses"}
    change = told(**facts, **more) if facts is not None else None
    before = status().model_copy(update={"change": told(**facts) if facts is not None else None})
    found = before.model_copy(update={"change": change, **NEEDS[needs]})
    console().print(fleet_frame(found.model_dump(mode="json")))
    needed = "NEEDS YOU" in capsys.readouterr().out
    assert needed is (bool(NEEDS[needs]) or change is not None)
    assert code_of_fleet(before.model_dump(mode="json")) is well
    held = needed and well is not ExitCode.ROLLBACK_INCOMPLETE
    assert code_of_fleet(found.model_dump(mode="json")) is (ExitCode.HELD if held else well)


@pytest.mark.parametrize("page", ["rollback-incomplete", "metrics-blind"])
def test_the_list_of_fleets_names_the_same_runbook_as_a_fleet_s_own_page(page: str) -> None:
    """Screens 3: the list lacked what decides on the runbook, and always named held-decide."""
    row = glance(1, phase="held", needs_you="why", runbook=page)
    assert "runbook" in ChangeGlance.model_fields
    assert glance_notices(row) == change_notices(row["change"]) == [("Needs you", f"why. Runbook: {page}")]


@pytest.mark.parametrize(("fleets", "folded"), [(20, False), (21, True)])
def test_many_fleets_that_need_nobody_are_counted_and_folded_away(fleets: int, folded: bool) -> None:
    urgent = glance(998, needs_you="a vote")
    rows = [urgent, glance(999, phase="observing"), *(glance(number) for number in range(fleets))]
    page = ENVIRONMENT.get_template("fleets.html").render(
        rows=rows, shared=[], caller=None, csrf="", runbooks=named_only
    )
    open_part, _, quiet = page.partition("<details")
    assert quiet.startswith(' class="card">') is folded
    assert f"{fleets} fleets need nobody" in quiet
    assert "f998" in open_part
    assert "a vote" in open_part
    assert "f999" in open_part
    assert quiet.count("4 of 4 gateways take users") == fleets
