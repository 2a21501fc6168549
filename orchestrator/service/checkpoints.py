"""Checkpoints: the audit record's head, signed now and then and kept where the database's owner is not."""

import base64
import logging
import ssl
import syslog
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from activities.drivers.disk import ensure_whole, write_whole
from activities.drivers.exchange import NotAnswered, exchange
from activities.drivers.private_files import make_private
from activities.drivers.rights import read_own
from orchestrator.store.chain import hash_of
from orchestrator.store.ledger import Ledger
from orchestrator.store.lines import append_line
from orchestrator.store.verifier import first_fault, signed_text
from policies.model.errors import BadInput, Conflict, Unavailable
from policies.model.value import Value

EVERY = timedelta(hours=1)
AFTER = 100
"""Entries after which one is written before its hour has come."""

PUBLIC = "audit.pub"
"""The file of the public key, beside the checkpoints."""

POST_SECONDS = 5.0
"""How long a receiver of checkpoints may take."""

MOST_ANSWERED = 64 * 1024
"""Bytes that it may answer."""

Sink = Callable[[str], None]
_log = logging.getLogger(__name__)


class Checkpoint(Value):
    """The newest entry at some time, by number and hash, with whose signature over both and the time."""

    seq: int
    hash: str
    at: str
    signature: str


class Verified(Value):
    """What a look at the whole audit record has found."""

    entries: int
    checkpoints: int
    fault: str | None = None
    newest: Checkpoint | None = None


class Parted(NamedTuple):
    """Entries that checkpoints know and a restored ledger has not, and the file of these checkpoints."""

    first: int
    last: int
    file: Path


def signing_key(path: Path) -> Ed25519PrivateKey:
    """Return the key that signs checkpoints, made when there is none yet.

    Raises:
        BadInput: It cannot be read or made, or others can read it.
    """
    try:
        if not path.exists():
            made = Ed25519PrivateKey.generate()
            make_private(path, made.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()))
    except OSError as error:
        raise BadInput(f"the audit key {path} cannot be made: {error.strerror}") from error
    try:
        return Ed25519PrivateKey.from_private_bytes(read_own(path, secret=True))
    except (OSError, ValueError) as error:
        raise BadInput(f"the audit key {path} cannot be used: {error}") from error


def _hex_of(key: Ed25519PublicKey) -> str:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


class Checkpoints:
    """Signs the head of the audit record, and sends it to where it is kept."""

    def __init__(self, ledger: Ledger, key: Path, kept: Path, sinks: Sequence[Sink] = ()) -> None:
        """Keep them in a file, and send them to every other sink; what cannot be sent is said in the log."""
        self._ledger = ledger
        self._key_file = key
        self._kept = kept
        self._sinks = sinks

    @cached_property
    def _key(self) -> Ed25519PrivateKey:
        """The key, read when it is needed: whoever only holds a change signs nothing."""
        return signing_key(self._key_file)

    @property
    def public_key(self) -> str:
        """What their signatures are checked with, in hex; Conflict where no key was made yet."""
        return _hex_of(self._public())

    def publish(self) -> None:
        """Have the public key in a file beside the checkpoints, for readers that may not have the key.

        Raises:
            BadInput: The key cannot be read or made, or the file cannot be written.
        """
        file = self._public_file
        try:
            ensure_whole(file, f"{_hex_of(self._key.public_key())}\n")
        except OSError as error:
            raise BadInput(f"{file} cannot be written: {error.strerror}; check path and rights") from error

    @property
    def _public_file(self) -> Path:
        return self._kept.with_name(PUBLIC)

    def _public(self) -> Ed25519PublicKey:
        """Return the public key: of the key where this process has it, else as its signer published it."""
        if self._key_file.exists():
            return self._key.public_key()
        try:
            return Ed25519PublicKey.from_public_bytes(bytes.fromhex(self._public_file.read_text()))
        except FileNotFoundError as error:
            raise Conflict("nothing of the audit record is signed yet; start penstock worker") from error
        except (OSError, ValueError) as error:
            raise BadInput(f"{self._public_file} cannot be read as a public key: {error}") from error

    def note(self, *, now: bool = False) -> Checkpoint | None:
        """Write a checkpoint when it is due, or `now` when anything is new; None when it is not."""
        head, last = self._ledger.audit_head(), self.newest()
        if head.seq == (last.seq if last is not None else 0):
            return None
        overdue = last is None or datetime.now(UTC) - datetime.fromisoformat(last.at) >= EVERY
        if not (now or overdue or head.seq - (last.seq if last else 0) >= AFTER):
            return None
        unsigned = {"seq": head.seq, "hash": head.hash, "at": datetime.now(UTC).isoformat(timespec="seconds")}
        signature = base64.b64encode(self._key.sign(signed_text(unsigned))).decode()
        point = Checkpoint.model_validate(unsigned | {"signature": signature})
        self._keep(point)
        return point

    def verify(self, abandoned: Callable[[], bool] = lambda: False) -> Verified:
        """Check the whole record against every checkpoint that is kept here.

        Raises:
            Unavailable: `abandoned` says that nobody waits for the result any more.
        """
        points = list(self.each())
        fault = first_fault(
            self._rows_until(abandoned),
            (point.model_dump() for point in points),
            self._public() if points else None,
        )
        entries = self._ledger.audit_head().seq
        newest = points[-1] if points else None
        return Verified(entries=entries, checkpoints=len(points), fault=fault, newest=newest)

    def _rows_until(self, abandoned: Callable[[], bool]) -> Iterator[Mapping[str, Any]]:
        for row in self._ledger.each_audit_row():
            if abandoned():
                raise Unavailable("the verification ended with its caller")
            yield row

    def quick_fault(self) -> str | None:
        """Return that the record is not the one that was signed last, None when it is; two rows are read.

        What was changed further back only `verify` finds, which reads everything.
        """
        newest = self.newest()
        if newest is None:
            return None
        entry = next(iter(self._ledger.audit_entries(newest.seq - 1, limit=1)), None)
        if entry is None or entry.seq != newest.seq:
            return f"the audit record has lost entry {newest.seq}, which was signed; penstock audit verify"
        if entry.hash != newest.hash or hash_of(entry) != entry.hash:
            return f"entry {newest.seq} of the audit record is not what was signed; penstock audit verify"
        return None

    def part_from(self, seq: int) -> "Parted | None":
        """Move the checkpoints of entries after this one into a file of their own; None when there is none.

        A restored ledger numbers its next entries again from there.

        Raises:
            BadInput: The file of checkpoints cannot be read or written.
        """
        points = list(self.each())
        later = [point for point in points if point.seq > seq]
        if not later:
            return None
        to = self._kept.with_name(f"{self._kept.name}.{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}")
        try:
            for path, some in ((to, later), (self._kept, [one for one in points if one.seq <= seq])):
                write_whole(path, "".join(f"{point.model_dump_json()}\n" for point in some))
        except OSError as error:
            raise BadInput(f"{to} cannot be written: {error.strerror}; check path and rights") from error
        return Parted(first=seq + 1, last=later[-1].seq, file=to)

    @property
    def newest_entry(self) -> int:
        """The number of the newest entry that has a checkpoint, 0 while there is none."""
        newest = self.newest()
        return newest.seq if newest is not None else 0

    def newest(self) -> Checkpoint | None:
        """Return the newest that is kept here."""
        return next(iter(deque(self.each(), maxlen=1)), None)

    def each(self) -> Iterator[Checkpoint]:
        """Yield those that are kept here, the oldest first.

        Raises:
            BadInput: The file cannot be read, or a line of it is none; the sentence says which.
        """
        number = 0
        try:
            with self._kept.open() as lines:
                for number, line in enumerate(lines, start=1):  # noqa: B007 - said where one is wrong
                    if not line.endswith("\n"):  # its writer was killed
                        return
                    yield Checkpoint.model_validate_json(line)
        except FileNotFoundError:
            return
        except OSError as error:
            raise BadInput(f"{self._kept} cannot be read: {error.strerror}; check path and rights") from error
        except ValueError as error:
            what = f"line {number} of {self._kept} is no checkpoint"
            raise BadInput(f"{what}; keep a copy of the file, then take the line out") from error

    def _keep(self, point: Checkpoint) -> None:
        line = point.model_dump_json()
        append_line(self._kept, line)
        for sink in self._sinks:
            try:
                sink(line)
            except Unavailable as error:
                _log.warning("checkpoint %s was not sent: %s", point.seq, error)


def to_syslog(line: str) -> None:
    """Send a checkpoint to the host's log, which may go elsewhere from there."""
    syslog.openlog("penstock", syslog.LOG_PID, syslog.LOG_AUTHPRIV)
    syslog.syslog(syslog.LOG_NOTICE, f"audit checkpoint {line}")


def to_webhook(url: str) -> Sink:
    """Return the sink that posts checkpoints to this address, whose path may be a secret and is not said."""
    host = urlsplit(url).hostname

    def post(line: str) -> None:
        try:
            answer = exchange(
                url,
                tls=ssl.create_default_context(),
                seconds=POST_SECONDS,
                most=MOST_ANSWERED,
                method="POST",
                content=line.encode(),
                headers={"Content-Type": "application/json"},
                proxied=True,
            )
        except NotAnswered as error:
            raise Unavailable(f"{host}: {error}") from error
        if not answer.is_success:
            raise Unavailable(f"{host} answers {answer.status}")

    return post
