"""A change: one thing done to a fleet under its lock, with one unique name and one line in its history."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import Field

from policies.model.plan import ReleaseRef
from policies.model.value import Digest, Name, Value
from policies.model.verdict import Decision
from policies.model.way_back import Confirmation
from policies.model.windows import WindowOverride


class ChangeKind(StrEnum):
    """What is done to the fleet."""

    UPGRADE = "upgrade"
    GO_BACK = "go_back"
    INSTALL = "install"
    RELOAD = "reload"
    CONFIGURE = "configure"
    ADOPT = "adopt"


RELOADS = (ChangeKind.RELOAD, ChangeKind.CONFIGURE)
"""Changes that give running instances other files, and touch no session."""

NOT_ASKED = "the others were not asked"
"""What the end of a reload says that was stopped: nobody goes on with it by itself."""

STAYS = {
    ChangeKind.INSTALL: "gateways that were installed by now keep their release",
    ChangeKind.ADOPT: "gateways that were adopted by now stay adopted",
}
"""What a rollback leaves of a change that it ends."""

MOVES_NOBODY = (ChangeKind.INSTALL, ChangeKind.ADOPT, *RELOADS)
"""Changes that move no session, so there is nothing to take back."""


def label_without_release(kind: ChangeKind) -> str:
    """Return what a change without a release of its own leads to, as people call it."""
    return _LABELS.get(kind, "known-good")


_LABELS = {
    ChangeKind.ADOPT: "what serves",
    ChangeKind.RELOAD: "credentials",
    ChangeKind.CONFIGURE: "settings",
}


class Phase(StrEnum):
    """Where a change is."""

    STARTING = "starting"
    WAITING = "waiting"
    """The next wave may not start yet. Only told: what a change remembers is the phase before."""
    SWITCHING = "switching"
    OBSERVING = "observing"
    HELD = "held"
    PROMOTING = "promoting"
    ROLLING_BACK = "rolling_back"
    ENDED = "ended"


class Outcome(StrEnum):
    """How a change ended."""

    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    ROLLBACK_INCOMPLETE = "rollback_incomplete"
    REFUSED = "refused"
    ABORTED = "aborted"
    HELD = "held"


class ChangeOrder(Value):
    """Everything a change needs to know before its first step; its plan is read by digest.

    Without a plan a change that goes back looks up, under the lock, what is not on its known-good, and one
    of credentials or settings which gateways missed the last one.
    `source` is where a release comes from that is not on a host; `cause` is the change before this one.
    """

    fleet: Name
    kind: ChangeKind
    plan: Digest | None = None
    source: str | None = None
    requested_by: str = "penstock"
    on_behalf_of: tuple[str, ...] = Field(
        default=(), description="who may have asked through a machine: the makers of its tokens"
    )
    reason: str = Field(min_length=1)
    cause: Name | None = None
    even_if_unusual: bool = Field(default=False, description="wanted though this hour is unlike the usual")
    even_if_older: bool = Field(
        default=False,
        exclude_if=lambda older: not older,  # what no reload asked for reads as it always did
        description="of a reload: also credentials that are older or name less than those in use",
    )
    confirm: Confirmation | None = Field(default=None, description="what a second person has to say yes to")
    bakes_on: bool = Field(default=False, description="single gateways return, the others are still watched")
    alone: tuple[Name, ...] = ()
    """The gateways that failed alone after a promotion; the watch over it tries again those not back soon."""
    listener: str | None = Field(
        default=None,
        exclude_if=lambda workflow: workflow is None,
        description="the workflow to which the return of gateways that failed alone is reported",
    )
    without: tuple[str, ...] = Field(
        default=(), description="keys of a daemon's own configuration that may stay behind when it is adopted"
    )
    key: str | None = Field(
        default=None,
        description="of the request that asked for it; none begins without one",
    )
    repeats: Name | None = Field(
        default=None,
        exclude_if=lambda change: change is None,
        description="the reload that it brings to those who missed it; hosts know it as that one",
    )

    beside: Name | None = Field(
        default=None,
        exclude_if=lambda change: change is None,
        description="the change that only waits, and lets this one in meanwhile",
    )
    drifted: tuple[Name, ...] = Field(
        default=(),
        exclude_if=lambda names: not names,
        description="of a return beside another change: the gateways that may go back meanwhile",
    )
    ended: str = Field(
        default="",
        exclude_if=lambda sentence: not sentence,
        description="how a rollback ended that only waited, so that this change may begin",
    )
    asks_window: bool = Field(
        default=False,
        exclude_if=lambda asks: not asks,  # changes of before go on as they began
        description="whether each wave waits until windows and freezes let it start",
    )
    start_by: datetime | None = Field(
        default=None,
        exclude_if=lambda moment: moment is None,
        description="when the opening closes for which the plan was approved; nothing begins after that",
    )
    override: WindowOverride | None = Field(
        default=None,
        exclude_if=lambda override: override is None,
        description="who starts it outside of every window, and why",
    )

    @property
    def is_let_in(self) -> bool:
        """Whether a change that only waits lets it in: it moves no known-good, and makes no plan stale.

        Of settings these are the ones that gateways missed and that the others have, and rollbacks.
        """
        if self.kind is ChangeKind.RELOAD or self.takes_back is not None:
            return True
        return self.plan is None and (self.kind is ChangeKind.CONFIGURE or self.bakes_on)

    @property
    def gives_way(self) -> bool:
        """Whether every rollback ends it: single gateways return, or penstock gives what some have missed."""
        return self.bakes_on or (self.kind in RELOADS and self.requested_by == PENSTOCK)

    def ends_for(self, *, of_files: bool) -> bool:
        """Return whether a rollback ends it at once, or one of settings and credentials (`of_files`)."""
        return self.gives_way or (of_files and self.kind in RELOADS)

    @property
    def takes_back(self) -> Name | None:
        """The reload whose files of before are put back, None where new ones are given."""
        return self.cause if self.kind in RELOADS else None

    @property
    def requesters(self) -> tuple[str, ...]:
        """Everybody who may have asked for it: none of them is a second person."""
        return (self.requested_by, *self.on_behalf_of)


class ChangeResult(Value):
    """How a change ended and why, in a sentence that is never empty."""

    rollout: str
    outcome: Outcome
    reason: str = Field(min_length=1)
    decision: Decision | None = None
    touched: int = 0
    aside: dict[str, str] = Field(default={}, description="the first gateways that were left out, with why")
    incomplete: dict[str, str] = Field(
        default={}, description="the first that were given up, with who said so"
    )
    more_incomplete: int = Field(
        default=0, exclude_if=lambda count: not count, description="how many were given up besides these"
    )
    steered_back_after: timedelta | None = None


class ChangeOpening(Value):
    """What is known of a change when it begins; the ledger answers with its name.

    `key` is the caller's own name for this one occurrence (a workflow's run id, a command's id):
    told again with the same key it is the same change.
    """

    key: str = Field(min_length=1)
    run: str = Field(default="", description="the engine's own name for the workflow that carries it out")
    fleet: Name
    kind: ChangeKind
    requested_by: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    release: str = Field(description="what it leads to, as people call it; a label")
    release_digest: Digest | None = None
    plan: Digest | None = None
    cause: Name | None = Field(default=None, description="the change that this one follows")
    repeats: Name | None = Field(default=None, description="the change that it brings to who missed it")
    beside: Name | None = Field(default=None, description="the change that has the lock and lets this one in")


class ChangeEnding(Value):
    """How a change ended, in a sentence that is never empty."""

    change: Name
    outcome: Outcome
    sentence: str = Field(min_length=1)
    release: str = Field(
        default="",
        exclude_if=lambda label: not label,
        description="what it led to, where that is not the release that it was to lead to",
    )


class ChangeRecord(Value):
    """One line of a fleet's history; `ended` and `outcome` are None until it has ended.

    `moved` counts the gateways that had another known-good before this change, `taken_back` those
    of them which a later change returned to it, `taken_back_by` the last change that did so.
    """

    name: Name
    number: int = Field(ge=1)
    fleet: Name
    kind: ChangeKind
    requested_by: str
    reason: str
    release: str
    release_digest: Digest | None = None
    plan: Digest | None = None
    cause: Name | None = None
    repeats: Name | None = None
    began: datetime
    ended: datetime | None = None
    outcome: Outcome | None = None
    sentence: str = ""
    moved: int = Field(default=0, ge=0)
    taken_back: int = Field(default=0, ge=0)
    taken_back_by: Name | None = None

    @property
    def told(self) -> Name:
        """The change as hosts know it: what repeats another one is that one to them."""
        return self.repeats or self.name

    @property
    def is_taken_back(self) -> bool:
        """Whether half of its gateways, or more, were returned: what stands is no promotion to go on with."""
        return self.taken_back * 2 >= self.moved


class HistoryRow(ChangeRecord):
    """A line of the history with what is left of that change today."""

    standing: str
    headline: str = ""
    """What the signers of the release say that it changes, in a line."""


class Promotion(Value):
    """The release that a change promoted on a gateway; a later change has a higher number."""

    number: int = Field(ge=1)
    release: ReleaseRef


class KnownGoodMove(Value):
    """What one gateway's known-good is, what it was before, and which change moved it when."""

    gateway: Name
    release: ReleaseRef
    before: ReleaseRef | None = None
    """None for the first known-good of a gateway."""
    change: Name
    number: int = Field(ge=1)
    """The number of that change: a later change has a higher one."""
    kind: ChangeKind
    at: datetime
    returned: bool = False
    """Whether the gateway went back to this release: going back again never goes forward."""
    by_name: bool = False
    """Whether the operator of that rollback named this release."""
    left: Promotion | None = None
    """Of a last move by which the gateway went back: its last promotion, which that return has left."""

    @property
    def promotion(self) -> Promotion | None:
        """The gateway's last promotion, whether it stands or the gateway went back from it."""
        if self.is_promotion:
            return Promotion.of_valid(number=self.number, release=self.release)
        return self.left

    @property
    def is_promotion(self) -> bool:
        """Whether the change gave the gateway another release, which a rollback takes back."""
        return (
            not self.returned
            and self.kind not in MOVES_NOBODY
            and self.before is not None
            and self.before != self.release
        )

    @property
    def led_away_from(self) -> ReleaseRef | None:
        """The release that the gateway left by going back, otherwise the one that it has."""
        return self.before if self.returned else self.release


class UnfinishedChange(Value):
    """The change that has not ended, or whose rollback is incomplete; the next rollback completes it.

    `takes_back` is the promotion that it was taking back, where it was a rollback itself. One that has not
    `moved` any session ends with the rollback, which takes back what stands under it.
    """

    change: Name
    takes_back: Name | None = None
    plan: Digest | None = None
    ended: bool = False
    moved: bool = True

    @property
    def is_open(self) -> bool:
        """Whether it has no end, and may have moved sessions."""
        return self.moved and not self.ended


class LostChange(Value):
    """A change without an end whose workflow does not run any more, and what it left in known-good."""

    record: ChangeRecord
    before: dict[Name, ReleaseRef] = {}
    """What gateways had before it, of those that have its release as known-good."""
    is_complete: bool = False
    """Whether it promoted all gateways of its plan but those it set aside or began without, and that stands.

    Then only its end was not written. A gateway that was returned alone since makes no half promotion of it.
    """


class RollbackTargets(Value):
    """What a rollback of the release does now: which release each gateway will serve after it.

    `targets` is empty when there is nothing to do; the sentence says why. `needs_name` is the release that
    gateways had before a promotion older than the kept window: a rollback to it has to name it.
    """

    change: Name | None = None
    """The change that is taken back."""
    finished: bool = True
    """False when that change has not ended, or its rollback is incomplete."""
    targets: dict[Name, ReleaseRef] = {}
    needs_name: ReleaseRef | None = None
    sentence: str = Field(min_length=1)


class KnownGoodBatch(Value):
    """The new known-good of a few gateways, and the change that made it so.

    `back` says that the change takes its own promotion back; from then on it is never promoted again.
    """

    fleet: Name
    change: Name
    releases: Mapping[str, ReleaseRef]
    back: bool = False


class GatewayResult(Value):
    """How one gateway fares in a change; the newest `at` counts."""

    gateway: Name
    wave: int = 0
    state: str = Field(min_length=1)
    sentence: str = ""
    slot: str | None = Field(default=None, description="where the new instance runs, while it is on trial")
    started: float | None = Field(
        default=None,
        description="when the instance was started that got new sessions there, seconds of the epoch",
    )
    at: datetime


PENSTOCK = "penstock"
"""Who acts where no person does."""

PENSTOCK_WATCH = "penstock.watch"
"""Who holds a change where a watch has found harm about which operators decide."""


IN_QUARANTINE = "in quarantine"
"""How the reason begins for which a change leaves a gateway in quarantine out."""


class Returns(Value):
    """How often a gateway was brought back in the last hours, also where it took part in changes between."""

    gateway: Name
    tries: int = 0
    """How many changes of reconcile have begun to bring it back."""
    came_back: bool = True
    """Whether it was back after the last of them: one that was cut short shows nothing of the gateway."""
    relapses: int = 0
    """How often it was not on its known-good while it took part in changes, at first or after a return."""
    last: datetime
    """When a change began with it last, or it was last left to an operator on its host."""
    change: Name | None = None
    """The name of the last change that tried it."""
    paged: datetime | None = None
    """When operators were last paged that it is left to an operator on its host."""


class Quarantine(Value):
    """A gateway that is left out of changes, who said so and why; `until` None is until it is returned."""

    fleet: Name
    gateway: Name
    reason: str = Field(min_length=1)
    person: str = Field(min_length=1)
    since: datetime
    until: datetime | None = None
    handed_over: bool = False
    """Whether an operator returned the gateway, so that penstock brings it back also after break-glass."""
