"""A glance at every fleet: what it is on and what its newest change tells, in as few questions as for one."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from activities.undecided_harm import UndecidedHarm, undecided_harm
from orchestrator.service.standing import Present, looked_at_within, versions_of
from orchestrator.service.telling import order_of, status_of
from orchestrator.store.ledger import Ledger
from policies.model.change import ChangeRecord, Outcome, Phase
from policies.model.fleet import Fleet
from policies.model.status import ChangeStatus
from policies.model.value import Value
from policies.rebuilding import Ahead
from policies.status.told import Told


class ChangeGlance(Value):
    """A fleet's newest change in a line."""

    rollout: str
    phase: Phase
    outcome: Outcome | None
    what: str
    needs_you: str | None
    runbook: str | None = None
    """The page for it as it stands."""
    banner: str | None = None
    """The override under which the change runs."""

    @property
    def under_way(self) -> bool:
        """Whether it has no end yet."""
        return self.phase is not Phase.ENDED


class Glance(Value):
    """How one of many fleets stands."""

    fleet: str
    versions: tuple[str, ...]
    taking: int
    """Gateways that take users."""
    gateways: int
    departed: int = 0
    """Gateways that the fleet's file does not have any more, and that took users when they answered last."""
    heard: int = 0
    """Gateways that answered when they were looked at lately; of the others nobody knows."""
    looked_at: datetime | None = None
    """When any was looked at last, None when none ever was."""
    change: ChangeGlance | None = None
    silent: int = 0
    """Gateways that do not answer."""
    quarantined: int = 0
    """Gateways that operators have quarantined."""
    ejected: int = 0
    """Gateways that penstock itself has ejected from changes."""
    held_drains: int = 0
    """Drains that wait for an operator."""
    not_taken_back: int = 0
    """Gateways that failed alone and wait to be taken back."""
    ahead: Ahead | None = None
    """Gateways that changes steered which the ledger does not know, None without any."""
    harm: tuple[UndecidedHarm, ...] = ()
    """Harm that was measured after promotions, about which no operator has decided."""
    fault: str | None = None
    """What is wrong with its file; then the fleet is shown as it was when an upgrade was last planned."""
    concern: str | None = None
    """What is wrong with the telling itself."""

    @property
    def urgency(self) -> tuple[bool, bool, str]:
        """What orders fleets: what needs somebody, then what is under way, then the others by name."""
        change = self.change
        missing = any((self.silent, self.quarantined, self.ejected, self.held_drains, self.not_taken_back))
        told = any((self.concern, self.fault, self.ahead, self.harm))
        needs = told or missing or bool(change is not None and change.needs_you)
        return not needs, not (change is not None and change.under_way), self.fleet


def glances_of(ledger: Ledger, fleets: Sequence[Fleet]) -> tuple[Glance, ...]:
    """Return how each of these fleets stands, from the ledger alone."""
    names = {fleet.name for fleet in fleets}
    newest = {name: record for name, record in ledger.newest_changes().items() if name in names}
    told = dict(_told(ledger, newest))
    within = {one.name: looked_at_within(len(one.gateways)) for one in fleets}
    taking, looked = ledger.taking_everywhere(within), ledger.looked_at_everywhere(names)
    answered, ejected = ledger.gateways_looked_at(within), ledger.ejected_gateways()
    quarantined = Counter(ledger.quarantined_gateways())
    quarantined.subtract(ejected)
    ahead, said = ledger.ahead(within), ledger.answered(within)
    here = {fleet.name: Present.of(fleet, said.get(fleet.name, {})) for fleet in fleets}
    held, failed = ledger.held_drains_everywhere(), ledger.not_taken_back_everywhere(names)
    harmed = {name: undecided_harm(ledger, name) for name in ledger.harmed_fleets(names)}
    versions = ledger.versions({release for releases in taking.values() for release in releases})
    return tuple(
        Glance(
            fleet=fleet.name,
            versions=versions_of(ledger, fleet.name, taking.get(fleet.name, {}), versions),
            taking=here[fleet.name].taking,
            departed=here[fleet.name].departed,
            gateways=len(fleet.gateways),
            heard=here[fleet.name].heard,
            looked_at=looked.get(fleet.name),
            silent=len(answered[fleet.name].silent) if fleet.name in answered else 0,
            quarantined=quarantined[fleet.name],
            ejected=ejected.get(fleet.name, 0),
            held_drains=held.get(fleet.name, 0),
            not_taken_back=failed.get(fleet.name, 0),
            ahead=ahead.get(fleet.name),
            harm=harmed.get(fleet.name, ()),
            change=_glance(told[fleet.name]) if fleet.name in told else None,
        )
        for fleet in fleets
    )


def _told(ledger: Ledger, newest: Mapping[str, ChangeRecord]) -> Iterator[tuple[str, ChangeStatus]]:
    """Yield what the newest change of each fleet tells, without its events."""
    stories = ledger.stories_of([record.name for record in newest.values()])
    orders = {
        record.name: stories[record.name].order if record.name in stories else order_of(record)
        for record in newest.values()
    }
    headers = ledger.plan_headers({order.plan for order in orders.values() if order.plan is not None})
    now = datetime.now(UTC)
    for fleet, record in newest.items():
        order = orders[record.name]
        told = stories[record.name].told if record.name in stories else Told(name=record.name)
        yield fleet, status_of(record, order, told, headers.get(order.plan or ""), now)


def _glance(told: ChangeStatus) -> ChangeGlance:
    return ChangeGlance(**{name: getattr(told, name) for name in ChangeGlance.model_fields})
