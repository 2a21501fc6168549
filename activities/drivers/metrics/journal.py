"""Hand a daemon's log on to the host's journal, line by line, each with the instance that said it.

In systemd's own form (systemd.io/JOURNAL_NATIVE_PROTOCOL): whoever looks can ask for one slot, release
or executable, and whatever ships the journal ships these, too. Nobody waits for the journal: lines that it
does not take at once are dropped and counted, and are still in the instance's own file.
"""

import socket
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from activities.drivers.metrics.exporter import Running

SOCKET = Path("/run/systemd/journal/socket")
LONGEST_LINE = 8192
INFORMATION = 6
"""The priority of every line (syslog(3)): daemons do not say theirs in a form that all of them share."""


class Journal(Collector):
    """The journal of this host, and how much it took."""

    def __init__(self, gateway: str, product: str, path: Path = SOCKET) -> None:
        """Say whose lines these are; the journal may come later, or go and come back."""
        self._gateway = gateway
        self._product = product
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._counts = Counter[str]()

    def say(self, running: Running, line: str) -> None:
        """Hand on one line of this instance."""
        fields = {
            "MESSAGE": line.rstrip()[:LONGEST_LINE],
            "PRIORITY": INFORMATION,
            "SYSLOG_IDENTIFIER": f"{self._product}-{running.slot}",
            "VPN_GATEWAY": self._gateway,
            "VPN_SLOT": running.slot,
            "VPN_EXECUTABLE": running.digest,
            "VPN_VERSION": running.version,
            "VPN_PID": running.process.pid,
        }
        said = "".join(f"{name}={_one_line(str(value))}\n" for name, value in fields.items())
        try:
            self._socket.sendto(said.encode(), self._path)
        except OSError:  # full, or not there
            self._counts["dropped"] += 1
        else:
            self._counts["taken"] += 1

    def describe(self) -> Iterable[Metric]:
        """Name nothing in advance."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield how many lines the journal took, and how many were dropped."""
        family = CounterMetricFamily("vpngw_journal_lines", "Lines of daemons' logs", labels=("outcome",))
        for outcome in ("taken", "dropped"):
            family.add_metric([outcome], self._counts[outcome])
        yield family


def _one_line(value: str) -> str:
    """Return the value without what would begin another field: a daemon's users choose some of its words."""
    return "".join(" " if ord(letter) < ord(" ") else letter for letter in value)
