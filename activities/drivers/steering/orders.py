"""What every steering asks before anybody is sent anywhere, and what it remembers over a reboot."""

import hashlib
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from pathlib import Path

from activities.drivers.daemon.port import Session
from activities.drivers.disk import write_whole
from activities.drivers.runtime.host.journal import Journal
from activities.drivers.steering.homes import Home, home_of
from policies.model.errors import BadInput, InstanceGone, LeaseLapsed, PenstockError, Unavailable
from policies.model.fleet import Gateway, Slot
from policies.model.instance import Steering
from policies.model.operation import Operation

Sessions = Mapping[str, tuple[Session, ...] | None]
"""The sessions of every running instance by slot; None for one that does not say."""
Live = Callable[[timedelta], Awaitable[Sessions]]
"""Asks for them, and waits no longer than this for one that does not answer."""

PATIENCE = timedelta(seconds=3)
AT_ONCE = timedelta(milliseconds=300)
"""The way back waits no longer for a daemon than this."""
_log = logging.getLogger(__name__)


class SteeringOrders:
    """Who may steer on one gateway, to which slots, and which of them gets new sessions for good."""

    def __init__(
        self,
        gateway: Gateway,
        journal: Journal,
        live: Live,
        remember: Path,
        *,
        kept: Callable[[str], None] = lambda _: None,
        adopted: Slot | None = None,
        proven: Callable[[str], bool] = lambda _: True,
    ) -> None:
        """Take where live sessions are read, and the file that keeps the permanent slot over a reboot.

        `kept` hears of each slot that was made permanent; what it cannot do never fails the steering.
        `adopted` is the slot of a daemon that was adopted before. `proven` says whether what runs in a slot
        is known to be what was meant: nobody is steered to anything else.
        """
        self.gateway = gateway
        self.journal = journal
        self.live = live
        self._remember = remember
        self._kept = kept
        self._proven = proven
        self._homes = {slot.name: home_of(slot) for slot in gateway.slots}
        if adopted is not None:
            self.take(adopted)

    def take(self, adopted: Slot) -> None:
        """Know the slot of a daemon that is being adopted."""
        self._homes[adopted.name] = home_of(adopted)

    def home(self, slot: str) -> Home:
        """Return where users of the slot are sent; BadInput when the gateway has no such slot."""
        if slot not in self._homes:
            raise BadInput(f"{self.gateway.name} has no slot {slot}; it has {', '.join(self._homes)}")
        return self._homes[slot]

    @property
    def slots(self) -> Mapping[Home, str]:
        """The slot of each home."""
        return {home: slot for slot, home in self._homes.items()}

    @property
    def permanent(self) -> str | None:
        """The slot that was made permanent last, and is so after a reboot; None before the first."""
        slot = self._remembered().get("serving")
        return slot if slot in self._homes else None

    def _remembered(self) -> dict[str, str]:
        try:
            found = json.loads(self._remember.read_text())
            return {key: value for key, value in found.items() if isinstance(value, str)}
        except (OSError, ValueError, AttributeError):
            return {}

    async def admit_trial(self, operation: Operation, slot: str, lease: timedelta) -> Sessions:
        """Return the live sessions, once the slot may be tried for so long.

        Raises:
            BadInput: when the gateway has no such slot.
            Fenced: when a newer rollout or rollback owns the gateway.
            BeyondHostLimits: when the lease is longer than this host takes.
            InstanceGone: when nothing runs in the slot, or not what was proven there.
        """
        self.home(slot)
        self.journal.bounds.check_lease(lease)
        self.journal.admit(operation)
        live = await self.live(PATIENCE)
        self._refuse_empty(slot, live)
        return live

    async def admit_permanent(self, operation: Operation, slot: str) -> Sessions:
        """Return the live sessions, once the slot may get new ones for good.

        Raises:
            BadInput: when the gateway has no such slot.
            Fenced: when a newer rollout or rollback owns the gateway.
            InstanceGone: when nothing runs in the slot, or not what was proven there.
        """
        self.home(slot)
        self.journal.admit(operation)
        live = await self.live(AT_ONCE)
        self._refuse_empty(slot, live)
        return live

    def require_listed(self, live: Sessions, now: Steering, *, but: str) -> None:
        """Raise Unavailable when sessions that new ones join now cannot be listed, and so not be pinned.

        Sessions anywhere else are pinned already and stay so: an instance that nobody is sent to and that
        does not answer delays no trial.
        """
        joined = {now.serving, now.trial} - {None, but}
        unknown = sorted(name for name, sessions in live.items() if sessions is None and name in joined)
        if unknown:
            raise Unavailable(
                f"the sessions in slot {unknown[0]} of {self.gateway.name} cannot be listed; "
                "nobody was steered away from them"
            )

    def lapsed(self, slot: str) -> LeaseLapsed:
        """Return what a renewal is told that comes after the end of its trial."""
        return LeaseLapsed(
            f"slot {slot} of {self.gateway.name} is not on trial any more; its lease was "
            "not renewed, and new sessions go to the permanent slot"
        )

    def remember(self, slot: str) -> None:
        """Keep over a reboot which slot is permanent and what steers, also on a disk that is full."""
        remembered = json.dumps({"serving": slot, "by": self.gateway.steering})
        self.journal.reserve.spend_for(lambda: write_whole(self._remember, remembered))

    def require_successor(self) -> None:
        """Raise BadInput when this gateway is steered by what its file names now cannot take over from.

        Instances behind `haproxy` take connections from HAProxy alone, and those of before from everybody.
        """
        before, now = self._remembered().get("by", "nftables"), self.gateway.steering
        if self.permanent is not None and before != now and "haproxy" in (before, now):
            raise BadInput(
                f"{self.gateway.name} serves by steering {before}, and its instances would not be reached by "
                f"{now}: write steering: {before} again, or set the gateway up anew"
            )

    def tell_kept(self, slot: str) -> None:
        """Tell whoever wants to know that the slot was made permanent."""
        try:
            self._kept(slot)
        except (PenstockError, OSError) as error:
            _log.warning("known-good marker of slot %s on %s not written: %s", slot, self.gateway.name, error)

    def _refuse_empty(self, slot: str, live: Sessions) -> None:
        if slot not in live:
            raise InstanceGone(f"nothing runs in slot {slot} of {self.gateway.name}")
        if not self._proven(slot):
            raise InstanceGone(
                f"what runs in slot {slot} of {self.gateway.name} now is not what was proven there; nobody "
                "is steered to it"
            )


def seed_of(operation: Operation) -> int:
    """Return what makes this rollout's choice of addresses its own; 32 bits and never 0."""
    return int(hashlib.sha256(operation.rollout.encode()).hexdigest()[:8], 16) or 1


def generation_of(operation: Operation) -> str:
    """Return by whom a steering was written last: rollout and epoch."""
    return f"{operation.rollout}/{operation.epoch}"
