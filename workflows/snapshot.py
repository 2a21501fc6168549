"""Snapshot: evidence is frozen on a gateway, copied away from it and listed; nothing ever waits for this."""

from temporalio import workflow

from activities.snapshots import (
    ArchiveActivities,
    Evidence,
    FreezeOrder,
    PieceOrder,
    SnapshotActivities,
    SnapshotEntry,
)
from policies.model.fleet import GatewayRef
from policies.model.operation import Operation
from policies.model.value import Digest, Name, Value
from workflows import control, steps
from workflows.answers import answer_of
from workflows.failures import stopped

MOST_PIECES = 512
"""Twice as many as the largest snapshot that is kept has."""


class SnapshotGatewayOrder(Value):
    """Whose evidence is frozen, of which failure."""

    fleet: Name
    gateway: GatewayRef
    operation: Operation
    evidence: Evidence


@workflow.defn(name="Snapshot")
class Snapshot:
    """Freeze first, then copy: a host that dies in between still has it."""

    @workflow.run
    async def run(self, order: SnapshotGatewayOrder) -> Digest:
        """Return the digest of the snapshot when it is kept and listed."""
        operation = order.operation
        digest = await answer_of(
            order.gateway,
            SnapshotActivities.snapshot_gateway,
            steps.FREEZE,
            FreezeOrder(operation=operation, evidence=order.evidence),
        )
        await self._copy(order.gateway, digest)
        entry = SnapshotEntry(
            fleet=order.fleet, rollout=operation.rollout, gateway=operation.gateway, digest=digest
        )
        await control.record(ArchiveActivities.record_snapshot, entry)
        return digest

    @staticmethod
    async def _copy(gateway: GatewayRef, digest: Digest) -> None:
        """Copy the snapshot; ApplicationError (`Stopped`) when what comes is not the next piece of it."""
        have = 0
        for _ in range(MOST_PIECES):
            asked = PieceOrder(digest=digest, offset=have)
            piece = await answer_of(gateway, SnapshotActivities.read_snapshot, steps.PATIENT, asked)
            if (piece.digest, piece.offset) != (digest, have):
                break
            kept = await control.record(ArchiveActivities.keep_snapshot_piece, piece)
            if kept >= piece.size:
                return
            if kept <= have:
                break
            have = kept
        raise stopped(f"{gateway.name} does not give its snapshot {digest} piece by piece")
