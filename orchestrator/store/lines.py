"""Files of lines beside the ledger, with an error that says which one cannot be written."""

from pathlib import Path

from activities.drivers.lines import append
from policies.model.errors import Unavailable


def append_line(path: Path, line: str) -> None:
    """Append a line and have it on the disk; half a line that was left by who was killed is taken away.

    Raises:
        Unavailable: The file cannot be written; it is as it was.
    """
    try:
        append(path, lambda _: line.encode())
    except OSError as error:
        raise Unavailable(f"{path} cannot be written: {error.strerror}") from error
