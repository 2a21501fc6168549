"""Which lines of ocserv's log ocserv wrote, and which a client wrote by sending line feeds.

ocserv logs the name of a login as the client sent it, before it reads a password. A name with `&#10;` or
`%0a` has line feeds, so a client without a password writes whole lines. As the sources of 1.1.6 have it:

- A name has 63 bytes at most. The same text closes it each time, `]: ` and an address behind `worker[`. A
  line that opens a name and does not close it is unfinished, and so is each line up to that text.
- A client may send the closing text, too, and a line behind it. A forged line of use has 39 bytes or more, so
  the name has no room left to begin a third line as ocserv does. A remainder that begins in no such way shows
  that the line before it is forged. So each line waits for the next one.
- The worker logs a name before the security module and PAM do. Each part of a name is remembered and is
  never believed again, whichever process repeats it.
- From level 4 on, ocserv logs the body of each POST, at most 498 bytes and a quote. Only its length shows
  where it ends. The worker has logged that before, in a header.

In doubt a line is left out: a name whose end is not certain hides the lines of up to 128 bytes behind it.
"""

import re
from typing import NamedTuple

_LONGEST_NAME = 128
"""Bytes of a name and of the virtual host before it."""
_LONGEST_BODY = 498
"""Bytes of a body behind which the closing quote still has a place in ocserv's buffer of 512 bytes."""
_MOST = 20_000
"""Parts of names, and lengths of bodies, that are remembered."""

_ADDRESS = r"[0-9a-f.:]{3,}"
_CLEAR = re.compile(r"ocserv\[\d+\]: (?:(?:worker|main)[:\[]|GnuTLS error |[\w-]{5,}: |pam_\w+\()")
"""How a line begins that no remainder of a name has the room to begin like."""
_MAY_HAVE_IT = re.compile(rf"ocserv\[\d+\]: (?:worker\[|main\[.*\]:\[?{_ADDRESS}|[\w-]{{5,}}: |pam_\w+\()")
"""How such a line begins that may have a closing text in it."""
_OPENS = re.compile(r"ocserv\[\d+\]: (?:(?P<who>worker|main)\[|sec-mod: .* requested (?P<what>group) ')")
_CLOSES_IT = {
    "worker": re.compile(rf"\]: {_ADDRESS} "),
    "main": re.compile(rf"\]:\[?{_ADDRESS}\]?:\d+ "),
    "group": re.compile(r"' but is not "),
}
_CLOSES = re.compile("|".join((*(one.pattern for one in _CLOSES_IT.values()), r"' \(session: ")))
_OF_THE_SECURITY_MODULE = re.compile(r"ocserv\[\d+\]: sec-mod: ")
_SAID = re.compile(rf"ocserv\[(?P<pid>\d+)\]: worker(?:\[.*\])?: {_ADDRESS} (?P<what>.*)")
_HEADER = "HTTP processing: "
_SIZED = re.compile(
    rf"{_HEADER}(?:Content-Length: (?P<length>\d{{1,9}})$|(?:Content-Length|Transfer-Encoding):)",
    re.IGNORECASE,
)
_BODY = "POST body: '"


class Line(NamedTuple):
    """One line of a log, and when it was read."""

    text: str
    at: float
    """Seconds of the epoch."""
    timed: bool = True
    """Whether it was read when it was written."""


class OwnLines:
    """Returns the lines that ocserv wrote, each once the line behind it has confirmed it."""

    def __init__(self) -> None:
        self._last: Line | None = None
        self._unclear: list[str] = []
        """The lines behind the last one that show neither that it is ocserv's nor that it is not."""
        self._room = -1
        """Bytes that the text of a client may still have; negative where none is open."""
        self._until: re.Pattern[str] | None = None
        """The text that closes it; none closes a body."""
        self._parts: dict[str, None] = {}
        """Parts of names, each of which would be a line; oldest first."""
        self._lengths: dict[str, int] = {}
        """The length of the body that a worker reads, by its number."""
        self._logs_bodies = False

    def take(self, line: Line) -> Line | None:
        """Take in the next line; return the line before it where ocserv wrote that one."""
        text = line.text
        if self._room >= 0:
            return self._continued(text)
        closed = [found.start() for found in _CLOSES.finditer(text)]
        if closed and not _MAY_HAVE_IT.match(text):
            self._forged(text[: closed[0]], *self._unclear, *([self._last.text] if self._last else []))
            self._last, self._unclear = None, []
            return None
        if not _CLEAR.match(text) and len(self._unclear) < _LONGEST_NAME:
            self._unclear.append(text)
            return None
        before = self.flush()
        if self._is_whole(text, closed):
            self._last = line
        return before

    def flush(self) -> Line | None:
        """Return the last line, behind which nothing was written."""
        line, self._last, self._unclear = self._last, None, []
        if line is not None and _HEADER in line.text:
            self._note_length(line.text)
        return line

    def _note_length(self, text: str) -> None:
        said = _SAID.match(text)
        if said and (sized := _SIZED.match(said["what"])):
            self._logs_bodies = True
            length = int(sized["length"] or _LONGEST_BODY)
            self._lengths[said["pid"]] = max(length, self._lengths.get(said["pid"], 0))
            _bound(self._lengths)

    def _continued(self, text: str) -> Line | None:
        """Read on in what a client sent; return the last line, which is confirmed where this is a body's."""
        before = self.flush()
        self._room -= _size(text)
        if self._until is None:
            return before
        if closes := self._until.search(text):
            self._room = -1
            self._forged(text, text[: closes.start()])
            self._opens_body("", text[closes.end() :])
        else:
            self._forged(text)
        return before

    def _is_whole(self, text: str, closed: list[int]) -> bool:
        """Return whether the line is whole, by where a name may end in it; note what it leaves open."""
        ends = (text[:end] for end in closed if end < _LONGEST_NAME)
        if not self._parts.keys().isdisjoint((text, text.removesuffix("'"), *ends)):
            return False
        if opens := _OPENS.match(text):
            until = _CLOSES_IT[opens["who"] or opens["what"]]
            if not until.search(text):
                self._room, self._until = _LONGEST_NAME - _size(text[opens.end() :]), until
                return False
        if len(closed) != bool(opens) and not _OF_THE_SECURITY_MODULE.match(text):
            self._forged(text[: closed[-1]])
            return False
        if _BODY in text and (said := _SAID.match(text)):
            self._opens_body(said["pid"], said["what"])
        return True

    def _opens_body(self, pid: str, what: str) -> None:
        """Note a body that begins here; a level at which headers are not logged has none."""
        if what.startswith(_BODY) and self._logs_bodies:
            length = self._lengths.pop(pid, _LONGEST_BODY)
            self._room = min(length, _LONGEST_BODY) - _size(what.removeprefix(_BODY))
            self._until = None

    def _forged(self, *parts: str) -> None:
        for part in parts:
            if len(part) < _LONGEST_NAME:
                self._parts[part] = None
                _bound(self._parts)


def _bound(remembered: dict[str, None] | dict[str, int]) -> None:
    if len(remembered) > _MOST:
        del remembered[next(iter(remembered))]


def _size(text: str) -> int:
    """Return its bytes with the line feed; what is no UTF-8 counts as one byte, so never as too many."""
    return len(text.replace("\N{REPLACEMENT CHARACTER}", "?").encode()) + 1
