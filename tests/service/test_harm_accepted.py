"""Harm after a promotion: operators are told of all of it, and accept what they were shown."""

import pytest

from activities.undecided_harm import UndecidedHarm, undecided_harm
from orchestrator.service.changes import ChangeService
from orchestrator.service.service import Service
from orchestrator.store.ledger import Ledger
from policies.model.change import PENSTOCK_WATCH, ChangeKind, ChangeOpening, KnownGoodBatch
from policies.model.command import Command, CommandKind, CommandReceipt
from policies.model.errors import Conflict, NotAllowed
from policies.model.offer import Verb
from policies.model.people import Caller, Role, Via
from policies.notices.entries import HARM, HARM_ACCEPTED, TO_DECIDE
from tests.service.test_notices_of_states import looking
from tests.workflows.world import NEW, NEXT, OLD

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
    find(ledger, name, FOUND)
    return name


def find(ledger: Ledger, promoted: str, harm: str) -> None:
    """Have penstock's watch find harm after a promotion."""
    body = {"sentence": f"{harm}{TO_DECIDE}"}
    ledger.audit("penstock", "workflow", HARM, f"edge/{promoted}", body, fleet="edge")


def caller(role: Role) -> Caller:
    return Caller(person="olga", via=Via.CLI, grants={"edge": frozenset({role})})


async def resumed(service: Service, role: Role, hold_of: str | None) -> CommandReceipt:
    said = caller(role), "edge", CommandKind.RESUME, "a known fault of clients"
    return await service.command(*said, hold_of=hold_of)


async def shown(service: Service) -> UndecidedHarm | None:
    """Return the harm that waits for a decision: a fleet's own page and the list of fleets have the same."""
    status = await service.status(caller(Role.VIEWER), "edge")
    (glance,) = await service.glances(caller(Role.VIEWER))
    assert status.standing.harm == glance.harm
    return next(iter(glance.harm), None)


async def test_an_operator_accepts_harm_after_a_promotion_by_the_name_that_screens_show(
    service: Service, ledger: Ledger, promoted: str
) -> None:
    waits = await shown(service)
    assert waits is not None
    assert FOUND in waits.sentence
    assert waits.next[1].hold_of == waits.hold_of
    receipt = await resumed(service, Role.OPERATOR, waits.hold_of)
    assert (receipt.accepted, receipt.change) == (True, promoted)
    assert FOUND in receipt.sentence
    assert await shown(service) is None
    (entry,) = [one for one in ledger.audit_entries() if one.action == HARM_ACCEPTED]
    assert (entry.person, entry.subject) == ("olga", f"edge/{promoted}")
    assert "a known fault of clients" in entry.body
    with pytest.raises(Conflict, match=f"no harm after {promoted} waits for a decision"):
        await resumed(service, Role.OPERATOR, waits.hold_of)


async def test_harm_that_an_operator_was_not_shown_is_not_accepted(
    service: Service, ledger: Ledger, promoted: str
) -> None:
    """The last sentence was shown, and all that had ever been found was accepted with it."""
    before = await shown(service)
    assert before is not None
    find(ledger, promoted, "FanSlow fires on gw-1")
    with pytest.raises(Conflict, match=r"found since; .*FanSlow"):
        await resumed(service, Role.OPERATOR, before.hold_of)
    both = await shown(service)
    assert both is not None
    assert both.harm == f"FanSlow fires on gw-1; {FOUND}"
    receipt = await resumed(service, Role.OPERATOR, both.hold_of)
    assert both.harm in receipt.sentence


def test_harm_that_is_found_while_an_operator_accepts_what_was_before_still_waits(
    ledger: Ledger, promoted: str
) -> None:
    (one,) = undecided_harm(ledger, "edge")
    find(ledger, promoted, "FanSlow fires on gw-1")
    body = {"sentence": one.harm, "until": int(one.hold_of.rpartition("-")[2])}
    ledger.audit("olga", Via.CLI, HARM_ACCEPTED, f"edge/{promoted}", body, fleet="edge")
    assert [left.harm for left in undecided_harm(ledger, "edge")] == ["FanSlow fires on gw-1"]


async def test_no_resume_of_a_change_and_no_viewer_accepts_harm(
    service: Service, ledger: Ledger, promoted: str
) -> None:
    """One order lifted the hold of another upgrade, or was lost while one waited."""
    (one,) = undecided_harm(ledger, "edge")
    for hold_of in (None, PENSTOCK_WATCH):
        with pytest.raises(Conflict):
            await resumed(service, Role.OPERATOR, hold_of)
    with pytest.raises(NotAllowed):
        await resumed(service, Role.VIEWER, one.hold_of)
    assert [left.change for left in undecided_harm(ledger, "edge")] == [promoted]


async def test_harm_is_accepted_whatever_change_is_under_way(
    service: Service, ledger: Ledger, promoted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[str]()

    async def command(_: ChangeService, fleet: str, order: Command) -> CommandReceipt:
        asked.append(fleet)
        return CommandReceipt(id=order.id, accepted=True, sentence="There is nothing to resume.")

    monkeypatch.setattr(ChangeService, "command", command)
    (one,) = undecided_harm(ledger, "edge")
    receipt = await resumed(service, Role.OPERATOR, one.hold_of)
    assert (receipt.change, asked, undecided_harm(ledger, "edge")) == (promoted, [], ())


def test_the_rollback_that_is_offered_for_harm_takes_back_the_promotion_that_does_it(
    ledger: Ledger, promoted: str
) -> None:
    """It took back the promotion of another group, which had been made later, and the harm stayed."""
    (first,) = undecided_harm(ledger, "edge")
    assert (first.next[0].verb, first.next[0].release) == (Verb.ROLL_BACK, None)
    opening = ChangeOpening(
        key="later", fleet="edge", kind=ChangeKind.UPGRADE, requested_by="ana", reason="r", release="1.4.0"
    )
    later = ledger.open_change(opening)
    ledger.record_known_good_batch(KnownGoodBatch(fleet="edge", change=later, releases={"edge-2": NEXT}))
    (then,) = undecided_harm(ledger, "edge")
    assert (then.change, then.next[0].release) == (promoted, OLD.version)
    assert later in then.next[0].note


def test_other_harm_is_news_although_somebody_has_acknowledged_what_was_found_first(
    ledger: Ledger, promoted: str
) -> None:
    looks = looking(ledger)
    looks.look()
    find(ledger, promoted, "FanSlow fires on gw-1")
    looks.look()
    (first,) = ledger.waiting_notices()
    ledger.acknowledge_notice(first.notice.key, "ana", Via.CLI)
    find(ledger, promoted, FOUND)
    looks.look()
    (second,) = ledger.waiting_notices()
    assert (second.notice.resolves, second.acknowledged) == (first.notice.key, False)
    assert FOUND in second.notice.headline
    assert "FanSlow fires on gw-1" in second.notice.headline
    (one,) = undecided_harm(ledger, "edge")
    assert one.hold_of in {offer.hold_of for offer in second.notice.offers}
