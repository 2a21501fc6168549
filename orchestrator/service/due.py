"""What is due by itself in a fleet: one answer for whoever starts it and for whoever wonders why not."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime

from orchestrator.service.desired import DesiredService
from orchestrator.service.windows import WindowService
from orchestrator.store.ledger import Ledger
from policies.model.change import PENSTOCK
from policies.model.errors import PenstockError
from policies.model.fleet import Fleet
from policies.model.people import Caller, Role, Via
from policies.model.windows import Opening
from policies.rebuilding import nothing_starts
from policies.recurring import Due, Standing, due, key_of, newest, outlook

UPGRADE_ASKED_FOR = "upgrade asked for"
"""How the record calls a start."""


@dataclass(frozen=True)
class DueService:
    """Answers from the ledger and the fleet's file alone, so that it knows the same after a restart."""

    ledger: Ledger
    desired: DesiredService
    windows: WindowService

    def of(self, fleet: Fleet, at: datetime) -> Due:
        """Return what begins by itself at that moment, or why nothing does."""
        opening = self.windows.opening(fleet, at)
        if opening is None:
            return due(fleet, None, Standing())
        return due(fleet, opening, self._stands(fleet, opening))

    def told(self, fleet: Fleet) -> str | None:
        """Return what a recurring upgrade does next, or what keeps it; None in a fleet that asks for none."""
        if fleet.recurring is None:
            return None
        at = datetime.now(UTC)
        try:
            opening = self.windows.opening(fleet, at)
            refused = self._refused(fleet.name, opening) if opening is not None else None
            then = None if opening is not None else self.windows.next_one(fleet, at)
            return outlook(fleet, opening, self._stands(fleet, opening), refused=refused, then=then)
        except PenstockError as error:
            return f"nothing begins by itself: {error}"

    def _stands(self, fleet: Fleet, opening: Opening | None) -> Standing:
        offered = self.ledger.offered(fleet.product, fleet.channel)
        wanted = newest(offered)
        last = self.ledger.last_change(fleet.name)
        known_good, ours = self.ledger.known_good(fleet.name), {one.name for one in fleet.gateways}
        request = caller_for(fleet.name).request(key_of(fleet.name, opening)) if opening is not None else None
        ledger = self.ledger.unconfirmed(fleet.name)
        return Standing(
            offered=offered,
            on=frozenset(one.digest for name, one in known_good.items() if name in ours),
            pin=self.desired.pins.of(fleet.name, wanted.release.digest) if wanted is not None else None,
            unconfirmed=nothing_starts(ledger) if ledger is not None else None,
            under_way=last.name if last is not None and last.outcome is None else None,
            tried=self.ledger.change_of_key(request) if request is not None else None,
        )

    def _refused(self, fleet: str, opening: Opening) -> str | None:
        """Return why the last start of this opening was refused, as the record has it."""
        entry = self.ledger.last_entry(fleet, PENSTOCK, {"refused", "failed"})
        if entry is None or datetime.fromisoformat(entry.at) < opening.opens:
            return None
        action, _, why = str(json.loads(entry.body).get("why", "")).partition(": ")
        return why if action == UPGRADE_ASKED_FOR else None


def caller_for(fleet: str) -> Caller:
    """Return who asks: penstock itself, on one fleet, with what a pipeline may do there."""
    grants = {fleet: frozenset({Role.CI})}
    return Caller(person=PENSTOCK, grants=grants, via=Via.SYSTEM, machine=True)
