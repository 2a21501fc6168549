"""Hand a daemon's log on to the host's journal, line by line, each with the instance that said it.

Whoever looks can ask for one slot, release
or executable, and whatever ships the journal ships these, too. Nobody waits for the journal: lines that it
does not take at once are dropped and counted, and are still in the instance's own file. Secrets are
removed from lines with what a client has sent.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from activities.drivers.journald import SOCKET, Journald
from activities.drivers.metrics.exporter import Running
from policies.redaction import without_tokens

LONGEST_LINE = 8192
SENT = ("POST body:", "</", "assword")
"""What a line has in which ocserv logs what a client sent; to search all lines would take a processor."""
INFORMATION = 6
"""The priority of every line (syslog(3)): daemons do not say theirs in a form that all of them share."""


class Journal(Collector):
    """The journal of this host, and how much it took."""

    def __init__(self, gateway: str, product: str, path: Path = SOCKET) -> None:
        """Say whose lines these are; the journal may come later, or go and come back."""
        self._gateway = gateway
        self._product = product
        self._journald = Journald(path)
        self._counts = Counter[str]()

    def say(self, running: Running, line: str) -> None:
        """Hand on one line of this instance."""
        fields = {
            "MESSAGE": _one_line(_without_passwords(line.rstrip()[:LONGEST_LINE])),
            "PRIORITY": INFORMATION,
            "SYSLOG_IDENTIFIER": f"{self._product}-{running.slot}",
            "VPN_GATEWAY": self._gateway,
            "VPN_SLOT": running.slot,
            "VPN_EXECUTABLE": running.digest,
            "VPN_VERSION": running.version,
        }
        if running.process.pid is not None:
            fields["VPN_PID"] = running.process.pid
        self._counts["taken" if self._journald.say(fields) else "dropped"] += 1

    def describe(self) -> Iterable[Metric]:
        """Name nothing in advance."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield how many lines the journal took, and how many were dropped."""
        family = CounterMetricFamily("vpngw_journal_lines", "Lines of daemons' logs", labels=("outcome",))
        for outcome in ("taken", "dropped"):
            family.add_metric([outcome], self._counts[outcome])
        yield family


def _without_passwords(line: str) -> str:
    return without_tokens(line) if any(mark in line for mark in SENT) else line


def _one_line(value: str) -> str:
    """Return it without what a terminal obeys, and on one line: a daemon's users choose some of its words."""
    return "".join(" " if ord(letter) < ord(" ") else letter for letter in value)
