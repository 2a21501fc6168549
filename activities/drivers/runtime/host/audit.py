"""The host's own audit record: what it refused and what was done on it by hand, signed with a key it made.

JSON lines, each bound to the one before by that one's SHA-256 digest and signed with Ed25519
(RFC 8032) by a key that never leaves the host. So a line that was altered, removed or put in is
noticed by whoever has the lines and the public key; lines cut off at the end by whoever collected them.
A record that grows beyond its bound loses its older half, and says so in its next line. Whoever had not
collected all of that sees a gap in the numbers, as when a thief had cut it off.
"""

import base64
import json
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from activities.drivers.lines import append, cut_beginning, last_line
from activities.drivers.private_files import make_private
from activities.drivers.runtime.host.record_lines import lines_after, number_of
from activities.drivers.runtime.host.repeats import Repeats
from activities.host_record import HostRecordPage, page_of
from policies.model.value import digest_of
from policies.model.value import sentence as in_a_line
from policies.model.verification import Verification

LARGEST = 16 * 1024 * 1024
"""Bytes that the file may have: two weeks of refusals without end, and years of others."""

LONGEST_SENTENCE, LONGEST_NAME = 2000, 300
"""Bytes that a sentence, and who did what, have in JSON: a line has 3.2 KiB at most."""

_log = logging.getLogger(__name__)


class HostAudit:
    """One host's record, a file that every process of the agent appends to under a lock."""

    def __init__(
        self,
        path: Path,
        key: Path,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        uptime: Callable[[], float] = time.monotonic,
        *,
        largest: int = LARGEST,
    ) -> None:
        """Take the file of the lines and that of the key, which is made when there is none.

        Lines are dated by the clock; how many there may be in an hour is by `uptime`, which nobody sets.
        """
        self._path = path
        self._key_path = key
        self._clock = clock
        self._largest = largest
        self._repeats = Repeats(uptime)

    @property
    def public_key(self) -> str:
        """The key that the lines verify against, 32 bytes in base64."""
        public = self._key().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return base64.b64encode(public).decode()

    def record_refusal(self, action: str, sentence: str) -> None:
        """Append what was refused; what comes again within an hour is counted and written with its number."""
        self._settle()
        said = _cut(sentence, LONGEST_SENTENCE)
        if not self._repeats.is_one(action, said):
            self.note(action, said)

    def record_fetch(self, verification: Verification) -> None:
        """Append what this host fetched of a repository; refusals that come again are counted.

        Raises:
            OSError: the disk does not take it, and the release was admitted.
        """
        if verification.verdict.admitted:
            self.record("release fetched", verification.fetched)
        else:
            self.record_refusal("fetched release refused", verification.fetched)

    def record(self, action: str, sentence: str, person: str = "the engine") -> None:
        """Append what was done by whom and have it on the disk; OSError when the disk takes none.

        What is longer than a line may be is cut, and so is what is not printable.
        """
        self._append(action, sentence, person)
        try:
            if cut_beginning(self._path, self._largest, self._largest // 2):
                first = next(number for number, _ in lines_after(self._path, 0))
                why = f"it had more than {self._largest} bytes, and lines up to {first - 1} were taken off"
                self._append("record shortened", why, "penstock")
        except OSError as error:  # what was to be written down is
            _log.warning("%s stays longer than it may be: %s", self._path, error.strerror)

    def _append(self, action: str, sentence: str, person: str) -> None:
        key = self._key()

        def following(last: bytes) -> bytes:
            entry = {
                "number": self._number(last) + 1,
                "at": self._clock().isoformat(timespec="milliseconds"),
                "before": digest_of(last),
                "person": _cut(person, LONGEST_NAME),
                "action": _cut(action, LONGEST_NAME),
                "sentence": _cut(sentence, LONGEST_SENTENCE),
            }
            signature = base64.b64encode(key.sign(json.dumps(entry, sort_keys=True).encode())).decode()
            return json.dumps({"entry": entry, "signature": signature}, sort_keys=True).encode()

        append(self._path, following)

    def length(self) -> int:
        """Return how many lines there are, as the last one says, with what was counted up to an hour ago."""
        self._settle()
        return self._number(last_line(self._path))

    def _settle(self) -> None:
        """Write down the numbers of refusals that were only counted, once their hour is over."""
        for action, sentence in self._repeats.counted():
            self.note(action, sentence)

    def note(self, action: str, sentence: str) -> None:
        """Append what the host did or refused by itself; a disk that takes no line is no reason not to."""
        try:
            self.record(action, sentence)
        except OSError as error:
            _log.warning("%s: %s; not in the host's audit record: %s", action, sentence, error.strerror)

    def page(self, after: int) -> HostRecordPage:
        """Return the lines after the one of that number that a page holds; later ones where they are gone."""
        lines = lines_after(self._path, after)
        first = next(lines, None)
        begin = after if first is None else first[0] - 1
        held = page_of(line.decode(errors="replace") for _, line in chain([first] if first else [], lines))
        recorded = self._number(last_line(self._path))
        return HostRecordPage(public_key=self.public_key, after=begin, recorded=recorded, lines=held)

    def _number(self, line: bytes) -> int:
        """Return which line the last one is; 0 for none."""
        if not line:
            return 0
        # When somebody altered it, whoever collects the lines says so.
        return number_of(line) or max(number for number, _ in lines_after(self._path, 0))

    def _key(self) -> Ed25519PrivateKey:
        if not self._key_path.exists():
            made = Ed25519PrivateKey.generate()
            make_private(
                self._key_path, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            )
        key = load_pem_private_key(self._key_path.read_bytes(), None)
        assert isinstance(key, Ed25519PrivateKey)  # noqa: S101 - the file is ours
        return key


def _cut(said: str, most: int) -> str:
    """Return it as a printable line of at most so many bytes in JSON, where some characters take twelve."""
    cut = in_a_line(said, most)
    while len(json.dumps(cut)) > most:
        cut = in_a_line(cut, len(cut) * 3 // 4)
    return cut
