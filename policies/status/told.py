"""What a change remembers of itself, in a form that survives a history that is cut."""

from collections.abc import Collection, Mapping
from datetime import datetime

from pydantic import Field

from policies.model.change import ChangeResult, Outcome, Phase
from policies.model.report import EVERYBODY, GatewayProgress
from policies.model.status import Event
from policies.model.value import Value
from policies.model.verdict import Basis, Decision
from policies.model.windows import WindowAnswer
from policies.planning.naming import named

NAMED = 10
"""Gateways that one sentence names; more are counted."""


class Told(Value):
    """All that was reported and commanded so far."""

    name: str = ""
    phase: Phase = Phase.STARTING
    wave: int = 0
    gateways: dict[str, GatewayProgress] = {}
    counts: dict[int, dict[str, int]] = {}
    share: int = EVERYBODY
    """Percent of the source addresses whose new sessions go to the new release on gateways on trial."""
    aside: dict[str, str] = {}
    decision: Decision | None = None
    holds: dict[str, str] = {}
    votes: dict[str, Basis] = {}
    """Who wants the wave promoted without proof, each with what it was shown."""
    moved: bool = False
    """Whether new sessions went to the new release anywhere, for however short a time."""
    switching: bool = False
    promoting: bool = False
    """Whether the promotion is being written down, after which nothing is left to hold."""
    short: tuple[str, ...] = ()
    """Why gateways wait for capacity."""
    silent: tuple[str, ...] = ()
    """Gateways that are to be switched and do not answer."""
    untested: dict[str, str] = {}
    """Gateways that wait for a test which cannot be made, and why."""
    commands: tuple[str, ...] = ()
    """The ids of the newest commands that were heard, the last of them last."""
    rebooted: tuple[str, ...] = ()
    """Gateways whose host rebooted in its trial, which began anew."""
    lapsed: tuple[str, ...] = ()
    """Gateways whose lease lapsed while their instance ran and answered; their trial began again."""
    missing: dict[str, dict[str, str]] = {}
    failed: dict[str, str] = {}
    """Parts of up to fifty gateways that do not go back, and why; they are begun again and again."""
    given_up: dict[str, str] = {}
    only_waits: bool = False
    """Whether the way back has tried every gateway, and waits for those that are silent or refuse."""
    waits_until: datetime | None = None
    window: WindowAnswer | None = Field(
        default=None, exclude_if=lambda answer: answer is None, description="what the next wave waits for"
    )
    events: tuple[Event, ...] = ()
    earlier_events: int = 0
    result: ChangeResult | None = None

    @property
    def goes_back(self) -> bool:
        """Whether the way back is under way."""
        return self.phase is Phase.ROLLING_BACK

    @property
    def not_back(self) -> dict[str, str]:
        """The gateways that are still tried, each with what keeps it."""
        found = {name: why for missing in self.missing.values() for name, why in missing.items()}
        return {name: why for name, why in found.items() if name not in self.given_up}

    @property
    def outcome(self) -> Outcome | None:
        """How it ended; incomplete already while gateways are missing."""
        if self.result is not None:
            return self.result.outcome
        return Outcome.ROLLBACK_INCOMPLETE if self.not_back or self.failed else None


def subject_of(gateways: Collection[str]) -> str:
    """Return the only gateway, or how many there are and the first few, with their verb."""
    if len(gateways) == 1:
        return f"{min(gateways)} is"
    return f"{len(gateways)} gateways ({named(sorted(gateways), NAMED + 1)}) are"


def listed(reasons: Mapping[str, str]) -> str:
    """Return the first few names with their reasons for a sentence."""
    first = [f"{name}: {why}" for name, why in sorted(reasons.items())][:NAMED]
    more = f" and {len(reasons) - NAMED} more" if len(reasons) > NAMED else ""
    return "; ".join(first) + more
