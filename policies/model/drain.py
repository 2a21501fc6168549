"""Draining: what is seen of an instance whose sessions are waited for, and how they may end."""

from datetime import datetime, timedelta
from enum import StrEnum
from math import ceil

from pydantic import Field

from policies.model.value import Count, Duration, Elapsed, Message, Name, Sentence, Token, Value


class DrainLimits(Value):
    """How an instance without new sessions is emptied: whom a deadline may end, and after what warning.

    When more than `forced` percent are left it holds and a person decides. All deadlines of the fleet
    together are spread out until they send no more to the authenticator than `logins_per_minute`.
    """

    warning: Duration = timedelta(minutes=30)
    """How long before the deadline the record says that it comes."""
    batch: int = Field(default=5, ge=1, description="sessions ended at once: their users log in together")
    pause: Duration = Field(
        default=timedelta(seconds=10), description="how long it waits between two batches"
    )
    forced: float = Field(
        default=20.0,
        ge=0,
        le=100,
        description="percent of the sessions found that the deadline may end by itself",
    )
    logins_per_minute: int = Field(
        default=600, ge=1, description="logins of users whom deadlines ended, of the whole fleet"
    )
    tunnel_gates: tuple[Name, ...] = Field(
        default=("packet-loss",), description="gates of gates.yaml that tell whether tunnels carry traffic"
    )

    @property
    def ended_per_minute(self) -> int:
        """How many sessions one gateway's deadline ends at most in any minute."""
        return self.batch * ceil(timedelta(minutes=1) / max(self.pause, timedelta(milliseconds=1)))


class DrainMode(StrEnum):
    """What happens to the sessions of an instance that gets no new ones."""

    WAIT = "wait"
    """Tunnels carry traffic: sessions end by themselves, at the latest by the deadline."""
    END = "end"
    """A probe proves tunnels broken: they are ended in small batches, so that users log in elsewhere."""
    END_SHARE = "end_share"
    """Only a verdict says so and no probe can tell: as after the deadline, `forced` percent at most."""


class Loss(StrEnum):
    """What took sessions away that nobody had ordered to end; the release is not to blame for a reboot."""

    CRASH = "lost_crash"
    REBOOT = "lost_reboot"


def loss_event(loss: Loss | None) -> str:
    """Return what the audit record hears of sessions that went away with their process."""
    return f"sessions {loss}"


class Silence(Message):
    """For how long an instance has not reported its sessions, and has had no user meanwhile.

    `deserted` is read from the kernel: no user has a connection, and no packet has come through a tunnel.
    It is None where the kernel does not show that. `unread` is empty where the instance gives no answer. It
    is one line about the answer where that has a form which penstock does not read: such an instance lives.
    """

    lasts: Elapsed
    deserted: Elapsed | None = None
    unread: Sentence = ""


class Uncounted(StrEnum):
    """Which instance may be stopped although it does not return how many sessions it has."""

    NONE = "none"
    DESERTED = "deserted"
    """One that has been uncounted and without any user for `policies.drains.DESERTED_FOR`."""
    SILENT = "silent"
    """One that has been uncounted for `policies.drains.SILENT_FOR`: an operator accepts what is lost."""


class Look(Message):
    """What is true of one slot's sessions at one moment, read from its host.

    `sessions` and `exempt` are None when they cannot be counted, which is never the same as
    zero; `silence` is then known instead. `resumable` sessions are not among them: their
    connection broke, and until the daemon forgets them their users come back without a login, to
    this instance only. `process` is None where nothing runs; a later process is never equal to an
    earlier one.
    """

    sessions: Count | None
    exempt: Count | None = 0
    resumable: Count = 0
    boot: Token = ""
    process: Token | None = None
    silence: Silence | None = None


class Step(StrEnum):
    """What a drain does next."""

    WAIT = "wait"
    WARN = "warn"
    END = "end"
    HOLD = "hold"
    STOP = "stop"
    STOP_UNCOUNTED = "stop_uncounted"
    """The instance reports no sessions: it is stopped although their number is unknown."""


class NextStep(Value):
    """What a drain does next and why.

    `leave` is how many sessions a batch leaves alive. `uncounted` is what the host has to find before it
    stops an instance whose sessions are unknown.
    """

    step: Step
    reason: str
    until: datetime | None = None
    leave: int = 0
    uncounted: Uncounted = Uncounted.NONE


class DrainFacts(Value):
    """All that decides what a drain does next.

    `found` is the largest number of sessions seen in this drain, `ended` how many it has ended.
    """

    look: Look
    mode: DrainMode
    found: int
    ended: int
    now: datetime
    deadline: datetime
    fleet: Name
    gateway: Name
    slot: Name
    warned: bool = False
    silent_since: datetime | None = None
    forced_by: str | None = Field(default=None, description="who said that the sessions are to be ended")
    exempt_too: bool = False


class DrainCommand(Value):
    """A person's order about drains: all, those of one gateway, or the one of a slot of it.

    `id` makes a repeat the same order.
    """

    id: str = Field(min_length=1)
    gateway: Name | None = None
    slot: Name | None = None
    person: str = Field(min_length=1)
    reason: str = Field(min_length=1)

    def where(self, everywhere: str) -> str:
        """Return which drains are meant, of which all are called `everywhere`."""
        slot = f"slot {self.slot} of " if self.slot else ""
        return f"{slot}{self.gateway or everywhere}"


class DrainExtension(DrainCommand):
    """An order to wait longer."""

    by: Duration = Field(gt=timedelta(0))


class DrainEnding(DrainCommand):
    """An order to end what is left, in batches; exempt sessions only when named."""

    exempt_too: bool = False


class SlotDrain(Value):
    """One slot of a drain, as people want to see it."""

    gateway: Name
    slot: str
    mode: DrainMode
    mode_reason: str
    sessions: int | None
    exempt: int | None
    found: int
    ended: int
    lost: int
    loss: Loss | None
    step: Step
    why: str
    deadline: datetime
    silent_since: datetime | None = Field(
        default=None, description="since when the instance has not reported its sessions"
    )


class DrainStatus(Value):
    """What drains after one change; counts are those of the last look."""

    rollout: str
    slots: tuple[SlotDrain, ...] = ()


class DrainEvent(StrEnum):
    """What the audit record hears of a drain, as it is written there."""

    HELD = "drain held for a person"
    EXTENDED = "drain extended"
    ENDED = "drain ended by a person"
    ENDING = "sessions are being ended"
    HANDED_OVER = "drain handed over"
    EMPTIED = "drain ended by itself"
    """A drain that had waited for a person has nothing left to wait for."""


DRAIN_OVER = "drain over"
"""What the audit record says when everything that one drain was to empty is empty and stopped."""


SESSIONS_TAKEN = frozenset({DrainEvent.ENDING, DrainEvent.ENDED, *map(loss_event, Loss)})
"""What the audit record says of sessions that were ended, or lost with their process."""
