"""How a fleet stands: what it is on and how many of its gateways take users, by what they last said."""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from math import ceil
from typing import NamedTuple, Self

from activities.undecided_harm import UndecidedHarm, undecided_harm
from orchestrator.store.ledger import Ledger
from policies.model.change import PENSTOCK
from policies.model.fleet import Fleet
from policies.model.plan_part import MOST_MEMBERS
from policies.model.value import Value
from policies.rebuilding import Ahead
from workflows.survey import PAGES_A_LOOK

UNKNOWN_RELEASE = "an unknown release"

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
    departed: int = 0
    """Gateways that the fleet's file does not have any more, and that took users when they answered last."""
    heard: int = 0
    """Gateways that answered when they were looked at lately; of the others nobody knows."""
    looked_at: datetime | None = None
    """When any was looked at last, None when none ever was."""
    as_of: datetime | None = None
    """When the gateways that count were looked at, the oldest of them; None where none counts."""
    silent: dict[str, str] = {}
    """Why some of those that do not answer do not."""
    silent_count: int = 0
    """How many there are in all."""
    quarantined: dict[str, str] = {}
    """Why operators have quarantined gateways."""
    ejected: dict[str, str] = {}
    """Why penstock itself has ejected gateways from changes; it brings them back by itself."""
    held_drains: dict[str, str] = {}
    """Why drains wait for a person, by gateway and slot."""
    ahead: Ahead | None = None
    """Gateways that changes steered which the ledger does not know, None without any."""
    not_taken_back: dict[str, str] = {}
    """Why gateways that failed alone after their release had passed still serve it; they are tried again."""
    harm: tuple[UndecidedHarm, ...] = ()
    """Harm that was measured after promotions, about which no operator has decided."""


class Present(NamedTuple):
    """How many gateways of the fleet's file answered lately, and how many of those take users."""

    heard: int
    taking: int
    departed: int
    """How many take users, and are not in the file."""

    @classmethod
    def of(cls, fleet: Fleet, answered: Mapping[str, bool]) -> Self:
        """Count those that answered, each with whether it takes users."""
        members = {one.name for one in fleet.gateways}
        here = [takes for name, takes in answered.items() if name in members]
        return cls(len(here), sum(here), sum(answered.values()) - sum(here))


def standing_of(fleet: Fleet, ledger: Ledger) -> Standing:
    """Return what the fleet is on, by what its gateways said when they were last looked at."""
    within = looked_at_within(len(fleet.gateways))
    taking, silent = ledger.taking(fleet.name, within)
    here = Present.of(fleet, ledger.answered({fleet.name: within}).get(fleet.name, {}))
    known, left_out = ledger.versions(taking), ledger.quarantined(fleet.name)
    return Standing(
        fleet=fleet.name,
        versions=versions_of(ledger, fleet.name, taking, known),
        taking=here.taking,
        departed=here.departed,
        gateways=len(fleet.gateways),
        heard=here.heard,
        looked_at=ledger.looked_at_everywhere([fleet.name]).get(fleet.name),
        as_of=min(ledger.said_at(fleet.name, within).values(), default=None),
        silent=dict(sorted(silent.items())[:NAMED]),
        silent_count=len(silent),
        held_drains=ledger.held_drains(fleet.name),
        ahead=ledger.ahead({fleet.name: within}).get(fleet.name),
        not_taken_back=ledger.not_taken_back(fleet.name),
        harm=undecided_harm(ledger, fleet.name),
        quarantined={one.gateway: one.reason for one in left_out if one.person != PENSTOCK},
        ejected={one.gateway: one.reason for one in left_out if one.person == PENSTOCK},
    )


def versions_of(
    ledger: Ledger, fleet: str, taking: Collection[str], known: Mapping[str, str]
) -> tuple[str, ...]:
    """Return how people call the releases of these digests, of which some are `known` already."""
    found = versions_by_release(ledger, fleet, taking, known)
    return tuple(sorted({found.get(release, UNKNOWN_RELEASE) for release in taking}))


def versions_by_release(
    ledger: Ledger, fleet: str, releases: Collection[str], known: Mapping[str, str]
) -> Mapping[str, str]:
    """Return the versions of the releases of these digests, of which some are `known` already.

    What was adopted is no release that was added: only what was ever known-good in the fleet names it, also
    while its gateways are known to take users on it although another one is their known-good by now.
    """
    if unknown := set(releases) - known.keys() - {""}:
        return dict(known) | ledger.known_good_versions(fleet, unknown)
    return known
