"""Which user's packets came from where and when, as the log of one slot tells it.

A session is there from the moment it has an address until its client leaves, and comes from another place
after a float. The log's stamps are UTC: an instance's root has no other time zone.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from ipaddress import IPv6Address, ip_address

from policies.attribution import End, Held

_STAMP = r"^(?P<at>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?:us=\d+ )?"
_CLIENT = re.compile(_STAMP + r"(?P<user>[^/\s]+)/(?P<end>\[?[0-9a-fA-F.:]+\]?:\d+) (?P<what>.+)")
_GIVEN = re.compile(r"MULTI: primary virtual IP(?:v6)? for .+: (?P<address>[0-9a-fA-F.:]+)$")
_FLOATED = re.compile(
    _STAMP + r".*peer \d+ \((?P<user>[^)]+)\) floated from (?P<end>\S+) to "
    r"(?:\[AF_INET6?\])?(?P<to>\S+)(?: \(via .*\))?$"
)
_BEGINS = re.compile(_STAMP + r"OpenVPN \d\S* ")
_LEAVES = re.compile(r"SIG(?:TERM|USR1|HUP)\[.*client-instance (?:restarting|exiting)")


def held_in(slot: str, lines: Iterable[str]) -> Iterator[Held]:
    """Yield the sessions that a slot's log tells of, each for as long as it came from one place."""
    live: dict[End, Held] = {}
    for line in lines:
        if found := _FLOATED.match(line):
            at, before, now = _at(found), _end(found["end"]), _end(found["to"])
            if before in live:
                moved = live.pop(before)
                yield moved._replace(ended=at)
                live[now] = moved._replace(source=now, began=at)
        elif (found := _CLIENT.match(line)) is not None:
            at, source = _at(found), _end(found["end"])
            if given := _GIVEN.match(found["what"]):
                if source not in live:
                    live[source] = Held(slot, found["user"], source, given["address"], at)
            elif _LEAVES.match(found["what"]) and source in live:
                yield live.pop(source)._replace(ended=at)
        elif (found := _BEGINS.match(line)) is not None:  # the instance before has ended, with everybody
            yield from (one._replace(ended=_at(found)) for one in live.values())
            live.clear()
    yield from live.values()


def _at(found: re.Match[str]) -> datetime:
    return datetime.strptime(found["at"], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)


def _end(said: str) -> End:
    host, _, port = said.rpartition(":")
    address = ip_address(host.strip("[]"))
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return End(mapped or address, int(port))
