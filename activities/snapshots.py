"""Snapshots: the evidence of a failure, frozen on its host and copied piece by piece to where it is kept."""

import zlib
from base64 import b64decode, b64encode
from typing import Protocol

from pydantic import Field
from temporalio import activity

from activities.liveness import answering, in_a_thread
from policies.model.errors import BadInput
from policies.model.operation import Operation
from policies.model.value import Digest, Message, Name, Value
from policies.model.verdict import Decision

PIECE_BYTES = 256 * 1024

LARGEST = 2**32
"""Bytes that a piece may speak of; an archive keeps less."""


class Evidence(Message):
    """What is known of a failure away from the gateway: why, the readings, and what they were read from."""

    reason: str
    decision: Decision | None = None
    queries: dict[str, tuple[str, ...]] = {}


class FreezeOrder(Message):
    """Freeze what is true of this gateway, together with what is known elsewhere."""

    operation: Operation
    evidence: Evidence


class PieceOrder(Message):
    """Read one piece of a frozen snapshot, from that byte on."""

    digest: Digest
    offset: int


class Piece(Message):
    """Some bytes of a snapshot, compressed and in base64, and where they belong."""

    digest: Digest
    offset: int = Field(ge=0, le=LARGEST)
    size: int = Field(ge=0, le=LARGEST)
    """Bytes of the whole snapshot."""
    content: str = Field(max_length=2 * PIECE_BYTES)

    @property
    def bytes(self) -> bytes:
        """The piece as it is in the snapshot; BadInput when it is none, or opens to more than a piece."""
        opened = zlib.decompressobj()
        try:
            found = opened.decompress(b64decode(self.content, validate=True), PIECE_BYTES + 1)
        except (ValueError, zlib.error) as error:
            raise BadInput(f"snapshot {self.digest}: the piece at {self.offset} cannot be opened") from error
        if len(found) > PIECE_BYTES:
            raise BadInput(f"snapshot {self.digest}: the piece at {self.offset} is larger than a piece")
        return found


class SnapshotEntry(Value):
    """Which rollout's failure on which gateway a kept snapshot shows."""

    fleet: Name
    rollout: Name
    gateway: Name
    digest: Digest


class SnapshotStore(Protocol):
    """Where a gateway's host freezes its evidence."""

    async def freeze(self, operation: Operation, evidence: Evidence) -> Digest:
        """Freeze logs, config without secrets, sessions, versions and steering; return the digest."""
        ...

    def read_frozen(self, digest: Digest) -> bytes:
        """Return a frozen snapshot; BadInput when there is none of that digest."""
        ...


class Archive(Protocol):
    """Where the control plane keeps evidence, by digest."""

    def add(self, digest: Digest, offset: int, piece: bytes, size: int) -> int:
        """Take over one piece; return how many bytes are there now: all, when they have their digest."""
        ...


class SnapshotBook(Protocol):
    """The part of the ledger that lists snapshots."""

    def record_snapshot(self, rollout: str, gateway: str, digest: str) -> None:
        """Ensure that the digest of a gateway's frozen evidence is in the ledger."""
        ...


class SnapshotActivities:
    """Snapshot steps on one gateway's host."""

    def __init__(self, snapshots: SnapshotStore) -> None:
        self._snapshots = snapshots

    @activity.defn(name="snapshot_gateway")
    async def snapshot_gateway(self, order: FreezeOrder) -> Digest:
        """Freeze the evidence of a failure; return its digest."""
        async with answering():
            return await self._snapshots.freeze(order.operation, order.evidence)

    @activity.defn(name="read_snapshot")
    async def read_snapshot(self, order: PieceOrder) -> Piece:
        """Return one piece of a snapshot."""
        whole = await in_a_thread(self._snapshots.read_frozen, order.digest)
        piece = whole[order.offset : order.offset + PIECE_BYTES]
        return Piece(
            digest=order.digest,
            offset=order.offset,
            size=len(whole),
            content=b64encode(zlib.compress(piece)).decode(),
        )


class ArchiveActivities:
    """Snapshot steps of the control plane."""

    def __init__(self, archive: Archive, book: SnapshotBook) -> None:
        self._archive = archive
        self._book = book

    @activity.defn(name="keep_snapshot_piece")
    async def keep_snapshot_piece(self, piece: Piece) -> int:
        """Ensure that the piece is in the archive; return how many bytes of the snapshot are."""
        return await in_a_thread(self._keep, piece)

    @activity.defn(name="record_snapshot")
    async def record_snapshot(self, entry: SnapshotEntry) -> None:
        """Ensure that the kept snapshot is listed in the ledger."""
        await in_a_thread(self._book.record_snapshot, entry.rollout, entry.gateway, entry.digest)

    def _keep(self, piece: Piece) -> int:
        return self._archive.add(piece.digest, piece.offset, piece.bytes, piece.size)
