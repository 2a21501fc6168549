"""Which user's packets came from where and when, as the log of one slot tells it.

A session is there from the moment it has an address until its client leaves, and comes from another place
after a float. The log's stamps are UTC: an instance's root has no other time zone.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from ipaddress import IPv6Address, ip_address

from activities.drivers.daemon.openvpn.prefix import END, NAMED, STAMP
from policies.attribution import End, Held

_AT = rf"(?P<at>{STAMP})"
_CLIENT = re.compile(rf"{_AT}{NAMED}(?P<what>.+)")
_GIVEN = re.compile(r"MULTI: primary virtual IP(?:v6)? for .+: (?P<address>[0-9a-fA-F.:]+)$")
# Some versions have the user's prefix before it. A name is what it likes, so the last words are the places.
_FLOATED = re.compile(
    rf"{_AT}(?:(?!{END} ).+?/{END} )?peer \d+ \(.+\) floated from (?P<end>{END}) to "
    rf"(?:\[AF_INET6?\])?(?P<to>{END})(?: \(via \S+\))?$"
)
_BEGINS = re.compile(rf"{_AT}OpenVPN \d\S* ")
_LEAVES = re.compile(r"SIG(?:TERM|USR1|HUP)\[[^\]]*\] received, client-instance (?:restarting|exiting)")


def held_in(slot: str, lines: Iterable[str]) -> Iterator[Held]:
    """Yield the sessions that a slot's log tells of, each for as long as it came from one place."""
    live: dict[End, Held] = {}
    for line in lines:
        with suppress(ValueError):  # no time or place, whatever it looks like
            yield from _told(slot, line, live)
    yield from live.values()


def _told(slot: str, line: str, live: dict[End, Held]) -> Iterator[Held]:
    """Yield the sessions that one line ends, and note those that it begins."""
    if found := _FLOATED.match(line):
        at, before, now = _at(found), _end(found["end"]), _end(found["to"])
        if before in live:
            moved = live.pop(before)
            live[now] = moved._replace(source=now, began=at)
            yield moved._replace(ended=at)
    elif (found := _CLIENT.match(line)) is not None:
        at, source = _at(found), _end(found["end"])
        if given := _GIVEN.match(found["what"]):
            if source not in live:
                live[source] = Held(slot, found["user"], source, given["address"], at)
        elif _LEAVES.match(found["what"]) and source in live:
            yield live.pop(source)._replace(ended=at)
    elif (found := _BEGINS.match(line)) is not None:  # the instance before has ended, with everybody
        at, ended = _at(found), list(live.values())
        live.clear()
        yield from (one._replace(ended=at) for one in ended)


def _at(found: re.Match[str]) -> datetime:
    return datetime.strptime(found["at"][:19], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)


def _end(said: str) -> End:
    host, _, port = said.rpartition(":")
    address = ip_address(host.strip("[]"))
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return End(mapped or address, int(port))
