"""Verdicts of gates and the decision they add up to."""

from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import Field

from policies.model.value import Digest, Duration, Message, Value


class GateVerdict(StrEnum):
    """What one gate can say; missing evidence is neither healthy nor unhealthy."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    HARD = "hard"
    CONFLICTING = "conflicting"
    METRICS_UNAVAILABLE = "metrics_unavailable"
    NOT_ENOUGH_DATA = "not_enough_data"


HARM = frozenset({GateVerdict.UNHEALTHY, GateVerdict.HARD})
"""Verdicts that a release does harm."""

LEASE = "lease"
"""What has a reading where a trial ended unconfirmed, so that known-good serves on a gateway."""


class Against(StrEnum):
    """What a gate compared with: gateways not yet changed, or, with none of them left, what else is known."""

    CONTROL = "control"
    BASELINE = "baseline"
    GUARD = "guard"


class Action(StrEnum):
    """What a window's verdicts add up to."""

    PROMOTE = "promote"
    CONTINUE = "continue"
    EXTEND = "extend"
    HOLD = "hold"
    HOLD_FOR_HUMAN = "hold_for_human"
    ROLL_BACK = "roll_back"


class GateReading(Message):
    """One gate at one tick: its verdict, the reason in a sentence, and the numbers behind it.

    `against` is what it compared with, if it compares; `instances` are those a bad sign is on.
    """

    gate: str
    verdict: GateVerdict
    reason: str
    numbers: dict[str, float] = {}
    against: Against | None = None
    instances: tuple[str, ...] = ()


class Differing(StrEnum):
    """In what the world would have had to differ."""

    FEWER_BAD = "fewer_bad"
    MORE_BAD = "more_bad"
    MORE_GOOD = "more_good"
    FEWER_FAILED = "fewer_failed"


class Otherwise(Message):
    """The least that would have changed what a gate has said, by the same rule.

    `count` bad events of the changed side, the newest first, would have been good (or good ones bad), or so
    many good ones would have come beside what was counted, or so many gateways fewer would have failed by
    themselves. One less would have changed nothing. `then` is what the gate would have said, `within` how
    long so many events take to come at the recent rate, None where none came.
    """

    gate: str
    differing: Differing
    count: int = Field(ge=1)
    then: GateVerdict
    within: timedelta | None = None


class Decision(Message):
    """What to do now and why, with every gate's reading as evidence.

    `silent` are gateways of the wave or its control whose agents do not answer either, where metrics
    are missing.
    `failed` are gateways that failed by themselves, `rebooted` those whose host did: both are set
    aside, judged no further until they are started again, and somebody has to bring them back. `absent`
    are those of which neither the agent nor the users' port answers: they are judged again once one does.
    `own` is the reason of each gateway that failed or is absent, and `since` when that was seen, in seconds
    since 1970: of what was started there later it says nothing. `reason` is about the others.
    `otherwise` is what would have changed it, as far as that can be told.
    `held_by` is what a hold is about that clears: gates by name, which show its cause no more.
    """

    action: Action
    verdict: GateVerdict
    reason: str = Field(min_length=1)
    readings: tuple[GateReading, ...] = ()
    failed: tuple[str, ...] = ()
    rebooted: tuple[str, ...] = ()
    absent: tuple[str, ...] = Field(default=(), exclude_if=lambda names: not names)
    own: dict[str, str] = Field(default={}, exclude_if=lambda reasons: not reasons)
    since: dict[str, float] = Field(default={}, exclude_if=lambda times: not times)
    silent: tuple[str, ...] = Field(default=(), exclude_if=lambda names: not names)
    otherwise: tuple[Otherwise, ...] = Field(default=(), exclude_if=lambda least: not least)
    held_by: tuple[str, ...] = Field(default=(), exclude_if=lambda gates: not gates)

    @property
    def set_aside(self) -> dict[str, tuple[str, ...] | dict[str, str] | dict[str, float]]:
        """The gateways that are not judged now, by why; a latched decision tells them anew."""
        out = {"failed": self.failed, "rebooted": self.rebooted, "absent": self.absent}
        return {**out, "own": self.own, "since": self.since}

    def reason_of(self, gateway: str) -> str:
        """Return why the gateway is judged no further, which is not why the others are as they are."""
        return self.own.get(gateway, self.reason)


class Basis(Value):
    """What a vote to promote without proof is bound to: a verdict, and what speaks against the wave."""

    action: Action
    verdict: GateVerdict
    against: tuple[str, ...] = ()
    """Gates by name; the reason itself, without its numbers, where no gate decided."""

    def covers(self, now: "Basis") -> bool:
        """Return whether a vote on this basis counts now: it saw all that speaks against the wave."""
        same = (self.action, self.verdict) == (now.action, now.verdict)
        return same and {*now.against} <= {*self.against}


class HarmTold(Value):
    """The harm after a promotion about which operators were asked."""

    undecided: dict[int, str]
    """That of it about which no operator has decided, each by the number of its entry in the record."""
    bases: tuple[Basis, ...]
    """All of it, each as a decision is bound to it."""


class VerdictRow(Value):
    """One decision of a wave, as the ledger keeps it."""

    wave: int
    at: datetime
    decision: Decision


class Cohorts(Value):
    """Who is watched and against whom, fixed by the plan, as Prometheus `instance` labels.

    `canary` are the wave's gateways, `changed_before` those of earlier waves that run the release
    too, `control` those not yet changed. Of a large fleet these are samples, and `beyond` names
    the changed gateways outside them, of which only exceptions are read. More than `may_fail`
    gateways that fail by themselves are the release's fault. Those of `earlier` waves count apart:
    they are its fault only where, with the wave's own, more fail than `may_fail` and `may_fail_before`
    together. `set_aside` names those of waves that have passed whose failure the ledger has already:
    each gateway counts once.
    `expected` maps each instance label to the executable digest it must be running, `slots` to
    the slot on trial: a release that only changes the config runs the same executable in another.
    `since` is when what runs in that slot was started, in seconds of the epoch: what the slot
    showed before is of a process that was to end.
    `beside` names the controls that are no gateways of their own but the old instance on a changed
    one, each with that gateway's label.
    `leased` maps each gateway on trial to the executable of its known-good, where that is another one: it
    serves again when the lease of the trial ends unconfirmed. `committed` maps each gateway that has no lease
    any more likewise: where it serves what it ran before, something else than the release put it there.
    `switching` maps the controls that the change may switch while they are watched to the digest of
    the executable that they run from then on.
    `unchanged` is how many gateways the change has not touched yet. Adopted gateways count here, though
    they are no `control`.
    """

    canary: tuple[str, ...]
    control: tuple[str, ...]
    changed_before: tuple[str, ...] = ()
    beyond: tuple[str, ...] = ()
    may_fail: int = Field(default=0, ge=0)
    may_fail_before: int = Field(default=0, ge=0, exclude_if=lambda number: not number)
    earlier: tuple[str, ...] = Field(default=(), exclude_if=lambda names: not names)
    set_aside: tuple[str, ...] = Field(default=(), exclude_if=lambda names: not names)
    expected: dict[str, Digest] = {}
    slots: dict[str, str] = {}
    since: dict[str, float] = {}
    beside: dict[str, str] = {}
    switching: dict[str, Digest] = {}
    leased: dict[str, Digest] = Field(default={}, exclude_if=lambda digests: not digests)
    committed: dict[str, Digest] = Field(default={}, exclude_if=lambda digests: not digests)
    unchanged: int = Field(default=0, ge=0, exclude_if=lambda number: not number)

    @property
    def changed(self) -> frozenset[str]:
        """Every gateway that runs the release."""
        return frozenset((*self.canary, *self.changed_before, *self.beyond))


def old_instance_of(instance: str) -> str:
    """Return what the judge calls the old instance on the gateway of that `instance` label."""
    return f"{instance} (old instance)"


class Window(Value):
    """How long a wave is observed; minimum and nominal count observed time, cap counts wall time."""

    minimum: Duration = timedelta(minutes=10)
    """Nothing is promoted before so much was observed."""
    nominal: Duration = timedelta(minutes=20)
    """Where health is not proven by then, the window is extended."""
    extension: Duration = timedelta(minutes=10)
    """By how much, as often as it takes until the cap."""
    cap: Duration = timedelta(minutes=60)
    """After so long, however little was seen, a person is asked."""
