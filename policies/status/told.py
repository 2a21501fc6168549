"""What a change remembers of itself, in a form that survives a history that is cut."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Self

from pydantic import Field

from policies.claims import Claim
from policies.model.change import PENSTOCK_WATCH, ChangeResult, Outcome, Phase
from policies.model.report import EVERYBODY, ByTime, GatewayProgress
from policies.model.status import Event
from policies.model.value import Value
from policies.model.verdict import Basis, Decision
from policies.model.windows import WindowAnswer
from policies.planning.cohorts import LEFT_OUT, SET_ASIDE
from policies.planning.naming import named

NAMED = 10
"""Gateways that one sentence names; more are counted."""

BACK = "back on known-good"
"""The state of a gateway that takes its users as before."""

SHOWN = 50
"""Gateways of which a change says why; more are counted, and the ledger names each of them."""


class Told(Value):
    """All that was reported and commanded so far."""

    name: str = ""
    phase: Phase = Phase.STARTING
    wave: int = 0
    gateways: dict[str, GatewayProgress] = {}
    counts: dict[int, dict[str, int]] = {}
    share: int = EVERYBODY
    """Percent of the source addresses whose new sessions go to the new release on gateways on trial."""
    aside: dict[str, str] = {}
    """Why gateways were left out, of the first of them."""
    aside_later: int = 0
    """How many of the gateways that were left out failed by themselves after their wave had passed."""
    decision: Decision | None = None
    by_time: ByTime | None = Field(
        default=None,
        exclude_if=lambda step: step is None,
        description="the step that the wave takes by time alone, as it reported last",
    )
    shown_harm: str = Field(
        default="",
        exclude_if=lambda sentence: not sentence,
        description="harm in waves that have passed, where the fleet only observes",
    )
    holds: dict[str, str] = {}
    votes: dict[str, Basis] = {}
    """Who wants the wave promoted without proof, each with what it was shown."""
    moved: bool = False
    """Whether new sessions went to the new release anywhere, or may have, for however short a time."""
    begun: int = 0
    """The last wave of an upgrade that has begun: its gateways, and those of waves before, may be changed."""
    in_wave: bool = False
    """Whether a wave has begun and has not returned yet whether it may have moved sessions."""
    switching: bool = False
    promoting: bool = False
    """Whether the promotion is being written down, after which nothing is left to hold."""
    short: tuple[str, ...] = ()
    """Why gateways wait for capacity."""
    silent: tuple[str, ...] = ()
    """Gateways that are to be switched and do not answer."""
    untested: dict[str, str] = {}
    """Gateways that wait for a test which cannot be made, and why."""
    refused: dict[str, str] = {}
    """Gateways whose host refuses the switch, which is tried again, and why."""
    commands: tuple[str, ...] = ()
    """The ids of the newest commands that were heard, the last of them last."""
    rebooted: tuple[str, ...] = ()
    """Gateways whose host rebooted in its trial, which began anew."""
    lapsed: tuple[str, ...] = ()
    """Gateways whose lease lapsed while their instance ran and answered; their trial began again."""
    paused: tuple[str, ...] = ()
    """Gateways that are on known-good until their trial begins again, since their lease lapses."""
    claims: dict[str, Claim] = {}
    """The last claim of break-glass of gateways whose waves have passed, which did not leave them out."""
    not_back: dict[str, str] = {}
    """What keeps gateways that are still tried, of the first of them by name."""
    more_not_back: int = 0
    """How many are still tried besides these."""
    failed: dict[str, str] = {}
    """Parts of up to fifty gateways that do not go back, and why; they are begun again and again."""
    first_try: bool = False
    """Whether the gateways that are not back are in parts of which some gateway has not been tried yet."""
    only_waits: bool = False
    """Whether the way back has tried every gateway, and waits for those that are silent or refuse."""
    waits_until: datetime | None = None
    ends_unchanged: bool = False
    """Whether it waited for a second operator, has changed nothing and ends."""
    window: WindowAnswer | None = Field(
        default=None, exclude_if=lambda answer: answer is None, description="what the next wave waits for"
    )
    events: tuple[Event, ...] = ()
    earlier_events: int = 0
    result: ChangeResult | None = None

    @property
    def may_have_moved(self) -> bool:
        """Whether sessions may have moved: while a wave is under way a missing report is no fact."""
        return self.moved or self.in_wave

    @property
    def first_hold(self) -> str:
        """The hold that an operator lifts first: that of harm, otherwise the first by name."""
        return PENSTOCK_WATCH if PENSTOCK_WATCH in self.holds else min(self.holds)

    @property
    def goes_back(self) -> bool:
        """Whether the way back is under way."""
        return self.phase is Phase.ROLLING_BACK

    @property
    def lets_nothing_in(self) -> bool:
        """Whether a wave is under way: others wait until it has ended, or goes back."""
        return self.in_wave and not self.goes_back

    def naming(self, not_back: Mapping[str, str]) -> Self:
        """Return the same with these gateways named among those that are still tried, which are as many."""
        named = dict(not_back) | self.not_back
        more = max(0, self.count_not_back - len(named))
        return self.model_copy(update={"not_back": named, "more_not_back": more})

    def all_back(self, gateways: Collection[str]) -> Self:
        """Return the same with these gateways on their known-good, and none that is still tried."""
        back = {
            name: self.gateways[name].model_copy(update={"state": BACK})
            for name in gateways
            if name in self.gateways
        }
        none: dict[str, object] = {"not_back": {}, "more_not_back": 0, "failed": {}}
        return self.model_copy(update=none | {"gateways": self.gateways | back})

    @property
    def count_not_back(self) -> int:
        """How many gateways are still tried, named or not."""
        return len(self.not_back) + self.more_not_back

    @property
    def more_aside(self) -> int:
        """How many gateways were left out besides those that are named."""
        counted = sum(of.get(SET_ASIDE, 0) + of.get(LEFT_OUT, 0) for of in self.counts.values())
        return max(0, counted + self.aside_later - len(self.aside))

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; incomplete already while gateways are missing."""
        if self.result is not None:
            return self.result.outcome
        return Outcome.ROLLBACK_INCOMPLETE if self.waits_for_gateways else None

    @property
    def waits_for_gateways(self) -> bool:
        """Whether a rollback waits for gateways that it has tried; in its first try it is just under way."""
        return bool(self.failed) or (bool(self.not_back) and not self.first_try)


def subject_of(gateways: Collection[str]) -> str:
    """Return the only gateway, or how many there are and the first few, with their verb."""
    if len(gateways) == 1:
        return f"{min(gateways)} is"
    return f"{len(gateways)} gateways ({named(sorted(gateways), NAMED + 1)}) are"


def listed(reasons: Mapping[str, str], more: int = 0) -> str:
    """Return the first few names with their reasons for a sentence, and how many more there are."""
    first = [f"{name}: {why}" for name, why in sorted(reasons.items())][:NAMED]
    left = len(reasons) + more - len(first)
    return "; ".join(first) + (f" and {left} more" if left else "")


NOT_BACK = "; not back: "
"""Before the gateways that an end names as not back."""


def not_back(reasons: Mapping[str, str], more: int = 0) -> str:
    """Return the part of an end's sentence that names the gateways which are not back; empty without any."""
    return f"{NOT_BACK}{listed(reasons, more)}" if reasons else ""
