"""Rights of files that decide what may run here: only their owner may write them, or read secrets."""

import os
import stat
from pathlib import Path

from policies.model.errors import BadInput

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def require_own(path: Path, *, secret: bool = False) -> None:
    """Return if nobody but root and this process's user may write the file, and read it where it is secret.

    The folder counts, too: who may write there can put another file in the place of this one. A file
    that is not there is for its reader to miss.

    Raises:
        BadInput: Others may; the sentence has the command that mends it.
    """
    try:
        found, folder = path.stat(), path.resolve().parent.stat()
    except OSError:
        return
    _require_owner(path, found)
    if found.st_mode & OTHERS_WRITE:
        raise BadInput(f"{path} may be written by others; chmod go-w {path}, and check what it says")
    if secret and found.st_mode & OTHERS:
        raise BadInput(f"{path} may be read by others; chmod 600 {path}, and replace the secret in it")
    if folder.st_mode & OTHERS_WRITE and not folder.st_mode & stat.S_ISVTX:
        above = path.resolve().parent
        raise BadInput(f"others may replace {path}; chmod go-w {above}, and check what the file says")


def everybody_reads(path: Path) -> bool:
    """Return whether every user of this host may read the file; one that is not there is read by nobody."""
    try:
        above = [folder.stat().st_mode & stat.S_IXOTH for folder in path.resolve().parents]
        return bool(path.stat().st_mode & stat.S_IROTH) and all(above)
    except OSError:
        return False


def _require_owner(path: Path, found: os.stat_result) -> None:
    us = os.geteuid()
    if found.st_uid not in (0, us):
        raise BadInput(
            f"{path} belongs to user {found.st_uid}, who may change it; chown {us} {path}, "
            "and check what it says"
        )
