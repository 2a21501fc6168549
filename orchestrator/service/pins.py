"""Pins of a fleet: the releases that it went back from, which it does not get again by itself."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from orchestrator.store.ledger import Ledger
from policies.model.change import ChangeKind, ChangeRecord
from policies.model.desired import Pin
from policies.model.errors import Refused
from policies.model.offer import Offer, Verb
from policies.model.rollback_progress import how_left
from policies.model.value import Digest
from policies.pins import pin_of
from policies.rebuilding import UnconfirmedLedger, nothing_starts


@dataclass(frozen=True)
class Pins:
    """Looks pins up in the ledger."""

    ledger: Ledger

    def of(self, fleet: str, release: Digest) -> Pin | None:
        """Return what pins the fleet against the release, None when nothing does."""
        return next(self._pins(fleet, (release,)), None)

    def last(self, fleet: str) -> Pin | None:
        """Return the pin that came last, None without one."""
        return next(self._pins(fleet, self._left_last(fleet)), None)

    def require_none(self, fleet: str, release: Digest) -> None:
        """Return if nothing keeps the fleet from getting the release by itself.

        Raises:
            Refused: It went back from it, and nobody has said more.
        """
        if pin := self.of(fleet, release):
            raise pinned(fleet, pin)

    def require_confirmed(self, fleet: str) -> None:
        """Return if the ledger has every pin and freeze of the fleet, as far as operators know.

        Raises:
            Refused: It was restored or rebuilt, and no operator has confirmed it since.
        """
        if ledger := self.ledger.unconfirmed(fleet):
            raise unconfirmed(fleet, ledger)

    def _left_last(self, fleet: str) -> Iterator[Digest]:
        """Yield the release of the upgrade that was taken back since the newest one, then of the newest."""
        newest, taken = self.ledger.newest_upgrade(fleet), self.ledger.newest_taken_back(fleet)
        since = newest.number if newest is not None else 0
        if taken and taken.taken_back_by and self.ledger.change(taken.taken_back_by).number < since:
            taken = None  # the fleet was to leave that behind
        yield from (one.release_digest for one in (taken, newest) if one and one.release_digest)

    def _pins(self, fleet: str, releases: Iterable[Digest]) -> Iterator[Pin]:
        for release in releases:
            newest = self.ledger.newest_to(fleet, release)
            pin = pin_of(newest, self._taker(newest, release)) if newest is not None else None
            if pin is not None and not self.ledger.is_released(fleet, pin.change):
                yield pin

    def _taker(self, newest: ChangeRecord, release: Digest) -> ChangeRecord | None:
        """Return the change that took gateways back from the release since the newest one led there."""
        if newest.kind is ChangeKind.GO_BACK:
            return self.ledger.newest_away_from(newest, release)
        return self.ledger.change(newest.taken_back_by) if newest.taken_back_by else None


def sentence_of(fleet: str, pin: Pin) -> str:
    """Return that the fleet went back from a release, and why."""
    at = f"{pin.at:%Y-%m-%d %H:%M} UTC" if pin.at is not None else ""
    went = how_left(pin.by, pin.rollback, at)
    return f"{fleet} is pinned against {pin.version}: {pin.change} {went}: {pin.why}"


def pinned(fleet: str, pin: Pin) -> Refused:
    """Return the refusal of a release that the fleet went back from."""
    unpin = Offer(verb=Verb.UNPIN, fleet=fleet, release=pin.version, note="a person says so")
    return Refused(sentence_of(fleet, pin), unpin)


def unconfirmed(fleet: str, ledger: UnconfirmedLedger) -> Refused:
    """Return the refusal of what a file or a machine starts while the ledger may lack pins and freezes."""
    unpin = Offer(verb=Verb.UNPIN, fleet=fleet, note="an operator confirms it")
    return Refused(f"{fleet} is pinned against every release: {nothing_starts(ledger)}", unpin)
