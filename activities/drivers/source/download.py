"""Download one blob into the store: resumed where it broke off, hashed and written while it streams.

The calling thread reads the socket, a second one hashes and a third one writes, so that none waits
for the others. What arrived is kept under `partial/` with its entity tag until the digest is right.
"""

import contextlib
import fcntl
import hashlib
import mmap
import os
import random
import re
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Self

from activities.drivers.source.transport import PARTIAL, NotThere, StreamedBody, Transport, shown
from activities.drivers.source.wire import Deadline
from activities.drivers.store.blobs import BlobStore
from activities.refusals import DownloadFailed, SizeExceeded, TransportRefused
from policies.model.refusals import DigestMismatch, TrustError
from policies.model.value import Digest

BATCH = 1 << 22
BUFFERS = 8
ALIGNMENT = 4096
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
            deadline.pause(PAUSE_SECONDS)
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
            deadline.pause(pause)


def _ask(part: "_Part", transport: Transport, url: str, deadline: Deadline) -> None:
    """Read one answer to its end, from where the part ends if the source still has the same bytes."""
    headers = {}
    if part.length and part.entity:
        headers = {"range": f"bytes={part.length}-", "if-range": part.entity}
    with transport.open(url, deadline=deadline, headers=headers) as answer:
        if answer.status == PARTIAL:
            _require_range(answer, part, asked=bool(headers))
        else:
            part.restart()
        part.remember(answer.headers.get("etag", ""))
        answer.require_plain(part.size - part.length)
        with _Pipeline(part) as pipeline:
            pipeline.fill_from(answer)
    if part.length < part.size:
        raise DigestMismatch(f"{shown(url)} ends after {part.length} bytes, not {part.size}", reason="size")


def _require_range(answer: StreamedBody, part: "_Part", *, asked: bool) -> None:
    expected = f"bytes {part.length}-{part.size - 1}/{part.size}"
    if not asked or answer.headers.get("content-range") != expected:
        raise TransportRefused(f"{answer.url} sends another range than the one asked for", reason="range")


class _Part:
    """What has arrived of a blob so far: bytes on disk, their hash, and the entity they belong to."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self.path, self.size = path, size
        self.tag = path.with_name(f"{path.name}.etag")
        self.entity = self.tag.read_text() if self.tag.exists() else ""
        self.length = os.fstat(file.fileno()).st_size
        self.hasher = hashlib.sha256()
        self._file = file
        if not self.entity or self.length > size:
            self.restart()
        file.seek(0)
        while piece := file.read(BATCH):
            self.hasher.update(piece)

    def write(self, content: memoryview, past_cache: BinaryIO | None) -> None:
        """Append the content, past the page cache where the system allows it.

        Filling the cache with bytes that are read once costs more than the network does.
        """
        if past_cache is not None and not (self.length % ALIGNMENT or len(content) % ALIGNMENT):
            with contextlib.suppress(OSError):  # whatever is wrong, the ordinary way says it better
                written = past_cache.write(content)
                self.length += written
                content = content[written:]
        while content:
            written = self._file.write(content)
            self.length += written
            content = content[written:]

    def restart(self) -> None:
        """Forget everything: the source has other bytes now."""
        self._file.truncate(0)
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


class _Pipeline:
    """A ring of buffers: the socket fills one, while two threads hash and write those before it."""

    def __init__(self, part: _Part) -> None:
        self._part = part
        self._hashing, self._writing = ThreadPoolExecutor(1, "hash"), ThreadPoolExecutor(1, "write")
        self._busy: deque[tuple[mmap.mmap, tuple[Future[None], Future[None]]]] = deque()
        self._buffer = mmap.mmap(-1, BATCH)
        self._filled = 0
        self._taken = part.length
        self._past_cache = _past_cache(part.path)

    def __enter__(self) -> Self:
        return self

    def fill_from(self, answer: StreamedBody) -> None:
        """Take the whole body.

        Raises:
            SizeExceeded: there are more bytes than the manifest announces.
        """
        # the first batch after a break ends where whole blocks begin again
        room = BATCH - self._part.length % ALIGNMENT
        while count := answer.read_into(memoryview(self._buffer)[self._filled : room]):
            self._filled += count
            self._taken += count
            if self._taken > self._part.size:
                raise SizeExceeded(f"{answer.url} sends more than the {self._part.size} bytes announced")
            if self._filled == room:
                self._hand_over()
                room = BATCH

    def __exit__(self, *error: object) -> None:
        """Have everything that was taken on disk, whatever ended the body."""
        del error
        try:
            if self._taken <= self._part.size:
                self._hand_over()
            for _, work in self._busy:
                for future in work:
                    future.result()
        except BaseException:
            self._part.restart()
            raise
        finally:
            self._hashing.shutdown()
            self._writing.shutdown()
            if self._past_cache is not None:
                self._past_cache.close()

    def _hand_over(self) -> None:
        """Have the filled part of the buffer hashed and written, and go on with a free one."""
        content = memoryview(self._buffer)[: self._filled]
        hashing = self._hashing.submit(self._part.hasher.update, content)
        writing = self._writing.submit(self._part.write, content, self._past_cache)
        self._busy.append((self._buffer, (hashing, writing)))
        self._filled = 0
        if len(self._busy) < BUFFERS:
            self._buffer = mmap.mmap(-1, BATCH)
            return
        free, work = self._busy.popleft()
        for future in work:
            future.result()
        self._buffer = free


def _past_cache(path: Path) -> BinaryIO | None:
    """Return the file opened for direct appends, None where the file system has none."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return None
    return os.fdopen(handle, "wb", buffering=0)
