"""What people see of a change: its sentences whole and unread as markup, and every event once."""

from datetime import UTC, datetime
from typing import Any

import pytest

from orchestrator.cli.output import console
from orchestrator.cli.screens import change_frame, fleet_frame
from orchestrator.service.service import FleetStatus
from orchestrator.service.standing import Standing
from orchestrator.words.changes import KINDS
from orchestrator.words.offers import all_spelled
from orchestrator.words.times import moment
from policies.model.change import ChangeKind, Outcome, Phase
from policies.model.offer import Offer, Verb
from policies.model.report import GatewayProgress
from policies.model.status import ChangeStatus, Event

BEGAN = datetime(2026, 11, 20, 3, 0, tzinfo=UTC)
MARKUP = "fix [/etc/ocserv] [red]path[/red]"


def status(**more: Any) -> ChangeStatus:
    told = {
        "rollout": "edge-2",
        "fleet": "edge",
        "release": "",
        "version": "1.3.0",
        "phase": Phase.OBSERVING,
        "what": "wave 1 of 2",
        "users": "1 of 4 gateways",
        "why": "so it is",
        "next": "the next wave",
        "can_do": (Offer(verb=Verb.HOLD, fleet="lab"),),
    }
    return ChangeStatus.model_validate(told | more)


def shown(capsys: pytest.CaptureFixture[str], **more: Any) -> str:
    told = status(**more).model_dump(mode="json")
    console().print(change_frame(told, all_spelled(told["can_do"])))
    return capsys.readouterr().out


def fleet_shown(capsys: pytest.CaptureFixture[str], fleet: FleetStatus) -> str:
    console().print(fleet_frame(fleet.model_dump(mode="json")))
    return " ".join(capsys.readouterr().out.split())


def test_what_people_wrote_is_shown_letter_by_letter(capsys: pytest.CaptureFixture[str]) -> None:
    """M5: a reason in square brackets made `penstock status` a traceback, and ESC reached other terminals."""
    events = (Event(at=BEGAN, sentence=f"ana: {MARKUP}"),)
    gateways = (GatewayProgress(gateway="gw-1", wave=1, state=MARKUP),)
    why = "[red]so[/red]"
    said = shown(capsys, why=why, needs_you=MARKUP, aside={"gw-3": MARKUP}, events=events, gateways=gateways)
    assert said.count(MARKUP) == 4
    assert why in said


def test_what_waits_for_a_person_stands_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert "NEEDS YOU  held by ana: lunch" in shown(capsys, needs_you="held by ana: lunch")
    assert "NEEDS YOU" not in shown(capsys)


def test_gateways_that_were_left_out_are_named_with_why_and_many_are_counted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "gw-3: it rebooted" in shown(capsys, aside={"gw-3": "it rebooted"})
    said = shown(capsys, aside={f"gw-{n:03}": "it rebooted" for n in range(13)})
    assert said.count("it rebooted") == 1
    assert "gw-000, gw-001, gw-002 and 10 more" in said


def test_a_small_fleet_is_a_table_and_a_large_one_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    few = tuple(GatewayProgress(gateway=f"gw-{n}", wave=1, state="on trial") for n in range(4))
    said = shown(capsys, gateways=few, counts={"on trial": 4})
    assert all(f"gw-{n}" in said for n in range(4))
    said = shown(capsys, gateways=few, counts={"kept": 30, "on trial": 4})
    assert "30 kept, 4 on trial" in said
    assert "gw-1" not in said


def test_only_the_newest_events_are_shown_in_a_frame(capsys: pytest.CaptureFixture[str]) -> None:
    events = tuple(Event(at=BEGAN, sentence=f"event {n:02}") for n in range(20))
    said = shown(capsys, events=events)
    assert [f"event {n:02}" for n in range(20) if f"event {n:02}" in said] == [
        f"event {n:02}" for n in range(14, 20)
    ]


def test_a_fleet_that_was_never_changed_says_what_it_is_on_and_what_to_do_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    on = Standing(fleet="lab", versions=("1.1.6",), taking=4, gateways=4, heard=4)
    plan = FleetStatus(fleet="lab", standing=on, offers=(Offer(verb=Verb.PLAN, fleet="lab"),))
    said = fleet_shown(capsys, plan)
    assert said == (
        "lab on 1.1.6, 4 of 4 gateways take users. No change yet. Next: penstock plan lab --to RELEASE"
    )
    silent = Standing(
        fleet="lab", versions=(), taking=0, gateways=2, silent={"gw-2": "[no] agent"}, quarantined={}
    )
    install = FleetStatus(fleet="lab", standing=silent, offers=(Offer(verb=Verb.INSTALL, fleet="lab"),))
    said = fleet_shown(capsys, install)
    assert "penstock fleet install lab --to RELEASE" in said
    assert "gw-2: [no] agent" in said


@pytest.mark.parametrize(
    ("outcome", "headline"),
    [(Outcome.ROLLED_BACK, "to 1.3.0 ROLLED BACK"), (Outcome.PROMOTED, "to 1.3.0 PROMOTED")],
)
def test_a_change_that_has_ended_is_headed_by_its_outcome_and_the_fleet_by_its_release_now(
    capsys: pytest.CaptureFixture[str], outcome: Outcome, headline: str
) -> None:
    """Screens 1: a rollback and a promotion were both headed ENDED, and the release of now was nowhere."""
    at = datetime(2026, 11, 28, 23, 6, tzinfo=UTC)
    on = Standing(fleet="lab", versions=("1.1.6",), taking=4, gateways=4, heard=4, as_of=at)
    change = status(phase=Phase.ENDED, outcome=outcome)
    said = fleet_shown(capsys, FleetStatus(fleet="lab", standing=on, change=change))
    assert headline in said
    assert "ENDED" not in said
    assert f"lab on 1.1.6, 4 of 4 gateways take users, as of {moment(at.isoformat())}." in said


def test_a_frame_fits_a_terminal_however_much_happens(capsys: pytest.CaptureFixture[str]) -> None:
    events = tuple(Event(at=BEGAN, sentence=f"event {n:02}") for n in range(50))
    gateways = tuple(GatewayProgress(gateway=f"gw-{n}", wave=1, state="on trial") for n in range(10))
    said = shown(capsys, events=events, gateways=gateways, needs_you="held by ana: lunch")
    assert len(said.splitlines()) <= 24


def test_history_has_words_for_every_kind_of_change() -> None:
    assert set(KINDS) == set(ChangeKind)
