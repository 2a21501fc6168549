"""Find files of passwords by the options of OpenVPN that name them, whatever the files are called.

`auth-user-pass FILE` reads a user's name and a password from two lines; `askpass FILE` reads one password.
The file and the option stand in two files of a tree, so all of it is read before any of them is known.
"""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from orchestrator.publishing.login_files import is_reference, may_have_settings

LARGEST = 1 << 10
"""Bytes of a file with a name and a password; OpenVPN reads 128 characters of a line."""
LARGEST_SETTINGS = 1 << 20
"""Bytes of a file whose options are read."""
MOST_LINES = 2
"""Lines of a file with a name and a password."""
_FILE = r"(?P<file>\"[^\"\n]{1,400}\"|'[^'\n]{1,400}'|[^\s\"']{1,400})"
_OPTIONS = re.compile(
    r"(?:^[ \t]*(?:setenv[ \t]+opt[ \t]+)?|[\s\"']--)(?P<option>auth-user-pass|askpass|http-proxy-user-pass"
    rf"|(?:socks|http)-proxy[ \t]+\S+[ \t]+\d+|management[ \t]+\S+[ \t]+(?:\d+|unix))[ \t]+{_FILE}",
    re.MULTILINE,
)
_OF_ONE_LINE = ("askpass", "management")
"""Options whose file has a password on its first line."""
_ELSEWHERE = re.compile(r"\$|/etc/penstock/credentials/")
"""How names of files begin that are in no tree, since each gateway has its own."""
_FILLED = re.compile(r"\$\{|\{\{")


class OptionFiles:
    """The files of one tree that may hold a password, and the names that options have for such files."""

    def __init__(self) -> None:
        """Begin without any."""
        self._named: dict[str, set[str]] = {}
        self._short: list[tuple[str, dict[int, str]]] = []

    def read(self, name: str, content: bytes, *, is_found: bool) -> None:
        """Read a file: the options in it, and whether it is short enough to hold only a password.

        Args:
            name: Where the file is; one in an archive is behind a `!`.
            content: All of it.
            is_found: Whether a secret in it is reported already.
        """
        if len(content) > LARGEST_SETTINGS or b"\0" in content or not may_have_settings(name):
            return
        text = content.decode(errors="replace")
        for found in _OPTIONS.finditer(text):
            file = found["file"].strip("\"'")
            if not _ELSEWHERE.match(file):
                self._named.setdefault(PurePosixPath(file).name, set()).add(found["option"].split()[0])
        numbered = ((at, line.strip()) for at, line in enumerate(text.split("\n"), start=1))
        lines = {at: line for at, line in numbered if line}
        is_short = len(content) <= LARGEST and len(lines) <= MOST_LINES
        if is_short and not is_found and not text.startswith("#!"):
            self._short.append((name, lines))

    def found(self) -> Iterator[str]:
        """Yield each file with a password that an option names, with the option and the line."""
        for name, lines in self._short:
            for option in sorted(self._named.get(re.split("[/!]", name.removesuffix("!"))[-1], ())):
                at = 0 if option in _OF_ONE_LINE else 1
                number, password = [*lines.items(), (0, ""), (0, "")][at]
                if not is_reference(password) and not _FILLED.match(password):
                    yield f"{name} (password of {option}, line {number})"
                    break
