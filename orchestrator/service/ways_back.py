"""Rollbacks after a change has ended: what each one orders, from what the ledger knows of a fleet.

A rollback of the release and one of settings are two orders. Neither is ever taken for the other.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import chain

from orchestrator.service.pins import Pins, pinned, sentence_of
from orchestrator.service.standing import looked_at_within
from orchestrator.service.telling import not_back_of, order_of
from orchestrator.store.ledger import Ledger
from orchestrator.store.releases import is_named, usable_of
from policies.adoption import is_adopted, own_daemons
from policies.model.adoption import MARK
from policies.model.change import (
    PENSTOCK,
    STAYS,
    ChangeKind,
    ChangeOrder,
    ChangeRecord,
    KnownGoodMove,
    Outcome,
    RollbackTargets,
    UnfinishedChange,
)
from policies.model.desired import Pin
from policies.model.errors import BadInput, Conflict, NotAllowed, Refused
from policies.model.fleet import AtDeadline, Fleet
from policies.model.instance import GatewayState
from policies.model.offer import Offer, Verb
from policies.model.operation import BREAK_GLASS
from policies.model.people import ROOT
from policies.model.plan import ReleaseRef
from policies.model.plan_part import Member
from policies.model.release import ReleaseRow
from policies.model.settings import lines_of
from policies.model.value import Digest
from policies.model.way_back import Confirmation, RollbackAsked, RollbackPreview, digest_of_rollback
from policies.planning.naming import named
from policies.rebuilding import (
    ahead,
    became_known_good,
    cannot_say,
    is_newer,
    stay_unknown,
    unknown_here,
)
from policies.rollback import (
    Takes,
    beyond,
    confirmation_of,
    known_good_within,
    not_on_known_good,
    on_it_already,
    rollback_targets,
    served_elsewhere,
    serving,
    silent_since,
    stays_on,
    targets_of,
    were_steered,
    will_serve,
)
from policies.status.refusals import nothing_without_a_name
from policies.status.told import Told, listed


@dataclass(frozen=True)
class _Rollback:
    """Where gateways go, what they have now, and what each one serves then."""

    to: ReleaseRef | None
    """The release that the operator named."""
    targets: dict[str, ReleaseRef]
    known_good: Mapping[str, ReleaseRef]
    by_itself: Mapping[str, ReleaseRef]
    """Where each gateway goes without that name."""
    unsure: Collection[str]
    """Gateways that may serve another release than their known-good."""
    departed: Mapping[str, Member]
    """Those of them that the fleet's file does not have any more."""
    by_hand: Collection[str]
    """Gateways that operators steered on their hosts."""
    left_out: Collection[str]
    """Gateways that penstock left out, until they are back."""
    cause: str | None
    sentence: str
    moves: Collection[KnownGoodMove]
    """The last move of known-good of each gateway, from which this was found."""
    takes: Mapping[str, Takes]
    """Which release takes new sessions on each gateway."""
    pin: Pin | None = None
    """What pins the fleet against the release that is named, where gateways go there by its name alone."""
    unfinished: UnfinishedChange | None = None
    moved: Collection[str] = ()
    """Gateways that changes without an end may have moved."""


@dataclass(frozen=True)
class _Halted:
    """Rollbacks that neither go on nor have ended: which gateways are back is not known."""

    names: tuple[str, ...] = ()
    gateways: frozenset[str] = frozenset()
    cause: str | None = None
    """The promotion that they take back."""


@dataclass(frozen=True)
class WaysBack:
    """Finds out what a rollback does now; the ledger alone is asked."""

    ledger: Ledger

    def release_called(self, fleet: Fleet, name: str, *, force: bool = False) -> ReleaseRef:
        """Return the release that a rollback of the fleet means by that name.

        Releases that were known-good here are meant before others of the name.

        Args:
            fleet: Whose gateways go back.
            name: The release's version, its digest, or the beginning of that.
            force: Whether the change under way ends by force, for what is offered instead.

        Raises:
            BadInput: There is no such release, or several of the name were known-good.
            Refused: It was withdrawn and never known-good here, or is a daemon that was adopted.
        """
        rows = self._meant(fleet, name)
        if not rows and self._is_of_adopted(fleet, name):
            handed = "gateways are handed back to it"
            raise Refused(f"{name} was adopted and is no release: {handed}", *self.handing_back(fleet.name))
        usable = usable_of(rows)
        if len(usable) > 1:
            raise self._several_known_good(fleet, name, usable, force=force)
        if len(rows) == 1 and self.ledger.known_good_versions(fleet.name, [rows[0].release.digest]):
            return rows[0].release  # a withdrawn one is no release for an upgrade, and still a way back
        return self.ledger.only_release(name, rows)

    def _is_of_adopted(self, fleet: Fleet, name: str) -> bool:
        """Return whether a daemon that was adopted and has been replaced is called so."""
        if not self.ledger.displaced(fleet.name, 1):
            return False
        ever = chain.from_iterable(self.ledger.ever_known_good(fleet.name).values())
        own = {release for release in ever if is_adopted(release)}
        return any(is_named(release, name) or release.version == f"{name}{MARK}" for release in own)

    def handing_back(self, fleet: str) -> tuple[Offer, ...]:
        """Return the offer to hand a gateway back to the daemon that was adopted there; none without one."""
        displaced = self.ledger.displaced(fleet, 2)
        if not displaced:
            return ()
        one = displaced[0] if len(displaced) == 1 else None
        note = "to the daemon that was adopted there"
        return (Offer(verb=Verb.HAND_BACK, fleet=fleet, gateway=one, note=note),)

    def _needs_name(self, fleet: Fleet, why: str, before: ReleaseRef) -> Refused:
        """Return that a rollback has to name the release to go back to, and how."""
        if is_adopted(before):
            return Refused(
                f"{why}; it was adopted, and gateways are handed back to it", *self.handing_back(fleet.name)
            )
        approved = "a second operator approves it" if fleet.rollback.confirm_other_release else ""
        name = self._name_of(fleet, before)
        offer = Offer(verb=Verb.ROLL_BACK, fleet=fleet.name, release=name, note=approved)
        return Refused("; ".join(filter(None, (why + self._withdrawn(before), approved))), offer)

    def _withdrawn(self, release: ReleaseRef | None) -> str:
        """Return what is said of a way back to a release that was withdrawn; empty for any other."""
        row = self.ledger.release_row(release.digest) if release is not None else None
        if release is None or row is None or row.yanked_reason is None:
            return ""
        return f"; {release.version} was withdrawn: {row.yanked_reason}"

    def _meant(self, fleet: Fleet, name: str) -> tuple[ReleaseRow, ...]:
        """Return the releases that a rollback may mean by that name; one where none was known-good here."""
        rows = self.ledger.releases_called(name, fleet.product)
        if len(rows) < 2:  # noqa: PLR2004 - nothing to choose from
            return rows
        ever = self.ledger.known_good_versions(fleet.name, [row.release.digest for row in rows])
        known_good = tuple(row for row in rows if row.release.digest in ever)
        # where none was, each of them is refused alike
        return known_good or tuple(usable_of(rows) or rows)[:1]

    def _several_known_good(
        self, fleet: Fleet, name: str, rows: Iterable[ReleaseRow], *, force: bool
    ) -> BadInput:
        """Return the refusal of a name that several releases have to which gateways can go back."""
        releases = [row.release for row in rows]
        channels = self.ledger.channels([release.digest for release in releases])
        were = [
            _was_known_good(
                release,
                channels.get(release.digest),
                self.ledger.known_good_until(fleet.name, release.digest),
            )
            for release in releases
        ]
        offers = [
            Offer(verb=Verb.ROLL_BACK, fleet=fleet.name, release=_short(release), force=force)
            for release in releases
        ]
        several = f"{len(were)} releases that are called {name} were known-good of {fleet.name}"
        return BadInput(f"{several}: {'; '.join(were)}; give the digest of one", *offers)

    def _name_of(self, fleet: Fleet, release: ReleaseRef) -> str:
        """Return by which name a rollback means this release alone."""
        others = [row for row in usable_of(self._meant(fleet, release.version)) if row.release != release]
        return _short(release) if others else release.version

    def order(
        self,
        fleet: Fleet,
        person: str,
        reason: str,
        asked: RollbackAsked,
        to: ReleaseRef | None,
        source: str | None,
        key: str | None,
        *,
        ended: str | None = None,
        everybody: bool = False,
        beyond: bool = False,
        nothing_runs: bool = False,
        shown: Digest | None = None,
    ) -> tuple[ChangeOrder | None, str]:
        """Return the order of a rollback, None when there is nothing to do, and what it does in a sentence.

        `ended` is the change that has ended for it. With `everybody` gateways from which nothing is taken
        back are brought to their known-good, too. With `beyond` a way back has just ended without some of its
        gateways, which this one takes along. With `shown` the rollback is the one whose preview has that
        digest. By force gateways that know of changes which the ledger lacks stay as they are, however many
        they are. With `nothing_runs` the fleet's lock is free, or will be when this begins, so that a
        rollback without an end in the ledger does not go on.

        Raises:
            Refused: The promotion is older than the kept window, `to` was never known-good here, or the
                ledger is older than its gateways.
            Conflict: What a reload replaced is not on the hosts any more, another rollback was shown, or
                gateways would stay where a change without an end has left them.
            NotAllowed: It waits for a second operator, and the caller may be anybody.
        """
        if asked.of_files:
            found = self._files(fleet, asked)
            require_shown(fleet.name, shown, self._preview_of_files(fleet, found))
            if isinstance(found, str):
                return None, found
            return self._files_order(fleet, found, person, reason, key), _files_sentence(found)
        find = partial(self._found, fleet, even_if_older=asked.force, nothing_runs=nothing_runs)
        if to is not None:
            back = find(to)
        elif everybody or beyond:
            back = self._taking_along(fleet, ended, left_out=() if beyond else None)
        else:
            back = find(None, ended=ended)
        require_shown(fleet.name, shown, self._preview_of_release(fleet, back))
        if not back.targets:
            self._require_known(fleet, back.moves, back.takes)
            return None, back.sentence
        plain = (lambda: back) if to is None else partial(_unless_refused, find)
        order = self._going_back(fleet, back, plain, person, f"{person}: {reason}", key, source=source)
        if to is not None:
            _refuse_root(fleet, order.confirm, person)
        return order, back.sentence

    def _taking_along(
        self, fleet: Fleet, ended: str | None, *, left_out: Collection[str] | None = None
    ) -> _Rollback:
        """Return a rollback that brings gateways which it takes nothing back from to their known-good, too.

        Args:
            fleet: Whose gateways.
            ended: The change that ends for it.
            left_out: Those that this change leaves out; None where all gateways are brought back.
        """
        back = self._found(fleet, None, ended=ended, nothing_runs=True)
        names = {gateway.name for gateway in fleet.gateways} - {*back.by_hand}
        if left_out is not None:
            names &= {*back.left_out, *left_out}
        others = {name: release for name, release in back.known_good.items() if name in names}
        targets = others | back.targets
        return replace(back, targets=targets, sentence=will_serve(targets)) if targets else back

    def beyond(self, fleet: Fleet) -> RollbackTargets:
        """Return what a rollback takes back beside the way back under way, which only waits for gateways."""
        newest = self.ledger.last_change(fleet.name)
        if newest is None:
            return RollbackTargets(sentence="no change of this fleet is known")
        names, at = {gateway.name for gateway in fleet.gateways}, datetime.now(UTC)
        moves = [move for move in self.ledger.moves(fleet.name) if move.gateway in names]
        takes = self.ledger.takes(fleet.name)
        return beyond(
            moves,
            newest,
            fleet.limits.kept,
            at,
            not_back=self.waits_for(fleet.name),
            silent=self._silent(fleet, moves, takes, at),
            elsewhere=served_elsewhere(moves, takes),
        )

    def _silent(
        self, fleet: Fleet, moves: Iterable[KnownGoodMove], takes: Mapping[str, Takes], at: datetime
    ) -> set[str]:
        """Return the gateways that do not say what serves there, and those that penstock left out."""
        since = at - looked_at_within(len(fleet.gateways))
        return silent_since(moves, takes, since) | not_back_of(self.ledger, fleet.name).keys()

    def offered(self, fleet: Fleet, offers: tuple[Offer, ...]) -> tuple[Offer, ...]:
        """Return the offers, with a rollback of the release only where it has something to do.

        A promotion that stands is not enough: what came after it may have led back to it, and its last
        gateway may be one that stays as it is. Where a rollback takes force, or the name of a release, it is
        offered with that.
        """
        offers = tuple(self._by_version(fleet, one) for one in offers)
        others = tuple(one for one in offers if one.verb is not Verb.ROLL_BACK or one.settings or one.release)
        if len(others) == len(offers):
            return offers
        try:
            may = self.ledger.has_rollback(fleet.name)
            return offers if may and self._release(fleet, None).targets else others
        except Refused as refused:
            return (*(one for one in refused.offers if one.force or one.release), *others)

    def _by_version(self, fleet: Fleet, offer: Offer) -> Offer:
        """Return the offer of a rollback by name with the release's version, where that means it alone."""
        if offer.verb is not Verb.ROLL_BACK or offer.release is None:
            return offer
        rows = self.ledger.releases_called(offer.release, fleet.product)
        if len(rows) != 1:
            return offer
        return offer.model_copy(update={"release": self._name_of(fleet, rows[0].release)})

    def waits_for(self, fleet: str) -> Collection[str]:
        """Return the gateways for which a way back under way only waits, none without one."""
        newest = self.ledger.last_change(fleet)
        story = self.ledger.story(newest.name) if newest is not None and newest.outcome is None else None
        if story is None or not story.told.only_waits:
            return ()
        return self._named(fleet, story.told).not_back.keys()

    def _named(self, fleet: str, told: Told) -> Told:
        """Return the same with every gateway named that is not back; a change names the first of many."""
        return told.naming(not_back_of(self.ledger, fleet)) if told.more_not_back else told

    def taken_back(self, change: str | None, order: ChangeOrder | None = None) -> dict[str, ReleaseRef]:
        """Return where a rollback of the change under way takes the gateways that it may have changed.

        Its plan says where they go. No other gateway is touched. A rollback that waits for a second operator
        goes by the plan without the other release; none is taken back where it has no such plan.

        Args:
            change: The change under way, None where no worker has given it a name.
            order: What was asked of a change without a name.
        """
        told = Told()
        if change is not None:
            record, story = self.ledger.change(change), self.ledger.story(change)
            told = story.told if story is not None else told
            order = story.order if story is not None else order_of(record)
            order = order if story is not None else order.model_copy(update={"plan": record.plan})
        if order is None or order.kind not in {ChangeKind.GO_BACK, ChangeKind.UPGRADE}:
            return {}
        plan, up_to = order.plan, told.begun if order.kind is ChangeKind.UPGRADE else None
        if order.confirm is not None and (change is None or told.waits_until is not None):
            plan = order.confirm.known_good
        members = self._members(plan, up_to=up_to)
        return {name: one.back for name, one in members.items() if one.back is not None}

    def then(self, fleet: Fleet, taken_back: Mapping[str, ReleaseRef]) -> str:
        """Return which release each gateway serves that goes back, and what others stay on.

        Others are named where they are quarantined, or do not serve their known-good: no gateway is promised
        a release to which nothing takes it.
        """
        return self._then(fleet, taken_back)[0]

    def _then(self, fleet: Fleet, taken_back: Mapping[str, ReleaseRef]) -> tuple[str, dict[str, ReleaseRef]]:
        """Return the same, and what each gateway serves of which that is known."""
        names = {gateway.name for gateway in fleet.gateways}
        serves = {name: release for name, release in taken_back.items() if name in names}
        moves = {
            move.gateway: move
            for move in self.ledger.moves(fleet.name)
            if move.gateway in names and move.gateway not in serves
        }
        takes = self.ledger.takes(fleet.name)
        out = moves.keys() & {one.gateway for one in self.ledger.quarantined(fleet.name)}
        apart = not_on_known_good(moves.values(), takes, ()).keys() | out
        proven = self.ledger.ever_known_good(fleet.name) if apart else {}
        versions = {release.digest: release.version for own in proven.values() for release in own}
        stay = stays_on([moves[name] for name in apart], takes, versions)
        known = {name: move.release for name, move in moves.items() if name not in apart}
        return "; ".join(filter(None, (will_serve(serves), stay))), known | serves

    def _members(self, plan: Digest | None, *, up_to: int | None = None) -> dict[str, Member]:
        return self.ledger.plan_members(plan, up_to) if plan is not None else {}

    def _halted(self, fleet: str, ended: str | None) -> _Halted:
        """Return the gateways of rollbacks without an end; their known-good moved when those began.

        `ended` is a change that ends for the rollback that is asked for.
        """
        names, gateways, cause = list[str](), set[str](), None
        for name in self.ledger.open_changes(fleet):
            if name == ended:
                continue
            record, story = self.ledger.change(name), self.ledger.story(name)
            if record.kind is ChangeKind.GO_BACK:
                names.append(name)
                gateways |= self._members(story.order.plan if story is not None else record.plan).keys()
                cause = record.cause or cause
        return _Halted(tuple(names), frozenset(gateways), cause)

    def preview(
        self, fleet: Fleet, asked: RollbackAsked, to: ReleaseRef | None, *, under_way: bool = True
    ) -> RollbackPreview:
        """Return what a rollback that is asked for now does; nothing is written down.

        `under_way` is whether a change that the ledger knows no end of may run.

        Raises:
            Refused: As `order`.
            Conflict: As `order`.
        """
        newest = self.ledger.last_change(fleet.name)
        running = newest if newest is not None and newest.outcome is None and under_way else None
        if asked.force:
            return self._preview_by_force(fleet, asked, to, running)
        if asked.of_files:
            return self._preview_of_files(fleet, self._files(fleet, asked))
        if running is not None and to is None:
            return self._preview_under_way(fleet, running)
        back = self._found(fleet, to, nothing_runs=not under_way)
        if not back.targets:
            self._require_known(fleet, back.moves, back.takes)
        return self._preview_of_release(fleet, back)

    def _preview_by_force(
        self, fleet: Fleet, asked: RollbackAsked, to: ReleaseRef | None, running: ChangeRecord | None
    ) -> RollbackPreview:
        """Return what a rollback does that ends the change under way first."""
        lead = f"{running.name} is ended by force; then " if running is not None else ""
        try:
            if asked.of_files:
                preview = self._preview_of_files(fleet, self._files(fleet, asked))
            else:
                back = self._found(fleet, to, even_if_older=True, nothing_runs=True)
                if not back.targets:
                    self._require_known(fleet, back.moves, back.takes)
                preview = self._preview_of_release(fleet, back)
        except Refused as refused:
            if running is None or not asked.is_plain:
                raise
            return _preview(running.name, f"{lead}nothing else is taken back: {refused}", {})
        return preview.model_copy(update={"sentence": lead + preview.sentence})

    def _preview_of_files(self, fleet: Fleet, files: ChangeRecord | str) -> RollbackPreview:
        does = not isinstance(files, str)
        return RollbackPreview(
            change=self._newest(fleet),
            does=does,
            sentence=files if isinstance(files, str) else _files_sentence(files),
            digest=digest_of_rollback(does=does, files="" if isinstance(files, str) else files.name),
        )

    def _preview_of_release(self, fleet: Fleet, back: "_Rollback") -> RollbackPreview:
        confirm = self._asks_second(fleet, back) if back.targets else None
        newest = self.ledger.last_change(fleet.name)
        name = newest.name if newest is not None else None
        preview = _preview(name, back.sentence, back.targets, confirm, does=bool(back.targets))
        if (
            newest is None
            or newest.kind is not ChangeKind.UPGRADE
            or newest.outcome is not Outcome.ROLLED_BACK
        ):
            return preview
        if not back.targets or back.to is not None or back.cause is None:
            return preview
        lead = f"{name} to {newest.release} has gone back already, and this goes further"
        return preview.model_copy(update={"below": name, "sentence": f"{lead}: {back.sentence}"})

    def _newest(self, fleet: Fleet) -> str | None:
        newest = self.ledger.last_change(fleet.name)
        return newest.name if newest is not None else None

    def hand_back(
        self, fleet: Fleet, gateways: Collection[str], person: str, reason: str, key: str | None
    ) -> ChangeOrder:
        """Return how gateways go back to what was adopted on them, from what the ledger knows."""
        own = own_daemons(gateways, self.ledger.ever_known_good(fleet.name))
        back = self._release(fleet, None, is_named=True)
        targets = {name: release for name, release in own.items() if back.known_good.get(name) != release}
        if not targets:
            raise Refused(f"{', '.join(sorted(own))} of {fleet.name}: known-good is their own daemon already")
        # Without an answer it is given up: nobody has asked for a release to be taken back.
        back = replace(back, targets=targets, by_itself=back.known_good, unsure=(), cause=None)
        plain = partial(_unless_refused, partial(self._found, fleet))
        order = self._going_back(fleet, back, plain, person, f"handed back by {person}: {reason}", key)
        _refuse_root(fleet, order.confirm, person)
        return order

    def require_known(self, fleet: Fleet) -> None:
        """Refuse a rollback that finds nothing to take back where the ledger may have lost what there was.

        One host's word is not enough, unless the ledger knows nothing of the fleet. A gateway that an
        operator has quarantined does not count.

        Raises:
            Refused: The ledger is older than its gateways, or no gateway says whether it is.
        """
        self._require_known(fleet, self.ledger.moves(fleet.name), self.ledger.takes(fleet.name))

    def _require_known(
        self, fleet: Fleet, every: Iterable[KnownGoodMove], takes: Mapping[str, Takes]
    ) -> None:
        at, within = datetime.now(UTC), looked_at_within(len(fleet.gateways))
        members = {gateway.name for gateway in fleet.gateways}
        out = {one.gateway for one in self.ledger.quarantined(fleet.name) if one.person != PENSTOCK}
        asked = members - out
        moves = [move for move in every if move.gateway in asked]
        found = self.ledger.ahead({fleet.name: within}, takes.keys() - members).get(fleet.name)
        if found is not None and (found.is_older or not moves):
            raise Refused(cannot_say(found.sentence), *found.next)
        rebuild = Offer(verb=Verb.REBUILD, fleet=fleet.name)
        if not moves:
            serving = {name for name in asked & takes.keys() if takes[name].release is not None}
            heard = {name for name in asked & takes.keys() if takes[name].at >= at - within}
            silent = (asked - heard) | self.ledger.silent(fleet.name, within).keys() & asked
            if (why := unknown_here(fleet.name, serving, silent - serving)) is not None:
                raise Refused(cannot_say(why), rebuild)
        elif {move.gateway for move in moves} <= self._silent(fleet, moves, takes, at):
            why = f"no gateway of {fleet.name} says what it serves, so the ledger may be older than they are"
            raise Refused(cannot_say(why), Offer(verb=Verb.DOCTOR))

    def require_unpinned(self, fleet: Fleet, to: ReleaseRef, *, force: bool) -> None:
        """Return if a machine may take the fleet back to a release by its name; without one it always may.

        Raises:
            Refused: The fleet went back from it, and nobody has said more; or as `order`.
        """
        back = self._found(fleet, to, even_if_older=force, nothing_runs=force)
        if back.pin is not None:
            raise pinned(fleet.name, back.pin)

    # --- the release ---------------------------------------------------------------------

    def _found(
        self,
        fleet: Fleet,
        to: ReleaseRef | None,
        *,
        ended: str | None = None,
        even_if_older: bool = False,
        nothing_runs: bool = False,
    ) -> _Rollback:
        """Return where gateways go; no release is called unknown here where the ledger may have lost it."""
        try:
            back = self._release(
                fleet, to, ended=ended, even_if_older=even_if_older, nothing_runs=nothing_runs
            )
        except Refused:
            if to is not None:
                self.require_known(fleet)
            raise
        if to is not None:
            by_name = any(back.by_itself.get(name) != to for name in back.targets)
            pin = Pins(self.ledger).of(fleet.name, to.digest) if by_name else None
            said = f"; {fleet.name} is pinned against {to.version}" if pin is not None else ""
            back = replace(back, pin=pin, sentence=back.sentence + said)
            if nothing_runs:
                self._require_whole(fleet, back, to, force=even_if_older)
            return back
        if back.targets:
            return back
        newest = {move.change for move in back.moves} & self.ledger.rebuilds(fleet.name)
        if newest:
            return replace(back, sentence=f"{back.sentence}; {became_known_good(max(newest))}")
        return back

    def _require_whole(self, fleet: Fleet, back: _Rollback, to: ReleaseRef, *, force: bool) -> None:
        """Refuse a rollback by name that leaves gateways where a change without an end has moved them.

        Raises:
            Conflict: It does not name them, or waits for a second operator while no change looks after them.
        """
        is_open = back.unfinished is not None and back.unfinished.is_open
        if stay := sorted({*back.moved} - back.targets.keys()):
            why = f"{named(stay)} would not go to {to.version} and stay where"
        elif is_open and self._asks_second(fleet, back) is not None:
            why = f"until a second operator approves {to.version}, gateways would stay where"
        else:
            return
        raise _left_over(fleet.name, back.unfinished, why, self._name_of(fleet, to), force=force)

    def _moved_by(self, unfinished: UnfinishedChange | None) -> Collection[str]:
        """Return the gateways that the change may have moved if it has no end."""
        return self._members(unfinished.plan) if unfinished is not None and unfinished.is_open else ()

    def _release(
        self,
        fleet: Fleet,
        to: ReleaseRef | None,
        *,
        is_named: bool = False,
        ended: str | None = None,
        even_if_older: bool = False,
        nothing_runs: bool = False,
    ) -> _Rollback:
        """Return where gateways go: to `to`, or to what they had before the last promotion.

        Args:
            fleet: Whose gateways.
            to: A release by name.
            is_named: Whether something else is named, so that an old promotion is no reason to refuse.
            ended: A change that ends for this rollback, which takes nothing of it back.
            even_if_older: Whether a ledger that is older than its gateways is no reason to refuse.
            nothing_runs: Whether a rollback without an end does not go on, and this one completes it.
        """
        at, kept = datetime.now(UTC), fleet.limits.kept
        unfinished = self.ledger.unfinished_change(fleet.name, ended)
        every = self.ledger.moves(fleet.name)
        gone = {move.gateway for move in every} - {gateway.name for gateway in fleet.gateways}
        departed = self.ledger.departed(
            fleet.name, gone, since=at - kept, plan=unfinished.plan if unfinished else None
        )
        nowhere = gone - departed.keys()
        moves = [move for move in every if move.gateway not in nowhere]
        out = self.ledger.quarantined(fleet.name)
        by_hand = {one.gateway for one in out if one.person == BREAK_GLASS}
        left_out = {one.gateway for one in out if one.person == PENSTOCK}
        takes = self.ledger.takes(fleet.name)
        astray = not_on_known_good(moves, takes, departed.keys())
        states = self.ledger.states_of(fleet.name, sorted(astray))
        unknown = self._unknown(fleet, to, states, gone, even_if_older=even_if_older)
        hand = {*by_hand} | {name for name, state in states.items() if state.owner == BREAK_GLASS}
        astray = {name: release for name, release in astray.items() if name not in unknown}
        silent = self._silent(fleet, moves, takes, at)
        plain = rollback_targets(
            moves,
            unfinished,
            kept,
            at,
            by_hand=by_hand,
            astray=astray,
            silent=silent,
            unknown=unknown,
            as_steered=hand,
        )
        known_good = {move.gateway: move.release for move in moves if move.gateway not in unknown}
        targets, sentence = plain.targets, plain.sentence
        halted = self._halted(fleet.name, ended) if nothing_runs else _Halted()
        left = {name: on for name, on in known_good.items() if name in halted.gateways and name not in hand}
        # what a change that has not ended has moved, known-good does not say
        unsure = {*astray} | ({*left, *(known_good if unfinished else ())} - by_hand)
        if to is not None:
            proven = self.ledger.ever_known_good(fleet.name)
            there = {name: on for name, on in known_good.items() if name not in unsure}
            able = targets_of(to, proven, there)
            able = {name: release for name, release in able.items() if name not in unknown}
            away = left_out | {*self.waits_for(fleet.name)}
            leave = {move.gateway for move in every if move.gateway in away and move.led_away_from == to}
            targets = {name: release for name, release in able.items() if name not in nowhere | leave}
            sentence = (
                will_serve(targets)
                if targets
                else on_it_already(fleet.name, to, moves, silent, served_elsewhere(moves, takes))
            )
            sentence += were_steered(targets.keys() & hand) + self._withdrawn(to)
            if stay := sorted(able.keys() & leave):
                sentence += f"; {named(stay)} is not back from {to.version} yet and does not stay on it"
        elif left.keys() - plain.targets.keys():
            left = {name: on for name, on in left.items() if name not in plain.targets}
            they = "has not ended, and is" if len(halted.names) == 1 else "have not ended, and are"
            completed = f"{named(halted.names)} {they} completed: {will_serve(left)}"
            targets = left | plain.targets
            sentence = f"{completed}; {plain.sentence}" if plain.targets else completed
        elif plain.needs_name is not None and not is_named:
            raise self._needs_name(fleet, plain.sentence, plain.needs_name)
        if targets:
            lately = {move.gateway for move in every if at - move.at <= kept}
            sentence = _with_departed(
                sentence, sorted(departed.keys() & targets.keys()), sorted(nowhere & lately)
            )
        if unknown:
            sentence += f"; {stay_unknown(unknown)}"
        return _Rollback(
            to=to,
            targets=targets,
            known_good=known_good,
            by_itself=known_good | plain.targets,
            unsure=unsure,
            departed=departed,
            by_hand=by_hand,
            left_out=left_out,
            cause=plain.change if plain.targets else halted.cause or plain.change,
            sentence=sentence,
            moves=every,
            takes=takes,
            unfinished=unfinished,
            moved=known_good.keys() & {*left, *self._moved_by(unfinished)} - hand,
        )

    def _unknown(
        self,
        fleet: Fleet,
        to: ReleaseRef | None,
        states: Mapping[str, GatewayState],
        gone: Collection[str],
        *,
        even_if_older: bool,
    ) -> dict[str, str]:
        """Return which of these were steered by changes that the ledger does not know, each with by which.

        What it calls their known-good may be wrong. A few of many may be lying hosts, so the others go back.

        Raises:
            Refused: So many gateways are that the ledger is older than they are.
        """
        unknown = ahead(fleet.name, states, self.ledger.newest_number(fleet.name))
        if not unknown or even_if_older:
            return unknown
        within = looked_at_within(len(fleet.gateways))
        found = self.ledger.ahead({fleet.name: within}, gone).get(fleet.name)
        if found is not None and found.is_older:
            leaving = Offer(
                verb=Verb.ROLL_BACK,
                fleet=fleet.name,
                release=self._name_of(fleet, to) if to is not None else None,
                force=True,
                note="leaves these gateways as they are",
            )
            sentence = f"{found.sentence}; what it calls known-good there may be wrong"
            raise Refused(cannot_say(sentence), *found.next, leaving)
        return unknown

    def _preview_under_way(self, fleet: Fleet, newest: ChangeRecord) -> RollbackPreview:
        """Return what a rollback does to the change under way, and to what stands under it."""
        story = self.ledger.story(newest.name)
        told = story.told if story is not None else Told()
        alone = story is not None and story.order.bakes_on
        if story is not None and story.order.confirm is not None and told.waits_until is not None:
            return self._preview_of_waiting(fleet, newest, story.order.confirm)
        goes_back = newest.kind is ChangeKind.GO_BACK and not alone and not told.ends_unchanged
        has_moved = newest.kind is ChangeKind.UPGRADE and told.may_have_moved
        if goes_back or (has_moved and told.only_waits):
            return self._preview_beside(fleet, newest, told)
        if has_moved:
            return self._preview_of_taken(
                fleet, newest.name, f"{newest.name} to {newest.release} is taken back"
            )
        what = "returns single gateways alone" if alone else "has moved no session"
        ends = f"ends: {STAYS[newest.kind]}" if newest.kind in STAYS else f"{what} and ends"
        ends = f"{newest.name} {ends}"
        try:
            under = (
                self._taking_along(fleet, newest.name)
                if alone
                else self._found(fleet, None, ended=newest.name, nothing_runs=True)
            )
        except Refused as refused:
            return _preview(newest.name, f"{ends}; then {refused}", {})
        return self._preview_after(fleet, newest, ends, under)

    def _preview_after(
        self, fleet: Fleet, newest: ChangeRecord, ends: str, back: _Rollback
    ) -> RollbackPreview:
        """Return what a rollback does once a change has ended for it."""
        confirm = self._asks_second(fleet, back) if back.targets else None
        return _preview(newest.name, f"{ends}; then {back.sentence}", back.targets, confirm)

    def _preview_of_waiting(
        self, fleet: Fleet, newest: ChangeRecord, confirm: Confirmation
    ) -> RollbackPreview:
        """Return what a rollback does to one that waits for a second operator."""
        if confirm.known_good is None:
            return _preview(newest.name, nothing_without_a_name(newest.name, confirm), {}, does=False)
        instead = f"{newest.name} waits no more and goes to known-good"
        return self._preview_of_taken(fleet, newest.name, instead)

    def _preview_of_taken(self, fleet: Fleet, change: str, lead: str) -> RollbackPreview:
        """Return what a rollback does that the change under way carries out itself.

        It is bound to what every gateway will serve: a wave that begins meanwhile makes it no other one.
        """
        then, serves = self._then(fleet, self.taken_back(change))
        return _preview(change, f"{lead}: {then}", serves)

    def _preview_beside(self, fleet: Fleet, newest: ChangeRecord, told: Told) -> RollbackPreview:
        """Return what a rollback does beside a way back: something only where that just waits."""
        already = f"{newest.name} rolls back already"
        if not told.only_waits:
            return _preview(newest.name, f"{already}: {newest.reason}", {})
        more = self.beyond(fleet)
        waits = f"{already}, and waits for {listed(told.not_back, told.more_not_back)}"
        if not more.targets:
            return _preview(newest.name, f"{waits}; nothing else is taken back: {more.sentence}", {})
        left_out = self.waits_for(fleet.name)
        return self._preview_after(
            fleet, newest, waits, self._taking_along(fleet, newest.name, left_out=left_out)
        )

    def _going_back(
        self,
        fleet: Fleet,
        back: _Rollback,
        plain: Callable[[], _Rollback | None],
        person: str,
        reason: str,
        key: str | None,
        *,
        source: str | None = None,
    ) -> ChangeOrder:
        """Return the order by which gateways go there, with whoever has to confirm it.

        `plain` finds out what a rollback without a name does, None where that is refused.
        """
        plan = self.ledger.record_return(fleet, back.targets, back.departed, back.to)
        return ChangeOrder(
            fleet=fleet.name,
            kind=ChangeKind.GO_BACK,
            plan=plan,
            source=source,
            requested_by=person,
            on_behalf_of=self.ledger.makers_of(person),
            reason=reason,
            cause=back.cause,
            confirm=self._confirmation(fleet, plan, back, plain),
            key=key,
        )

    def _asks_second(self, fleet: Fleet, back: _Rollback) -> str | None:
        """Return what a second operator has to confirm; what the kept window had counts as known-good."""
        at, kept = datetime.now(UTC), fleet.limits.kept
        before = known_good_within(self.ledger.moves_since(fleet.name, at - kept), kept, at)
        pin = sentence_of(fleet.name, back.pin) if back.pin is not None else None
        return confirmation_of(fleet, back.targets, back.known_good, before, pin)

    def _confirmation(
        self, fleet: Fleet, plan: str, back: _Rollback, find_plain: Callable[[], _Rollback | None]
    ) -> Confirmation | None:
        """Return what a second operator has to confirm, None when it begins at once.

        A plan that would bring gateways only to what they serve already is none.
        """
        reason = self._asks_second(fleet, back)
        if reason is None:
            return None
        plain = find_plain()
        by_itself = {
            name: to
            for name in back.targets
            if (to := back.by_itself.get(name)) is not None
            and (name in back.unsure or to != back.known_good.get(name))
        }
        if fleet.rollback.at_deadline is AtDeadline.NOTHING:
            by_itself = {}
        return Confirmation(
            reason=reason,
            within=fleet.rollback.answer_within,
            change=plan,
            known_good=self._recorded(fleet, plain) if plain is not None else None,
            by_itself=self._recorded(fleet, replace(back, targets=by_itself)),
            then=will_serve(by_itself),
            stays=self._serving(fleet, back),
        )

    def _recorded(self, fleet: Fleet, back: _Rollback) -> Digest | None:
        """Return the plan by which gateways go to known-good, None where none goes anywhere."""
        return self.ledger.record_return(fleet, back.targets, back.departed) if back.targets else None

    def _serving(self, fleet: Fleet, back: _Rollback) -> str:
        """Return what the gateways serve that are to go back."""
        moves = [move for move in back.moves if move.gateway in back.targets]
        silent = self._silent(fleet, moves, back.takes, datetime.now(UTC))
        not_back = self.waits_for(fleet.name)
        return serving(moves, silent, served_elsewhere(moves, back.takes), not_back)

    # --- settings and credentials ----------------------------------------------------------

    def _files(self, fleet: Fleet, asked: RollbackAsked) -> ChangeRecord | str:
        """Return the reload whose files of before come back, as hosts know it, or why there is none.

        Raises:
            Conflict: `asked.of` is none, or a change that may have moved sessions would end by force.
        """
        unfinished = self.ledger.unfinished_change(fleet.name) if asked.force else None
        if unfinished is not None and unfinished.is_open:
            why = "a rollback of settings takes no release back, and gateways would stay where"
            raise _left_over(fleet.name, unfinished, why, "settings", force=True)
        of = asked.of
        found = self.ledger.reload_to_take_back(fleet.name, of)
        if found is None and of is not None:
            raise Conflict(f"{of} is no reload of {fleet.name} that could be taken back")
        if found is None:
            return (
                "no change of settings can be taken back: there was none. Write the earlier settings into "
                "the fleet's file and start them: penstock config start"
            )
        taken = self.ledger.change(found.cause or found.told)
        is_over = found.cause is not None and found.outcome is Outcome.ROLLED_BACK
        if is_over and not self._not_asked(fleet, taken, found):
            return f"{found.name} took {found.cause} back already"
        return taken

    def _not_asked(self, fleet: Fleet, taken: ChangeRecord, back: ChangeRecord) -> Collection[str]:
        """Return the gateways that may still have what a complete rollback took back from its own ones.

        They were in quarantine then, or not in the fleet's file. Only a host that has answered a later change
        of settings is known to have others; what it reported before is no proof.
        """
        rest = self._given(fleet, taken).keys() - self._members(back.plan).keys()
        states = self.ledger.states_of(fleet.name, sorted(rest)) if taken.kind is ChangeKind.CONFIGURE else {}
        later = {name for name, one in states.items() if is_newer(one.settings_answered or "", taken.name)}
        return rest - later

    def _plan_of_files(self, fleet: Fleet, taken: ChangeRecord) -> Digest | None:
        """Return the plan by which all gateways are asked at once, whichever of them fail."""
        if taken.plan is None:
            return None
        members = tuple(self._given(fleet, taken).values())
        if not members:
            return taken.plan
        return self.ledger.record_repeat(self.ledger.plan_header(taken.plan), members)

    def _given(self, fleet: Fleet, taken: ChangeRecord) -> dict[str, Member]:
        """Return the gateways that a reload was for, without any that left the fleet's file.

        Those that penstock asked again are among them, and those that joined since with the same settings.
        """
        planned = self._members(taken.plan)
        for plan in self.ledger.repeats_of(taken):
            planned = self._members(plan) | planned
        there = {gateway.name for gateway in fleet.gateways}
        given = {lines_of(member.settings) for member in planned.values() if member.settings}
        joined = dict[str, Member]()
        for plan in self.ledger.installations_since(taken) if given and there - planned.keys() else ():
            joined |= self._members(plan)
        same = {name: one for name, one in joined.items() if lines_of(one.settings or ()) in given}
        return {name: member for name, member in (same | planned).items() if name in there}

    def _files_order(
        self, fleet: Fleet, taken: ChangeRecord, person: str, reason: str, key: str | None
    ) -> ChangeOrder:
        return ChangeOrder(
            fleet=fleet.name,
            kind=taken.kind,
            plan=self._plan_of_files(fleet, taken),
            requested_by=person,
            reason=f"{person}: {reason}",
            cause=taken.name,
            key=key,
        )


def _short(release: ReleaseRef) -> str:
    """Return the beginning of the release's digest, which is enough of a name."""
    return release.digest[:19]


def _was_known_good(release: ReleaseRef, channel: str | None, until: Mapping[str, datetime | None]) -> str:
    """Return on which gateways the release was known-good, and until when."""
    now = sorted(name for name, moment in until.items() if moment is None)
    before = {name: moment for name, moment in until.items() if moment is not None}
    is_now = f"is known-good of {named(now)}" if now else ""
    was = f"was of {named(sorted(before))} until {max(before.values()):%Y-%m-%d %H:%M} UTC" if before else ""
    of = f" of channel {channel}" if channel else ""
    return f"{_short(release)}{of} {' and '.join(filter(None, (is_now, was)))}"


def _unless_refused(find: Callable[[None], _Rollback]) -> _Rollback | None:
    """Return what a rollback without a name does, None where it is refused."""
    try:
        return find(None)
    except Refused:
        return None


def _left_over(
    fleet: str, unfinished: UnfinishedChange | None, why: str, then: str, *, force: bool
) -> Conflict:
    """Return that a change without an end has to be taken back before something else is asked for."""
    change = unfinished.change if unfinished is not None else "a rollback without an end"
    return Conflict(
        f"{why} {change} has left them: take that back first, and ask for {then} after it",
        Offer(verb=Verb.ROLL_BACK, fleet=fleet, force=force),
    )


def require_shown(fleet: str, shown: Digest | None, now: RollbackPreview) -> None:
    """Refuse a rollback that does something else now than its operator was shown.

    Raises:
        Conflict: It does; the sentence says what a rollback does now.
    """
    if shown is not None and now.digest != shown:
        changed = f"the rollback of {fleet} does something else now than was shown: {now.sentence}"
        raise Conflict(changed, Offer(verb=Verb.ROLL_BACK, fleet=fleet))


def _preview(
    change: str | None,
    sentence: str,
    targets: Mapping[str, ReleaseRef],
    confirm: str | None = None,
    *,
    does: bool = True,
) -> RollbackPreview:
    digests = {name: release.digest for name, release in targets.items()}
    digest = digest_of_rollback(does=does, confirm=confirm, targets=digests)
    return RollbackPreview(change=change, does=does, sentence=sentence, confirm=confirm, digest=digest)


def _files_sentence(taken: ChangeRecord) -> str:
    what = "credentials" if taken.kind is ChangeKind.RELOAD else "settings"
    return f"what runs gets again the {what} that it had before {taken.name}; every gateway keeps its release"


def _with_departed(sentence: str, departed: list[str], unknown: list[str]) -> str:
    """Return the sentence with what becomes of gateways that the fleet's file does not have any more."""
    if departed:
        sentence += f"; {named(departed)} left the fleet's file and goes back if it answers"
    if unknown:
        sentence += f"; {named(unknown)} is in neither the fleet's file nor a plan and stays as it is"
    return sentence


def _refuse_root(fleet: Fleet, confirm: Confirmation | None, person: str) -> None:
    """Refuse what waits for a second operator when the caller may be that operator, too."""
    if confirm is None or person != ROOT:
        return
    rules = fleet.rollback.model_dump(include={"confirm_other_release", "confirm_whole_group"})
    alone = ", ".join(f"{name}: false" for name, asks in rules.items() if asks)
    raise NotAllowed(
        f"{confirm.reason}: a second operator has to approve it, and root may be anybody on this host, that "
        "operator too. Ask for it in your own name, by people.yaml with two people. Where root is the only "
        f"one, write `rollback: {{{alone}}}` into the file of {fleet.name} and repeat this"
    )
