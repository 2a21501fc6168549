"""One slot that is being emptied, and all that a drain remembers of it."""

from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict

from activities.sessions import Drained
from policies.model.drain import DrainEnding, DrainMode, Look, Loss, NextStep, SlotDrain, Step

UNSEEN = Look(sessions=None, exempt=None)
"""What is known of a slot that nobody has looked at yet."""

COUNTING = NextStep(step=Step.WAIT, reason="its sessions are being counted")
"""What a drain does first."""


def kept_until(end: datetime) -> NextStep:
    """Return that an instance is left as it is until then."""
    why = f"kept until {end:%Y-%m-%d %H:%M} UTC, one map change away"
    return NextStep(step=Step.WAIT, reason=why, until=end)


class Emptying(BaseModel):
    """What was seen, ended and announced so far, and until when sessions are waited for."""

    model_config = ConfigDict(extra="forbid")

    gateway: str
    slot: str
    release: str | None
    begins: datetime | None = None
    """Until then it is left alone, if it is kept at all."""
    deadline: datetime
    look: Look | None = None
    found: int = 0
    ended: int = 0
    spent: int = 0
    """Sessions that batches were ordered to end: at least those that they ended."""
    lost: int = 0
    loss: Loss | None = None
    mode: DrainMode = DrainMode.WAIT
    mode_reason: str = "it was replaced, not found at fault"
    silent_since: datetime | None = None
    """Since when its instance has not reported its sessions; None while it does."""
    step: NextStep = COUNTING
    warned_for: datetime | None = None
    forced: DrainEnding | None = None
    """The order of an operator to end its sessions."""
    ending: str = ""
    """Which ending of its sessions was announced last."""
    stopped: bool = False
    held: bool = False
    """Whether people were told that it waits for them, and nobody has done anything since."""

    def see(self, drained: Drained, now: datetime) -> None:
        """Take over what a wait has seen until now."""
        self.look_again(drained.look, now)
        self.found = max(self.found, drained.look.sessions or 0)
        self.lost += drained.lost
        self.loss = drained.loss or self.loss

    def look_again(self, look: Look, now: datetime) -> None:
        """Take over what is true of its sessions now."""
        silence = look.silence
        lasts = silence.lasts if silence else timedelta(0)
        self.silent_since = (self.silent_since or now - lasts) if silence else None
        self.look = look

    def lose_sight(self) -> None:
        """Take over that the agent is silent: what lives there is unknown, its process is remembered."""
        self.look = (self.look or UNSEEN).model_copy(
            update={"sessions": None, "exempt": None, "resumable": 0, "silence": None}
        )
        self.silent_since = None

    def status(self) -> SlotDrain:
        """Return what people want to see of it."""
        look = self.look or UNSEEN
        return SlotDrain(
            gateway=self.gateway,
            slot=self.slot,
            mode=self.mode,
            mode_reason=self.mode_reason,
            sessions=look.sessions,
            exempt=look.exempt,
            found=self.found,
            ended=self.ended,
            lost=self.lost,
            loss=self.loss,
            step=self.step.step,
            why=self.step.reason,
            deadline=self.deadline,
            silent_since=self.silent_since,
        )
