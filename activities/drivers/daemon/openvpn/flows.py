"""Which user's packets came from where and when, as the log of one slot tells it.

A session is there from the moment it has an address until its client leaves, or until OpenVPN drops it for
a new session of the same user. It comes from another place after a float. The log's stamps are UTC: an
instance's root has no other time zone.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv6Address, ip_address

from activities.drivers.daemon.openvpn.prefix import (
    AFTER_DROP,
    DROPS,
    END,
    FLOATED,
    NAMED,
    STAMP,
    TYPED_NAME,
    VIA,
    moment,
)
from activities.drivers.daemon.openvpn.sessions import NOBODY
from policies.attribution import End, Held

_AT = rf"(?P<at>{STAMP})"
_CLIENT = re.compile(rf"{_AT}{NAMED}(?P<what>.+)")
_DROPS = re.compile(rf"{_AT}{DROPS}")
_AFTER_DROP = re.compile(rf"{_AT}{AFTER_DROP}")
_NAMELESS = re.compile(rf"{_AT}{VIA}(?P<end>{END}) (?P<what>.+)")
_TYPED = re.compile(TYPED_NAME)
_GIVEN = re.compile(r"MULTI: primary virtual IP(?:v6)? for .+: (?P<address>[0-9a-fA-F.:]+)$")
_FLOATED = re.compile(rf"{_AT}{FLOATED}")
MOST_TYPED = 20_000
_BEGINS = re.compile(rf"{_AT}OpenVPN \d\S* ")
_LEAVES = re.compile(r"SIG(?:TERM|USR1|HUP)\[[^\]]*\] received, client-instance (?:restarting|exiting)")


@dataclass
class _Log:
    """What one log has told so far."""

    live: dict[End, Held] = field(default_factory=dict)
    typed: dict[End, str] = field(default_factory=dict)
    """Names that clients have typed whose session has not begun; the oldest are dropped."""
    again: str = ""
    """The user for whose new session previous ones were dropped last."""


def held_in(slot: str, lines: Iterable[str]) -> Iterator[Held]:
    """Yield the sessions of a slot's log, each for as long as it came from one place."""
    log = _Log()
    for line in lines:
        with suppress(ValueError):  # no time or place, whatever it looks like
            yield from _told(slot, line, log)
    yield from log.live.values()


def _told(slot: str, line: str, log: _Log) -> Iterator[Held]:
    """Yield the sessions that one line ends, and note those that it begins."""
    if found := _FLOATED.match(line):
        at, before, now = moment(found["at"]), _end(found["from"]), _end(found["to"])
        if before in log.live:
            moved = log.live.pop(before)
            log.live[now] = moved._replace(source=now, began=at)
            yield moved._replace(ended=at)
    elif found := _NAMELESS.match(line):
        yield from _of_a_client(slot, found, None, log)
    elif found := _DROPS.match(line):
        log.again = found["user"]
        yield from _dropped(moment(found["at"]), log)
    elif (found := _AFTER_DROP.match(line)) and found["user"] == log.again:
        yield from _of_a_client(slot, found, log.again, log)
    elif found := _CLIENT.match(line):
        yield from _of_a_client(slot, found, found["user"], log)
    elif found := _BEGINS.match(line):  # the instance before has ended, with every session
        at, ended = moment(found["at"]), list(log.live.values())
        log.live.clear()
        log.typed.clear()
        yield from (one._replace(ended=at) for one in ended)


def _dropped(at: datetime, log: _Log) -> Iterator[Held]:
    """End the sessions of the user who is let in again; the new one has no address yet."""
    for source in [source for source, one in log.live.items() if one.user == log.again]:
        yield log.live.pop(source)._replace(ended=at)


def _of_a_client(slot: str, found: re.Match[str], name: str | None, log: _Log) -> Iterator[Held]:
    """Take in a line of one client; one without a common name is known by the name that it has typed."""
    at, source, what = moment(found["at"]), _end(found["end"]), found["what"]
    if given := _GIVEN.match(what):
        user = name or log.typed.pop(source, NOBODY)
        if source not in log.live:
            log.live[source] = Held(slot, user, source, given["address"], at)
    elif _LEAVES.match(what):
        log.typed.pop(source, None)
        if source in log.live:
            yield log.live.pop(source)._replace(ended=at)
    elif name is None and source not in log.live and (typed := _TYPED.match(what)):
        log.typed[source] = typed["typed"]
        if len(log.typed) > MOST_TYPED:
            del log.typed[next(iter(log.typed))]


def _end(said: str) -> End:
    host, _, port = said.rpartition(":")
    address = ip_address(host.strip("[]"))
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return End(mapped or address, int(port))
