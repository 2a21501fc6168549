"""Gateways that are left out while a rollback waits for more of them than its status names."""

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from orchestrator.service.changes import ChangeService
from orchestrator.service.quarantine import QuarantineService
from orchestrator.store.ledger import Ledger
from policies.model.command import Command
from policies.model.errors import BadInput
from policies.status.told import SHOWN
from tests.unit.fleets import facts_of

FLEET = facts_of(SHOWN + 2)[0]
NAMES = sorted(gateway.name for gateway in FLEET.gateways)
LAST = NAMES[SHOWN]
"""One that the rollback waits for and its status does not name."""


async def no_workflows(query: str, **more: Any) -> AsyncIterator[Any]:
    """No gateway returns alone."""
    del query, more
    for found in tuple[Any, ...]():
        yield found


class Rollback:
    """A change that waits for one gateway more than it names, none of which is in quarantine yet."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.client = SimpleNamespace(list_workflows=no_workflows)
        self.asked = list[tuple[str, ...]]()

    async def is_under_way(self, fleet: str) -> bool:
        return fleet == FLEET.name

    async def status(self, fleet: str) -> Any:
        del fleet
        return SimpleNamespace(waits_for=tuple(NAMES[:SHOWN]), not_back=SHOWN + 1)

    async def command(self, fleet: str, command: Command) -> Any:
        del fleet
        self.asked.append(command.gateways)
        return SimpleNamespace(sentence="given up")


@pytest.fixture
def rollback(tmp_path: Path) -> Rollback:
    return Rollback(Ledger.open(f"sqlite:///{tmp_path}/ledger.db"))


async def test_a_rollback_goes_on_without_a_gateway_that_its_status_does_not_name(rollback: Rollback) -> None:
    service = QuarantineService(cast("ChangeService", rollback))
    said = await service.leave_out(FLEET, (LAST,), "ana", "its site burns")
    assert (said, rollback.asked) == ("given up", [(LAST,)])
    assert [one.gateway for one in rollback.ledger.quarantined(FLEET.name)] == [LAST]


async def test_a_name_that_is_no_gateway_is_refused_however_many_are_waited_for(rollback: Rollback) -> None:
    service = QuarantineService(cast("ChangeService", rollback))
    with pytest.raises(BadInput, match="has no gateway gw-x"):
        await service.leave_out(FLEET, (LAST, "gw-x"), "ana", "its site burns")
    assert (rollback.asked, rollback.ledger.quarantined(FLEET.name)) == ([], ())
