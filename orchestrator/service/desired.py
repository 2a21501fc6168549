"""Desired state: compares files with what is so, and has descriptions of fleets written down."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from pydantic import Field

from activities.files import FleetFiles, parse
from orchestrator.service.acting import Acting
from orchestrator.service.background import DESCRIPTIONS, LOOKS
from orchestrator.service.description_file import DescriptionFile
from orchestrator.service.drift import MOST, Drift, differences
from orchestrator.service.fleets import Fleets
from orchestrator.service.foreign_files import ReadText, read_body, read_description
from orchestrator.service.one_person import KnownNames, first_of
from orchestrator.service.people import PeopleFile
from orchestrator.service.pins import Pins
from orchestrator.service.standing import looked_at_within
from orchestrator.service.surveys import Surveyed
from orchestrator.store.ledger import Ledger
from policies.access import Action, refusal_of
from policies.adoption import is_adopted
from policies.approvals import LASTS, approved, require_same_file
from policies.descriptions import differences as differences_of
from policies.descriptions import joining, leaving, shortened, weakened
from policies.model.approval import Approved, Required
from policies.model.change import ChangeKind
from policies.model.desired import (
    AppliedKind,
    Commit,
    Pin,
    Revision,
    StartWhen,
    Text,
    Upgrade,
    Why,
    WishState,
)
from policies.model.errors import BadInput, Conflict, Refused, Unknown
from policies.model.fleet import Fleet
from policies.model.offer import Offer, Verb
from policies.model.people import ROOT, Caller
from policies.model.plan import ReleaseRef, Strategy
from policies.model.value import Digest, Name, Value, digest_of
from policies.pins import wish_state
from policies.rebuilding import nothing_starts

SENTENCES = 200
"""Differences of a description that are named; more are counted."""

NAMED = 50
"""Gateways that are named; more are counted."""


class Applied(Value):
    """A file that is to be applied, and from where it is."""

    file: Text
    commit: Commit | None = None
    author: str = Field(default="", max_length=200)
    follows: Commit | None = Field(
        default=None, description="the commit that was applied last, which this one contains"
    )
    even_if_older: bool = Field(default=False, description="also where it does not contain that commit")


class DescriptionApplied(Applied):
    """A description that is to be applied in place of the one that was compared."""

    base: Digest | None = Field(default=None, description="of the text that it replaces; None where is none")
    replace_edited: bool = Field(default=False, description="also where somebody edited the file since")
    reason: Why


class UpgradeApplied(Applied):
    """An upgrade that is to be applied, as it was planned."""

    plan: Digest | None = Field(default=None, description="start only this plan")


class Described(Value):
    """How a description differs from the one that is so."""

    base: Digest | None
    """Of the text that is so."""
    place: str
    """The file that it is in, on the orchestrator's host."""
    same: bool
    """Whether it is the very same text."""
    recorded: bool
    """Whether it is the text that was applied last."""
    differences: tuple[str, ...] = ()
    weaker: tuple[str, ...] = ()
    """Which of it makes a safeguard weaker; then a second administrator has to apply it, too."""
    approved: Approved
    joins: tuple[Name, ...] = ()
    leaves: tuple[Name, ...] = ()
    edited: bool = False
    """Whether the file was edited since something was applied to it last."""
    last: Revision | None = None
    refusal: str | None = None
    """Why whoever asks may not apply it."""


class Wish(Value):
    """How far the fleet is from the release that an upgrade asks for."""

    release: Digest
    version: str
    strategy: Strategy
    reason: str
    start: StartWhen
    state: WishState
    change: Name | None = None
    """The change that goes on, or that led there."""
    on: dict[str, int] = {}
    """Versions that gateways are on, each with how many."""
    known_good: ReleaseRef | None = None
    """What the fleet is on, where that is one release."""
    pin: Pin | None = None
    unconfirmed: str | None = None
    """Why the fleet is pinned against every release: its ledger was restored or rebuilt."""
    last: Revision | None = None
    recorded: bool = False
    """Whether its file is the text that was applied last."""
    refusal: str | None = None
    """Why whoever asks may not apply it."""


class Joiners(Value):
    """Gateways that never had a release, and which one they get."""

    gateways: tuple[Name, ...] = ()
    count: int = 0
    release: ReleaseRef | None = None
    """The one that all others have; None where there is none, or several."""
    change: Name | None = None
    """The installation that goes on."""
    refusal: str | None = None
    """Why whoever asks may not bring them up."""


class Comparison(Value):
    """What applying files would do to one fleet, and what is not as it should be there anyway."""

    fleet: Name
    description: Described | None = None
    upgrade: Wish | None = None
    joiners: Joiners = Joiners()
    drift: Drift | None = None
    """By what gateways said last; None of a fleet that is new."""
    strangers: tuple[Name, ...] = ()
    """Gateways that answer, or are on a release, and that the description does not have."""


class AppliedDescription(Value):
    """What became of a description."""

    revision: Revision
    new: bool
    """Whether it was not so before."""


class AppliedUpgrade(Value):
    """What became of an upgrade that was applied."""

    state: WishState
    start: StartWhen
    change: Name | None = None
    started: bool = False
    waits: str | None = None
    """What the change waits for and until when, in the words of its status; None where it goes on."""


class Unpinned(Value):
    """Which pin was released."""

    release: Digest | None = None
    """None where an operator has confirmed the whole ledger of the fleet."""
    version: str | None = None
    change: Name | None = None
    new: bool
    sentence: str


@dataclass(frozen=True)
class DesiredService:
    """Compares files with what is so; who may apply what is asked here, and by `Service` for upgrades."""

    fleets: Fleets
    files: FleetFiles
    ledger: Ledger
    people: PeopleFile
    acts: Acting

    @property
    def pins(self) -> Pins:
        """What the fleets do not get again by themselves."""
        return Pins(self.ledger)

    async def compare(self, caller: Caller, fleet: str, body: bytes) -> Comparison:
        """Return what applying these files would do; nothing is changed, and no gateway is asked.

        Args:
            caller: Who asks.
            fleet: Whose files.
            body: A `Compared` as JSON; it is parsed once it is clear that the caller may look at the fleet.

        Raises:
            Malformed: The body is no `Compared`.
            BadInput: A file is not as it must be, or of another fleet.
            Refused: The release was withdrawn.
        """
        await asyncio.to_thread(self.fleets.require, caller, Action.READ, fleet)
        asked = await read_body(body, LOOKS, caller.person)
        compare = partial(self._compare, caller, fleet, asked.description, asked.upgrade)
        return await LOOKS.run(compare, caller.person)

    def _compare(
        self, caller: Caller, name: str, description: ReadText | None, wish: ReadText | None
    ) -> Comparison:
        before = self.files.all().get(name)
        try:
            wanted = _description(description, name) if description is not None else None
        except BadInput as wrong:
            if before is None:
                raise Unknown(f"there is no fleet {name}, and this describes none: {wrong}") from wrong
            raise
        now = wanted or before
        if now is None:
            raise Unknown(f"no file describes the fleet {name}; apply one with its gateways first")
        known_good = self.ledger.known_good(name)
        described = None
        if wanted is not None and description is not None:
            described = self._described(caller, before, wanted, description.digest, set(known_good))
        upgrade = None
        if wish is not None:
            upgrade = self._wish_seen(caller, now, wish, known_good)
        return Comparison(
            fleet=name,
            description=described,
            upgrade=upgrade,
            joiners=self._joiners(now, known_good, refusal_of(caller, Action.START, name)),
            drift=self._drift(before, known_good) if before is not None else None,
            strangers=self._strangers(now, known_good),
        )

    def _described(
        self, caller: Caller, before: Fleet | None, wanted: Fleet, text: Digest, serving: set[str]
    ) -> Described:
        file = DescriptionFile(self.files.place_of(wanted.name))
        lies_there = file.read()
        base = digest_of(lies_there) if lies_there is not None else None
        same = base == text
        last = self._last(wanted.name, lies_there)
        remembered = self.ledger.newest_revision(wanted.name, AppliedKind.DESCRIPTION)
        before = before or self._applied_last(wanted.name)
        weaker = self._weaker(before, wanted, serving, lies_there)
        found = () if same else tuple(differences_of(before, wanted))
        return Described(
            base=base,
            place=str(file.path),
            same=same,
            recorded=_is_last(remembered, text),
            differences=shortened(found, SENTENCES),
            weaker=() if same else shortened(weaker, SENTENCES),
            approved=self._approved(caller.person, wanted.name, base, text, () if same else weaker),
            joins=joining(before, wanted)[:NAMED],
            leaves=leaving(before, wanted)[:NAMED],
            edited=not same and _is_edited(base, last),
            last=last,
            refusal=refusal_of(caller, Action.ADMINISTER, wanted.name),
        )

    def _last(self, name: str, lies_there: bytes | None) -> Revision | None:
        """Return what was applied last, also by somebody who was killed before the ledger heard of it."""
        forgotten = self._not_remembered(name, lies_there)
        return forgotten or self.ledger.newest_revision(name, AppliedKind.DESCRIPTION)

    def _not_remembered(self, name: str, lies_there: bytes | None) -> Revision | None:
        """Return what lies there, where whoever put it there was killed before writing that down."""
        newest = self.ledger.newest_revision(name, AppliedKind.DESCRIPTION)
        if lies_there is None or (newest is not None and newest.digest == digest_of(lies_there)):
            return None
        return self.ledger.intended_revision(name, AppliedKind.DESCRIPTION, digest_of(lies_there))

    def _remember(self, name: str, lies_there: bytes | None) -> None:
        """Write that down for them, with their name and commit."""
        forgotten = self._not_remembered(name, lies_there)
        if forgotten is None or lies_there is None:
            return
        self.ledger.record_revision(
            name,
            AppliedKind.DESCRIPTION,
            lies_there.decode(),
            forgotten.person,
            commit=forgotten.commit,
            author=forgotten.author,
        )

    def _applied_last(self, name: str) -> Fleet | None:
        """Return what the fleet's file last said by this road, where what lies there cannot be read."""
        text = self.ledger.newest_text(name, AppliedKind.DESCRIPTION)
        try:
            return parse(text, f"the revision of {name}", Fleet) if text is not None else None
        except BadInput:
            return None  # an older penstock took it, and this one asks for more

    def _weaker(
        self, before: Fleet | None, wanted: Fleet, serving: set[str], lies_there: bytes | None
    ) -> tuple[str, ...]:
        if before is None and lies_there is not None:
            return ("what its file says now cannot be read, so nobody knows what would be weaker",)
        return weakened(before, wanted, serving)

    def _approved(
        self, person: str, fleet: str, base: Digest | None, text: Digest, weaker: tuple[str, ...]
    ) -> Approved:
        """Return who else has applied this text in place of that one, where that takes two people."""
        if not weaker:
            return Approved(required=Required())
        given, names = (
            self.ledger.approvals(_agreement(fleet, base, text)),
            KnownNames(self.ledger, self.people),
        )
        return approved(
            Required(count=1, kind="description", reason=weaker[0]),
            names.who_may_still([one for one in given if one.person != ROOT], Action.ADMINISTER, fleet),
            requesters=names.of({person}, first_of(given)),
            signers=(),
            now=datetime.now(UTC),
        )

    def _joiners(self, fleet: Fleet, known_good: dict[str, ReleaseRef], refusal: str | None) -> Joiners:
        left_out = {one.gateway for one in self.ledger.quarantined(fleet.name)}
        names = [one.name for one in fleet.gateways if one.name not in known_good]
        names = [name for name in names if name not in left_out]
        last = self.ledger.last_change(fleet.name)
        goes_on = last is not None and last.outcome is None and last.kind is ChangeKind.INSTALL
        return Joiners(
            gateways=tuple(names[:NAMED]),
            count=len(names),
            release=_the_one(fleet, known_good),
            change=last.name if last is not None and goes_on else None,
            refusal=refusal,
        )

    def _strangers(self, fleet: Fleet, known_good: dict[str, ReleaseRef]) -> tuple[str, ...]:
        described = {gateway.name for gateway in fleet.gateways}
        said = self.ledger.heard_of(fleet.name, looked_at_within(len(fleet.gateways)))
        return tuple(sorted((said | known_good.keys()) - described)[:MOST])

    def _drift(self, fleet: Fleet, known_good: dict[str, ReleaseRef]) -> Drift:
        """Return where what gateways said last differs from what is to be so."""
        states, silent = self.ledger.states(fleet.name, looked_at_within(len(fleet.gateways)))
        names = {gateway.name for gateway in fleet.gateways}
        found = list(differences(fleet, Surveyed(states=states, silent=silent), known_good))
        unseen = sorted((names & known_good.keys()) - states.keys())
        return Drift(
            differences=tuple(found[:MOST]),
            count=len(found),
            gateways=len(names & states.keys()),
            silent=tuple(unseen[:MOST]),
        )

    # --- descriptions ------------------------------------------------------------------

    async def require_administrator(self, caller: Caller, fleet: str) -> None:
        """Return when the caller may have the fleet described.

        Raises:
            Unknown: There is no such fleet, as far as the caller may know.
            NotAllowed: The caller has another role there.
        """
        await asyncio.to_thread(self.fleets.require, caller, Action.ADMINISTER, fleet)

    async def describe(self, caller: Caller, fleet: str, asked: DescriptionApplied) -> AppliedDescription:
        """Have the fleet described by this text from now on; a repeat changes nothing.

        Raises:
            BadInput: It is no description of the fleet, or cannot be written.
            Conflict: Something else was written or applied meanwhile, or a gateway would leave amid a change.
            Refused: It was edited by hand, or is not known to follow what was applied last.
            ApprovalRequired: It makes a safeguard weaker, and nobody else has applied it so far.
        """
        await asyncio.to_thread(self.fleets.require, caller, Action.ADMINISTER, fleet)
        text = asked.file.text
        said = {
            "digest": digest_of(text.encode()),
            "in place of": asked.base,
            "commit": asked.commit,
            "reason": asked.reason,
        }

        async def work() -> AppliedDescription:
            described = await read_description(asked.file, DESCRIPTIONS, caller.person)
            return await DESCRIPTIONS.run(partial(self._describe, caller, fleet, asked, described))

        return await self.acts.audited(caller, "description asked for", fleet, said, work)

    def _describe(
        self, caller: Caller, name: str, asked: DescriptionApplied, described: ReadText
    ) -> AppliedDescription:
        wanted, text = _description(described, name), asked.file.text
        file = DescriptionFile(self.files.place_of(name))
        lies_there = file.read()
        is_so = lies_there == text.encode()
        revised = (name, AppliedKind.DESCRIPTION, text, caller.person)
        self._remember(name, lies_there)
        if not is_so:
            self._require_replaceable(caller, wanted, asked, lies_there)
            self.ledger.intend_revision(*revised, commit=asked.commit, author=asked.author)
            file.replace(text.encode(), asked.base, Offer(verb=Verb.STATUS, fleet=name))
        revision = self.ledger.record_revision(*revised, commit=asked.commit, author=asked.author)
        return AppliedDescription(revision=revision, new=not is_so)

    def _require_replaceable(
        self, caller: Caller, wanted: Fleet, asked: DescriptionApplied, lies_there: bytes | None
    ) -> None:
        name = wanted.name
        last = self.ledger.newest_revision(name, AppliedKind.DESCRIPTION)
        require_following(last, asked)
        if _is_edited(asked.base, last) and not asked.replace_edited:
            raise Refused(
                f"the description of {name} was edited on the orchestrator's host since revision "
                f"{last.number if last else 0}: take that over into your file, or say --replace-edited"
            )
        before = self.files.all().get(name) or self._applied_last(name)
        if gone := leaving(before, wanted):
            self._refuse_leaving(name, gone)
        serving = set(self.ledger.known_good(name))
        weaker = self._weaker(before, wanted, serving, lies_there)
        text = digest_of(asked.file.text.encode())
        found = self._approved(caller.person, name, asked.base, text, weaker)
        if found.lacking:
            digest = _agreement(name, asked.base, text)
            asks = partial(self.ledger.approve_plan, groups=caller.groups, action="weaker description wanted")
            asks(digest, name, caller.person, asked.reason, LASTS)
            require_same_file(found)

    def _refuse_leaving(self, fleet: str, gone: tuple[str, ...]) -> None:
        open_changes = self.ledger.open_changes(fleet)
        # A lost change may wait for a gateway that is gone, until that leaves.
        under_way = [name for name in open_changes if self.ledger.lock_passed_on(name) is None]
        if under_way:
            raise Conflict(
                f"{gone[0]} cannot leave {fleet} while {under_way[0]} is under way; apply it afterwards",
                Offer(verb=Verb.WATCH, fleet=fleet),
            )

    # --- upgrades ----------------------------------------------------------------------

    def wish(self, fleet: Fleet, wanted: Upgrade) -> Wish:
        """Return how far the fleet is from the release of an upgrade.

        Raises:
            Unknown: The ledger does not have the release.
            BadInput: It has another version than the file says.
            Refused: It was withdrawn.
        """
        return self._wish(fleet, wanted, self.ledger.known_good(fleet.name))

    def _wish_seen(
        self, caller: Caller, fleet: Fleet, file: ReadText, known_good: dict[str, ReleaseRef]
    ) -> Wish:
        wanted = upgrade_in(file, fleet.name)
        found = self._wish(fleet, wanted, known_good)
        refusal = refusal_of(caller, action_to_apply(wanted), fleet.name)
        return found.model_copy(update={"refusal": refusal, "recorded": _is_last(found.last, file.digest)})

    def _wish(self, fleet: Fleet, wanted: Upgrade, known_good: dict[str, ReleaseRef]) -> Wish:
        release = self.ledger.release(wanted.release, fleet.product)
        if wanted.version is not None and wanted.version != release.version:
            raise BadInput(
                f"release {release.digest[:19]} is {release.version}, and the file calls it "
                f"{wanted.version}; one of them is meant"
            )
        theirs = [known_good[one.name] for one in fleet.gateways if one.name in known_good]
        last = self.ledger.last_change(fleet.name)
        under_way = last if last is not None and last.outcome is None else None
        newest = self.ledger.newest_to(fleet.name, release.digest)
        pin = self.pins.of(fleet.name, release.digest)
        state = wish_state(
            release.digest,
            on=Counter(one.digest for one in theirs),
            under_way=under_way,
            newest=newest,
            last_move=self.ledger.last_move(fleet.name),
            pin=pin,
        )
        ledger = self.ledger.unconfirmed(fleet.name) if state is WishState.WANTED else None
        led = under_way or newest
        return Wish(
            release=release.digest,
            version=release.version,
            strategy=wanted.strategy,
            reason=wanted.reason,
            start=wanted.start,
            state=state if ledger is None else WishState.PINNED,
            change=led.name if led is not None else None,
            on=dict(sorted(Counter(one.version for one in theirs).items())),
            known_good=_the_one(fleet, known_good),
            pin=pin,
            unconfirmed=nothing_starts(ledger) if ledger is not None else None,
            last=self.ledger.newest_revision(fleet.name, AppliedKind.UPGRADE),
        )

    async def unpin(self, caller: Caller, fleet: str, reason: str, release: str | None) -> Unpinned:
        """Let the fleet get a release again that it went back from; a person says so, for this one time.

        Without a release this confirms a ledger that was restored or rebuilt, where none has done so yet.

        Raises:
            Refused: Nothing pins the fleet against it; or no release is named, and the pin is older than the
                confirmation of the ledger, which this may be a repeat of.
        """
        named = await asyncio.to_thread(self.fleets.for_action, caller, Action.UNPIN, fleet)

        async def work() -> Unpinned:
            return await asyncio.to_thread(self._unpin, caller, named, reason, release)

        asked = {"reason": reason, "release": release}
        return await self.acts.audited(caller, "release of a pin asked for", fleet, asked, work)

    def _unpin(self, caller: Caller, fleet: Fleet, reason: str, release: str | None) -> Unpinned:
        if release is None and self.ledger.confirm(fleet.name, caller.person, reason):
            again = "files, schedules and machines may start changes again"
            return Unpinned(new=True, sentence=f"the ledger of {fleet.name} is confirmed: {again}")
        found = self._pinned_as(fleet, release) if release is not None else None
        pin = self.pins.of(fleet.name, found.digest) if found is not None else self.pins.last(fleet.name)
        if pin is None:
            what = found.version if found is not None else "the release that it left last"
            raise Refused(
                f"nothing pins {fleet.name} against {what}", Offer(verb=Verb.STATUS, fleet=fleet.name)
            )
        confirmed = self.ledger.confirmed(fleet.name) if release is None else None
        if confirmed is not None and pin.at is not None and pin.at < confirmed:
            sentence = f"the ledger of {fleet.name} is confirmed; name the release that it is pinned against"
            raise Refused(sentence, Offer(verb=Verb.UNPIN, fleet=fleet.name, release=pin.version))
        new = self.ledger.release_pin(fleet.name, pin.change, caller.person, reason)
        sentence = (
            f"{fleet.name} is not pinned against {pin.version} any more: {pin.change} does not count now"
        )
        return Unpinned(
            release=pin.release, version=pin.version, change=pin.change, new=new, sentence=sentence
        )

    def _pinned_as(self, fleet: Fleet, name: str) -> ReleaseRef:
        """Return the release that an operator means by that name: one that is pinned, if any is."""
        rows = self.ledger.releases_called(name, fleet.product)
        pinned = [row for row in rows if self.pins.of(fleet.name, row.release.digest) is not None]
        return self.ledger.only_release(name, pinned or rows)


def action_to_apply(wanted: Upgrade) -> Action:
    """Return what somebody has to be allowed to apply an upgrade."""
    return Action.START if wanted.start is StartWhen.ON_APPROVAL else Action.PLAN


def upgrade_in(file: ReadText, fleet: str) -> Upgrade:
    """Return what a file asks for; BadInput when it is not as it must be, or for another fleet."""
    wanted = file.value(Upgrade)
    _require_of(file.path, wanted.fleet, fleet)
    return wanted


def require_following(last: Revision | None, asked: Applied) -> None:
    """Return if what is applied is known to contain what was applied last, or meant anyway.

    Raises:
        Refused: It may be older.
        Conflict: Something else was applied since whoever asks has looked.
    """
    if last is None or last.commit is None or is_following(last, asked):
        return
    when = f"{last.kind.value} of {last.fleet}, revision {last.number}, is of commit {last.commit[:12]}"
    if asked.follows is None:
        raise Refused(
            f"{when}, which what is applied now is not known to contain; bring your checkout up to date, "
            "or say --even-if-older"
        )
    raise Conflict(f"{when}, which was applied meanwhile; compare again")


def is_following(last: Revision | None, asked: Applied) -> bool:
    """Return whether what is applied is known to contain what was applied last, or is meant anyway."""
    if last is None or last.commit is None or asked.even_if_older:
        return True
    return asked.follows == last.commit or _is_last(last, digest_of(asked.file.text.encode()))


def _is_last(last: Revision | None, text: Digest) -> bool:
    """Whether the text of this digest is the one that was applied last."""
    return last is not None and last.digest == text


def _is_edited(base: Digest | None, last: Revision | None) -> bool:
    """Whether what lies there is not what was applied last."""
    return last is not None and base != last.digest


def _description(file: ReadText, fleet: str) -> Fleet:
    found = file.value(Fleet)
    _require_of(file.path, found.name, fleet)
    return found


def _require_of(path: str, found: str, fleet: str) -> None:
    if found != fleet:
        raise BadInput(f"{path} is about the fleet {found}, not {fleet}; ask for {found}")


def _agreement(fleet: str, base: Digest | None, text: Digest) -> Digest:
    """Return what two people agree on: the text of this digest in place of exactly that one."""
    return digest_of(f"description\n{fleet}\n{base}\n{text}".encode())


def _the_one(fleet: Fleet, known_good: dict[str, ReleaseRef]) -> ReleaseRef | None:
    """Return the one release that all gateways have that have any; None for none or several."""
    found = {
        known_good[one.name].digest: known_good[one.name] for one in fleet.gateways if one.name in known_good
    }
    only = next(iter(found.values())) if len(found) == 1 else None
    return None if only is None or is_adopted(only) else only  # what was adopted is nowhere else to be had
