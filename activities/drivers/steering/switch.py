"""Who gets new sessions, as a value: the permanent slot, and a trial for the length of its lease."""

from dataclasses import dataclass, replace
from datetime import timedelta

from policies.model.instance import Steering

EVERYBODY = 100
"""The share, in percent of source addresses, of a trial that everybody gets."""


@dataclass(frozen=True)
class Switch:
    """What is said, or is to be said."""

    steer: str | None = None
    trial: str | None = None
    expires_in: timedelta | None = None
    lease: timedelta | None = None
    """Set only on a wish: the lease is written anew with this length."""
    share: int = EVERYBODY
    """Percent of source addresses that the trial gets; EVERYBODY where there is no trial."""
    seed: int = 0
    generation: str = ""

    def on_trial(self, slot: str, lease: timedelta, *, share: int, seed: int) -> "Switch":
        """Return it with new sessions of so many addresses going to the slot during the lease."""
        return replace(self, trial=slot, lease=lease, share=share, seed=seed)

    def permanently(self, slot: str) -> "Switch":
        """Return it with new sessions going to the slot, and no trial."""
        return replace(self.without_trial(), steer=slot)

    def without_trial(self) -> "Switch":
        """Return it with new sessions going to the permanent slot."""
        return replace(self, trial=None, lease=None, expires_in=None, share=EVERYBODY, seed=0)

    def generated(self, generation: str) -> "Switch":
        """Return it signed by who writes it."""
        return replace(self, generation=generation)

    @property
    def steering(self) -> Steering:
        """It in the words of every steering."""
        return Steering(
            primed=True,
            serving=self.steer,
            trial=self.trial,
            trial_expires_in=self.expires_in,
            share=self.share,
            generation=self.generation,
        )
