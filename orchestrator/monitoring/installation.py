"""What goes on in an installation, read from its ledger and files now and then: sums by fleet and state.

No gateway has a series of its own here, so an installation of 10,000 has as many as one of ten. What could
not be read lately is not shown: unknown is never the last thing known.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from activities.files import FleetFiles
from orchestrator.service.checkpoints import Checkpoints
from orchestrator.service.standing import looked_at_within
from orchestrator.store.ledger import Ledger
from orchestrator.store.overview import LookedAt, OpenChange
from policies.agent_certificates import LATE
from policies.model.change import Outcome, Phase
from policies.model.errors import BadInput
from policies.model.fleet import Fleet
from policies.model.status import ChangeStatus
from policies.model.verdict import GateVerdict
from policies.status.story import Story

NOBODY = LookedAt(frozenset(), frozenset())


@dataclass(frozen=True)
class FleetFacts:
    """What is known of one fleet at a moment; gateways are counted."""

    phases: Mapping[str, int]
    """Changes under way, by phase; one whose story cannot be read counts as `unknown`."""
    needing_people: int
    blind: int
    """Changes whose newest verdict had no metrics."""
    not_back: int
    """Gateways that a rollback still tries."""
    ended: Mapping[str, int]
    gateways: int
    silent: int
    unseen: int
    quarantined: int
    held_drains: int
    late_certificates: int
    """Gateways whose newest certificate has less than `LATE` of its life left."""


@dataclass(frozen=True)
class Facts:
    """What is known of the installation at a moment, in seconds of the epoch."""

    at: float
    fleets: Mapping[str, FleetFacts]
    wrong_files: int
    audit_entries: int
    signed_entries: int
    signed_at: float | None
    channels: frozenset[tuple[str, str]]
    """Product and channel of every fleet."""


@dataclass
class _Told:
    """The open changes of one fleet, counted."""

    phases: Counter[str] = field(default_factory=Counter)
    needing_people: int = 0
    blind: int = 0
    not_back: int = 0


class InstallationFacts:
    """Reads the facts of one installation; it may block."""

    def __init__(self, ledger: Ledger, files: FleetFiles, checkpoints: Checkpoints) -> None:
        self._ledger = ledger
        self._files = files
        self._checkpoints = checkpoints

    def read(self) -> Facts:
        """Return what is so now.

        Raises:
            Unavailable: The ledger does not answer.
            BadInput: A file of the installation is not as it must be.
        """
        now = time.time()
        described, told = self._files.all(), self._told()
        newest, head = self._checkpoints.newest(), self._ledger.audit_head()
        return Facts(
            at=now,
            fleets=dict(self._fleets(described, told)),
            wrong_files=len(self._files.wrong()),
            audit_entries=head.seq,
            signed_entries=newest.seq if newest is not None else 0,
            signed_at=datetime.fromisoformat(newest.at).timestamp() if newest is not None else None,
            channels=frozenset((one.product, one.channel) for one in described.values()),
        )

    def _fleets(
        self, described: Mapping[str, Fleet], told: Mapping[str, _Told]
    ) -> Iterator[tuple[str, FleetFacts]]:
        ledger, nothing = self._ledger, _Told()
        within = {name: looked_at_within(len(fleet.gateways)) for name, fleet in described.items()}
        looked_at, ended = ledger.gateways_looked_at(within), ledger.ended_changes()
        lives, aside, now = ledger.certificate_lives(), ledger.quarantined_gateways(), datetime.now(UTC)
        for name in sorted(described.keys() | told.keys()):
            fleet, mine = described.get(name), told.get(name, nothing)
            names = {one.name for one in fleet.gateways} if fleet is not None else set[str]()
            seen = looked_at.get(name, NOBODY)
            of_these = [lives[name, gateway] for gateway in names if (name, gateway) in lives]
            yield (
                name,
                FleetFacts(
                    phases=mine.phases,
                    needing_people=mine.needing_people,
                    blind=mine.blind,
                    not_back=mine.not_back,
                    ended={one.value: ended.get((name, one.value), 0) for one in Outcome},
                    gateways=len(names),
                    silent=len(seen.silent & names),
                    unseen=len(names - seen.all),
                    quarantined=aside.get(name, 0),
                    held_drains=len(ledger.held_drains(name)),
                    late_certificates=sum(end - now < (end - begin) * LATE for begin, end in of_these),
                ),
            )

    def _told(self) -> dict[str, _Told]:
        found: dict[str, _Told] = {}
        for change in self._ledger.every_open_change():
            of_fleet = found.setdefault(change.fleet, _Told())
            try:
                status = self._status(change)
            except (ValidationError, BadInput):  # an earlier penstock wrote what does not fit any more
                of_fleet.phases["unknown"] += 1
                of_fleet.needing_people += 1
                continue
            of_fleet.phases[status.phase.value if status else Phase.STARTING.value] += 1
            if status is not None:
                of_fleet.needing_people += status.needs_you is not None
                of_fleet.blind += _is_blind(status)
                of_fleet.not_back += status.not_back
        return found

    def _status(self, change: OpenChange) -> ChangeStatus | None:
        """Return what the change tells, None when it has told nothing yet."""
        row = self._ledger.story(change.name)
        if row is None:
            return None
        story = Story(row.order, row.at, row.told)
        header = self._ledger.plan_header(row.order.plan) if row.order.plan is not None else None
        story.know(change.name, header)
        return story.status()


def _is_blind(status: ChangeStatus) -> bool:
    decision = status.decision
    return (
        status.phase in {Phase.OBSERVING, Phase.HELD}
        and decision is not None
        and decision.verdict is GateVerdict.METRICS_UNAVAILABLE
    )


FRESH = timedelta(seconds=90)
"""Facts that are older are not shown."""

EVERY = timedelta(seconds=15)


def is_fresh(facts: Facts) -> bool:
    """Return whether the facts are young enough to be shown."""
    return datetime.now(UTC).timestamp() - facts.at <= FRESH.total_seconds()
