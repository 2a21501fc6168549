"""How a fleet stands: what it is on and how many of its gateways take users, by what they last said."""

from datetime import datetime, timedelta
from math import ceil

from orchestrator.store.ledger import Ledger
from orchestrator.store.overview import Looked
from policies.model.fleet import Fleet
from policies.model.plan_part import MOST_MEMBERS
from policies.model.value import Value
from workflows.survey import PAGES_A_LOOK

NAMED = 50
"""Silent gateways that a standing names."""

LOOKED_AT_WITHIN = timedelta(minutes=5)
"""How old a look at a gateway may be to count for what a small fleet is on; reconcile looks every minute."""


def looked_at_within(gateways: int) -> timedelta:
    """Return the same for a fleet of so many, which reconcile looks at in turns, of which it may miss one."""
    turns = ceil(gateways / (PAGES_A_LOOK * MOST_MEMBERS))
    return LOOKED_AT_WITHIN + 2 * timedelta(minutes=max(0, turns - 1))


class Standing(Value):
    """What a fleet is on and how many of its gateways take users, whatever was or was not done to it."""

    fleet: str
    versions: tuple[str, ...]
    taking: int
    gateways: int
    heard: int = 0
    """Gateways that answered when they were looked at lately; of the others nobody knows."""
    looked_at: datetime | None = None
    """When any was looked at last, None when none ever was."""
    silent: dict[str, str] = {}
    """Why some of those that do not answer do not."""
    silent_count: int = 0
    """How many there are in all."""
    quarantined: dict[str, str] = {}
    held_drains: dict[str, str] = {}
    """Why drains wait for a person, by gateway and slot."""


def standing_of(fleet: Fleet, ledger: Ledger) -> Standing:
    """Return what the fleet is on, by what its gateways said when they were last looked at."""
    within = looked_at_within(len(fleet.gateways))
    taking, silent = ledger.taking(fleet.name, within)
    looked = ledger.looked_at_everywhere({fleet.name: within}).get(fleet.name, Looked())
    versions = ledger.versions(taking)
    if taking.keys() - versions.keys() - {""}:  # what was adopted is no release that was added
        versions |= {one.digest: one.version for one in ledger.known_good_releases(fleet.name)}
    return Standing(
        fleet=fleet.name,
        versions=tuple(sorted({versions.get(release, "an unknown release") for release in taking})),
        taking=sum(taking.values()),
        gateways=len(fleet.gateways),
        heard=looked.heard,
        looked_at=looked.at,
        silent=dict(sorted(silent.items())[:NAMED]),
        silent_count=len(silent),
        held_drains=ledger.held_drains(fleet.name),
        quarantined={one.gateway: one.reason for one in ledger.quarantined(fleet.name)},
    )
