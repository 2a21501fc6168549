"""Operators accept harm after a promotion as they lift the hold of penstock's watch."""

import pytest

from activities.undecided_harm import UndecidedHarm, undecided_harm
from orchestrator.service.changes import ChangeService
from orchestrator.service.service import Service
from orchestrator.store.ledger import Ledger
from policies.model.change import PENSTOCK_WATCH, ChangeKind, ChangeOpening, KnownGoodBatch
from policies.model.command import Command, CommandKind, CommandReceipt
from policies.model.errors import Conflict, NotAllowed
from policies.model.people import Caller, Role, Via
from policies.notices.entries import HARM, HARM_ACCEPTED, TO_DECIDE
from tests.workflows.world import NEW, OLD

FOUND = "9 of 10 logins fail"


@pytest.fixture
def promoted(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have a promotion of which harm was measured, and no change under way; return its name."""

    async def command(_: ChangeService, fleet: str, order: Command) -> CommandReceipt:
        raise Conflict(f"no change of {fleet} is under way")

    monkeypatch.setattr(ChangeService, "command", command)
    for number, (kind, release) in enumerate(((ChangeKind.INSTALL, OLD), (ChangeKind.UPGRADE, NEW))):
        opening = ChangeOpening(
            key=str(number),
            fleet="edge",
            kind=kind,
            requested_by="ana",
            reason="CVE",
            release=release.version,
        )
        name = ledger.open_change(opening)
        ledger.record_known_good_batch(
            KnownGoodBatch(fleet="edge", change=name, releases={"edge-1": release})
        )
    body = {"sentence": f"{FOUND}{TO_DECIDE}"}
    ledger.audit("penstock", "workflow", HARM, f"edge/{name}", body, fleet="edge")
    return name


def caller(role: Role) -> Caller:
    return Caller(person="olga", via=Via.CLI, grants={"edge": frozenset({role})})


async def resumed(service: Service, role: Role, hold_of: str | None) -> CommandReceipt:
    said = caller(role), "edge", CommandKind.RESUME, "a known fault of clients"
    return await service.command(*said, hold_of=hold_of)


async def on_screens(service: Service) -> list[UndecidedHarm | None]:
    """Return the harm that waits for a decision, as a fleet's own page and the list of fleets have it."""
    status = await service.status(caller(Role.VIEWER), "edge")
    (glance,) = await service.glances(caller(Role.VIEWER))
    return [status.standing.harm, glance.harm]


async def test_a_resume_of_penstocks_watch_accepts_harm_after_a_promotion_where_no_change_is_held(
    service: Service, ledger: Ledger, promoted: str
) -> None:
    assert undecided_harm(ledger, "edge") == {promoted: FOUND}
    assert all(shown is not None and FOUND in shown.sentence for shown in await on_screens(service))
    receipt = await resumed(service, Role.OPERATOR, PENSTOCK_WATCH)
    assert (receipt.accepted, receipt.change) == (True, promoted)
    assert FOUND in receipt.sentence
    assert undecided_harm(ledger, "edge") == {}
    assert await on_screens(service) == [None, None]
    (entry,) = [one for one in ledger.audit_entries() if one.action == HARM_ACCEPTED]
    assert (entry.person, entry.subject) == ("olga", f"edge/{promoted}")
    assert "a known fault of clients" in entry.body
    with pytest.raises(Conflict):
        await resumed(service, Role.OPERATOR, PENSTOCK_WATCH)


async def test_no_other_resume_and_no_viewer_accepts_harm(
    service: Service, ledger: Ledger, promoted: str
) -> None:
    with pytest.raises(Conflict):
        await resumed(service, Role.OPERATOR, None)
    with pytest.raises(NotAllowed):
        await resumed(service, Role.VIEWER, PENSTOCK_WATCH)
    assert undecided_harm(ledger, "edge") == {promoted: FOUND}
