"""Which sessions of an instance had a tunnel that worked, by what occtl showed of them over time.

ocserv keeps the cookie of a login that failed after its password (its group's file, its tunnel, a worker that
died), and lists it exactly like a session whose connection broke: open, authenticated, used by nobody. What
tells them apart is the past: a session that can be resumed carried traffic, or was connected for a while.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

SETTLED = timedelta(seconds=5)
"""A worker that has served its user for so long works."""
TRIES = 2
"""So many workers that end sooner, one after the other, have refused the user, also after some packets."""
REMEMBERED = timedelta(minutes=5)
"""For so long an address from which a login failed is known, also after its client said goodbye."""


@dataclass(frozen=True)
class _Seen:
    """One session: where its user is, and since when (monotonic seconds) which worker serves it."""

    address: str
    worker: object
    since: float
    lasted: bool
    """Whether a worker of it has worked."""
    carried: bool = False
    """Whether its user has sent anything through its tunnel."""
    breaks: int = 0
    """How many workers of it ended that had not worked yet."""

    @property
    def works(self) -> bool:
        """Whether it can be resumed."""
        return self.lasted or (self.carried and self.breaks < TRIES)

    @property
    def failed(self) -> bool:
        """Whether its user was refused."""
        return self.breaks > 0 and not self.works


@dataclass(frozen=True)
class Past:
    """What the past says of an instance's sessions."""

    worked: frozenset[str]
    """The sessions that can be resumed, connected or not."""
    failed: Mapping[str, datetime]
    """The addresses from which logins failed, and when that was seen last."""


class Tunnels:
    """The sessions of every slot that this process has seen.

    What is there at the first scan of a slot counts as a session that worked, unless this process has made
    the instance: an agent that has just started knows nothing of its past.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Take the clock, in seconds."""
        self._clock = clock
        self._slots = dict[str, dict[str, _Seen]]()
        self._failed = dict[tuple[str, str], float]()
        """When a login was last seen to have failed, by slot and address."""

    def begin(self, slot: str) -> None:
        """Know that a new instance is being made in the slot: all that is seen there began after that."""
        self._slots[slot] = {}
        self._failed = {key: at for key, at in self._failed.items() if key[0] != slot}

    def take(
        self, slot: str, opened: Sequence[Mapping[str, Any]], users: Sequence[Mapping[str, Any]]
    ) -> Past:
        """Take one answer of `show sessions valid` and `show users`; return what it means after all others.

        Raises:
            KeyError: An entry lacks a key of occtl's.
        """
        first, now = slot not in self._slots, self._clock()
        before, found = self._slots.get(slot, {}), dict[str, _Seen]()
        for user in users:
            found[user["Session"]] = _connected(user, before.get(user["Session"]), now, first=first)
        connected = frozenset(found)
        for session in opened:
            if session["Session"] not in connected:
                found[session["Session"]] = _broken(session, before.get(session["Session"]), now, first=first)
        self._slots[slot] = found
        gone = [seen for name, seen in before.items() if name not in found and not seen.works]
        failed = self._failed_at(slot, [*gone, *(seen for seen in found.values() if seen.failed)], now)
        return Past(
            worked=frozenset(name for name, seen in found.items() if seen.works),
            failed={
                address: datetime.now(UTC) - timedelta(seconds=now - at) for address, at in failed.items()
            },
        )

    def _failed_at(self, slot: str, refused: Iterable[_Seen], now: float) -> dict[str, float]:
        """Note from where logins have failed now; return all such addresses that are remembered.

        A user who said goodbye to a tunnel through which nothing came was refused, too.
        """
        self._failed |= {(slot, seen.address): now for seen in refused}
        self._failed = {key: at for key, at in self._failed.items() if now - at < REMEMBERED.total_seconds()}
        return {address: at for (where, address), at in self._failed.items() if where == slot}


def _connected(user: Mapping[str, Any], before: _Seen | None, now: float, *, first: bool) -> _Seen:
    address, worker, carried = user["Remote IP"], user["ID"], _carries(user)
    if before is None:
        return _Seen(address, worker, now, first, carried)
    carried = carried or before.carried
    if before.worker != worker:  # each connection has a worker of its own
        ended = 0 if before.worker is None or before.lasted else 1
        return _Seen(address, worker, now, before.lasted, carried, before.breaks + ended)
    lasts = now - before.since >= SETTLED.total_seconds()
    return replace(before, address=address, lasted=before.lasted or lasts, carried=carried)


def _broken(session: Mapping[str, Any], before: _Seen | None, now: float, *, first: bool) -> _Seen:
    if session.get("in_use"):  # its tunnel is being made
        return before or _Seen(session["Remote IP"], None, now, first)
    if before is None:
        return _Seen(session["Remote IP"], None, now, first, breaks=1)
    ended = 0 if before.lasted or (before.worker is None and before.breaks) else 1
    return replace(before, worker=None, breaks=before.breaks + ended)


def _carries(user: Mapping[str, Any]) -> bool:
    """Return whether its user has sent anything; where nothing is counted, it has."""
    counted = str(user.get("RX", ""))
    return not counted.isdigit() or int(counted) > 0
