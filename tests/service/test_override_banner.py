"""An override of patch windows is told for ever: by whom, who approved it, and for which ticket."""

import httpx

from orchestrator.store.ledger import Ledger
from policies.model.change import (
    ChangeEnding,
    ChangeKind,
    ChangeOpening,
    ChangeOrder,
    ChangeResult,
    Outcome,
    Phase,
)
from policies.model.windows import WindowOverride
from policies.status.told import Told
from tests.service.command_line import CommandLine
from tests.service.shown import shown
from tests.service.test_every_state import AT

OVERRIDE = WindowOverride(
    person="ana", reason="exploited <now>", ticket="INC-7", at=AT, approved_by=("ben", "carol")
)
BANNER = "PATCH WINDOWS OVERRIDDEN by ana (approved by ben, carol), INC-7: exploited <now>"


def changed(ledger: Ledger, *, ended: bool) -> str:
    name = ledger.open_change(
        ChangeOpening(
            key="run",
            fleet="edge",
            kind=ChangeKind.UPGRADE,
            requested_by="ana",
            reason="CVE",
            release="1.3.0",
        )
    )
    order = ChangeOrder(
        fleet="edge", kind=ChangeKind.UPGRADE, requested_by="ana", reason="CVE", override=OVERRIDE
    )
    result = ChangeResult(rollout=name, outcome=Outcome.PROMOTED, reason="every wave passed its window")
    told = Told(name=name, phase=Phase.ENDED, result=result) if ended else Told(name=name)
    ledger.record_story(order, told, 0, [])
    if ended:
        ledger.close_change(ChangeEnding(change=name, outcome=result.outcome, sentence=result.reason))
    return name


async def test_the_report_of_an_overridden_window_names_who_when_and_why_in_every_form(
    api: httpx.AsyncClient, penstock: CommandLine, ledger: Ledger
) -> None:
    name = changed(ledger, ended=True)
    assert (await api.get(f"/changes/{name}/report")).json()["banner"] == BANNER
    page = (await api.get(f"/changes/{name}/report", headers={"Accept": "text/html"})).text
    assert f"{BANNER}." in [one.text for one in shown(page).all("strong")]
    said = await penstock("report", name)
    assert said.code == 0, said.err
    assert "PATCH WINDOWS OVERRIDDEN by ana" in said.out.replace("\\", "")


async def test_a_change_that_overrides_windows_says_so_while_it_goes_on_and_on_its_page_afterwards(
    api: httpx.AsyncClient, page: httpx.AsyncClient, penstock: CommandLine, ledger: Ledger
) -> None:
    name = changed(ledger, ended=False)
    assert (await api.get("/fleets/edge")).json()["change"]["banner"] == BANNER
    assert f"OVERRIDE {BANNER}" in " ".join((await penstock("status", "edge", COLUMNS="400")).out.split())
    for path in ("/fleets/edge", f"/changes/{name}"):
        found = shown((await page.get(path)).text)
        assert f"Override: {BANNER}" in [one.text for one in found.all("p", "needs")], path


async def test_a_report_of_a_change_in_its_window_says_nothing_of_overrides(
    api: httpx.AsyncClient, ledger: Ledger
) -> None:
    name = ledger.open_change(
        ChangeOpening(
            key="run",
            fleet="edge",
            kind=ChangeKind.UPGRADE,
            requested_by="ana",
            reason="CVE",
            release="1.3.0",
        )
    )
    assert (await api.get(f"/changes/{name}/report")).json()["banner"] is None
    text = (await api.get(f"/changes/{name}/report", headers={"Accept": "text/markdown"})).text
    assert "OVERRIDDEN" not in text
