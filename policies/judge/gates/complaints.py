"""Gates of kind `complaints`: distinct users who complained, among live sessions."""

from typing import Literal

from policies.judge.gates.counted import Counted
from policies.judge.gates.kind import Response, Selector
from policies.judge.look import Look
from policies.judge.reading import COMPLAINTS


class Complaints(Counted):
    """Distinct users who complained, among live sessions; arrives by signed webhook, only ever holds."""

    kind: Literal["complaints"]
    """Of complaints that came to the API."""
    total: Selector
    """The number of live sessions."""
    action: Response = Response.HOLD

    @property
    def promised(self) -> tuple[str, ...]:
        """The number of sessions."""
        return (self.total,)

    def blind(self, look: Look) -> str:
        """Return why this gate cannot be read now; complaints that could not be read are not none."""
        return look.unread((*self.promised, look.presence, COMPLAINTS)) or super().blind(look)

    def count(self, look: Look) -> tuple[dict[str, float], dict[str, float]]:
        """Return sessions, and users who complained, per instance."""
        if look.unread((COMPLAINTS,)):
            return {}, {}
        totals: dict[str, float] = {}
        for one in look.ours(self.total):
            totals[one.instance] = totals.get(one.instance, 0.0) + one.samples[-1][1]
        return totals, {instance: float(users) for instance, users in look.reading.complaints.items()}
