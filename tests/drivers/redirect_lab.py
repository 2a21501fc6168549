"""The scratch gateway with a HAProxy in front of its slots, which sends users on to an instance."""

import shutil

from activities.drivers.steering.port import SteeringDriver
from activities.drivers.steering.redirect import redirect_of
from tests.drivers.gateway_lab import GatewayLab


def why_not_here() -> str | None:
    """Return why no HAProxy can run here, None when one can."""
    return None if shutil.which("haproxy") else "needs haproxy"


class RedirectLab(GatewayLab):
    """The namespaces, files and parts of one gateway whose users are redirected."""

    def _made_steering(self) -> SteeringDriver:
        return redirect_of(self.orders, self.means)
