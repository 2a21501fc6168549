"""Files that only their owner may read: keys, and what is as good as one."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from activities.drivers.rights import read_own
from policies.model.errors import BadInput


def write_private(path: Path, content: bytes) -> None:
    """Have this content at the path, whole, for its owner only.

    Raises:
        OSError: It cannot be written.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_private(path: Path, what: str) -> bytes:
    """Return what lies there for its owner only.

    Raises:
        BadInput: It cannot be read, or others can read it.
    """
    try:
        return read_own(path, secret=True)
    except OSError as error:
        raise BadInput(f"{what} {path} cannot be read: {error.strerror}; check the path") from error


def secret_line(path: Path, what: str, least: int = 1) -> str:
    """Return the one line of a file with what is shown or signed with, read anew each time.

    Raises:
        BadInput: It cannot be read, others can read it, or it is not one printable line that is long enough;
            no sentence says what is in it.
    """
    said = read_private(path, what).decode(errors="replace").strip()
    if len(said) < least or not said.isascii() or not said.isprintable():
        raise BadInput(
            f"{what} {path} is not one line of {least} printable characters or more; write it anew"
        )
    return said


def make_private(path: Path, content: bytes) -> None:
    """Have a file there, whole, for its owner only; of two processes that make one, the first one's counts.

    Raises:
        OSError: It cannot be made.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_private(part, content)
        with suppress(FileExistsError):
            os.link(part, path)
    finally:
        part.unlink(missing_ok=True)
