"""Sessions on the release that a change brought, and how a chat says how many are left there. Pure."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from policies.model.instance import GatewayState, InstanceState
from policies.model.value import Digest, Value
from policies.planning.naming import counted, named

_ENDED = frozenset({InstanceState.STOPPED, InstanceState.FAILED})
"""What has no sessions: nothing of it runs."""


class Left(Value):
    """How many sessions are left on one release."""

    version: str
    sessions: int = 0
    """Those that were counted."""
    silent: tuple[str, ...] = ()
    """Gateways of which nobody knows how many they have; they never count as none."""
    at: datetime | None = None
    """When the gateway was looked at that was looked at first; None where none was."""

    @property
    def is_none(self) -> bool:
        """Return whether every gateway has said that it has none."""
        return not self.sessions and not self.silent and self.at is not None

    @property
    def counted(self) -> str:
        """Return how many there are, in words that never say more than is known."""
        many = counted(self.sessions, "session")
        if not self.silent:
            return many
        return f"at least {many} (not known of {named(self.silent)})"


def left_on(
    release: Digest,
    version: str,
    gateways: Iterable[str],
    said: Iterable[tuple[str, GatewayState | str]],
    since: datetime | None = None,
) -> Left:
    """Return how many sessions these gateways have on the release.

    Args:
        release: By its manifest's digest.
        version: What people call it.
        gateways: All that may have some.
        said: What gateways said when they were last looked at, or why they were silent.
        since: What was said before counts as not said.
    """
    sessions, known, at = 0, set[str](), list[datetime]()
    for name, state in said:
        if isinstance(state, str) or (since is not None and state.observed_at < since):
            continue
        there = [one for one in state.instances if one.release == release and one.state not in _ENDED]
        at.append(state.observed_at)
        sessions += sum(one.sessions or 0 for one in there)
        if all(one.sessions is not None for one in there):
            known.add(name)
    silent = sorted({*gateways} - known)
    return Left(version=version, sessions=sessions, silent=tuple(silent), at=min(at, default=None))


def stay(left: Left | None, deadline: timedelta, now: datetime) -> str:
    """Return what becomes of the sessions that a rollback leaves where they are."""
    if left is None:
        return "live sessions stay where they are until they end."
    verb = "stays" if left.counted == "1 session" else "stay"
    until = f"{now + deadline:%Y-%m-%d %H:%M} UTC"
    return f"{left.counted} {verb} on {left.version} until they end, or until {until} at the earliest."
