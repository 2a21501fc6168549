"""Find passwords in files that have nothing else: one a line behind the name of its user, or one alone.

OpenVPN's own example of `auth-user-pass-verify` reads such a list, htpasswd(1) writes one, and
`auth-user-pass` and `askpass` read one password. These files have no words by which their lines are known:
what counts is the name of the file, and that each of its lines has this form. Files that an option of OpenVPN
names are found in `option_files`, whatever they are called.
"""

import re
from collections.abc import Callable

MOST_ALONE = 2
"""Lines of a file with one password, before which a user's name may stand."""
_OF_PASSWORDS = re.compile(
    r".*(?:psw|passw(?:or)?d|passphrase|passfile|user-?pass|credentials?).*$", re.IGNORECASE
)
"""Names of files with passwords."""
_OF_ONE = re.compile(
    r"(?:.*[._-])?(?:pass|pw|pwd|psk|pin|secret|token|api[._-]?key)(?:[._-](?:txt|conf|file))?$",
    re.IGNORECASE,
)
_OF_LOGINS = re.compile(
    r"(?:.*(?:auth|logins?|creds?)|(?:auth|login|creds?)[._-].*|(?:.*[._-])?up)"
    r"(?:[._-]?(?:txt|conf|cfg|file|dat))?$",
    re.IGNORECASE,
)
"""Names of files with a user's name on one line and a password on the next, as for `auth-user-pass`."""
_OF_USERS = re.compile(r".*(?:users?|accounts?|logins?).*$", re.IGNORECASE)
_STRONG = re.compile(r"(?=.*\d)(?=.*[a-z])(?=.*[A-Z])[^\s/:]{8,}$")
"""A value that is taken for a password where a file of users may have others, such as groups."""
_COMMENT = re.compile(r"[#;]|//")
_USER = re.compile(
    r"(?![0-9a-f]{32})\w[\w.@+\\-]*(?:[ \t]+(?P<behind_space>\S+)|[:;,](?P<behind_mark>[^\s:;,]+))$"
)
_NAME = re.compile(r"\w[\w.@+\\-]*$")
_PASSWORD = re.compile(r"(?!\w+[=:])\S{4,}$")
_ALONE = re.compile(r"[^\s:]*:?[^\s:]*")
"""A line with one word; one of passwd(5) has more colons."""


def password_in(name: str, text: str, counts: Callable[[str], bool]) -> str | None:
    """Return what kind of password a file of this name has and on which line, None for none.

    Args:
        name: Where the file is; one in an archive is behind a `!`.
        text: All of it.
        counts: Returns whether a value may be a secret, and is no path, switch or reference.
    """
    place = re.split("[/!]", name.removesuffix("!"))
    if text.startswith("#!") or "pam.d" in place:
        return None
    said = ((at, line.strip()) for at, line in enumerate(text.split("\n"), start=1))
    lines = {at: line for at, line in said if line and not _COMMENT.match(line)}
    if _OF_PASSWORDS.match(place[-1]) or _OF_ONE.match(place[-1]):
        return _of_users(lines, counts) or _alone(lines, counts)
    if _OF_LOGINS.match(place[-1]) and (known := _behind_a_name(lines, counts)):
        return known
    if _OF_USERS.match(place[-1]):
        return _of_users(lines, lambda value: _STRONG.match(value) is not None)
    return None


def _of_users(lines: dict[int, str], counts: Callable[[str], bool]) -> str | None:
    """Return the first password where each line has a user's name and one more word."""
    users = {at: _USER.match(line) for at, line in lines.items()}
    values = {at: found["behind_space"] or found["behind_mark"] for at, found in users.items() if found}
    number = next((at for at, value in values.items() if counts(value)), None)
    return f"passwords of users, line {number}" if number and len(values) == len(lines) else None


def _behind_a_name(lines: dict[int, str], counts: Callable[[str], bool]) -> str | None:
    """Return the password of a file whose first line is a user's name, and whose second line is all else."""
    if len(lines) != MOST_ALONE:
        return None
    name, (number, password) = next(iter(lines.values())), list(lines.items())[-1]
    has_one = _NAME.match(name) and _PASSWORD.match(password) and counts(password)
    return f"password, line {number}" if has_one else None


def _alone(lines: dict[int, str], counts: Callable[[str], bool]) -> str | None:
    """Return the password of a file that has one."""
    if not 0 < len(lines) <= MOST_ALONE or not all(map(_ALONE.fullmatch, lines.values())):
        return None
    last = max(lines)
    return f"password, line {last}" if counts(lines[last]) else None
