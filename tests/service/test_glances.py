"""A glance at every fleet says what the status of each says."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import update

from orchestrator.page.live import Lookout
from orchestrator.service.service import Service
from orchestrator.store import tables
from orchestrator.store.database import writing
from orchestrator.store.ledger import Ledger
from policies.model.instance import GatewayState, Steering
from policies.model.verdict import Action, GateVerdict
from tests.service.command_line import CommandLine
from tests.service.shown import shown
from tests.service.test_every_state import AT, STATES, decision, written


@pytest.mark.parametrize("state", STATES)
async def test_a_glance_says_what_the_status_says(state: str, service: Service, ledger: Ledger) -> None:
    written(ledger, STATES[state])
    root = service.people.at_the_socket(0)
    glances = {one.fleet: one for one in await service.glances(root)}
    assert set(glances) == {"core", "edge"}
    for name, glance in glances.items():
        status = await service.status(root, name)
        for field in ("versions", "taking", "gateways", "departed", "heard", "looked_at"):
            assert getattr(glance, field) == getattr(status.standing, field)
        alike = ("quarantined", "ejected", "held_drains", "not_taken_back")
        missing = {"silent": "silent_count", **{one: one for one in alike}}
        for field, of_status in missing.items():
            found = getattr(status.standing, of_status)
            assert getattr(glance, field) == (found if isinstance(found, int) else len(found))
        assert glance.concern == status.concern
        if status.change is None:
            assert glance.change is None
            continue
        assert glance.change is not None
        for field in ("rollout", "phase", "outcome", "what", "needs_you", "runbook"):
            assert getattr(glance.change, field) == getattr(status.change, field)


async def test_decisions_are_shown_with_their_numbers_however_many_were_known(
    service: Service, ledger: Ledger
) -> None:
    written(ledger, STATES["observing health"])
    root, lookout = service.people.at_the_socket(0), Lookout(service)
    said = decision(Action.CONTINUE, GateVerdict.HEALTHY)
    for known in (0, 3, 7):
        for number in range(known):
            ledger.record_verdict("edge-1", 1, said, AT + timedelta(seconds=15 * number))
        judged = await lookout.judged(root, "edge-1")
        assert [one["number"] for one in judged.verdicts] == [*range(1, known + 1)]


EMPTY = GatewayState(
    gateway="edge-1", instances=(), steering=Steering(), epoch=1, observed_at=datetime.now(UTC)
)
NOBODY_LOOKED = "how many of 1 gateways take users is not known, nobody has looked yet"
UNKNOWN = "how many of 1 gateways take users is not known, last looked at "


async def said_everywhere(penstock: CommandLine, page: httpx.AsyncClient) -> list[str]:
    """Return what is said of edge by two commands, by the page of all fleets and by its own."""
    commands = [(await penstock(*words)).out for words in (("status", "edge"), ("fleet", "show", "edge"))]
    pages = [(await page.get(path)).text for path in ("/", "/fleets/edge")]
    row = pages[0].partition('href="/fleets/edge"')[2].partition("</li>")[0]
    (own,) = [one.text for one in shown(pages[1]).all("p", "on")]
    return [" ".join(said.split()) for said in (*commands, row, own)]


async def test_what_nobody_has_looked_at_lately_is_said_not_to_be_known_everywhere(
    penstock: CommandLine, page: httpx.AsyncClient, ledger: Ledger
) -> None:
    for said in await said_everywhere(penstock, page):
        assert NOBODY_LOOKED in said
        assert "on a release that is not known" in said
    ledger.record_states("edge", [EMPTY], {})
    for said in await said_everywhere(penstock, page):
        assert "0 of 1 gateways take users" in said
        assert "not known" not in said
    long_ago = {"at": datetime.now(UTC) - timedelta(hours=3)}
    with writing(ledger._engine) as connection:
        connection.execute(update(tables.gateway_states).values(long_ago))
    for said in await said_everywhere(penstock, page):
        assert UNKNOWN in said
        assert "0 of 1" not in said


async def test_a_gateway_that_was_silent_is_none_that_takes_no_users(
    penstock: CommandLine, page: httpx.AsyncClient, ledger: Ledger
) -> None:
    ledger.record_states("edge", [], {"edge-1": "its agent does not answer"})
    for said in await said_everywhere(penstock, page):
        assert UNKNOWN in said
