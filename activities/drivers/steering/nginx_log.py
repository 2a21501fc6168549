"""What nginx's `stream` proxy writes of users' flows, and when: measured with 1.22.

Its access log has a line for each session **when it has ended**: over TCP at once, over UDP `proxy_timeout`
after the last packet, and never for one that lives when nginx is told to stop at once (SIGTERM). No variable
of it has the address and port by which the gateway sees the user. The error log has both ends **when a
session begins**, with the level `info`, in two lines that the connection's number ties together.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address

from policies.attribution import Carried, End

FORMAT = "$msec $pid $connection $protocol $remote_addr $remote_port $upstream_addr $session_time $status"
"""The beginning of the access log's format, by which a line is tied to those of the error log."""
_SAID = re.compile(
    r"(?P<at>\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) \[info\] (?P<worker>\d+)#\d+: \*(?P<number>\d+) (?P<what>.+)"
)
_BEGINS = re.compile(r"(?:udp )?client (?P<end>\S+) connected to ")
_CARRIED = re.compile(r"(?:udp )?proxy (?P<end>\S+) connected to ")
_ENDS = re.compile(r"(?:udp )?(?:client disconnected|upstream disconnected|timed out|upstream timed out)\b")
_ENDED = re.compile(
    r"(?:^|\s)(?P<at>\d{9,}\.\d{3}) (?P<worker>\d+) (?P<number>\d+) (?:TCP|UDP) "
    r"[0-9a-fA-F.:]+ \d+ \S+ [\d.]+ \d+\b"
)


def carried_in(lines: Iterable[str]) -> list[Carried]:
    """Return the flows that these lines of an error log, an access log, or both tell of.

    A stamp of the error log is the local time of this host.
    """
    told = _Told({}, {}, [], {})
    for line in lines:
        with suppress(ValueError):  # no time or place, whatever it looks like
            told.take(line)
    return [*told.ended, *(_with_end(flow, told.ends.get(key, ())) for key, flow in told.flows.items())]


@dataclass(frozen=True)
class _Told:
    """What the lines so far have told; a worker and the number of a connection say whose they are."""

    begun: dict[tuple[str, str], End]
    flows: dict[tuple[str, str], Carried]
    ended: list[Carried]
    ends: dict[tuple[str, str], list[datetime]]

    def take(self, line: str) -> None:
        if told := _ENDED.search(line):
            at = datetime.fromtimestamp(float(told["at"]), UTC)
            self.ends.setdefault((told["worker"], told["number"]), []).append(at)
        elif (told := _SAID.search(line)) is not None:
            key, what = (told["worker"], told["number"]), told["what"]
            at = datetime.strptime(told["at"], "%Y/%m/%d %H:%M:%S").astimezone(UTC)
            if found := _BEGINS.match(what):
                self.begun[key] = _end(found["end"])
            elif (found := _CARRIED.match(what)) and key in self.begun:
                source = _end(found["end"])
                self.ended.extend(_older(self.flows, key))
                self.flows[key] = Carried(self.begun.pop(key), source, at)
            elif _ENDS.match(what) and key in self.flows:
                self.ended.append(self.flows.pop(key)._replace(ended=at))


def _older(flows: dict[tuple[str, str], Carried], key: tuple[str, str]) -> Iterator[Carried]:
    """Yield the flow of an nginx that was ended, whose numbers another one gives again."""
    if key in flows:
        yield flows.pop(key)


def _with_end(flow: Carried, ends: Iterable[datetime]) -> Carried:
    """Return the flow with the first end of its number that the access log has after its beginning."""
    return flow._replace(ended=min((at for at in ends if at >= flow.began), default=None))


def _end(said: str) -> End:
    host, _, port = said.rpartition(":")
    return End(ip_address(host.strip("[]")), int(port))
