"""Recurring upgrades: begun by penstock in an opening, once, on the terms on which people begin them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from orchestrator.service.recurring import RecurringUpgrades
from policies.model.change import ChangeEnding, Outcome
from policies.model.plan import ReleaseRef
from tests.service.command_line import CommandLine
from tests.service.shown import shown
from tests.service.test_applied_upgrades import serving  # noqa: F401 - a fixture
from tests.service.test_approvals import (  # noqa: F401 - fixtures
    CAROL,
    DORA,
    House,
    Releases,
    approve,
    house,
    place,
    releases,
)
from tests.service.test_windows import CLOSED, OPEN, begun, declare  # noqa: F401 - a fixture

RECURRING = "recurring: {channel: stable, strategy: rolling}\n"


def upgrades(at: House) -> RecurringUpgrades:
    return RecurringUpgrades(at.installation.service)


async def recurring(at: House) -> str:
    """Return what the status says of recurring upgrades: from the ledger, whoever looked before."""
    status, found = await at.by(DORA)("GET", "/fleets/edge", None)
    assert status == 200, found
    return str(found["recurring"])


def only(at: House) -> str:
    last = at.ledger.last_change("edge")
    assert last is not None
    return last.name


def withdraw(at: House, release: ReleaseRef) -> None:
    at.ledger.yank(release.digest, "CVE", "ana")


async def test_the_newest_release_begins_once_in_an_opening_whoever_asks_how_often(
    serving: House,  # noqa: F811
    releases: Releases,  # noqa: F811
    begun: list[dict[str, Any]],  # noqa: F811
) -> None:
    declare(serving, OPEN + RECURRING)
    withdraw(serving, releases[2])  # its settings need two people
    assert await upgrades(serving).start_due() == {"edge": "1.5.0 is started by itself: edge-2"}
    change = serving.ledger.change(only(serving))
    assert (change.requested_by, change.release) == ("penstock", releases[1].version)
    serving.ledger.close_change(ChangeEnding(change=change.name, outcome=Outcome.REFUSED, sentence="unusual"))
    for _ in range(3):  # also by a process that knows nothing of the first
        said = await upgrades(serving).start_due()
        assert said == {"edge": "edge-2 was begun in this opening already"}
    assert await recurring(serving) == "edge-2 was begun in this opening already"
    assert len(begun) == 1


async def test_nothing_begins_outside_of_every_window(
    serving: House,  # noqa: F811
    releases: Releases,  # noqa: F811
    begun: list[dict[str, Any]],  # noqa: F811
) -> None:
    del releases
    declare(serving, CLOSED + RECURRING)
    assert await upgrades(serving).start_due() == {"edge": "no window is open"}
    assert begun == []
    said = await recurring(serving)
    assert said.startswith("1.6.0 starts by itself; the next window opens ")
    assert said.endswith((" Europe/Berlin (01:00Z)", " Europe/Berlin (00:00Z)"))


async def test_a_release_that_was_withdrawn_or_gone_back_from_does_not_begin(
    serving: House,  # noqa: F811
    releases: Releases,  # noqa: F811
    begun: list[dict[str, Any]],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    declare(serving, OPEN + RECURRING)
    withdraw(serving, releases[2])
    assert await upgrades(serving).start_due() == {"edge": "1.5.0 is started by itself: edge-2"}
    serving.ledger.close_change(
        ChangeEnding(change="edge-2", outcome=Outcome.ROLLED_BACK, sentence="its canary failed")
    )
    monkeypatch.setattr("orchestrator.service.due.key_of", lambda *_: "the-next-opening")
    assert await upgrades(serving).start_due() == {"edge": "edge is pinned against 1.5.0: edge-2 went back"}
    assert len(begun) == 1


async def test_it_needs_the_approvals_that_a_persons_start_needs_and_asks_seldom_while_nobody_gives_them(
    serving: House,  # noqa: F811
    releases: Releases,  # noqa: F811
    begun: list[dict[str, Any]],  # noqa: F811
) -> None:
    declare(serving, OPEN + RECURRING, approvals=1)
    withdraw(serving, releases[2])
    asking = upgrades(serving)
    assert await recurring(serving) == "1.5.0 starts by itself"
    refused = (await asking.start_due())["edge"]
    assert "approve" in refused
    for _ in range(3):
        again = await asking.start_due()
        assert again == {"edge": "it was refused a moment ago, and is asked for again in this opening"}
    asked = [row for row in serving.ledger.each_audit_row() if row["action"] == "upgrade asked for"]
    assert [row["person"] for row in asked] == ["penstock"]
    assert begun == []
    assert await recurring(serving) == f"1.5.0 did not start: {refused}"
    body = {"fleet": "edge", "to": releases[1].digest, "strategy": "rolling"}
    _, plan = await serving.by(DORA)("POST", "/plans", body)
    assert (await approve(serving, CAROL, plan["digest"]))[0] == 201
    assert await upgrades(serving).start_due() == {"edge": "1.5.0 is started by itself: edge-2"}
    assert begun[0]["start_by"] > datetime.now(UTC)


async def test_whoever_looks_at_the_fleet_sees_why_nothing_begins_by_itself_and_when_it_is_looked_at_next(
    penstock: CommandLine, page: httpx.AsyncClient, api: httpx.AsyncClient, tmp_path: Path
) -> None:
    with (tmp_path / "fleets" / "edge.yaml").open("a") as file:
        file.write(CLOSED + RECURRING)
    said = (await api.get("/fleets/edge")).json()["recurring"]
    assert said.startswith("the ledger has no release of channel stable; the next window opens ")
    assert f"Recurring {said}" in " ".join((await penstock("status", "edge", COLUMNS="400")).out.split())
    assert shown((await page.get("/fleets/edge")).text).told()["Recurring"] == said


async def test_a_fleet_that_says_nothing_of_it_gets_nothing(
    serving: House,  # noqa: F811
    releases: Releases,  # noqa: F811
    begun: list[dict[str, Any]],  # noqa: F811
) -> None:
    del releases
    declare(serving, OPEN)
    assert await upgrades(serving).start_due() == {}
    assert await recurring(serving) == "None"
    assert begun == []
