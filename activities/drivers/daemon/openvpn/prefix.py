"""The prefix of a line about a client: a stamp, the common name once it is let in, address and port.

OpenVPN 2.7 writes the protocol before the address, as in `bob/udp4:203.0.113.40:52447`.

A name has whatever a certificate or a user's login has: spaces, slashes, and what reads like another prefix.
So a line that begins with an address is of a client without a common name, whatever comes behind: one that
is not let in yet, or one that has shown no certificate (`verify-client-cert none`).
"""

from datetime import UTC, datetime

_ISO = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
_CTIME = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}"
STAMP = rf"(?:(?:{_ISO}|{_CTIME}) (?:us=\d+ )?+)"
"""The time of OpenVPN 2.5 and later, or that of 2.4 (ctime(3)).

Taken whole wherever it is (`?+`), so that nobody's prefix is sought behind a part of it.
"""
END = r"\[?[0-9a-fA-F.:]+\]?:\d+"
"""An address and a port."""
VIA = r"(?:(?:udp|tcp)[46]?(?:-server|-client)?:)?+"
"""The protocol that OpenVPN 2.7 writes before them (`mroute_addr_print_ex`); earlier versions write none."""
_FAMILY = r"(?:\[AF_INET6?\])?+"
NAMED = rf"(?!{VIA}{END} )(?P<user>.+?)/{VIA}(?P<end>{END}) "
"""The prefix of a user who was let in, right behind the stamp."""
FLOATED = (
    rf"(?:(?!{VIA}{END} ).+?/{VIA}{END} |{VIA}{END} )?peer \d+ \(.+\) floated "
    rf"from {VIA}{_FAMILY}(?P<from>{END}) to {VIA}{_FAMILY}(?P<to>{END})(?: \(via \S+\))?$"
)
"""A live session goes on from another address; only some versions have the client's prefix before it.

A name may have any characters, so the last two addresses are those of the session.
"""
DROPS = (
    r"MULTI: new connection by client '(?P<user>.+)' will cause previous active sessions by this client "
    r"to be dropped"
)
"""A user is let in again, and OpenVPN drops the user's previous sessions.

Until the next packet of any client, OpenVPN then writes no prefix. Longer than a common name can be (64
characters), so no prefix reads like it.
"""
AFTER_DROP = (
    rf"(?P<what>MULTI(?: ERROR)?: primary virtual IP(?:v6)? for (?P<user>.+)/{VIA}(?P<end>{END})"
    r"(?:: [0-9a-fA-F.:]+$| \([0-9a-fA-F.:]+\) violates .+))"
)
"""The line about the address of such a user. It counts only for the name that the line of `DROPS` has."""
SHOWN_NAME = r"CN=(?P<name>[^\n]+?)(?=, [A-Za-z][A-Za-z0-9.]*=|\s*$)"
"""A common name among the attributes of a subject; it may have commas of its own, as in `Maier, Anna`."""
TYPED_NAME = (
    r"TLS: Username/Password authentication (?P<how>succeeded|deferred) for username "
    r"'(?P<typed>[^\n]+)' ?(?:\[CN SET\])?\s*$"
)
"""The name that a client has typed, once its password is right or is still being asked about."""


def moment(stamp: str) -> datetime:
    """Return the time of a stamp, to the second, as UTC.

    Raises:
        ValueError: It is no time.
    """
    said = stamp.partition(" us=")[0].strip()
    form = "%Y-%m-%d %H:%M:%S" if said[:1].isdecimal() else "%a %b %d %H:%M:%S %Y"
    return datetime.strptime(said, form).replace(tzinfo=UTC)
