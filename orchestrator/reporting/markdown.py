"""Text as Markdown that shows exactly what it says: no markup, no link, no tag, no further table cell."""

import re

from orchestrator.words.text import printable

_MARKS = re.compile(r"([\\`*\[\]<>&|#~$!{}]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")
_BEGINNING = re.compile(r"^([0-9]+(?=[.)](?: |$))|)([-+=.)])")
"""What makes a list, a rule or a heading of a line that begins like this."""
_LINKS = re.compile(r"@|://|www\.", re.IGNORECASE)
"""What makes renderers turn a word into a link."""


def plain(said: object) -> str:
    """Return what somebody wrote as one line of Markdown that is only text.

    Words that could be taken for a link are code: in code nothing is.
    """
    words = printable(" ".join(str(said).split())).split(" ")
    line = " ".join(code(word) if _LINKS.search(word) else _MARKS.sub(r"\\\1", word) for word in words)
    return _BEGINNING.sub(r"\1\\\2", line)


def code(said: object) -> str:
    """Return what somebody wrote as code within a line; a bar stays within its table cell."""
    text = printable(" ".join(str(said).split())).replace("|", "\\|")
    if not text:
        return ""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence, space = "`" * (longest + 1), " " if longest or text.startswith(" ") else ""
    return f"{fence}{space}{text}{space}{fence}"
