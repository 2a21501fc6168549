"""The host's last word: which orders it refuses whoever gives them, and the record of what it refused.

Epochs are milliseconds since 1970. One that is far ahead of this host's clock would lock out the
fleet's owner until then, so it is refused and raises nothing.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import NoReturn

from activities.refusals import Hears, only_logged
from policies.model.errors import BeyondHostLimits, ForeignOrder, Refused
from policies.model.host_limits import HostLimits
from policies.model.operation import Operation

MINUTE, HOUR = 60.0, 3600.0
"""Seconds."""


class HostBounds:
    """What one gateway's host does at most."""

    def __init__(
        self,
        gateway: str,
        limits: HostLimits | None = None,
        record: Hears = only_logged,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        uptime: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the host's own name, its limits, and what hears of every refusal.

        Orders are dated by the clock; minutes and hours are those of `uptime`, which nobody sets.
        """
        self._gateway = gateway
        self._limits = limits or HostLimits()
        self._record = record
        self._clock = clock
        self._uptime = uptime
        self._endings: deque[tuple[float, int]] = deque()
        self._loads: deque[float] = deque()
        self._shadows: deque[float] = deque()

    @property
    def epoch_now(self) -> int:
        """The epoch of this moment by this host's clock."""
        return int(self._clock().timestamp() * 1000)

    def check(self, operation: Operation) -> None:
        """Refuse an order that is not for this gateway or not of this time.

        Raises:
            ForeignOrder: It names another gateway.
            BeyondHostLimits: Its epoch is far ahead of this host's clock.
        """
        step = f"step {operation.step} of {operation.rollout}"
        if operation.gateway != self._gateway:
            self._refuse(ForeignOrder(f"{step} is for {operation.gateway}, and this host is {self._gateway}"))
        ahead = timedelta(milliseconds=operation.epoch - self.epoch_now)
        if ahead > self._limits.clock_difference:
            self._refuse(
                BeyondHostLimits(
                    f"{step} has epoch {operation.epoch}, which is more than {self._limits.clock_difference} "
                    f"ahead of the clock of {self._gateway} ({self.epoch_now}): set the clock that is wrong; "
                    "limits.clock_difference in the agent's file is the bound"
                )
            )

    def check_lease(self, lease: timedelta) -> None:
        """Refuse a trial that could last too long without anybody alive; BeyondHostLimits."""
        if not timedelta(0) < lease <= self._limits.longest_lease:
            self._refuse(
                BeyondHostLimits(
                    f"a lease of {lease} is not one that {self._gateway} takes: limits.longest_lease in the "
                    f"agent's file is {self._limits.longest_lease}"
                )
            )

    def check_slot_to_empty(self, slot: str, *, gets_new_sessions: bool) -> None:
        """Refuse to end sessions where new ones are sent: that is nobody's drain; BeyondHostLimits."""
        if gets_new_sessions:
            self._refuse(
                BeyondHostLimits(
                    f"slot {slot} of {self._gateway} gets new sessions, so none of its sessions is ended: "
                    "steer them elsewhere first"
                )
            )

    def check_settings(self, keys: Iterable[str]) -> None:
        """Refuse to change settings that this host's own file does not leave to orders; BeyondHostLimits."""
        allowed = self._limits.settings
        wrong = [key for key in keys if allowed is not None and key not in allowed]
        if wrong:
            self._refuse(
                BeyondHostLimits(
                    f"{', '.join(wrong)} of {self._gateway} would be set by order, and limits.settings in "
                    f"the agent's file allows {', '.join(allowed or ()) or 'none'}: nothing was changed"
                )
            )

    def count_endings(self, wanted: int) -> None:
        """Take so many sessions off what may be ended in this minute; BeyondHostLimits if it is too much."""
        now, most = self._uptime(), self._limits.endings_per_minute
        while self._endings and now - self._endings[0][0] >= MINUTE:
            self._endings.popleft()
        ended = sum(count for _, count in self._endings)
        if ended + wanted > most:
            self._refuse(
                BeyondHostLimits(
                    f"{wanted} sessions of {self._gateway} were to be ended, {ended} were in the last "
                    f"minute, and limits.endings_per_minute in the agent's file is {most}: nobody was ended"
                )
            )
        self._endings.append((now, wanted))

    def count_load(self, slot: str, *, gets_new_sessions: bool) -> None:
        """Take one off the loads of this hour; BeyondHostLimits if it is too much, or comes too late.

        It is for an instance that gets no users yet; those of the one that serves beside it feel it.
        """
        if gets_new_sessions:
            self._refuse(
                BeyondHostLimits(
                    f"slot {slot} of {self._gateway} gets new sessions, so it is not loaded: a load is for "
                    "an instance before its first user"
                )
            )
        now, most = self._uptime(), self._limits.loads_per_hour
        while self._loads and now - self._loads[0] >= HOUR:
            self._loads.popleft()
        if len(self._loads) >= most:
            self._refuse(
                BeyondHostLimits(
                    f"{self._gateway} was to be loaded, {len(self._loads)} loads were in the last hour, and "
                    f"limits.loads_per_hour in the agent's file is {most}: nobody was disturbed"
                )
            )
        self._loads.append(now)

    def shadow_logins(self, slot: str, wanted: int, *, gets_new_sessions: bool) -> int:
        """Return how many shadow logins a minute may be made; BeyondHostLimits for none, or too late."""
        if gets_new_sessions:
            self._refuse(
                BeyondHostLimits(
                    f"slot {slot} of {self._gateway} gets new sessions, so no logins are mirrored to it: a "
                    "mirror is for an instance before its first user"
                )
            )
        if not (most := self._limits.shadow_logins_per_minute):
            self._refuse(
                BeyondHostLimits(
                    f"logins were to be mirrored on {self._gateway}, and limits.shadow_logins_per_minute in "
                    "the agent's file is 0: none was made"
                )
            )
        return min(most, wanted)

    def take_shadow_login(self) -> bool:
        """Take one off the shadow logins of this minute, of all mirrors together; False if none is left."""
        now = self._uptime()
        while self._shadows and now - self._shadows[0] >= MINUTE:
            self._shadows.popleft()
        if len(self._shadows) >= self._limits.shadow_logins_per_minute:
            return False
        self._shadows.append(now)
        return True

    def _refuse(self, refusal: Refused) -> NoReturn:
        self._record(f"refused: {refusal.code}", str(refusal))
        raise refusal
