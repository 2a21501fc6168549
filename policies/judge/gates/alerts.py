"""Gates of kind `alerts`: what the site's own alerting says of the canary."""

from collections.abc import Iterable
from datetime import timedelta
from typing import ClassVar, Literal

from policies.judge.gates.kind import Response
from policies.judge.gates.signs import Signed
from policies.judge.look import Look
from policies.judge.tick import Offence
from policies.model.verdict import GateVerdict


class Alerts(Signed):
    """Alerts that fire for the canary; they only ever hold."""

    bad: ClassVar = GateVerdict.UNHEALTHY

    kind: Literal["alerts"]
    """Of alerts of your own Prometheus."""
    action: Literal[Response.HOLD] = Response.HOLD

    def offence(self, lookback: timedelta) -> Offence:
        """Return the filter for gateways with an alert."""
        return Offence(self.value, "shown", lookback)

    def blind(self, look: Look) -> str:
        """Return why this gate cannot be read now; no alert is the usual case."""
        read = (*self.promised, look.presence)
        return look.unread(read) or look.unsound_canary(self.selectors)

    def seen(self, look: Look) -> Iterable[tuple[str, float]]:
        """Return each instance and when it was last reached: no alert is the usual case."""
        return ((instance, times[-1]) for instance, times in look.scrapes.items())

    def fires_at(self, value: float) -> bool:
        """Whether the alert fires: by being there and not zero, as Prometheus writes them."""
        return value != 0
