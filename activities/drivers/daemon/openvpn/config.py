"""An OpenVPN configuration as OpenVPN 2.4 to 2.7 read it: words, quotes, comments, and inline files.

Read in its source (`parse_line`, `check_inline_file`) and measured: `test_openvpn_reads.py` compares the two.

- `#` and `;` begin a comment wherever a word could begin.
- Words end at white space of any kind; quotes of both kinds and backslashes keep it.
- `<option>` alone begins an inline file, which ends at a line that begins with `</option>`.
- `setenv opt OPTION` is OPTION. Of an option that has one value, the last line counts.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from policies.model.errors import BadInput

LONGEST_LINE = 255
"""Bytes of a line with its end, also of a comment; OpenVPN ends at a longer one."""
LONGEST_WORD = 256
MOST_WORDS = 16
"""OpenVPN reads no further; what stands behind them is nothing to it."""
BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\n\r\v\f"
_BETWEEN = re.compile(rb"(?:\\?[ \t\n\r\v\f])*")
"""What stands between words."""
_KEPT = b'\\"' + _SPACE
"""What may stand behind a backslash."""


class Option(NamedTuple):
    """One option that a configuration gives."""

    number: int
    """Of its line."""
    name: str
    words: tuple[str, ...]
    inline: bool = False
    """Whether its only word is a file that stands in the configuration itself."""

    @property
    def value(self) -> str:
        """Its words as they are quoted in sentences."""
        return "[inline]" if self.inline else " ".join(self.words)


def options_in(text: str) -> list[Option]:
    """Return the options of a configuration in their order.

    Raises:
        BadInput: OpenVPN ends at a line; the sentence has its number.
    """
    data = text.encode(errors="replace")
    lines = enumerate(_lines(data), start=1)
    found = list[Option]()
    for number, line in lines:
        words = _words(number, line)
        if not words:
            continue
        first = words[0][2:] if len(words[0]) > 2 and words[0].startswith("--") else words[0]  # noqa: PLR2004
        if len(words) == 1 and first.startswith("<") and first.endswith(">"):
            tag = first[1:-1]
            found.append(Option(number, tag, (_inline(number, tag, lines),), inline=True))
        elif words[:2] == ["setenv", "opt"] and len(words) > 2:  # noqa: PLR2004 - an option behind them
            found.append(Option(number, words[2], tuple(words[3:])))
        else:
            found.append(Option(number, first, tuple(words[1:])))
    return found


def last_of(options: list[Option]) -> dict[str, Option]:
    """Return what counts of each option that has one value: its last line."""
    return {option.name: option for option in options}


def _lines(data: bytes) -> list[bytes]:
    """Return the lines with what ends them: of all white space only a line feed does."""
    return [line + b"\n" for line in data.split(b"\n")[:-1]] + [data.rpartition(b"\n")[2]]


def _inline(number: int, tag: str, lines: Iterator[tuple[int, bytes]]) -> str:
    """Return an inline file, and leave the lines behind its end."""
    end, content = f"</{tag}>".encode(), list[bytes]()
    for _, line in lines:
        if line.lstrip(_SPACE).startswith(end):
            return b"".join(content).decode(errors="replace")
        content.append(line)
    raise BadInput(f"line {number}: <{tag}> is not closed; write </{tag}> behind its file")


def _words(number: int, line: bytes) -> list[str]:
    """Return the words of a line; none of an empty line or a comment."""
    if len(line) > LONGEST_LINE:
        raise BadInput(
            f"line {number} is longer than {LONGEST_LINE} bytes, which OpenVPN refuses; shorten it"
        )
    line = line.removeprefix(BOM) if number == 1 else line
    words, at = list[str](), 0
    while len(words) < MOST_WORDS:
        between = _BETWEEN.match(line, at)
        at = between.end() if between else at
        if at >= len(line) or line[at:].removeprefix(b"\\")[:1] in (b"#", b";"):
            break
        word, at = _word(number, line, at)
        words.append(word)
    return words


def _word(number: int, line: bytes, at: int) -> tuple[str, int]:
    """Return the word that begins at a place, and where it ends."""
    quote = line[at] if line[at] in b"\"'" else None
    word, escaped, at = bytearray(), False, at + (quote is not None)
    for place, one in enumerate(line[at:], start=at):
        if one == ord("\\") and not escaped and quote != ord("'"):
            escaped = True
        elif not escaped and (one == quote or (quote is None and one in _SPACE)):
            return _text(number, word), place + 1
        elif escaped and one not in _KEPT:
            raise BadInput(f"line {number} has a backslash before {chr(one)}; write two for one")
        else:
            word.append(one)
            escaped = False
    if quote is not None or escaped:
        raise BadInput(f"line {number} has a quotation mark that is not closed; close it")
    return _text(number, word), len(line)


def _text(number: int, word: bytearray) -> str:
    if len(word) > LONGEST_WORD:
        raise BadInput(f"line {number} has a word of more than {LONGEST_WORD} bytes; shorten it")
    return word.decode(errors="replace")
