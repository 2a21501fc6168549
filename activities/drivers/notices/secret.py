"""What sinks show to receivers: one line of a file that only its owner may read, read anew each time."""

from pathlib import Path

from activities.drivers.private_files import read_private
from policies.model.errors import BadInput


def secret_line(path: Path, what: str, least: int = 1) -> str:
    """Return the one line of the file.

    Raises:
        BadInput: It cannot be read, others can read it, or it is not one printable line that is long enough.
    """
    said = read_private(path, what).decode(errors="replace").strip()
    if len(said) < least or not said.isascii() or not said.isprintable():
        raise BadInput(
            f"{what} {path} is not one line of {least} printable characters or more; write it anew"
        )
    return said
