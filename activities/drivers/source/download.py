"""Download one blob into the store: resumed where it broke off, hashed and written while it streams.

The calling thread reads the socket, a second one hashes and writes, so that neither waits for
the other. What arrived is kept under `partial/` with its entity tag until the digest is right.
"""

import fcntl
import hashlib
import os
import queue
import random
import re
import threading
import time
from pathlib import Path
from typing import BinaryIO, Self

import httpx

from activities.drivers.source.transport import PARTIAL, Deadline, NotThere, Transport, require_plain, shown
from activities.drivers.store.blobs import BlobStore
from policies.words.refusals import DigestMismatch, DownloadFailed, SizeExceeded, TransportRefused, TrustError
from policies.words.word import Digest

BATCH = 1 << 22
ATTEMPTS_WITHOUT_PROGRESS = 6
PAUSE_SECONDS = 0.05
STRONG = re.compile(r'^"[\x21\x23-\x7e]*"$')


def download(transport: Transport, url: str, digest: Digest, size: int, store: BlobStore) -> None:
    """Have the blob in the store; already there, it is not asked for.

    Raises:
        DownloadFailed: the source stayed away or too slow; what arrived is kept.
        DigestMismatch: the bytes are not the named ones; nothing is kept.
        SizeExceeded: more than `size` bytes are sent or announced; nothing is kept.
        TransportRefused: the source answers in a way that is not accepted.
    """
    if store.has(digest, size):
        return
    deadline = transport.deadline()
    path = store.partial(digest)
    with path.open("ab+", buffering=0) as file:
        _lock(file, deadline)
        if store.has(digest, size):
            path.unlink(missing_ok=True)
            return
        part = _Part(path, file, size)
        try:
            _fill(part, transport, url, deadline)
            part.require(digest, url)
        except DownloadFailed:
            raise
        except TrustError:
            part.drop()
            raise
        part.tag.unlink(missing_ok=True)
        store.adopt(path, digest)


def _lock(file: BinaryIO, deadline: Deadline) -> None:
    """Wait for another worker that downloads the same blob."""
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(deadline.left(PAUSE_SECONDS))
        else:
            return


def _fill(part: "_Part", transport: Transport, url: str, deadline: Deadline) -> None:
    """Ask until everything has arrived, patiently as long as each try brings something."""
    failures = 0
    while part.length < part.size:
        before = part.length
        try:
            _ask(part, transport, url, deadline)
        except NotThere:
            raise
        except DownloadFailed:
            failures = 1 if part.length > before else failures + 1
            if failures >= ATTEMPTS_WITHOUT_PROGRESS:
                raise
            pause = PAUSE_SECONDS * 2**failures * (0.5 + random.random())  # noqa: S311 - jitter
            time.sleep(deadline.left(pause))


def _ask(part: "_Part", transport: Transport, url: str, deadline: Deadline) -> None:
    """Read one answer to its end, from where the part ends if the source still has the same bytes."""
    headers = {}
    if part.length and part.entity:
        headers = {"range": f"bytes={part.length}-", "if-range": part.entity}
    with transport.open(url, deadline=deadline, headers=headers) as response:
        if response.status_code == PARTIAL:
            _require_range(response, part, asked=bool(headers))
        else:
            part.restart()
        part.remember(response.headers.get("etag", ""))
        require_plain(response, part.size - part.length)
        with _Writer(part) as writer:
            for piece in response.iter_raw():
                writer.take(piece)
    if part.length < part.size:
        raise DigestMismatch(
            f"{shown(url)} ends after {part.length} bytes, expected are {part.size}", reason="size"
        )


def _require_range(response: httpx.Response, part: "_Part", *, asked: bool) -> None:
    expected = f"bytes {part.length}-{part.size - 1}/{part.size}"
    if not asked or response.headers.get("content-range") != expected:
        raise TransportRefused(
            f"{shown(str(response.url))} sends another range than the one asked for", reason="range"
        )


class _Part:
    """What has arrived of a blob so far: bytes on disk, their hash, and the entity they belong to."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self.path, self.file, self.size = path, file, size
        self.tag = path.with_name(f"{path.name}.etag")
        self.entity = self.tag.read_text() if self.tag.exists() else ""
        self.length = os.fstat(file.fileno()).st_size
        self.hasher = hashlib.sha256()
        if not self.entity or self.length > size:
            self.restart()
        file.seek(0)
        while piece := file.read(BATCH):
            self.hasher.update(piece)

    def write(self, pieces: list[bytes]) -> None:
        """Append pieces, which may be more than the system takes at once."""
        for piece in pieces:
            self.hasher.update(piece)
        total = sum(map(len, pieces))
        written = os.writev(self.file.fileno(), pieces)
        if written < total:
            rest = memoryview(b"".join(pieces))[written:]
            while rest:
                rest = rest[os.write(self.file.fileno(), rest) :]
        self.length += total

    def restart(self) -> None:
        """Forget everything: the source has other bytes now."""
        self.file.truncate(0)
        self.length = 0
        self.hasher = hashlib.sha256()

    def remember(self, entity: str) -> None:
        """Note which entity the bytes belong to; a weak tag cannot promise equal bytes."""
        self.entity = entity if STRONG.match(entity) else ""
        self.tag.write_text(self.entity)

    def require(self, digest: Digest, url: str) -> None:
        """Refuse bytes that are not the named ones.

        Raises:
            DigestMismatch: they are not.
        """
        found = f"sha256:{self.hasher.hexdigest()}"
        if found != digest:
            raise DigestMismatch(
                f"{shown(url)} has digest {found}, expected {digest}; the source was altered"
            )

    def drop(self) -> None:
        """Remove what arrived."""
        self.path.unlink(missing_ok=True)
        self.tag.unlink(missing_ok=True)


class _Writer:
    """Takes pieces from the socket's thread; hashes and writes them in its own, a few batches behind."""

    def __init__(self, part: _Part) -> None:
        self._part = part
        self._batch: list[bytes] = []
        self._batched = 0
        self._taken = part.length
        self._queue: queue.Queue[list[bytes]] = queue.Queue(maxsize=2)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="blob-writer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def take(self, piece: bytes) -> None:
        """Hand over a piece.

        Raises:
            SizeExceeded: with it there are more bytes than the manifest announces.
        """
        self._taken += len(piece)
        if self._taken > self._part.size:
            raise SizeExceeded(f"the source sends more than the {self._part.size} bytes announced")
        self._batch.append(piece)
        self._batched += len(piece)
        if self._batched >= BATCH:
            self._hand_over()

    def __exit__(self, *_: object) -> None:
        self._hand_over()
        self._queue.put([])
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _hand_over(self) -> None:
        if self._batch:
            self._queue.put(self._batch)
            self._batch, self._batched = [], 0

    def _run(self) -> None:
        while batch := self._queue.get():
            try:
                if self._error is None:
                    self._part.write(batch)
            except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
                self._error = error
