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
        queue, operation = order.gateway.task_queue, order.operation
        digest = await workflow.execute_activity_method(
            SnapshotActivities.snapshot_gateway,
            FreezeOrder(operation=operation, evidence=order.evidence),
            task_queue=queue,
            **steps.FREEZE,
        )
        offset, whole = 0, False
        while not whole:
            piece = await workflow.execute_activity_method(
                SnapshotActivities.read_snapshot,
                PieceOrder(digest=digest, offset=offset),
                task_queue=queue,
                **steps.PATIENT,
            )
            whole = await control.record(ArchiveActivities.keep_snapshot_piece, piece)
            offset = min(offset + len(piece.bytes), piece.size)
        entry = SnapshotEntry(
            fleet=order.fleet, rollout=operation.rollout, gateway=operation.gateway, digest=digest
        )
        await control.record(ArchiveActivities.record_snapshot, entry)
        return digest
