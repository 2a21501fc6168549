"""ocserv.conf as ocserv 1.1.6 to 1.3.0 read it: comments, quotes, lines that go on, repeated keys.

Measured on both and read in their source (inih, `cfg_ini_handler`); `test_ocserv_reads.py` compares the two:

- `#` and `;` begin a comment at the beginning of a line; behind a value only ` #` does, in quotes, too.
- `=` or `:` ends a key. Double quotes around a value are dropped, single ones belong to it.
- An indented line is one more value of the key before it.
- A key that has one value keeps the last; a list has all of them.
- What stands below `[name]` is of a virtual host, or of nothing; `[]` goes back.
"""

import re
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network, IPv6Network
from typing import NamedTuple

from policies.model.errors import BadInput

LONGEST = 2047
"""Bytes of a line that ocserv reads at once; what is behind them is a line of its own to it."""
BOM = b"\xef\xbb\xbf"
LISTS = frozenset(
    """
    auth enable-auth server-cert server-key kkdcp custom-header split-dns route no-route select-group
    dns ipv4-dns ipv6-dns nbns ipv4-nbns ipv6-nbns
    """.split()  # noqa: SIM905 - words, not a table
)
"""Keys that keep all values that they are given."""
_SPACE = b" \t\n\r\v\f"
_INLINE = re.compile(rb"[ \t\n\r\v\f]#")
_NUMBER = re.compile(r"[ \t\n\r\v\f]*([+-]?\d+)")


LONGEST_SECTION = 49
"""Bytes of a section's name that are kept."""


class Line(NamedTuple):
    """One value that ocserv takes from a line, or the line that begins a section."""

    number: int
    section: str
    key: str
    value: str
    begins: bool = False
    """Whether it is the line with the section's name."""


class Wrong(NamedTuple):
    """A line at which ocserv ends."""

    number: int
    text: str


def lines_of(text: str) -> list[Line]:
    """Return every value of a configuration, those of sections included.

    Raises:
        BadInput: ocserv refuses a line; the sentence has its number.
    """
    found = list[Line]()
    for line in _read(text):
        if isinstance(line, Wrong):
            raise BadInput(f"line {line.number} is no `key = value`: {line.text[:60]}")
        found.append(line)
    return found


def values_of(text: str, key: str) -> list[str]:
    """Return all values of the key, in their order, those of sections included; BadInput as `lines_of`."""
    return [line.value for line in lines_of(text) if line.key == key]


def settings_of(text: str) -> dict[str, tuple[str, ...]]:
    """Return what counts outside of sections: of a list all values, of every other key the last."""
    found = dict[str, tuple[str, ...]]()
    for line in lines_of(text):
        if not line.section:
            before = found.get(line.key, ()) if line.key in LISTS else ()
            found[line.key] = (*before, line.value)
    return found


def without(config: str, keys: frozenset[str]) -> tuple[list[str], list[str]]:
    """Return the configuration's lines before its sections without these keys, and those from the first on.

    Lines that only go on with a value of such a key are left out, too.
    """
    lines = config.removesuffix("\n").split("\n")
    read = [line for line in _read(config) if isinstance(line, Line)]
    gone = {line.number for line in read if not line.section and line.key in keys}
    first = next((line.number for line in read if line.section), len(lines) + 1) - 1
    return [line for number, line in enumerate(lines[:first], start=1) if number not in gone], lines[first:]


def with_one(config: str, key: str, value: Callable[[str], str]) -> str:
    """Return the configuration with one line of this key in each section, and one before them.

    Args:
        config: The configuration, also one with a line that ocserv refuses.
        key: A key that keeps one value.
        value: Returns what the line says, of the value that counted in its section, empty for none.
    """
    lines = config.removesuffix("\n").split("\n")
    counted, last, gone = {"": ""}, {"": 0}, set[int]()
    for line in _read(config):
        if isinstance(line, Line):
            last[line.section] = line.number
            if line.key == key:
                counted[line.section] = line.value
                gone.add(line.number)
    ours = {number: f"{key} = {value(counted.get(section, ''))}" for section, number in last.items()}
    written = [ours[0]] if 0 in ours else []
    for number, text in enumerate(lines, start=1):
        written += [text] if number not in gone else []
        written += [ours[number]] if number in ours else []
    return "\n".join(written) + "\n"


def number_in(value: str) -> int:
    """Return the number with which a value begins, 0 for none (strtol(3))."""
    found = _NUMBER.match(value)
    return int(found[1]) if found else 0


def is_true(value: str) -> bool:
    """Return whether ocserv takes the value for yes."""
    return value.lower() in ("true", "yes")


def pool4_in(lines: list[Line]) -> IPv4Network | None:
    """Return the pool of IPv4 addresses, None where the configuration has none; BadInput for a wrong one."""
    said = _pool(lines, "ipv4-network", "ipv4-netmask")
    if said is None:
        return None
    try:
        return IPv4Network(said.value, strict=False)
    except ValueError as error:
        raise BadInput(f"line {said.number}: ipv4-network: {error}") from error


def pool6_in(lines: list[Line]) -> IPv6Network | None:
    """Return the pool of IPv6 addresses, None where the configuration has none; BadInput for a wrong one."""
    said = _pool(lines, "ipv6-network", "ipv6-prefix")
    if said is None:
        return None
    try:
        return IPv6Network(said.value, strict=False)
    except ValueError as error:
        raise BadInput(f"line {said.number}: ipv6-network: {error}") from error


def _pool(lines: list[Line], key: str, mask_key: str) -> Line | None:
    """Return the line that names the pool, with its length as `NETWORK/LENGTH`.

    The length behind a network and the one of a line of its own are one setting: the later one counts.
    """
    network, mask = None, ""
    for line in lines:
        if line.section:
            continue
        if line.key == mask_key:
            mask = line.value
        elif line.key == key:
            named, _, length = line.value.partition("/")
            network, mask = line._replace(value=named), str(number_in(length) or mask)
    if network is None:
        return None
    if not mask:
        raise BadInput(f"line {network.number}: {key} has no length; write `{key} = {network.value}/LENGTH`")
    return network._replace(value=f"{network.value}/{mask}")


def _read(text: str) -> Iterator[Line | Wrong]:
    section, key = "", ""
    for number, line in _pieces(text):
        whole = line.rstrip(_SPACE)
        said = whole.lstrip(_SPACE)
        if not said or said[:1] in b"#;":
            continue
        if key and said != whole:
            yield from _value(number, section, key, said)
        elif said.startswith(b"["):
            name, closed, _ = said[1:].partition(b"]")
            if not closed or _INLINE.search(name):
                yield Wrong(number, _text(said))
                return
            section, key = _text(name[:LONGEST_SECTION]), ""
            if section:
                yield Line(number, section, key, "", begins=True)
        else:
            found = re.match(rb"[^=:]*[=:]", said)
            if found is None or _INLINE.search(found[0]):
                yield Wrong(number, _text(said))
                return
            key = _text(found[0][:-1].rstrip(_SPACE))
            value = said[found.end() :]
            comment = _INLINE.search(value)
            yield from _value(number, section, key, value[: comment.end() - 1] if comment else value)


def _pieces(text: str) -> Iterator[tuple[int, bytes]]:
    """Yield the lines as ocserv gets them, each with its number in the file."""
    for number, line in enumerate(text.encode(errors="replace").split(b"\n"), start=1):
        for begin in range(0, max(1, len(line)), LONGEST):
            piece = line[begin : begin + LONGEST]
            yield number, piece.removeprefix(BOM) if number == 1 and not begin else piece


def _value(number: int, section: str, key: str, value: bytes) -> Iterator[Line]:
    """Yield the value without its quotes; quotes alone, or a comment alone, are no value to ocserv."""
    bare = value.strip(_SPACE + b'"')
    if bare or not value:
        yield Line(number, section, key, _text(bare))


def _text(said: bytes) -> str:
    return said.decode(errors="replace")
