"""What terminal and page say of a fleet's status: a few by name, the others counted, and where all are."""

from typing import Any

import pytest

from orchestrator.page.render import ENVIRONMENT, part
from orchestrator.page.runbooks import named_only
from orchestrator.service.service import FleetStatus
from orchestrator.service.standing import Standing
from orchestrator.words.standing import (
    SHOWN,
    change_notices,
    glance_notices,
    is_quiet,
    missing_lines,
)

MANY = {f"gw-{number:04}": "no agent answers" for number in range(1_000)}


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
    ("found", "more"),
    [
        ({"silent": MANY, "silent_count": 1_000}, "990 more are silent; all of them: penstock sessions edge"),
        ({"quarantined": MANY}, "990 more are quarantined; all of them: penstock status edge -o json"),
        ({"held_drains": MANY}, "990 more drains wait; all of them: penstock drains edge"),
    ],
)
def test_of_a_thousand_that_are_missing_few_are_named_and_the_others_counted(
    found: dict[str, object], more: str
) -> None:
    said = status(**found).model_dump(mode="json")
    lines = missing_lines(said)
    assert len(lines) == SHOWN + 1
    assert lines[-1][1] == more
    page = part("regions/told.html", status=said, change=None, runbooks=named_only)
    assert page.count("no agent answers") == SHOWN
    assert more in page


def test_what_is_shown_whole_is_not_counted_too() -> None:
    few = {name: MANY[name] for name in sorted(MANY)[:SHOWN]}
    said = status(silent=few, silent_count=SHOWN).model_dump(mode="json")
    assert len(missing_lines(said)) == SHOWN


def glance(number: int, **change: object) -> dict[str, Any]:
    newest = {"rollout": f"f{number}-1", "phase": "ended", "what": "promoted", "needs_you": None} | change
    return {
        "fleet": f"f{number}",
        "versions": ["1.3.0"],
        "taking": 4,
        "heard": 4,
        "looked_at": None,
        "gateways": 4,
        "silent": 0,
        "quarantined": 0,
        "held_drains": 0,
        "concern": None,
        "change": newest if change.get("phase", "ended") else None,
    }


@pytest.mark.parametrize(
    ("missing", "line"),
    [
        ({"silent": 1}, "1 gateway does not answer. Runbook: agent-silent"),
        ({"quarantined": 2}, "2 gateways are quarantined. Runbook: gateway-unwell"),
        ({"held_drains": 4}, "4 drains wait for an operator. Runbook: drain-past-deadline"),
    ],
)
def test_a_fleet_with_gateways_or_drains_that_wait_is_never_among_those_that_need_nobody(
    missing: dict[str, int], line: str
) -> None:
    """Screens 2: the list said that the fleet needs nobody, beside four lines of trouble on its page."""
    row = glance(1) | missing
    assert not is_quiet(row)
    assert glance_notices(row) == [("Needs you", line)]


@pytest.mark.parametrize(
    ("change", "page"),
    [
        ({"incomplete": ["gw-1: silent"]}, "rollback-incomplete"),
        ({"confirm": "f1-1"}, "rollback-waits"),
        ({"decision": {"verdict": "metrics_unavailable", "readings": []}}, "metrics-blind"),
        ({}, "held-decide"),
    ],
)
def test_the_list_of_fleets_names_the_same_runbook_as_a_fleet_s_own_page(
    change: dict[str, object], page: str
) -> None:
    """Screens 3: the list lacked what decides on the runbook, and always named held-decide."""
    row = glance(1, phase="held", needs_you="why", **change)
    assert glance_notices(row) == change_notices(row["change"]) == [("Needs you", f"why. Runbook: {page}")]


@pytest.mark.parametrize(("fleets", "folded"), [(20, False), (21, True)])
def test_many_fleets_that_need_nobody_are_counted_and_folded_away(fleets: int, folded: bool) -> None:
    urgent = glance(998, needs_you="a vote")
    rows = [urgent, glance(999, phase="observing"), *(glance(number) for number in range(fleets))]
    page = ENVIRONMENT.get_template("fleets.html").render(
        rows=rows, caller=None, csrf="", runbooks=named_only
    )
    open_part, _, quiet = page.partition("<details")
    assert quiet.startswith(' class="card">') is folded
    assert f"{fleets} fleets need nobody" in quiet
    assert "f998" in open_part
    assert "a vote" in open_part
    assert "f999" in open_part
    assert quiet.count("4 of 4 gateways take users") == fleets
