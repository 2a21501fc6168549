"""Reports: what children of a change tell it whenever something changed."""

from datetime import datetime, timedelta

from pydantic import Field

from policies.model.change import Phase
from policies.model.plan_part import PartKey
from policies.model.value import Name, Value
from policies.model.verdict import Decision

EVERYBODY = 100
"""The share, in percent of the source addresses, at which all new sessions go to the new release."""


class GatewayProgress(Value):
    """One gateway during a change, as people want to see it."""

    gateway: str
    wave: int
    state: str
    release: str | None = None


class Report(Value):
    """What a child tells its guardian; the engine does not promise that signals arrive in order.

    Nor do times tell which one is newer: the engine's clock may be set back, and each run has a time of its
    own then.
    """

    at: datetime
    beginning: tuple[int, ...] = Field(
        default=(), description="which beginning of the child it is, as whoever begins it counts"
    )
    number: int = Field(default=0, description="counts the reports of one beginning, over all of its runs")

    def follows(self, heard: "Report | None") -> bool:
        """Return whether this was said after the last report that was heard; an overtaken one is old news."""
        return heard is None or (self.beginning, self.number) > (heard.beginning, heard.number)


SWITCHING = ("waiting", "staging", "starting", "probing", "testing", "mirrored", "loaded")
"""States of a gateway on its way to the trial."""


class BatchReport(Report):
    """What a batch tells its wave; gateways by name only where the fleet is small."""

    part: int
    switched: bool = False
    ready: bool = Field(default=False, description="everybody who is not aside waits at the barrier")
    moves: bool = Field(default=False, description="sessions may move: reported before the first trial")
    counts: dict[str, int] = {}
    aside: dict[str, str] = {}
    left_out: dict[str, str] = Field(default={}, description="whom operators left out before they started")
    taken_out: tuple[str, ...] = Field(default=(), description="those of them that had been started already")
    refused: dict[str, str] = Field(default={}, description="whose host refuses the switch, and why")
    ended: tuple[str, ...] = Field(default=(), description="whose new instance ended by itself")
    short: tuple[str, ...] = Field(default=(), description="why gateways wait for capacity, each once")
    silent: tuple[str, ...] = Field(default=(), description="who waits since it does not answer")
    untested: dict[str, str] = Field(default={}, description="who waits for a test that cannot be made")
    rebooted: tuple[str, ...] = Field(default=(), description="whose trial began anew after a reboot")
    lapsed: tuple[str, ...] = Field(
        default=(), description="whose lease lapsed unconfirmed: its trial goes on"
    )
    paused: dict[str, str] = Field(default={}, description="whose trial begins again later, and why")
    gateways: tuple[GatewayProgress, ...] = ()

    @property
    def switching(self) -> int:
        """How many gateways are on their way to the trial, or wait for their turn."""
        return sum(self.counts.get(state, 0) for state in SWITCHING)


class TakenOver(Value):
    """The gateways that a later change has taken over, until it ends or has brought them back."""

    change: Name
    up_to: int | None = Field(
        default=None, description="the last wave that has begun; None for the last one that the ledger has"
    )


class WatchReport(Report):
    """What a watch reports of its decision: whenever that changes, and before the last report is too old."""

    change: Name = Field(description="whose gateways it watches; a watch may outlive its change by a moment")
    run: str = Field(
        default="",
        description="the run of its listener that began it; those of earlier runs may not have ended",
    )
    decision: Decision
    fresh_for: timedelta | None = Field(
        default=None,
        description="the watch is silent unless it reports again within; None where nothing passes by it",
    )
    looks: int = Field(default=0, description="the last look that its listener had asked for by then")
    window: int = Field(default=0, description="which of the wave's windows: each share has one of its own")
    carry: str = Field(default="", description="what the window leaves to the next wave's")
    left_to: TakenOver | None = Field(default=None, description="which gateways were not watched for it")

    @property
    def is_fresh(self) -> bool:
        """Whether metrics were read for it: the watch itself may report that it reads nothing."""
        return self.fresh_for is None or self.fresh_for > timedelta(0)


class ByTime(Value):
    """The next step that a wave takes when its time is over, without proof."""

    at: datetime | None = Field(description="when; None until the last gateway of the wave has switched")
    share: int | None = Field(default=None, description="the next share; None where the wave passes")


class WaveReport(Report):
    """What a wave tells its change whenever something changed: counts, and who needs attention."""

    change: Name = Field(description="whose wave it is; a wave may outlive its change by a moment")
    wave: int
    phase: Phase
    share: int = EVERYBODY
    counts: dict[str, int] = {}
    gateways: tuple[GatewayProgress, ...] = ()
    aside: dict[str, str] = Field(default={}, description="who newly failed by itself; a wave names a few")
    left_out: dict[str, str] = Field(
        default={}, description="whom operators newly left out before they started; a wave names a few"
    )
    decision: Decision | None = None
    by_time: ByTime | None = Field(
        default=None,
        exclude_if=lambda step: step is None,
        description="the step that time alone decides; None where it decides nothing",
    )
    moves: bool = Field(default=False, description="sessions may have moved: reported before the first trial")
    switching: bool = Field(default=False, description="some are being started, which a hold lets finish")
    short: tuple[str, ...] = Field(default=(), description="why gateways wait for capacity: a few sentences")
    silent: tuple[str, ...] = Field(default=(), description="a few gateways that wait and do not answer")
    untested: dict[str, str] = Field(default={}, description="a few gateways that wait for a test, and why")
    refused: dict[str, str] = Field(default={}, description="a few whose host refuses the switch, and why")
    rebooted: tuple[str, ...] = Field(default=(), description="a few whose trial began anew after a reboot")
    lapsed: tuple[str, ...] = Field(default=(), description="a few whose lease lapsed unconfirmed")
    paused: dict[str, str] = Field(default={}, description="a few whose trial begins again later, and why")


class RestoreReport(Report):
    """What a restore tells of one part: who is back, who is not yet and why, who was given up."""

    part: PartKey
    reason: str
    names: tuple[str, ...] = ()
    change: str = Field(default="", description="whose it is; a part can outlive its change")
    failed: str = Field(default="", description="why the part does not go on by itself; the root says it")
    missing: dict[str, str] = {}
    given_up: dict[str, str] = {}
    tried: bool = Field(default=False, description="whether each gateway of the part has been tried")
