"""Ways back: what a rollback and a hand-back order, from what the ledger knows of a fleet's changes."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from orchestrator.store.ledger import Ledger
from policies.adoption import own_daemons
from policies.model.change import ChangeKind, ChangeOrder, Outcome, WayBack
from policies.model.command import CommandReceipt
from policies.model.errors import Conflict, NotAllowed, Refused
from policies.model.fleet import Fleet
from policies.model.offer import Offer, Verb
from policies.model.people import ROOT
from policies.model.plan import ReleaseRef
from policies.model.value import Digest
from policies.model.way_back import Confirmation
from policies.rollback import confirmation_of, stands, targets_of


@dataclass(frozen=True)
class _WaysBack:
    """What the ledger knows of a fleet's going back: what is known-good, and the last way."""

    known_good: dict[str, ReleaseRef]
    last: WayBack
    previous: dict[str, ReleaseRef]


@dataclass(frozen=True)
class WaysBack:
    """Finds out what going back means now; the ledger alone is asked."""

    ledger: Ledger

    def order(
        self,
        fleet: Fleet,
        person: str,
        reason: str,
        to: ReleaseRef | None,
        of: str | None,
        source: str | None,
        key: str | None,
    ) -> ChangeOrder | CommandReceipt:
        """Return how to go back, of files or of releases; a receipt when there is nothing to do."""
        files = self._files_back(fleet, person, reason, of, key) if to is None else None
        return files or self._return_order(fleet, person, reason, to, source, key)

    def _files_back(
        self, fleet: Fleet, person: str, reason: str, of: str | None, key: str | None
    ) -> ChangeOrder | CommandReceipt | None:
        """Return how instances get again what they had before a reload; None where no reload is meant."""
        found = self.ledger.reload_to_take_back(fleet.name, of)
        if found is None or (
            of is None and found.ended and datetime.now(UTC) - found.ended > fleet.limits.kept
        ):
            if of is not None:
                raise Conflict(f"{of} is no reload of {fleet.name} that could be taken back")
            return None
        if found.cause is not None and found.outcome is Outcome.ROLLED_BACK:
            taken = f"Nothing to do: {found.name} took {found.cause} back already."
            return CommandReceipt(id=fleet.name, accepted=False, sentence=taken)
        if found.repeats is not None:  # whom that one reached, too
            found = self.ledger.change(found.repeats)
        return ChangeOrder(
            fleet=fleet.name,
            kind=found.kind,
            plan=found.plan,
            requested_by=person,
            reason=f"{person}: {reason}",
            cause=found.cause or found.name,
            key=key,
        )

    def _return_order(
        self,
        fleet: Fleet,
        person: str,
        reason: str,
        to: ReleaseRef | None,
        source: str | None,
        key: str | None,
    ) -> ChangeOrder | CommandReceipt:
        """Return what to go back to, from what the ledger knows; a receipt when there is nothing to do."""
        ways = self._ways_back(fleet)
        back, previous = ways.last, ways.previous
        late = stands(back, fleet.limits.kept, datetime.now(UTC))
        if to is not None:
            targets = targets_of(to, self.ledger.ever_known_good(fleet.name), ways.known_good)
            nothing = f"{fleet.name} is on {to.version} already."
        else:
            targets, nothing = previous, back.sentence
            if targets and late:
                version = next(iter(previous.values())).version
                raise Refused(
                    f"the last promotion of {fleet.name} is older than the kept window of "
                    f"{fleet.limits.kept}; naming the release asks a second person",
                    Offer(verb=Verb.ROLL_BACK, fleet=fleet.name, release=version),
                )
        if not targets:
            return CommandReceipt(id=fleet.name, accepted=False, sentence=f"Nothing to do: {nothing}")
        if late:  # what was before a promotion that stands is known-good no more than any other release
            ways = replace(ways, previous={})
        order = self._going_back(fleet, targets, ways, person, f"{person}: {reason}", key, source=source)
        if to is not None:
            _refuse_root(order.confirm, person)
        return order

    def hand_back(
        self, fleet: Fleet, gateways: Collection[str], person: str, reason: str, key: str | None
    ) -> ChangeOrder:
        """Return how gateways go back to what was adopted on them, from what the ledger knows."""
        own = own_daemons(gateways, self.ledger.ever_known_good(fleet.name))
        ways = self._ways_back(fleet)
        targets = {name: release for name, release in own.items() if ways.known_good.get(name) != release}
        if not targets:
            raise Refused(f"{', '.join(sorted(own))} of {fleet.name}: known-good is their own daemon already")
        order = self._going_back(fleet, targets, ways, person, f"handed back by {person}: {reason}", key)
        _refuse_root(order.confirm, person)
        return order

    def _ways_back(self, fleet: Fleet) -> _WaysBack:
        known_good, last = self.ledger.known_good(fleet.name), self.ledger.way_back(fleet.name)
        previous = self.ledger.targets(fleet.name, last.change, finished=last.finished) if last.change else {}
        return _WaysBack(known_good, last, previous)

    def _going_back(
        self,
        fleet: Fleet,
        targets: dict[str, ReleaseRef],
        ways: _WaysBack,
        person: str,
        reason: str,
        key: str | None,
        *,
        source: str | None = None,
    ) -> ChangeOrder:
        """Return the order by which gateways go back to these, with whoever has to confirm it."""
        plan = self.ledger.record_return(fleet, targets)
        return ChangeOrder(
            fleet=fleet.name,
            kind=ChangeKind.GO_BACK,
            plan=plan,
            source=source,
            requested_by=person,
            on_behalf_of=self.ledger.makers_of(person),
            reason=reason,
            cause=ways.last.change,
            confirm=self._confirmation(fleet, plan, targets, ways.known_good, ways.previous),
            key=key,
        )

    def _confirmation(
        self,
        fleet: Fleet,
        plan: Digest,
        targets: dict[str, ReleaseRef],
        known_good: dict[str, ReleaseRef],
        previous: dict[str, ReleaseRef],
    ) -> Confirmation | None:
        """Return what a second person has to confirm, None when it begins at once."""
        reason = confirmation_of(fleet, targets, known_good, previous)
        if reason is None:
            return None
        otherwise = {name: previous.get(name, known_good[name]) for name in targets if name in known_good}
        return Confirmation(
            reason=reason,
            within=fleet.rollback.answer_within,
            change=plan,
            known_good=self.ledger.record_return(fleet, otherwise),
            at_deadline=fleet.rollback.at_deadline,
        )


def _refuse_root(confirm: Confirmation | None, person: str) -> None:
    """Refuse what waits for a second person when whoever asks might be that person, too."""
    if confirm is not None and person == ROOT:
        raise NotAllowed(
            f"{confirm.reason}: a second person has to approve it, and root may be anybody on this host, "
            "that person too; ask for it in your own name"
        )
