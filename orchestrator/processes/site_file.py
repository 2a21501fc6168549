"""The site file, read anew when it changes: where a runbook opens is asked whenever a page is shown."""

import logging
import threading
from pathlib import Path

from activities.files import load
from policies.model.errors import BadInput
from policies.model.site import Site

_log = logging.getLogger(__name__)


class SiteFile:
    """What this site adds to the runbooks; safe to ask from several threads.

    A file that is wrong keeps nobody from the page: pages are named then, and the log says why.
    """

    def __init__(self, path: Path | None) -> None:
        """Take the path, None where no setting names a file; nothing is read yet."""
        self._path = path
        self._turn = threading.Lock()
        self._version: tuple[int, int, int] | None = None
        self._site: Site | None = None

    def address_of(self, page: str) -> str | None:
        """Return where a runbook's page opens, None where nobody knows."""
        site = self._read()
        return site.address_of(page) if site is not None else None

    def _read(self) -> Site | None:
        """Return what the file says, or said when it was good last."""
        if self._path is None:
            return None
        with self._turn:
            version = self._found(self._path)
            if version != self._version:
                self._version = version
                try:
                    self._site = load(self._path, Site)
                except BadInput as wrong:
                    _log.warning("runbooks are named and not linked as %s says: %s", self._path, wrong)
            return self._site

    @staticmethod
    def _found(path: Path) -> tuple[int, int, int] | None:
        try:
            found = path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
