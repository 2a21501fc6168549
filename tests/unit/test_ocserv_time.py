"""In which time occtl is asked."""

from typing import Any, cast

import pytest

from activities.drivers.daemon.ocserv.daemon import Ocserv
from activities.drivers.daemon.port import Environment


class Place:
    """A place whose occtl prints the hour in which the epoch began."""

    control = None

    def beside(self, *_: Any) -> list[str]:
        return ["sh", "-c", """printf '{"Server PID": %d}' "$(date -d @0 +%-H)" """]


async def test_occtl_is_asked_in_utc_wherever_the_host_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fresh reader's F17: of an adopted 1.1.6, the local time of its host was read as UTC."""
    monkeypatch.setenv("TZ", "EST5")
    assert await Ocserv().main_process(cast("Environment", Place())) == 0
