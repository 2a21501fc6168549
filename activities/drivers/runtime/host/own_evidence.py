"""What a daemon that was adopted is configured with and has logged, as far as its host lets us read it."""

import os
import shutil
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from activities.drivers.programs import run
from activities.drivers.runtime.host.chroot import seen_by
from activities.drivers.runtime.host.process import PROC, Process
from activities.drivers.runtime.host.slot_folders import AdoptedFolder
from policies.model.errors import Unavailable

LARGEST_CONFIG = 1024 * 1024
"""Bytes of a configuration that is read."""

_LINES = 1000
"""Lines of a journal; those of a daemon have some hundred bytes."""


@dataclass(frozen=True)
class OwnEvidence:
    """The content of its configuration, the end of its log, and why one of them is not there."""

    config: str = ""
    log: str = ""
    missing: tuple[str, ...] = ()


async def own_evidence(folder: AdoptedFolder, most: int) -> OwnEvidence:
    """Return what can be read now, the last `most` bytes of the log; nothing is redacted yet."""
    running, missing = folder.process(), []
    config, why = _config(folder.own["config"], running)
    missing += [why] if why else []
    log, why = _stderr(running, most)
    if why and folder.own["unit"]:
        log, why = await _journal(folder.own["unit"], most)
    missing += [why] if why else []
    return OwnEvidence(config, log, tuple(missing))


def _config(path: str, running: Process | None) -> tuple[str, str]:
    try:
        with (seen_by(running.pid, path) if running else Path(path)).open("rb") as file:
            return file.read(LARGEST_CONFIG).decode(errors="replace"), ""
    except OSError as error:
        return "", f"its configuration {path} cannot be read: {error.strerror}"


def _stderr(running: Process | None, most: int) -> tuple[str, str]:
    """Return the end of the file that it writes its words to, where that is one."""
    if running is None:
        return "", "what it has logged is not known: it has ended"
    with suppress(OSError), (PROC / str(running.pid) / "fd/2").open("rb") as file:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.seek(max(0, file.seek(0, os.SEEK_END) - most))
            return file.read(most).decode(errors="replace"), ""
    return "", "what it has logged is not known: it writes to no file, and no unit of its host's started it"


async def _journal(unit: str, most: int) -> tuple[str, str]:
    why = f"what {unit} has logged cannot be read"
    if shutil.which("journalctl") is None:
        return "", f"{why}: its host has no journalctl"
    asked = ["--no-pager", "--quiet", "--output=short-iso", f"--lines={_LINES}", f"--unit={unit}"]
    try:
        said = await run(["journalctl", *asked])
    except Unavailable as error:
        return "", f"{why}: {error}"
    if said.status or not said.out:
        return "", f"{why}: {said.last_words}"
    return said.out[-most:], ""
