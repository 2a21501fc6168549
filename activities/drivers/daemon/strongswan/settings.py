"""Settings in sections, as strongswan.conf and swanctl.conf have them, read as libstrongswan does.

Read in its grammar (settings_lexer.l, settings_parser.y of 5.9 and 6.0) and compared with the library.
A value goes to the end of its line, or to a `#` or `}` outside of quotes, so that it may have a `{`. Its
parts are joined by one space. Names go on over lines. What the library refuses is read as well as it can
be: names in quotes or with dots.
"""

import re
from collections.abc import Iterator, Sequence

INCLUDE = "include"
"""The name that the files have which a section includes."""
_STRING = r'"(?P<string>(?:[^"\\]|\\.)*)"?'
_NAME = re.compile(
    rf'#[^\n]*|{INCLUDE}[\t ]+(?P<include>"[^"]*"|(?:\\.|[^\\"#}}\s=])(?:\\.|[^\\"#}}\s])*)'
    rf'|(?P<mark>[{{}}=])|{_STRING}|(?P<word>[^#{{}}="\s]+)|\s+',
    re.DOTALL,
)
_VALUE = re.compile(rf'(?P<end>(?=[#}}])|\n|\Z)|{_STRING}|(?P<word>[^#}}"\s]+)|\s', re.DOTALL)
_ESCAPED = re.compile(r"\\(\r?\n|.)|\r", re.DOTALL)
_LETTERS = {"n": "\n", "r": "\r", "t": "\t"}


def options_of(text: str) -> Iterator[tuple[str, str]]:
    """Yield each option that a configuration gives, by the path of its sections, and its value."""
    for path, value in _read(text):
        if value is not None:
            yield path, value


def sections_of(text: str) -> Sequence[str]:
    """Return each section that a configuration has, by its path, also one without options."""
    return [path for path, value in _read(text) if value is None]


def _read(text: str) -> Iterator[tuple[str, str | None]]:
    """Yield each option with its value, and each section with None where it begins."""
    sections, words, place = list[str](), list[str](), 0
    while found := _NAME.match(text, place):
        place = found.end()
        if found["include"] is not None:
            yield ".".join([*sections, INCLUDE]), found["include"].strip('"')
        elif found["mark"] == "=":
            value, place = _value(text, place)
            yield ".".join([*sections, " ".join(words)]), value
            words = []
        elif found["mark"] == "{":
            sections.append(" ".join(words))
            words = []
            yield ".".join(sections), None
        elif found["mark"] == "}":
            del sections[-1:]
            words = []
        elif word := found["word"] or found["string"]:
            words.append(word)


def _value(text: str, place: int) -> tuple[str, int]:
    """Return the value that begins here, and where it ends."""
    parts = list[str]()
    while (found := _VALUE.match(text, place)) and found["end"] is None:
        place = found.end()
        if found["string"] is not None:
            parts.append(_ESCAPED.sub(_unescaped, found["string"]))
        elif found["word"] is not None:
            parts.append(found["word"])
    return " ".join(parts), place


def _unescaped(found: re.Match[str]) -> str:
    """Return what an escape stands for; an escaped end of line is none, nor is a carriage return."""
    letter = found[1] or ""
    return "" if letter.endswith("\n") else _LETTERS.get(letter, letter)
