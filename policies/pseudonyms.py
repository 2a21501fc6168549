"""Words in place of people: who is in a snapshot is not told, and whether two lines are of one person is.

With the fleet's key the same person is the same word in all of the fleet's snapshots, and whoever has the
key can try a name or an address against the words.
"""

import hmac
import re
from collections.abc import Collection, Iterable
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address, ip_address

Address = IPv4Address | IPv6Address

LEFT_OUT = "[address]"
WORD_DIGITS = 12
"""Hex digits of a word: among a million clients one in four thousand fleets has two with the same."""

# What begins a match is bounded: a line of 64 KiB is not to be read once for each of its digits.
_LIKE_AN_ADDRESS = re.compile(
    r"(?P<colons>[0-9A-Fa-f]{0,32}(?::[0-9A-Fa-f]*){2,}(?:\.[0-9]+)*)(?:%[\w.-]+)?"
    r"|(?P<dots>[0-9]{1,20}(?:\.[0-9]+){3,})"
    r"|(?<![0-9])(?P<dashes>[0-9]{1,3}(?:-[0-9]{1,3}){3})(?![0-9])"
)
_HARDWARE = re.compile(r"(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}")
_GROUPS, _PARTS = 8, 4


class Pseudonyms:
    """The words of one key."""

    def __init__(self, key: bytes, *, addresses: bool) -> None:
        """Take the key, and whether addresses become words, too; otherwise they are left out."""
        self._key = key
        self._addresses = addresses

    def without_names(self, text: str, names: Iterable[str]) -> str:
        """Return the text with each of these users' names replaced, the same name by the same word."""
        for name in sorted(set(names) - {""}, key=len, reverse=True):
            text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", self._word("user", name), text)
        return text

    def without_addresses(self, text: str, known: Collection[Address] = ()) -> str:
        """Return the text with each address replaced but the known ones, loopback and the unspecified.

        What looks like an address and is none, such as one with a part too many, is left out.
        """

        def replaced(found: re.Match[str]) -> str:
            said = found["colons"] or found["dots"] or found["dashes"]
            shown = said.replace("-", ".") if found["dashes"] else said
            address = _address(shown)
            if address is None:
                return LEFT_OUT if _could_be_one(shown) else found[0]
            if address in known or address.is_loopback or address.is_unspecified:
                return found[0]
            return self._word("client", str(address)) if self._addresses else LEFT_OUT

        return _LIKE_AN_ADDRESS.sub(replaced, text)

    def _word(self, kind: str, of: str) -> str:
        return f"{kind}-{hmac.new(self._key, f'{kind} {of}'.encode(), sha256).hexdigest()[:WORD_DIGITS]}"


def _address(said: str) -> Address | None:
    """Return the address that this is, also at the end of a sentence; IPv4 in IPv6 is the client's IPv4."""
    for shown in (said, said.removesuffix(":"), said.strip(":")):
        try:
            found = ip_address(shown)
        except ValueError:
            continue
        mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
        return mapped or found
    return None


def _could_be_one(said: str) -> bool:
    """Say whether this hides an address: a time of day and a log's other numbers with colons do not."""
    if ":" not in said:
        return said.count(".") >= _PARTS - 1
    long = ("::" in said and said.strip(":") != "") or said.count(":") >= _GROUPS - 1
    return long or said.count(".") >= _PARTS - 1 or _HARDWARE.search(said) is not None
