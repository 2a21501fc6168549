"""What OpenVPN writes before a client's words: a stamp, the user once let in, address and port.

A name has whatever a certificate or a user's login has: spaces, slashes, and what reads like another prefix.
So a line that begins with an address is of somebody who is not let in, whatever comes behind.
"""

STAMP = r"(?:\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (?:us=\d+ )?+)"
"""Taken whole wherever it is (`?+`), so that nobody's prefix is sought behind a part of it."""
END = r"\[?[0-9a-fA-F.:]+\]?:\d+"
"""An address and a port."""
NAMED = rf"(?!{END} )(?P<user>.+?)/(?P<end>{END}) "
"""The prefix of a user who was let in, right behind the stamp."""
