"""Hand-overs between people: who may, who is on duty meanwhile, and where it is written down."""

import httpx
import pytest

from orchestrator.service.service import Service
from orchestrator.store.ledger import Ledger
from policies.model.change import ChangeKind, ChangeOpening
from policies.model.errors import Conflict, NotAllowed
from policies.model.handover import HandoverEnd
from policies.model.people import Caller, Role, Via
from tests.service.command_line import CommandLine


def person(name: str, *, machine: bool = False, role: Role = Role.OPERATOR) -> Caller:
    return Caller(person=name, grants={"edge": frozenset({role})}, via=Via.API, machine=machine)


ANA, BEN, CARL = person("ana"), person("ben"), person("carl")


@pytest.fixture
def change(ledger: Ledger) -> str:
    opening = ChangeOpening(
        fleet="edge", kind=ChangeKind.UPGRADE, requested_by="ana", reason="CVE", key="one", release="1.4.1"
    )
    return ledger.open_change(opening)


async def test_whoever_has_not_accepted_is_not_on_duty(service: Service, ledger: Ledger, change: str) -> None:
    asked = await service.handovers.begin(ANA, "edge", "ben", "canary is on trial")
    assert (asked.end, asked.change, asked.seconds) == (None, change, None)
    duty = (await service.status(ANA, "edge")).duty
    assert duty is not None
    assert (duty.person, duty.asked) == (None, asked)
    accepted = await service.handovers.end(BEN, "edge", HandoverEnd.ACCEPTED)
    assert accepted.seconds is not None
    duty = (await service.status(ANA, "edge")).duty
    assert duty is not None
    assert (duty.person, duty.asked) == ("ben", None)
    actions = [
        (one.person, one.action) for one in ledger.audit_entries() if one.action.startswith("hand-over ")
    ]
    assert ("ana", "hand-over begun") in actions
    assert ("ben", "hand-over accepted") in actions


async def test_a_repeat_is_the_same_hand_over_and_a_new_one_replaces_what_nobody_answered(
    service: Service, change: str
) -> None:
    first = await service.handovers.begin(ANA, "edge", "ben", "")
    assert await service.handovers.begin(ANA, "edge", "ben", "") == first
    second = await service.handovers.begin(ANA, "edge", "carl", "ben does not answer")
    with pytest.raises(Conflict, match="that is for carl to say, not for ben"):
        await service.handovers.end(BEN, "edge", HandoverEnd.ACCEPTED)
    done = await service.handovers.end(CARL, "edge", HandoverEnd.ACCEPTED)
    assert done.id == second.id
    assert await service.handovers.end(CARL, "edge", HandoverEnd.ACCEPTED) == done
    ends = [one.end for one in await service.handovers.listed(ANA, "edge", 10)]
    assert ends == [HandoverEnd.ACCEPTED, HandoverEnd.REPLACED]


async def test_nobody_accepts_for_another_and_no_machine_or_onlooker_takes_part(
    service: Service, change: str
) -> None:
    await service.handovers.begin(ANA, "edge", "ben", "")
    for other in (ANA, CARL):
        with pytest.raises(Conflict, match="is for ben to say"):
            await service.handovers.end(other, "edge", HandoverEnd.ACCEPTED)
    with pytest.raises(Conflict, match="is for ana to say"):
        await service.handovers.end(BEN, "edge", HandoverEnd.WITHDRAWN)
    with pytest.raises(NotAllowed, match="is a machine"):
        await service.handovers.begin(person("robot", machine=True), "edge", "ben", "")
    with pytest.raises(NotAllowed):
        await service.handovers.begin(person("vera", role=Role.VIEWER), "edge", "ben", "")


async def test_it_is_shown_in_the_terminal_and_told_in_the_report_of_the_change(
    api: httpx.AsyncClient, service: Service, penstock: CommandLine, change: str
) -> None:
    for answer in ("accept", "decline"):
        refused = await penstock("handover", answer, "edge")
        assert (refused.code, "nobody hands edge over now" in refused.err) == (9, True), refused.err
    assert (await penstock("handover", "begin", "edge", "--to", "carl")).code == 0
    withdrawn = await penstock("handover", "withdraw", "edge")
    assert "root to carl, withdrawn after" in withdrawn.out
    begun = await penstock("handover", "begin", "edge", "--to", "ben", "--note", "canary is on trial")
    assert begun.code == 0, begun.err
    assert "ben takes edge with: penstock handover accept edge" in begun.out
    shown = " ".join((await penstock("status", "edge")).out.split())
    assert "ben has not accepted, and is not on duty" in shown
    await service.handovers.end(BEN, "edge", HandoverEnd.ACCEPTED)
    assert "ON DUTY ben since" in " ".join((await penstock("status", "edge")).out.split())
    listed = await penstock("handover", "list", "edge")
    assert "root to ben, accepted after" in listed.out
    report = (await api.get(f"/changes/{change}/report")).json()
    assert [(one["giver"], one["taker"], one["end"]) for one in report["handovers"]] == [
        ("root", "carl", "withdrawn"),
        ("root", "ben", "accepted"),
    ]
