"""One slot that is being emptied, and all that a drain remembers of it."""

from datetime import datetime

from activities.sessions import Drained
from policies.words.drain import DrainMode, Look, Loss, NextStep, SlotDrain, Step

UNSEEN = Look(sessions=None, exempt=None)
"""What is known of a slot that nobody has looked at yet."""


class Emptying:
    """What was seen, ended and announced so far, and until when sessions are waited for."""

    def __init__(self, slot: str, release: str | None, sessions: int | None, deadline: datetime) -> None:
        self.slot = slot
        self.release = release
        self.deadline = deadline
        self.look: Look | None = None
        self.found = sessions or 0
        self.ended = 0
        self.spent = 0
        """Sessions that batches were ordered to end: at least those that they ended."""
        self.lost = 0
        self.loss: Loss | None = None
        self.mode, self.mode_reason = DrainMode.WAIT, "it was replaced, not found at fault"
        self.step = NextStep(step=Step.WAIT, reason="its sessions are being counted")
        self.warned_for: datetime | None = None

    def see(self, drained: Drained) -> None:
        """Take over what a wait has seen."""
        self.look = drained.look
        self.found = max(self.found, drained.look.sessions or 0)
        self.lost += drained.lost
        self.loss = drained.loss or self.loss

    def status(self) -> SlotDrain:
        """Return what people want to see of it."""
        look = self.look or UNSEEN
        return SlotDrain(
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
        )
